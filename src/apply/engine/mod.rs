//! The dispatcher.

mod leave;
mod recent;
mod recent_ids;
mod record;
mod uploads;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::leave::{Asked, share, slot};
pub use self::recent::Forgotten;
use self::recent::Recent;
use self::recent_ids::RecentIds;
use self::uploads::Uploads;
use super::breaker::{Breaker, Verdict};
use super::feed::{Feed, Messages};
use super::share::{Shares, Whose};
use super::{Event, Pacer, Progress, RunEnding, ShutdownRequest};
use crate::domain::campaign::Delivery;
use crate::gateway::{Gateway, NotSent, Outcome, Reply, Request};
use crate::ledger::{
    AttemptResult, Batch, BySend, Claim, Coordinator, Intent, LedgerError, MAX_SENDER_PAUSE, RunLedger, SendState,
    Settlement, Snapshot,
};
use crate::plan::{Approved, Desired, Standing};

/// How often one send is tried again after it was provably not sent.
const MOST_TRIES: u32 = 8;

/// The same for a provider that was not reached at all yet: its address may be wrong.
const FIRST_TRIES: u32 = 4;

/// The first pause after a failed connection or a 429; each further one in a row is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause that the engine chooses itself.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The longest pause that a provider's `Retry-After` is followed for.
const LONGEST_RETRY_AFTER: Duration = MAX_SENDER_PAUSE;

/// A wait that is shorter needs no explanation.
const WORTH_TELLING: Duration = Duration::from_secs(2);

/// What a run works with.
pub struct Setup {
    /// The record, with the lease held.
    pub ledger: Box<dyn RunLedger>,
    /// The provider.
    pub gateway: Arc<dyn Gateway>,
    /// How fast.
    pub delivery: Delivery,
    /// What was approved: nothing else is sent.
    pub approved: Arc<Approved>,
    /// After this instant nothing leaves.
    pub leave_by: Option<Timestamp>,
    /// Whether the user asks to stop.
    pub stop: watch::Receiver<ShutdownRequest>,
    /// What is told while the run is under way.
    pub events: mpsc::UnboundedSender<Event>,
    /// The figures, for whoever cares to look: nobody is woken for them.
    pub figures: watch::Sender<Progress>,
}

/// A message that waits for its turn.
struct Waiting {
    desired: Box<Desired>,
    attempt: u32,
    tries: u32,
}

/// What there is after a round.
pub enum Leftover {
    /// Nothing: everybody is accounted for.
    Nothing,
    /// A further round, over this.
    Round(Snapshot),
    /// The user asked to stop before that could be told.
    Interrupted,
}

/// What a request's task reports: the messages it carried, and what became of them.
struct Report {
    carried: Vec<Waiting>,
    reply: Reply,
    /// When the commit of its intents started.
    started: Instant,
}

/// A run: see the module.
pub struct Engine {
    ledger: Box<dyn RunLedger>,
    gateway: Arc<dyn Gateway>,
    delivery: Delivery,
    approved: Arc<Approved>,
    leave_by: Option<Timestamp>,
    stop: watch::Receiver<ShutdownRequest>,
    events: mpsc::UnboundedSender<Event>,
    figures: watch::Sender<Progress>,

    peers: Option<Arc<dyn Coordinator>>,
    shares: Option<Shares>,
    pacer: Pacer,
    /// A slot of time that was asked for: for how many messages.
    asked: Option<Asked>,
    breaker: Breaker,
    recent_ids: RecentIds,
    progress: Progress,
    requests: JoinSet<Report>,
    /// What waits, before what the feed still holds.
    queue: VecDeque<Waiting>,
    /// What came out of the feed with others.
    ahead: Messages,
    /// What came out of the feed before it was known whose it is.
    parked: Option<Box<Desired>>,
    feed_open: bool,
    /// Outcomes that are not durable yet.
    unsettled: Vec<Settlement>,
    /// Intents whose request has not reported yet. With `unsettled` they are what would be in doubt
    /// if the process died now.
    flying: BySend<u32>,
    /// The files that are on their way.
    uploads: Uploads,
    /// How many failures to get through there were in a row.
    setbacks: u32,
    /// Until when nothing leaves after the last of them.
    held_until: Option<Instant>,
    /// Since when the ledger gives no leave.
    silent_since: Option<Instant>,
    /// Until when the user knows that the number is reserved.
    known_to_wait: Option<Instant>,
    said_that_it_stops: bool,
    ending: Option<RunEnding>,
    /// What this run has told the ledger lately.
    recent: Recent,
    /// Whether the ledger is still to be asked what it has forgotten.
    compare_again: bool,
    /// How many outcomes the record could not take.
    not_taken: u64,
    /// Outcomes that the record holds no intent of.
    forgotten: Vec<Forgotten>,
}

