//! The last instant at which a message may leave.

use jiff::SignedDuration;

use super::*;

const START: Timestamp = Timestamp::constant(1_800_000_000, 0);

/// A wall clock that goes with tokio's, and is set forward once.
#[derive(Debug)]
struct Wall {
    origin: tokio::time::Instant,
    set_forward: Option<(Duration, Duration)>,
}

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        let mut passed = self.origin.elapsed();
        if let Some((_, by)) = self.set_forward.filter(|(at, _)| passed >= *at) {
            passed += by;
        }
        START + SignedDuration::try_from(passed).unwrap()
    }

    fn instant(&self) -> std::time::Instant {
        tokio::time::Instant::now().into_std()
    }
}

fn scene(leave_by: Duration, set_forward: Option<(Duration, Duration)>) -> Scene {
    let mut scene = Scene::new(100, Delivery { rate: Rate::parse("10/s").unwrap(), ..fast(5) });
    scene.leave_by = Some(START + SignedDuration::try_from(leave_by).unwrap());
    scene.clock = Arc::new(Wall { origin: tokio::time::Instant::now(), set_forward });
    scene
}

fn assert_too_close(ran: &Ran) {
    match &ran.ending {
        RunEnding::ExpiryTooClose(problem) => assert!(problem.contains("2027-01-15T08:00:03Z"), "{problem}"),
        other => panic!("{other:?}"),
    }
    // Every request that was started has its outcome in the record.
    let record = ran.record.0.lock().unwrap();
    assert!(record.open.is_empty());
    assert_eq!(record.ended.len() as u64, ran.progress.accepted);
    assert_eq!(ran.requests() as u64, ran.progress.accepted);
}

#[tokio::test(start_paused = true)]
async fn nothing_leaves_once_the_expiry_is_too_close() {
    let started = tokio::time::Instant::now();
    let ran = scene(Duration::from_secs(3), None).run(|_| Step::Accept).await;
    assert_too_close(&ran);
    // Ten in a second, for three seconds.
    assert!((28..=32).contains(&ran.requests()), "{}", ran.requests());
    let last = ran.gateway.starts.lock().unwrap().last().copied().unwrap();
    assert!(last - started <= Duration::from_millis(3_050), "{:?}", last - started);
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_is_set_forward_past_the_expiry_stops_the_run() {
    let jump = Some((Duration::from_secs(1), Duration::from_secs(3_600)));
    let ran = scene(Duration::from_secs(3), jump).run(|_| Step::Accept).await;
    assert_too_close(&ran);
    assert!((8..=12).contains(&ran.requests()), "{}", ran.requests());
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_in_time_is_finished() {
    let ran = scene(Duration::from_secs(60), None).run(|_| Step::Accept).await;
    assert_eq!((ran.ending, ran.progress.accepted), (RunEnding::Finished, 100));
}
