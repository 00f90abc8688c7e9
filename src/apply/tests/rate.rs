//! The rate, alone and with a number that is shared.

use super::*;
use crate::ledger::Activity;

/// A sender number that is shared, as a database keeps it.
#[derive(Clone)]
pub(super) struct Number {
    pub(super) interval: Duration,
    pub(super) next: Arc<Mutex<tokio::time::Instant>>,
    pub(super) shares: Arc<AtomicUsize>,
}

#[async_trait::async_trait]
impl Coordinator for Number {
    async fn reserve(&self, messages: u32, _most: u32) -> Result<Duration, LedgerError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let now = tokio::time::Instant::now();
        let start = {
            let mut next = self.next.lock().unwrap();
            let start = (*next).max(now);
            *next = start + self.interval * messages;
            start
        };
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(start - now)
    }

    async fn pause_sender(&self, pause: Duration) -> Result<(), LedgerError> {
        // It is slower to arrive than leave that is asked for after it.
        let until = tokio::time::Instant::now() + pause;
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut next = self.next.lock().unwrap();
        *next = (*next).max(until);
        Ok(())
    }

    async fn next_chunk(&self) -> Result<u64, LedgerError> {
        Ok(self.shares.fetch_add(1, Ordering::SeqCst) as u64)
    }

    async fn activity(&self) -> Result<Activity, LedgerError> {
        Ok(Activity::default())
    }
}

#[tokio::test(start_paused = true)]
async fn the_rate_holds_at_any_latency() {
    let delivery = Delivery { rate: Rate::parse("100/s").unwrap(), concurrency: 50, batch: 1, stop_when: None };
    let ran = run(1_001, delivery, |_| Step::Accept).await;
    let starts = ran.gateway.starts.lock().unwrap();
    let span = (starts[1_000] - starts[1]).as_secs_f64();
    assert!((span - 9.99).abs() < 0.2, "{span} s for 999 intervals of 10 ms");
}

/// How many requests start in any ten seconds, and in any hundred milliseconds.
fn most_and_least(starts: &[tokio::time::Instant]) -> (usize, usize, usize) {
    let within = |from: usize, span: Duration| {
        let end = starts[from] + span;
        starts[from..].partition_point(|start| *start < end)
    };
    let last = *starts.last().unwrap();
    let whole: Vec<usize> = (0..starts.len()).filter(|at| starts[*at] + Duration::from_secs(10) <= last).collect();
    let tens = whole.iter().map(|from| within(*from, Duration::from_secs(10)));
    let burst = (0..starts.len()).map(|from| within(from, Duration::from_millis(100))).max().unwrap();
    (tens.clone().min().unwrap(), tens.max().unwrap(), burst)
}

#[tokio::test(start_paused = true)]
async fn the_rate_holds_over_any_ten_seconds_while_answers_never_stop_coming() {
    // At every moment some answer has just come, and commits are slow: alone, and with a number that
    // may be another applier's as well.
    for shared in [false, true] {
        for (latency, slow) in [(1, 0), (50, 4), (200, 8), (50, 40)] {
            let mut scene = Scene::new(12_000, fast(500));
            scene.latency = Duration::from_millis(latency);
            scene.ledger.0.lock().unwrap().slow = Duration::from_millis(slow);
            if shared {
                scene.share(Duration::from_millis(1));
            }
            let ran = scene.run(|_| Step::Accept).await;
            assert_eq!((ran.ending.clone(), ran.progress.accepted), (RunEnding::Finished, 12_000));
            // The first goes alone.
            let starts = ran.gateway.starts.lock().unwrap()[2..].to_vec();
            let (least, most, burst) = most_and_least(&starts);
            let case = format!("shared {shared}, {latency} ms, {slow} ms: {least} to {most}, {burst} in 100 ms");
            let tick = 10.max(2 * (slow as usize + 1)) + 1;
            assert!(least >= 9_800 && most <= 10_000 + tick, "{case}");
            assert!(burst <= 100 + tick, "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn slots_that_pass_unused_do_not_end_the_run() {
    // Nothing is under way but the slots that were granted, and then this process stands still, or a
    // commit without claims takes long: all of them lie in the past.
    for commit in 10..30 {
        let scene = Scene {
            latency: Duration::from_millis(20),
            ..Scene::new(30, Delivery { rate: Rate::parse("10/s").unwrap(), ..fast(10) })
        };
        let scene = scene.fault(commit, Fault::Paused(Duration::from_secs(2)));
        scene.share(Duration::from_millis(100));
        let ran = tokio::time::timeout(Duration::from_secs(60), scene.run(|_| Step::Accept)).await;
        let ran = ran.unwrap_or_else(|_| panic!("it stands still after commit {commit}"));
        assert_eq!((ran.ending, ran.progress.accepted), (RunEnding::Finished, 30));
    }
}

#[tokio::test(start_paused = true)]
async fn a_429_holds_a_shared_number_and_it_recovers() {
    let scene = Scene::new(200, Delivery { rate: Rate::parse("100/s").unwrap(), ..fast(10) });
    scene.share(Duration::from_millis(10));
    let number = scene.ledger.0.lock().unwrap().number.clone().unwrap();
    let held = Arc::new(Mutex::new(Duration::ZERO));
    let seen = Arc::clone(&held);
    let throttled = move |request: usize| {
        if request != 50 {
            return Step::Accept;
        }
        let (next, seen) = (Arc::clone(&number.next), Arc::clone(&seen));
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            *seen.lock().unwrap() = next.lock().unwrap().saturating_duration_since(tokio::time::Instant::now());
        });
        Step::Throttle
    };
    let ran = tokio::time::timeout(Duration::from_secs(60), scene.run(throttled)).await.expect("it ends");
    assert_eq!((ran.ending, ran.progress.accepted), (RunEnding::Finished, 200));
    // Other appliers hear of it from the database alone.
    let held = *held.lock().unwrap();
    assert!(held >= Duration::from_millis(140), "the number was held for {held:?} only");
    let starts = ran.gateway.starts.lock().unwrap();
    let gap = starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    // The first pause, and the requests that were under way with the one that was refused.
    assert!((240..=400).contains(&gap.as_millis()), "{gap:?}");
    // Two seconds, and the pause.
    assert!(ran.took < Duration::from_millis(2_700), "{:?}", ran.took);
}