impl Engine {
    /// A run that has sent nothing yet.
    pub fn new(setup: Setup) -> Self {
        let Setup { ledger, gateway, delivery, approved, leave_by, stop, events, figures } = setup;
        let peers = ledger.coordinator();
        let now = Instant::now();
        Self {
            pacer: if peers.is_some() { Pacer::shared(delivery.rate, now) } else { Pacer::new(delivery.rate, now) },
            shares: peers.clone().map(Shares::of),
            recent: Recent::new(peers.is_some(), delivery.concurrency),
            compare_again: false,
            not_taken: 0,
            forgotten: Vec::new(),
            breaker: Breaker::new(delivery.stop_when, delivery.concurrency),
            recent_ids: RecentIds::default(),
            ledger,
            gateway,
            delivery,
            approved,
            leave_by,
            stop,
            events,
            figures,
            peers,
            asked: None,
            progress: Progress::default(),
            requests: JoinSet::new(),
            queue: VecDeque::new(),
            ahead: Vec::new().into_iter(),
            parked: None,
            feed_open: true,
            unsettled: Vec::new(),
            flying: BySend::default(),
            uploads: Uploads::default(),
            setbacks: 0,
            held_until: None,
            silent_since: None,
            known_to_wait: None,
            said_that_it_stops: false,
            ending: None,
        }
    }

    /// What happened so far.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// How many outcomes the record could not take, because others had settled those sends otherwise.
    pub fn not_taken(&self) -> u64 {
        self.not_taken
    }

    /// Outcomes of which the record holds no intent: it has lost commits that were durable.
    pub fn forgotten(&self) -> &[Forgotten] {
        &self.forgotten
    }

    /// How many sends of this edition the record holds as unknown now, whoever left them so.
    pub async fn unknown(&mut self) -> Result<u64, LedgerError> {
        Ok(self.ledger.snapshot().await?.sends.count(SendState::Unknown))
    }

    /// The ledger, to write down how the run ended.
    pub fn into_ledger(self) -> Box<dyn RunLedger> {
        self.ledger
    }

    /// Sends what the feed holds, and tells how that ended. May be called again with a further feed.
    pub async fn run(&mut self, feed: &mut Feed) -> RunEnding {
        self.feed_open = true;
        let ending = loop {
            if *self.stop.borrow() == ShutdownRequest::Immediate {
                self.abandon().await;
                break RunEnding::Interrupted;
            }
            if *self.stop.borrow() == ShutdownRequest::Graceful && self.ending.is_none() {
                self.ending = Some(RunEnding::Interrupted);
                let _ = self.events.send(Event::Stopping);
            }
            // Answers right behind those that came get a turn: a commit for one takes as long as one for many.
            tokio::task::yield_now().await;
            while let Some(joined) = self.requests.try_join_next() {
                self.joined(joined);
            }
            self.fill(feed);
            let claims = self.due();
            // After `due`, which drops slots that were not used in their time.
            self.reserve().await;
            // What ended while the last commit was under way is made durable by the next: commits group themselves.
            if !claims.is_empty() || !self.unsettled.is_empty() {
                if let Err(ending) = self.commit(claims).await {
                    self.salvage().await;
                    break ending;
                }
                continue;
            }
            let nothing_left = self.queue.is_empty() && !self.more_comes();
            if self.requests.is_empty() && (nothing_left || self.ending.is_some()) {
                if self.lay_down_broken() {
                    continue;
                }
                self.progress.not_sent += self.queue.drain(..).len() as u64;
                break match self.ending.take() {
                    // Nobody was left to be stopped before, unless other appliers have left something.
                    Some(RunEnding::TooManyUnknown(_)) if nothing_left && self.peers.is_none() => RunEnding::Finished,
                    ending => ending.unwrap_or(RunEnding::Finished),
                };
            }
            self.say_that_it_stops();
            self.wait(feed).await;
        };
        self.parked = None;
        self.ahead = Vec::new().into_iter();
        self.tell();
        ending
    }

