//! Unknown outcomes: what stops a run, what it survives, and what it says while it waits.

use super::*;

/// One request a second whose answer takes a minute: outcomes come one after the other.
fn slow(concurrency: usize) -> Scene {
    let delivery = Delivery { rate: Rate::parse("1/s").unwrap(), ..fast(concurrency) };
    Scene { latency: Duration::from_secs(60), ..Scene::new(200, delivery) }
}

#[tokio::test(start_paused = true)]
async fn one_cut_of_everything_under_way_stops_no_run() {
    for concurrency in [1, 8, 50] {
        let cut = 60..60 + concurrency;
        let steps = move |number: usize| if cut.contains(&number) { Step::Lose } else { Step::Accept };
        // The outcomes come at once.
        let at_once = Scene { latency: Duration::from_millis(200), ..Scene::new(300, fast(concurrency)) };
        let ran = at_once.run(steps.clone()).await;
        assert_eq!(ran.ending, RunEnding::Finished, "{concurrency}");
        assert_eq!((ran.progress.accepted, ran.progress.unknown), (300 - concurrency as u64, concurrency as u64));
        // They come one after the other, as timeouts do: it is the same cut.
        let ran = slow(concurrency).run(steps).await;
        assert_eq!(ran.ending, RunEnding::Finished, "{concurrency}");
        assert_eq!((ran.progress.accepted, ran.progress.unknown), (200 - concurrency as u64, concurrency as u64));
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_node_does_not_put_its_part_of_the_audience_in_doubt() {
    for (concurrency, most) in [(1, 20), (20, 40), (50, 100)] {
        // Three of ten answers are lost, and never many in a row.
        let steps = |number: usize| if [2, 5, 9].contains(&(number % 10)) { Step::Lose } else { Step::Accept };
        let ran = run(10_000, fast(concurrency), steps).await;
        match &ran.ending {
            RunEnding::TooManyUnknown(problem) => {
                assert!(problem.contains(&format!("more than {most} did")), "{problem}")
            }
            other => panic!("{other:?}"),
        }
        let unknown = ran.progress.unknown as usize;
        assert!((most + 1..=most + 1 + concurrency).contains(&unknown), "{unknown} at {concurrency}");
        assert!(ran.requests() < 5 * (most + concurrency), "{} requests", ran.requests());
        let stop_when = Some(StopWhen { within: 200, rejected: None, unknown: Some(Bound::Percent(100.0)) });
        let ran = run(1_000, Delivery { stop_when, ..fast(concurrency) }, steps).await;
        assert_eq!((ran.ending, ran.progress.unknown), (RunEnding::Finished, 300));
    }
}

#[tokio::test(start_paused = true)]
async fn the_third_cut_within_ten_minutes_stops_the_run() {
    // Six of those under way are cut, two hundred sends apart.
    let steps = |number: usize| if number % 200 >= 194 { Step::Lose } else { Step::Accept };
    let ran = run(5_000, fast(8), steps).await;
    match &ran.ending {
        RunEnding::TooManyUnknown(problem) => assert!(problem.contains("3 times within 10 minutes"), "{problem}"),
        other => panic!("{other:?}"),
    }
    assert!(ran.requests() < 620, "{}", ran.requests());
    // At one message in three seconds they are ten minutes apart.
    let delivery = Delivery { rate: Rate::parse("20/m").unwrap(), ..fast(8) };
    let ran = run(700, delivery, steps).await;
    assert_eq!((ran.ending, ran.progress.unknown), (RunEnding::Finished, 18));
}

#[tokio::test(start_paused = true)]
async fn a_cut_during_a_429_is_followed_by_one_request_alone() {
    // Ten are under way: the first is throttled, the second accepted, the others are cut.
    let steps = |number: usize| match number {
        11 => Step::Throttle,
        13..21 => Step::Lose,
        _ => Step::Accept,
    };
    let ran = run(60, fast(10), steps).await;
    assert_eq!((ran.ending.clone(), ran.progress.accepted, ran.progress.unknown), (RunEnding::Finished, 52, 8));
    let starts = ran.gateway.starts.lock().unwrap();
    let gaps: Vec<Duration> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let pause = gaps.iter().position(|gap| *gap >= Duration::from_millis(200)).expect("a pause");
    assert_eq!(pause, 20, "{gaps:?}");
    assert!(gaps[pause + 1] >= Duration::from_millis(20), "the run did not wait for the first: {gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_waits_for_a_number_that_is_reserved_says_until_when() {
    let scene = Scene::new(30, fast(10));
    scene.share(Duration::from_millis(10));
    let number = scene.ledger.0.lock().unwrap().number.clone().unwrap();
    *number.next.lock().unwrap() += Duration::from_secs(90);
    let ran = scene.run(|_| Step::Accept).await;
    assert_eq!((ran.ending.clone(), ran.progress.accepted), (RunEnding::Finished, 30));
    let events = ran.events.lock().unwrap();
    let waits: Vec<u64> = events
        .iter()
        .filter_map(|event| if let Event::Reserved { pause, .. } = event { Some(pause.as_secs()) } else { None })
        .collect();
    assert_eq!(waits, [89], "once, and for how long: {events:?}");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_stops_by_itself_says_why_although_it_is_asked_to_stop_as_well() {
    // Ten are under way for two seconds when the account is refused; the user grows impatient.
    let mut scene = Scene::new(100, Delivery { rate: Rate::parse("10/s").unwrap(), ..fast(10) });
    scene.latency = Duration::from_secs(2);
    scene.stops = vec![(Duration::from_millis(4_300), ShutdownRequest::Graceful)];
    let ran = scene.run(|number| if number == 1 { Step::Refuse } else { Step::Accept }).await;
    assert!(matches!(ran.ending, RunEnding::AccountRefused(_)), "{:?}", ran.ending);
    let events = ran.events.lock().unwrap();
    let said = events.iter().filter(|event| matches!(event, Event::StoppingItself { in_flight: 9 })).count();
    assert_eq!(said, 1, "{events:?}");
    assert!(events.iter().any(|event| matches!(event, Event::Stopping)), "the stop came too late: {events:?}");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_has_nobody_left_is_finished_however_many_are_unknown() {
    // The last of the bound comes with the last send of all.
    let steps = |number: usize| if number % 2 == 1 && number < 42 { Step::Lose } else { Step::Accept };
    let ran = run(42, fast(1), steps).await;
    assert_eq!((ran.ending, ran.progress.unknown), (RunEnding::Finished, 21));
    let ran = run(43, fast(1), steps).await;
    assert!(matches!(ran.ending, RunEnding::TooManyUnknown(_)), "{:?}", ran.ending);
    assert_eq!(ran.progress.not_sent, 1);
}
