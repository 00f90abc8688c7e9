//! The engine on a paused clock, with a ledger in memory and a gateway that follows a script.

mod expiry;
mod mixed_answers;
mod rate;
mod unknown;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use tokio::sync::{mpsc, watch};

use self::rate::Number;
use super::feed::Feed;
use super::{Engine, Event, Progress, RunEnding, Setup, ShutdownRequest};
use crate::domain::campaign::{Bound, Delivery, Rate, StopWhen};
use crate::domain::canonical::ContentDigest;
use crate::domain::clock::{Clock, SystemClock};
use crate::domain::coupon::CouponCode;
use crate::domain::media::{MediaFile, MediaKind};
use crate::domain::message::{Digester, Media, Message, TemplateHead};
use crate::domain::phone::E164;
use crate::domain::row::{RowLocation, RowOrigin};
use crate::gateway::{Gateway, NotSent, Outcome, Reply, Request};
use crate::ledger::{
    Batch, Claim, Committed, Coordinator, Head, Lease, LedgerError, Moment, RecordedEnding, RunCounts, RunLedger,
    SendKey, SendState, Snapshot,
};
use crate::plan::{Approved, Desired, SendStatus};

/// What a script says of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Accept,
    /// Accepted, with the id that this request got.
    Repeat(usize),
    Reject,
    Lose,
    Throttle,
    Refuse,
    Drop,
}

/// What a script says of one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It fails, and so does every further one.
    Broken,
    /// The answer is lost; whether it was done is as said.
    Lost { done: bool },
    /// The process stands still for this long before the answer.
    Paused(Duration),
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
    commits: usize,
    faults: HashMap<usize, Fault>,
    broken: bool,
    /// What was claimed by a commit whose answer was lost.
    doubtful: HashSet<(SendKey, u32)>,
    lease: Option<Lease>,
    /// How long a commit takes beyond a millisecond.
    slow: Duration,
    /// Where other appliers may be: the number's slots of time.
    number: Option<Number>,
    finished: Option<RunCounts>,
}

impl Record {
    fn take(&mut self, batch: &Batch) -> Vec<Claim> {
        for settlement in &batch.settle {
            if settlement.result.state() == SendState::Unknown
                && let Some(word @ &mut "accepted") =
                    self.ended.get_mut(&settlement.key).and_then(|ended| ended.last_mut())
            {
                *word = "taken back";
                continue;
            }
            if self.open.get(&settlement.key) != Some(&settlement.attempt) {
                // Done by an earlier try, or never claimed because its commit was lost.
                assert!(!self.doubtful.is_empty(), "settled what was not open");
                continue;
            }
            self.open.remove(&settlement.key);
            let word = match settlement.result.state() {
                SendState::Accepted => "accepted",
                SendState::Rejected => "rejected",
                SendState::Unknown => "unknown",
                _ => "not sent",
            };
            self.ended.entry(settlement.key).or_default().push(word);
        }
        let answers = batch.claim.iter().map(|intent| {
            if self.doubtful.contains(&(intent.key, intent.attempt))
                && self.open.get(&intent.key) == Some(&intent.attempt)
            {
                return Claim::Granted;
            }
            let before = self.ended.get(&intent.key).cloned().unwrap_or_default();
            assert!(before.iter().all(|word| *word == "not sent"), "claimed again after {before:?}");
            assert_eq!(intent.attempt as usize, before.len() + 1);
            assert!(self.open.insert(intent.key, intent.attempt).is_none(), "claimed twice");
            Claim::Granted
        });
        let answers = answers.collect();
        self.most_open = self.most_open.max(self.open.len());
        answers
    }
}

#[async_trait::async_trait]
impl RunLedger for Memory {
    fn id(&self) -> i64 {
        1
    }

    fn head(&self) -> Head {
        Head::of_ledger("memory")
    }