    /// Says once that the run stops by itself and waits for what is under way: that may take a while.
    fn say_that_it_stops(&mut self) {
        let by_itself = self.ending.as_ref().is_some_and(|ending| *ending != RunEnding::Interrupted);
        if by_itself && !self.said_that_it_stops && !self.requests.is_empty() {
            self.said_that_it_stops = true;
            let _ = self.events.send(Event::StoppingItself { in_flight: self.flying.len() as u64 });
        }
    }

    /// How many sends may be open now: one until one was accepted, and one after a setback.
    fn width(&self) -> usize {
        if self.progress.accepted > 0 && self.setbacks == 0 { self.delivery.concurrency } else { 1 }
    }

    /// Takes from the feed what could leave soon, without waiting.
    fn fill(&mut self, feed: &mut Feed) {
        while self.ending.is_none() && self.queue.len() < self.delivery.concurrency.max(self.delivery.batch) {
            let next = match self.parked.take().or_else(|| self.ahead.next()) {
                Some(desired) => desired,
                None if !self.feed_open => return,
                None => match feed.try_next() {
                    Ok(several) => {
                        self.ahead = several;
                        continue;
                    }
                    Err(mpsc::error::TryRecvError::Empty) => return,
                    Err(mpsc::error::TryRecvError::Disconnected) => {
                        self.feed_open = false;
                        return;
                    }
                },
            };
            if !self.enqueue(next) {
                return;
            }
        }
    }

    /// Puts a message into the queue. False: it is not known yet whose it is.
    fn enqueue(&mut self, desired: Box<Desired>) -> bool {
        let Standing::Send(attempt) = desired.standing else { return true };
        match self.shares.as_mut().map_or(Whose::Ours, |shares| shares.whose(desired.ordinal)) {
            Whose::Ours => {}
            Whose::Theirs => return true,
            Whose::Open => {
                self.parked = Some(desired);
                return false;
            }
        }
        if !self.approved.holds(&desired.entry) {
            self.ending.get_or_insert(RunEnding::InputsChanged);
            return true;
        }
        self.uploads.seen(&desired.message);
        self.queue.push_back(Waiting { desired, attempt, tries: 0 });
        true
    }

    /// How many messages of the queue have a free slot, whatever the time. Requests for several
    /// recipients wait until they are full, or nothing more comes.
    fn ready(&self) -> usize {
        let free = self.width().saturating_sub(self.flying.len());
        let batch = self.batch();
        let waiting = self.queue.len();
        if self.ending.is_some() || (waiting < batch && self.more_comes()) || free < batch.min(waiting) {
            return 0;
        }
        self.within_upload_budget(whole_batches(free.min(waiting), batch))
    }

    fn more_comes(&self) -> bool {
        self.feed_open || self.parked.is_some() || self.ahead.len() > 0
    }

    fn batch(&self) -> usize {
        self.delivery.batch.min(self.width())
    }

    /// Takes from the queue what may leave now: within the rate and the free slots.
    fn due(&mut self) -> Vec<Waiting> {
        let now = Instant::now();
        let (ready, due) = (self.ready(), self.pacer.due(now));
        if ready == 0 || due == 0 {
            return Vec::new();
        }
        if let Some(leave_by) = self.leave_by
            && Timestamp::now() > leave_by
        {
            let problem = format!("the offer would not run long enough for a message that leaves after {leave_by:.0}");
            self.ending = Some(RunEnding::ExpiryTooClose(problem));
            return Vec::new();
        }
        let batch = self.batch();
        let many = whole_batches(ready.min(due.max(batch)), batch).min(self.pacer.most());
        self.pacer.take(many, now);
        self.queue.drain(..many).collect()
    }

