//! The engine on a paused clock, with a ledger in memory and a gateway that follows a script.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::{mpsc, watch};

use super::{Ending, Engine, Event, Progress};
use crate::audience::{E164, RowPlace};
use crate::campaign::{Delivery, Rate};
use crate::gateway::{Gateway, NotSent, Outcome, Reply, Request};
use crate::ledger::{Batch, Claim, LedgerError, RunLedger, SendKey};
use crate::message::{ContentDigest, Message, TemplateHead};
use crate::offer::CouponCode;
use crate::plan::{Approved, Desired, Standing};

/// What a script says of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Accept,
    Reject,
    Lose,
    Throttle,
    Refuse,
    Drop,
}

/// Keeps everything, fails on demand, and watches the promise.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Record>>);

#[derive(Default)]
struct Record {
    /// The attempt that is open for each key.
    open: HashMap<SendKey, u32>,
    ended: HashMap<SendKey, Vec<&'static str>>,
    most_open: usize,
    commits_left: Option<usize>,
}

impl RunLedger for Memory {
    async fn commit(&mut self, batch: Batch) -> Result<Vec<Claim>, LedgerError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut record = self.0.lock().unwrap();
        if let Some(left) = &mut record.commits_left {
            *left = left.checked_sub(1).ok_or(LedgerError::Fenced)?;
        }
        for settlement in &batch.settle {
            assert_eq!(record.open.remove(&settlement.key), Some(settlement.attempt), "settled what was not open");
            let word = match &settlement.ending {
                crate::ledger::Ending::Outcome(Outcome::Accepted { .. }) => "accepted",
                crate::ledger::Ending::Outcome(Outcome::Rejected { .. }) => "rejected",
                crate::ledger::Ending::Outcome(Outcome::Unknown { .. }) => "unknown",
                crate::ledger::Ending::NotSent { .. } => "not sent",
            };
            record.ended.entry(settlement.key).or_default().push(word);
        }
        for intent in &batch.claim {
            let before = record.ended.get(&intent.key).cloned().unwrap_or_default();
            assert!(before.iter().all(|word| *word == "not sent"), "claimed again after {before:?}");
            assert_eq!(intent.attempt as usize, before.len() + 1);
            assert!(record.open.insert(intent.key, intent.attempt).is_none(), "claimed twice");
        }
        record.most_open = record.most_open.max(record.open.len());
        Ok(vec![Claim::Granted; batch.claim.len()])
    }
}

struct Script {
    ledger: Memory,
    steps: Box<dyn Fn(usize) -> Step + Send + Sync>,
    requests: AtomicUsize,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
    starts: Mutex<Vec<tokio::time::Instant>>,
}

impl Gateway for Script {
    async fn send(&self, request: Request) -> Reply {
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        self.starts.lock().unwrap().push(tokio::time::Instant::now());
        if let Some(reference) = &request.reference {
            let record = self.ledger.0.lock().unwrap();
            assert!(record.open.keys().any(|key| key.to_string() == *reference), "a request without an intent");
        }
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_under_way.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        let all = |outcome: Outcome| Reply::Settled(vec![outcome; request.to.len()]);
        let reason = || "scripted".to_owned();
        match (self.steps)(number) {
            Step::Accept => all(Outcome::Accepted { message_id: format!("m:{number}") }),
            Step::Reject => all(Outcome::Rejected { reason: reason() }),
            Step::Lose => all(Outcome::Unknown { reason: reason() }),
            Step::Throttle => Reply::NotSent(NotSent::Throttled { reason: reason(), retry_after: None }),
            Step::Refuse => Reply::NotSent(NotSent::Account { reason: reason() }),
            Step::Drop => Reply::NotSent(NotSent::Unreachable { reason: reason() }),
        }
    }
}