    async fn commit(&mut self, batch: &Arc<Batch>) -> Result<Committed, LedgerError> {
        let asked = Moment::now();
        let slow = self.0.lock().unwrap().slow;
        tokio::time::sleep(Duration::from_millis(1) + slow).await;
        let fault = {
            let mut record = self.0.lock().unwrap();
            record.commits += 1;
            let number = record.commits;
            record.faults.get(&number).copied()
        };
        if let Some(Fault::Paused(pause)) = fault {
            tokio::time::sleep(pause).await;
        }
        let mut record = self.0.lock().unwrap();
        record.broken |= fault == Some(Fault::Broken);
        if record.broken {
            return Err(LedgerError::storage("memory", "written", "scripted"));
        }
        if let Some(Fault::Lost { done }) = fault {
            record.doubtful.extend(batch.claim.iter().map(|intent| (intent.key, intent.attempt)));
            // Settlements may be offered twice as well.
            record.doubtful.extend(batch.settle.iter().map(|settlement| (settlement.key, settlement.attempt)));
            if done {
                record.take(batch);
            }
            return Err(LedgerError::lost("memory", "scripted"));
        }
        if let Some(lease) = &record.lease {
            lease.confirmed(asked);
        }
        Ok(Committed { claims: record.take(batch), ..Committed::default() })
    }

    fn lease(&self) -> Option<Lease> {
        self.0.lock().unwrap().lease.clone()
    }

    fn coordinator(&self) -> Option<Arc<dyn Coordinator>> {
        self.0.lock().unwrap().number.clone().map(|number| Arc::new(number) as Arc<dyn Coordinator>)
    }

    async fn snapshot(&mut self) -> Result<Snapshot, LedgerError> {
        Ok(Snapshot::default())
    }

    async fn finish(self: Box<Self>, _ending: RecordedEnding, counts: RunCounts) -> Result<Head, LedgerError> {
        self.0.lock().unwrap().finished = Some(counts);
        Ok(self.head())
    }
}

struct Script {
    ledger: Memory,
    steps: Box<dyn Fn(usize) -> Step + Send + Sync>,
    latency: Duration,
    requests: AtomicUsize,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
    starts: Mutex<Vec<tokio::time::Instant>>,
    upload_budget: u64,
}

#[async_trait::async_trait]
impl Gateway for Script {
    fn upload_budget(&self) -> u64 {
        self.upload_budget
    }