    /// Makes outcomes and intents durable in one commit, then starts the requests of those granted.
    async fn commit(&mut self, claims: Vec<Waiting>) -> Result<(), RunEnding> {
        let now = Timestamp::now();
        let claim = claims
            .iter()
            .map(|waiting| Intent {
                key: waiting.desired.key,
                attempt: waiting.attempt,
                digest: waiting.desired.digest,
                similarity_digest: waiting.desired.likeness(),
                coupon: waiting.desired.message.coupon.clone(),
                expires: waiting.desired.message.expiry.map(|expiry| expiry.at(now)),
                masked: waiting.desired.address.masked(),
            })
            .collect();
        let batch = Arc::new(Batch { settle: std::mem::take(&mut self.unsettled), claim });
        let (answers, asked) = self.persist(batch).await?;
        self.pacer.committed(asked.elapsed());
        // The run may have been asked to stop while the ledger did not answer: then nothing was claimed.
        if answers.is_empty() && !claims.is_empty() {
            self.queue.extend(claims);
            self.ending.get_or_insert(RunEnding::Interrupted);
            let _ = self.events.send(Event::Stopping);
            self.tell();
            return Ok(());
        }
        if !self.forgotten.is_empty() {
            self.give_up(claims, &answers);
            return Ok(());
        }
        let mut together: Vec<Waiting> = Vec::new();
        let mut not_granted = 0;
        for (waiting, answer) in claims.into_iter().zip(answers) {
            match answer {
                Claim::Granted => {}
                Claim::Held => {
                    self.progress.held += 1;
                    not_granted += 1;
                    continue;
                }
                Claim::CodeTaken => {
                    self.ending.get_or_insert(RunEnding::CodeTaken);
                    not_granted += 1;
                    continue;
                }
            }
            self.progress.granted += 1;
            self.flying.insert(waiting.desired.key, waiting.attempt);
            let apart = together.len() >= self.delivery.batch
                || together.first().is_some_and(|first| first.desired.digest != waiting.desired.digest);
            if apart {
                self.start(std::mem::take(&mut together), now, asked);
            }
            together.push(waiting);
        }
        if !together.is_empty() {
            self.start(together, now, asked);
        }
        self.pacer.give_back(not_granted);
        self.tell();
        Ok(())
    }

    /// The ledger has forgotten something of this run, so nothing more starts: what was granted is
    /// settled as not sent.
    fn give_up(&mut self, claims: Vec<Waiting>, answers: &[Claim]) {
        for (waiting, answer) in claims.iter().zip(answers) {
            if *answer == Claim::Granted {
                self.progress.granted += 1;
                self.progress.attempts_not_sent += 1;
                let reason = "the run was stopped before the request could start".to_owned();
                let ending = AttemptResult::NotSent { reason };
                self.unsettled.push(Settlement { key: waiting.desired.key, attempt: waiting.attempt, result: ending });
            }
        }
        self.queue.extend(claims);
        self.tell();
    }

    fn start(&mut self, carried: Vec<Waiting>, intent: Timestamp, started: Instant) {
        let gateway = Arc::clone(&self.gateway);
        let lease = self.ledger.lease();
        self.uploads.start(&carried[0].desired.message);
        self.requests.spawn(async move {
            let first = &carried[0].desired;
            let request = Request {
                to: carried.iter().map(|waiting| waiting.desired.address).collect(),
                message: &first.message,
                expires: first.message.expiry.map(|expiry| expiry.at(intent)),
                reference: (carried.len() == 1).then(|| first.key.to_string()),
                lease,
            };
            let reply = gateway.send(request).await;
            Report { carried, reply, started }
        });
    }