fn desired(person: u64) -> Box<Desired> {
    let address = E164::parse_exact(&format!("+91{}", 9_800_000_000 + person)).unwrap();
    let template = TemplateHead {
        key: "en".into(),
        name: "lto".into(),
        language: None,
        offer_text: "Offer".into(),
        has_expiration: false,
        body: "Hi".into(),
        button_label: "Shop".into(),
        button_url: "https://example.com".into(),
    };
    let message = Message {
        template: Arc::new(template),
        media: None,
        params: Vec::new(),
        url_param: None,
        coupon: CouponCode::new("A1").unwrap(),
        expiry: None,
    };
    let mut key = [0; 16];
    key[..8].copy_from_slice(&person.to_be_bytes());
    let mut entry = [0; 32];
    entry[..8].copy_from_slice(&person.to_be_bytes());
    Box::new(Desired {
        place: RowPlace { source: 0, line: person },
        address,
        row: Arc::default(),
        key: SendKey(key),
        message,
        digest: ContentDigest([0; 32]),
        standing: Standing::Send(1),
        entry,
    })
}

struct Ran {
    ending: Ending,
    progress: Progress,
    record: Memory,
    gateway: Arc<Script>,
}

impl Ran {
    fn requests(&self) -> usize {
        self.gateway.requests.load(Ordering::SeqCst)
    }
}

async fn run(
    people: u64,
    delivery: Delivery,
    commits: Option<usize>,
    steps: impl Fn(usize) -> Step + Send + Sync + 'static,
) -> Ran {
    let ledger = Memory::default();
    ledger.0.lock().unwrap().commits_left = commits;
    let gateway = Arc::new(Script {
        ledger: ledger.clone(),
        steps: Box::new(steps),
        requests: AtomicUsize::new(0),
        under_way: AtomicUsize::new(0),
        most_under_way: AtomicUsize::new(0),
        starts: Mutex::default(),
    });
    let messages: Vec<Box<Desired>> = (0..people).map(desired).collect();
    let approved = Approved::of(messages.iter().map(|message| message.entry).collect());
    let (sender, feed) = mpsc::channel(8);
    tokio::spawn(async move {
        for message in messages {
            if sender.send(message).await.is_err() {
                return;
            }
        }
    });
    let (_stop_sender, stop) = watch::channel(false);
    let (events, mut told) = mpsc::unbounded_channel::<Event>();
    tokio::spawn(async move { while told.recv().await.is_some() {} });
    let engine = Engine {
        ledger: ledger.clone(),
        gateway: Arc::clone(&gateway),
        delivery,
        approved: Arc::new(approved),
        leave_by: None,
        stop,
        events,
    };
    let (ending, progress, _) = engine.run(feed).await;
    Ran { ending, progress, record: ledger, gateway }
}

fn fast(concurrency: usize) -> Delivery {
    Delivery { rate: Rate::parse("1000/s").unwrap(), concurrency, batch: 1 }
}

#[tokio::test(start_paused = true)]
async fn a_run_starts_alone_and_widens_when_one_is_accepted() {
    let ran = run(200, fast(10), None, |number| if number < 3 { Step::Reject } else { Step::Accept }).await;
    assert_eq!(ran.ending, Ending::Finished);
    assert_eq!((ran.progress.accepted, ran.progress.rejected), (197, 3));
    let starts = ran.gateway.starts.lock().unwrap();
    for pair in starts[..5].windows(2).take(4) {
        assert!(pair[1] - pair[0] >= Duration::from_millis(20), "two at once before one was accepted");
    }
    let most = ran.gateway.most_under_way.load(Ordering::SeqCst);
    assert!((2..=10).contains(&most), "{most}");
    assert!(ran.record.0.lock().unwrap().most_open <= 10);
}