    async fn send(&self, request: Request<'_>) -> Reply {
        if request.lease.as_ref().is_some_and(|lease| !lease.holds()) {
            return Reply::NotSent(NotSent::Unreachable { reason: "paused".to_owned() });
        }
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        self.starts.lock().unwrap().push(tokio::time::Instant::now());
        if let Some(reference) = &request.reference {
            let record = self.ledger.0.lock().unwrap();
            assert!(record.open.keys().any(|key| key.to_string() == *reference), "a request without an intent");
        }
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_under_way.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(self.latency).await;
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        let all = |outcome: Outcome| Reply::Settled(vec![outcome; request.to.len()]);
        let reason = || "scripted".to_owned();
        match (self.steps)(number) {
            Step::Accept => all(Outcome::Accepted { message_id: format!("m:{number}") }),
            Step::Repeat(earlier) => all(Outcome::Accepted { message_id: format!("m:{earlier}") }),
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
    let (_, head) = Digester::new(address).digests(&message);
    let mut key = [0; 16];
    key[..8].copy_from_slice(&person.to_be_bytes());
    let mut entry = [0; 32];
    entry[..8].copy_from_slice(&person.to_be_bytes());
    Box::new(Desired {
        origin: RowOrigin { source: 0, location: RowLocation::Line(person) },
        address,
        row: Arc::default(),
        key: SendKey(key),
        message,
        digest: ContentDigest([0; 32]),
        head,
        ordinal: person,
        identity: address.identity(),
        status: SendStatus::Send(1),
        entry,
    })
}

struct Ran {
    ending: RunEnding,
    progress: Progress,
    record: Memory,
    gateway: Arc<Script>,
    took: Duration,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Ran {
    fn requests(&self) -> usize {
        self.gateway.requests.load(Ordering::SeqCst)
    }
}

/// A run, set up to be changed before it starts.
struct Scene {
    people: u64,
    delivery: Delivery,
    ledger: Memory,
    /// When the user asks to stop, and how.
    stops: Vec<(Duration, ShutdownRequest)>,
    latency: Duration,
    /// When nothing may leave any more, and by which clock.
    leave_by: Option<Timestamp>,
    clock: Arc<dyn Clock>,
    /// How many bytes the file of each message has, and how many may be under way.
    file: usize,
    upload_budget: u64,
}

impl Scene {
    fn new(people: u64, delivery: Delivery) -> Self {
        Self {
            people,
            delivery,
            ledger: Memory::default(),
            stops: Vec::new(),
            latency: Duration::from_millis(20),
            leave_by: None,
            clock: Arc::new(SystemClock),
            file: 0,
            upload_budget: 0,
        }
    }

    /// Lets other appliers use the number, with so much time between two messages.
    fn share(&self, interval: Duration) {
        let next = Arc::new(Mutex::new(tokio::time::Instant::now()));
        self.ledger.0.lock().unwrap().number = Some(Number { interval, next, shares: Arc::default() });
    }

    fn fault(self, commit: usize, fault: Fault) -> Self {
        self.ledger.0.lock().unwrap().faults.insert(commit, fault);
        self
    }

    async fn run(self, steps: impl Fn(usize) -> Step + Send + Sync + 'static) -> Ran {
        let gateway = Arc::new(Script {
            ledger: self.ledger.clone(),
            steps: Box::new(steps),
            latency: self.latency,
            requests: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            most_under_way: AtomicUsize::new(0),
            starts: Mutex::default(),
            upload_budget: self.upload_budget,
        });
        let mut messages: Vec<Box<Desired>> = (0..self.people).map(desired).collect();
        if self.file > 0 {
            let content = bytes::Bytes::from(vec![7; self.file]);
            let file = Arc::new(MediaFile { name: "a.mp4".into(), mime: "video/mp4", content, digest: [7; 32] });
            let media = |message: &mut Box<Desired>| {
                message.message.media = Some((MediaKind::Video, Media::File(Arc::clone(&file))));
            };
            messages.iter_mut().for_each(media);
        }
        let approved = Approved::of(messages.iter().map(|message| message.entry).collect());
        let (mut sender, mut feed) = Feed::new();
        tokio::spawn(async move {
            for message in messages {
                if sender.send(message).await.is_break() {
                    break;
                }
            }
            sender.finish(Ok(())).await;
        });
        let (stop_sender, stop) = watch::channel(ShutdownRequest::None);
        let stops = self.stops.clone();
        tokio::spawn(async move {
            for (after, level) in stops {
                tokio::time::sleep(after).await;
                let _ = stop_sender.send(level);
            }
            std::future::pending::<()>().await;
        });
        let (events, mut told) = mpsc::unbounded_channel::<Event>();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hear = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Some(event) = told.recv().await {
                hear.lock().unwrap().push(event);
            }
        });
        let mut engine = Engine::new(Setup {
            ledger: Box::new(self.ledger.clone()),
            gateway: Arc::clone(&gateway) as Arc<dyn Gateway>,
            delivery: self.delivery,
            approved: Arc::new(approved),
            leave_by: self.leave_by,
            clock: self.clock,
            shutdown: stop,
            events,
            figures: watch::Sender::default(),
        });
        let started = tokio::time::Instant::now();
        let ending = engine.run(&mut feed).await;
        let took = started.elapsed();
        // The last events are on their way.
        tokio::task::yield_now().await;
        Ran { ending, progress: engine.progress(), record: self.ledger, gateway, took, events: heard }
    }
}

async fn run(people: u64, delivery: Delivery, steps: impl Fn(usize) -> Step + Send + Sync + 'static) -> Ran {
    Scene::new(people, delivery).run(steps).await
}

fn fast(concurrency: usize) -> Delivery {
    Delivery { rate: Rate::parse("1000/s").unwrap(), concurrency, batch: 1, stop_when: None }
}

#[tokio::test(start_paused = true)]
async fn a_run_starts_alone_and_widens_when_one_is_accepted() {
    let ran = run(200, fast(10), |number| if number < 3 { Step::Reject } else { Step::Accept }).await;
    assert_eq!(ran.ending, RunEnding::Finished);
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
    let ran = run(500, fast(50), |_| Step::Refuse).await;
    assert_eq!(ran.ending, RunEnding::AccountRefused("scripted".into()));
    assert_eq!(ran.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_without_any_acceptance_is_given_up() {
    let ran = run(500, fast(50), |number| if number % 2 == 0 { Step::Reject } else { Step::Lose }).await;
    assert!(matches!(ran.ending, RunEnding::TooManyFailures(_)));
    assert_eq!(ran.requests(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_not_there_is_given_up_soon_and_one_that_was_there_later() {
    let never = run(50, fast(10), |_| Step::Drop).await;
    assert!(matches!(never.ending, RunEnding::Unreachable(_)));
    assert_eq!(never.requests(), 4);
    let gone = run(50, fast(10), |number| if !(20..=26).contains(&number) { Step::Accept } else { Step::Drop }).await;
    assert_eq!((gone.ending, gone.progress.accepted), (RunEnding::Finished, 50));
}

#[tokio::test(start_paused = true)]
async fn a_429_holds_the_whole_number_and_everybody_is_reached() {
    let ran = run(100, fast(10), |number| if (20..25).contains(&number) { Step::Throttle } else { Step::Accept }).await;
    assert_eq!((ran.ending.clone(), ran.progress.accepted), (RunEnding::Finished, 100));
    let starts = ran.gateway.starts.lock().unwrap();
    let longest = starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(longest >= Duration::from_millis(200), "nothing was held: {longest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_fails_stops_every_further_request() {
    let ran = Scene::new(500, fast(10)).fault(7, Fault::Broken).run(|_| Step::Accept).await;
    assert!(matches!(ran.ending, RunEnding::LedgerFailed(_)));
    let record = ran.record.0.lock().unwrap();
    assert!(ran.requests() <= record.ended.len() + record.open.len());
    assert_eq!(ran.progress.unknown as usize, record.open.len(), "what is not recorded is in doubt");
    assert_eq!(ran.progress.accepted as usize, record.ended.len());
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
        let ran = runtime.block_on(run(40, delivery, move |number| script[number % script.len()]));
        let record = ran.record.0.lock().unwrap();
        prop_assert!(record.most_open <= concurrency);
        prop_assert!(record.open.is_empty());
        let p = ran.progress;
        if ran.ending == RunEnding::Finished {
            prop_assert_eq!(p.accepted + p.rejected + p.unknown, 40);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_in_mid_run_does_not_put_everybody_in_doubt() {
    let ran = run(500, fast(20), |number| if number < 30 { Step::Accept } else { Step::Lose }).await;
    assert!(matches!(ran.ending, RunEnding::TooManyUnknown(_)), "{:?}", ran.ending);
    assert!(ran.progress.unknown <= 40, "{} in doubt", ran.progress.unknown);
}

#[tokio::test(start_paused = true)]
async fn a_429_holds_at_a_low_rate_as_well() {
    let delivery = Delivery { rate: Rate::parse("120/m").unwrap(), concurrency: 5, batch: 1, stop_when: None };
    let steps = |number: usize| if (3..8).contains(&number) { Step::Throttle } else { Step::Accept };
    let ran = run(12, delivery, steps).await;
    assert_eq!((ran.ending.clone(), ran.progress.accepted), (RunEnding::Finished, 12));
    let starts = ran.gateway.starts.lock().unwrap();
    assert!(starts[7] - starts[6] >= Duration::from_secs(1), "the pauses do not grow");
}

#[tokio::test(start_paused = true)]
async fn while_the_ledger_does_not_answer_nothing_is_claimed_and_nothing_is_lost() {
    for done in [false, true] {
        let scene = (5..9).fold(Scene::new(200, fast(10)), |scene, commit| scene.fault(commit, Fault::Lost { done }));
        let ran = scene.run(|_| Step::Accept).await;
        assert_eq!((ran.ending.clone(), ran.progress.accepted), (RunEnding::Finished, 200), "done: {done}");
        assert_eq!(ran.requests(), 200);
        let record = ran.record.0.lock().unwrap();
        assert!(record.open.is_empty());
        assert!(record.ended.values().all(|endings| *endings == ["accepted"]));
        assert!(record.most_open <= 10);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_the_ledger_does_not_answer_gives_the_claims_up() {
    for done in [false, true] {
        let mut scene = Scene::new(500, fast(10));
        for commit in 20..24 {
            scene = scene.fault(commit, Fault::Lost { done });
        }
        scene.stops = vec![(Duration::from_millis(300), ShutdownRequest::Graceful)];
        let ran = scene.run(|_| Step::Accept).await;
        assert_eq!(ran.ending, RunEnding::Interrupted);
        let record = ran.record.0.lock().unwrap();
        assert!(record.open.is_empty(), "an intent is left open (done: {done})");
        assert_eq!(
            ran.progress.accepted as usize,
            record.ended.values().filter(|ends| ends.contains(&"accepted")).count()
        );
        assert_eq!(ran.requests(), ran.progress.accepted as usize);
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_stop_waits_for_what_is_under_way_and_the_second_does_not() {
    let mut scene = Scene::new(500, fast(10));
    scene.latency = Duration::from_secs(2);
    scene.stops = vec![(Duration::from_millis(2_500), ShutdownRequest::Graceful)];
    let soon = scene.run(|_| Step::Accept).await;
    assert_eq!((soon.ending, soon.progress.unknown, soon.progress.accepted), (RunEnding::Interrupted, 0, 11));

    let mut scene = Scene::new(500, fast(10));
    scene.latency = Duration::from_secs(20);
    scene.stops = vec![
        (Duration::from_millis(21_000), ShutdownRequest::Graceful),
        (Duration::from_millis(7_500), ShutdownRequest::Immediate),
    ];
    let now = scene.run(|_| Step::Accept).await;
    assert_eq!((now.ending, now.progress.unknown, now.progress.accepted), (RunEnding::Interrupted, 10, 1));
    assert!(now.took < Duration::from_millis(30_000), "{:?}", now.took);
    let record = now.record.0.lock().unwrap();
    assert!(record.open.is_empty());
    assert_eq!(record.ended.values().filter(|ends| ends.contains(&"unknown")).count(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_paused_between_intent_and_request_does_not_start_it() {
    let pause = Fault::Paused(Duration::from_secs(40));
    let scene = (3..5).fold(Scene::new(30, fast(5)), |scene, commit| scene.fault(commit, pause));
    scene.ledger.0.lock().unwrap().lease = Some(Lease::new(Duration::from_secs(24), Moment::now()));
    let ran = scene.run(|_| Step::Accept).await;
    assert_eq!((ran.ending.clone(), ran.progress.accepted), (RunEnding::Finished, 30));
    let record = ran.record.0.lock().unwrap();
    let again = record.ended.values().filter(|ends| ends.contains(&"not sent")).count();
    assert!(again > 0, "none was put off");
    assert_eq!(ran.requests(), 30);
}

#[tokio::test(start_paused = true)]
async fn the_manifest_stops_a_run_that_goes_wrong() {
    let stop_when = Some(StopWhen { within: 50, rejected: Some(Bound::Percent(10.0)), unknown: None });
    let ran = run(
        500,
        Delivery { stop_when, ..fast(10) },
        |number| if number % 5 == 4 { Step::Reject } else { Step::Accept },
    )
    .await;
    assert!(
        matches!(&ran.ending, RunEnding::LimitReached(reason) if reason.contains("of the last 50 sends ended rejected")),
        "{:?}",
        ran.ending
    );
    assert!(ran.requests() <= 60, "{}", ran.requests());
}

#[tokio::test(start_paused = true)]
async fn doubts_in_a_row_pause_the_run_and_it_goes_on_when_one_gets_through() {
    let ran = run(300, fast(10), |number| if (50..62).contains(&number) { Step::Lose } else { Step::Accept }).await;
    assert_eq!((ran.ending.clone(), ran.progress.unknown), (RunEnding::Finished, 12));
    let starts = ran.gateway.starts.lock().unwrap();
    // Ten were under way together; then one at a time.
    assert!(starts[61] - starts[60] >= Duration::from_millis(250), "no pause between tries");
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_heard_while_everything_is_busy() {
    let mut scene = Scene::new(20_000, Delivery { rate: Rate::parse("1000000/s").unwrap(), ..fast(10) });
    // Some request has always just ended.
    scene.latency = Duration::from_micros(10);
    scene.stops = vec![(Duration::from_millis(200), ShutdownRequest::Graceful)];
    let ran = scene.run(|_| Step::Accept).await;
    assert_eq!(ran.ending, RunEnding::Interrupted);
    assert!(ran.took < Duration::from_millis(300), "{:?}", ran.took);
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_was_away_for_longer_than_a_lease_is_no_pause_of_this_process() {
    let scene = (5..30).fold(Scene::new(60, fast(5)), |scene, commit| scene.fault(commit, Fault::Lost { done: false }));
    scene.ledger.0.lock().unwrap().lease = Some(Lease::new(Duration::from_secs(24), Moment::now()));
    let ran = scene.run(|_| Step::Accept).await;
    assert!(ran.took > Duration::from_secs(60), "the ledger was not away for long: {:?}", ran.took);
    assert_eq!((ran.ending.clone(), ran.progress.accepted), (RunEnding::Finished, 60));
    assert_eq!(ran.progress.attempts_not_sent, 0, "claims were burnt");
}

#[tokio::test(start_paused = true)]
async fn uploads_beyond_the_budget_wait_without_an_intent() {
    for (budget, at_once) in [(0, 1), (999, 1), (3_500, 3), (u64::MAX, 20)] {
        let mut scene = Scene::new(60, fast(20));
        (scene.file, scene.upload_budget) = (1_000, budget);
        let ran = scene.run(|_| Step::Accept).await;
        assert_eq!((ran.ending.clone(), ran.progress.accepted), (RunEnding::Finished, 60));
        assert_eq!(ran.gateway.most_under_way.load(Ordering::SeqCst), at_once, "budget {budget}");
        assert_eq!(ran.record.0.lock().unwrap().most_open, at_once, "budget {budget}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_upload_for_several_recipients_counts_once() {
    let mut scene = Scene::new(60, Delivery { batch: 5, ..fast(20) });
    (scene.file, scene.upload_budget) = (1_000, 2_000);
    let ran = scene.run(|_| Step::Accept).await;
    assert_eq!((ran.ending.clone(), ran.progress.accepted), (RunEnding::Finished, 60));
    // The first goes alone; then two requests of five at once.
    assert_eq!(ran.gateway.most_under_way.load(Ordering::SeqCst), 2);
    assert_eq!(ran.record.0.lock().unwrap().most_open, 10);
}