    /// Waits for whatever comes first: a report, a message, a share, the next slot in time, or the user.
    async fn wait(&mut self, feed: &mut Feed) {
        let wants_share = self.parked.is_some() && self.ending.is_none();
        let wants_more =
            self.feed_open && self.ending.is_none() && self.ahead.len() == 0 && self.queue.len() < self.batch();
        let next = self.pacer.next().filter(|_| self.ready() > 0);
        let heard = *self.stop.borrow_and_update();
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            Some(joined) = self.requests.join_next(), if !self.requests.is_empty() => {
                self.joined(joined);
                self.tell();
            }
            level = told(&mut stop, |level| level > heard || level > ShutdownRequest::None && self.ending.is_none()) => {
                if level == ShutdownRequest::Graceful {
                    let _ = self.events.send(Event::Stopping);
                }
                // Why it stops by itself is worth more than that it was asked to as well.
                self.ending.get_or_insert(RunEnding::Interrupted);
            }
            desired = feed.next(), if wants_more => match desired {
                Some(several) => self.ahead = several,
                None => self.feed_open = false,
            },
            told = share(&mut self.shares), if wants_share => match told {
                Ok(()) => self.silent_since = None,
                Err(error) => self.unanswered(error).await,
            },
            slot = slot(&mut self.asked), if self.asked.is_some() => self.granted(slot).await,
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
    }

    /// A task that panicked leaves its intents open: they are unknown.
    fn joined(&mut self, joined: Result<Report, tokio::task::JoinError>) {
        match joined {
            Ok(report) => self.settle(report),
            Err(error) => {
                let problem = format!("the task of a request crashed: {error}");
                self.ending.get_or_insert(RunEnding::Internal(problem));
            }
        }
    }

    fn settle(&mut self, report: Report) {
        for waiting in &report.carried {
            self.flying.remove(&waiting.desired.key);
        }
        self.uploads.end(&report.carried[0].desired.message);
        let reply = self.believed(&report.carried, report.reply);
        let outcomes = match reply {
            Reply::Settled(outcomes) => outcomes,
            Reply::Refused { outcomes, reason } => {
                self.ending.get_or_insert(RunEnding::AccountRefused(reason));
                outcomes
            }
            Reply::NotSent(not_sent) => return self.not_sent(report.carried, &not_sent),
        };
        let untold = std::iter::repeat_with(|| Outcome::Unknown { reason: "the answer left this one out".to_owned() });
        for (waiting, outcome) in report.carried.into_iter().zip(outcomes.into_iter().chain(untold)) {
            self.settle_one(&waiting, outcome, report.started);
        }
    }

    fn settle_one(&mut self, waiting: &Waiting, outcome: Outcome, started: Instant) {
        let trouble = match &outcome {
            Outcome::Accepted { .. } => {
                self.progress.accepted += 1;
                self.setbacks = 0;
                None
            }
            Outcome::Rejected { reason } => {
                self.progress.rejected += 1;
                self.setbacks = 0;
                Some(("rejected", reason.clone()))
            }
            Outcome::Unknown { reason } => {
                self.progress.unknown += 1;
                if let Some(notice) = self.gateway.take_notice() {
                    let _ = self.events.send(Event::Notice(notice));
                }
                Some(("unknown", reason.clone()))
            }
        };
        let verdict = self.breaker.judge(&outcome, started, Instant::now());
        if let Some((outcome, reason)) = trouble.clone() {
            let to = waiting.desired.address.masked();
            let _ = self.events.send(Event::Trouble { to, outcome, reason });
        }
        self.unsettled.push(Settlement {
            key: waiting.desired.key,
            attempt: waiting.attempt,
            result: AttemptResult::Outcome(outcome),
        });
        match verdict {
            Verdict::Fine => {}
            Verdict::Pause => self.pause(trouble.map(|(_, reason)| reason).unwrap_or_default(), None),
            Verdict::Hopeless(problem) => drop(self.ending.get_or_insert(RunEnding::TooManyFailures(problem))),
            Verdict::TooManyUnknown(problem) => drop(self.ending.get_or_insert(RunEnding::TooManyUnknown(problem))),
            Verdict::Limit(problem) => drop(self.ending.get_or_insert(RunEnding::LimitReached(problem))),
        }
    }

