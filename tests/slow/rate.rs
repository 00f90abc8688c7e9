//! The rate on the wire, over ten seconds.

use crate::support::{Project, Sandbox};

#[test]
fn the_rate_holds_within_two_percent_over_ten_seconds() {
    let measure = || {
        let sandbox = Sandbox::start(&["--latency", "50ms"]);
        let project = Project::with_sandbox(&sandbox);
        project.campaign(&[("rate: 2000/s", "rate: 100/s")]);
        let rows: String = (0..1_002).map(|row| format!("98{row:08},A\n")).collect();
        project.people(&format!("mobile,first_name\n{rows}"));
        project.apply(&[]).expect(0);
        let times: Vec<jiff::Timestamp> = sandbox
            .messages()
            .iter()
            .map(|message| message["received_at"].as_str().unwrap().parse().unwrap())
            .collect();
        // The first leaves alone; from the second on it is the rate.
        1_000.0 / times[1_001].duration_since(times[1]).as_secs_f64()
    };
    // Time that a busy machine takes away is not caught up, so it may be slower; never faster.
    let rates: Vec<f64> = (0..3)
        .map(|_| measure())
        .scan(false, |held, rate| {
            let before = *held;
            *held |= rate >= 98.0;
            (!before).then_some(rate)
        })
        .collect();
    assert!(rates.iter().all(|rate| *rate <= 102.0) && rates.iter().any(|rate| *rate >= 98.0), "{rates:.1?}");
}