#[tokio::test(start_paused = true)]
async fn an_account_that_is_refused_costs_one_request() {
    let ran = run(500, fast(50), None, |_| Step::Refuse).await;
    assert_eq!(ran.ending, Ending::Account("scripted".into()));
    assert_eq!(ran.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_without_any_acceptance_is_given_up() {
    let ran = run(500, fast(50), None, |number| if number % 2 == 0 { Step::Reject } else { Step::Lose }).await;
    assert!(matches!(ran.ending, Ending::Hopeless(_)));
    assert_eq!(ran.requests(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_not_there_is_given_up_soon_and_one_that_was_there_later() {
    let never = run(50, fast(10), None, |_| Step::Drop).await;
    assert!(matches!(never.ending, Ending::Unreachable(_)));
    assert_eq!(never.requests(), 4);
    let gone =
        run(50, fast(10), None, |number| if !(20..=60).contains(&number) { Step::Accept } else { Step::Drop }).await;
    assert_eq!((gone.ending, gone.progress.accepted), (Ending::Finished, 50));
}

#[tokio::test(start_paused = true)]
async fn a_429_holds_the_whole_number_and_everybody_is_reached() {
    let ran =
        run(100, fast(10), None, |number| if (20..25).contains(&number) { Step::Throttle } else { Step::Accept }).await;
    assert_eq!((ran.ending.clone(), ran.progress.accepted), (Ending::Finished, 100));
    let starts = ran.gateway.starts.lock().unwrap();
    let longest = starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(longest >= Duration::from_millis(200), "nothing was held: {longest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_fails_stops_every_further_request() {
    let ran = run(500, fast(10), Some(6), |_| Step::Accept).await;
    assert!(matches!(ran.ending, Ending::Ledger(_)));
    let record = ran.record.0.lock().unwrap();
    assert!(ran.requests() <= record.ended.len() + record.open.len());
    assert_eq!(ran.progress.unknown as usize, record.open.len(), "what is not recorded is in doubt");
    assert_eq!(ran.progress.accepted as usize, record.ended.len());
}

#[tokio::test(start_paused = true)]
async fn the_rate_holds_at_any_latency() {
    let delivery = Delivery { rate: Rate::parse("100/s").unwrap(), concurrency: 50, batch: 1 };
    let ran = run(1_001, delivery, None, |_| Step::Accept).await;
    let starts = ran.gateway.starts.lock().unwrap();
    let span = (starts[1_000] - starts[1]).as_secs_f64();
    assert!((span - 9.99).abs() < 0.2, "{span} s for 999 intervals of 10 ms");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// The ledger's own assertions hold for any script: an intent before each request, no claim
    /// after an outcome, and never more in doubt than the concurrency.
    #[test]
    fn the_promise_holds_for_any_script(
        script in proptest::collection::vec(prop_oneof![
            6 => Just(Step::Accept), 1 => Just(Step::Reject), 1 => Just(Step::Lose), 1 => Just(Step::Throttle), 1 => Just(Step::Drop)
        ], 1..60),
        concurrency in 1_usize..12,
        batch in 1_usize..4,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let delivery = Delivery { batch: batch.min(concurrency), ..fast(concurrency) };
        let ran = runtime.block_on(run(40, delivery, None, move |number| script[number % script.len()]));
        let record = ran.record.0.lock().unwrap();
        prop_assert!(record.most_open <= concurrency);
        prop_assert!(record.open.is_empty());
        let p = ran.progress;
        if ran.ending == Ending::Finished {
            prop_assert_eq!(p.accepted + p.rejected + p.unknown, 40);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_in_mid_run_does_not_put_everybody_in_doubt() {
    let ran = run(500, fast(20), None, |number| if number < 30 { Step::Accept } else { Step::Lose }).await;
    assert!(matches!(ran.ending, Ending::Hopeless(_)), "{:?}", ran.ending);
    assert!(ran.progress.unknown <= 40, "{} in doubt", ran.progress.unknown);
}

#[tokio::test(start_paused = true)]
async fn a_429_holds_at_a_low_rate_as_well() {
    let delivery = Delivery { rate: Rate::parse("120/m").unwrap(), concurrency: 5, batch: 1 };
    let steps = |number: usize| if (3..8).contains(&number) { Step::Throttle } else { Step::Accept };
    let ran = run(12, delivery, None, steps).await;
    assert_eq!((ran.ending.clone(), ran.progress.accepted), (Ending::Finished, 12));
    let starts = ran.gateway.starts.lock().unwrap();
    assert!(starts[7] - starts[6] >= Duration::from_secs(1), "the pauses do not grow");
}