    /// Nothing was sent: the attempts end, and the messages wait for another, unless the run is over.
    fn not_sent(&mut self, carried: Vec<Waiting>, not_sent: &NotSent) {
        let reason = not_sent.reason().to_owned();
        self.progress.attempts_not_sent += carried.len() as u64;
        for waiting in &carried {
            let ending = AttemptResult::NotSent { reason: reason.clone() };
            self.unsettled.push(Settlement { key: waiting.desired.key, attempt: waiting.attempt, result: ending });
        }
        let retry_after = match not_sent {
            NotSent::Account { .. } => {
                self.ending.get_or_insert(RunEnding::AccountRefused(reason));
                self.progress.not_sent += carried.len() as u64;
                return;
            }
            NotSent::Expired { .. } => {
                self.ending.get_or_insert(RunEnding::ExpiryTooClose(reason));
                self.progress.not_sent += carried.len() as u64;
                return;
            }
            NotSent::Throttled { retry_after, .. } => *retry_after,
            NotSent::Unreachable { .. } => None,
        };
        let tries = carried.iter().map(|waiting| waiting.tries).max().unwrap_or(0);
        let never_reached = self.progress.accepted == 0 && matches!(not_sent, NotSent::Unreachable { .. });
        if tries + 1 >= if never_reached { FIRST_TRIES } else { MOST_TRIES } {
            self.ending.get_or_insert(RunEnding::Unreachable(reason.clone()));
        }
        if self.ending.is_none() {
            self.progress.retries += carried.len() as u64;
        }
        for waiting in carried.into_iter().rev() {
            self.queue.push_front(Waiting { attempt: waiting.attempt + 1, tries: waiting.tries + 1, ..waiting });
        }
        self.pause(reason, retry_after);
    }

    /// The whole number waits. Requests that were under way together fail together, so only the
    /// first of them makes the pause longer, unless the provider asks for more.
    fn pause(&mut self, reason: String, retry_after: Option<Duration>) {
        let now = Instant::now();
        let asked = retry_after.map(|asked| asked.min(LONGEST_RETRY_AFTER));
        let held = self.held_until.filter(|until| *until > now);
        let pause = match held {
            Some(until) => {
                // One alone is tried next, also if an answer from before the pause has got through.
                self.setbacks = self.setbacks.max(1);
                match asked {
                    Some(asked) if now + asked > until => asked,
                    _ => return,
                }
            }
            None => {
                let chosen = FIRST_PAUSE.saturating_mul(1 << self.setbacks.min(8)).min(LONGEST_PAUSE);
                self.setbacks += 1;
                asked.map_or(chosen, |asked| asked.max(chosen))
            }
        };
        let until = now + pause;
        let news = held.is_none_or(|held| until - held >= WORTH_TELLING);
        if news && self.ending.is_none() {
            let _ = self.events.send(Event::Waiting { reason, pause });
        }
        self.pacer.hold(until);
        self.held_until = Some(until);
        if let Some(peers) = self.peers.clone() {
            tokio::spawn(async move { peers.pause_sender(pause).await });
        }
    }

    fn tell(&mut self) {
        self.progress.in_flight = self.flying.len() as u64;
        self.figures.send_replace(self.progress);
    }
}

/// How urgently the user asks to stop, once that is as urgent as `wanted`.
async fn told(
    stop: &mut watch::Receiver<ShutdownRequest>,
    wanted: impl Fn(ShutdownRequest) -> bool,
) -> ShutdownRequest {
    let level = stop.wait_for(|level| wanted(*level)).await.map(|level| *level);
    match level {
        Ok(level) => level,
        // Nobody can ask any more.
        Err(_) => std::future::pending().await,
    }
}

/// As many as fill whole batches; fewer than one are the last.
fn whole_batches(messages: usize, batch: usize) -> usize {
    if messages <= batch { messages } else { messages - messages % batch }
}
