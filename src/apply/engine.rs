//! The dispatcher.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Ending, Event, Pacer, Progress};
use crate::campaign::Delivery;
use crate::gateway::{Gateway, NotSent, Outcome, Reply, Request};
use crate::ledger::{self, Batch, Claim, Intent, RunLedger, Settlement};
use crate::plan::{Approved, Desired, Standing};

/// How many sends may end without one being accepted before the run is given up.
const HOPELESS: u64 = 10;

/// How often one send is tried again after it was provably not sent.
const MOST_TRIES: u32 = 8;

/// The same for a provider that was not reached at all yet: its address may be wrong.
const FIRST_TRIES: u32 = 4;

/// The first pause after a failed connection or a 429; each further one in a row is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause that the engine chooses itself.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The longest pause that a provider's `Retry-After` is followed for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Where messages come from: those to be sent, in the order of the plan.
pub type Feed = mpsc::Receiver<Box<Desired>>;

/// What a run works with.
pub struct Engine<L, G> {
    /// The record, with the lease held.
    pub ledger: L,
    /// The provider.
    pub gateway: Arc<G>,
    /// How fast.
    pub delivery: Delivery,
    /// What was approved: nothing else is sent.
    pub approved: Arc<Approved>,
    /// After this instant nothing leaves.
    pub leave_by: Option<Timestamp>,
    /// Becomes true when the user asks to stop.
    pub stop: tokio::sync::watch::Receiver<bool>,
    /// What is told while the run is under way.
    pub events: mpsc::UnboundedSender<Event>,
}

/// A message that waits for its turn.
struct Waiting {
    desired: Box<Desired>,
    attempt: u32,
    tries: u32,
}

/// What a request's task reports: the messages it carried, and what became of them.
struct Report {
    carried: Vec<Waiting>,
    reply: Reply,
}

/// The changing part of a run.
struct Run {
    pacer: Pacer,
    progress: Progress,
    /// What waits, before what the feed still holds.
    queue: VecDeque<Waiting>,
    feed_open: bool,
    /// Outcomes that are not durable yet.
    unsettled: Vec<Settlement>,
    /// Intents whose outcome is not durable: what would be in doubt if the process died now.
    open: usize,
    /// How many failures to get through there were in a row.
    setbacks: u32,
    /// Until when nothing leaves after the last of them.
    held_until: Option<Instant>,
    /// How many sends in a row ended without being accepted.
    streak: u64,
    ending: Option<Ending>,
}

impl<L: RunLedger, G: Gateway> Engine<L, G> {
    /// Sends what the feed holds. Returns how the run ended, what happened, and the ledger.
    pub async fn run(mut self, mut feed: Feed) -> (Ending, Progress, L) {
        let mut run = Run {
            pacer: Pacer::new(self.delivery.rate, Instant::now()),
            progress: Progress::default(),
            queue: VecDeque::new(),
            feed_open: true,
            unsettled: Vec::new(),
            open: 0,
            setbacks: 0,
            held_until: None,
            streak: 0,
            ending: None,
        };
        let mut requests: JoinSet<Report> = JoinSet::new();
        let mut stop = self.stop.clone();
        let ending = loop {
            self.fill(&mut run, &mut feed);
            let claims = self.due(&mut run);
            // What ended while the last commit was under way is made durable by the next: commits group themselves.
            if !claims.is_empty() || !run.unsettled.is_empty() {
                if let Err(problem) = self.commit(&mut run, claims, &mut requests).await {
                    self.salvage(&mut run, &mut requests).await;
                    break Ending::Ledger(problem);
                }
                continue;
            }
            let idle = requests.is_empty() && run.unsettled.is_empty();
            let nothing_left = run.queue.is_empty() && !run.feed_open;
            if idle && (nothing_left || run.ending.is_some()) {
                run.progress.not_sent += run.queue.len() as u64;
                // Intents whose task did not report.
                run.progress.unknown += run.open as u64;
                break run.ending.take().unwrap_or(Ending::Finished);
            }
            self.wait(&mut run, &mut feed, &mut requests, &mut stop).await;
        };
        let _ = self.events.send(Event::Progress(run.progress));
        (ending, run.progress, self.ledger)
    }

    /// How many sends may be open now: one until one was accepted.
    fn width(&self, run: &Run) -> usize {
        if run.progress.accepted > 0 { self.delivery.concurrency } else { 1 }
    }

    /// Takes from the feed what could leave soon, without waiting.
    fn fill(&self, run: &mut Run, feed: &mut Feed) {
        while run.feed_open
            && run.ending.is_none()
            && run.queue.len() < self.delivery.concurrency.max(self.delivery.batch)
        {
            match feed.try_recv() {
                Ok(desired) => self.enqueue(run, desired),
                Err(mpsc::error::TryRecvError::Empty) => return,
                Err(mpsc::error::TryRecvError::Disconnected) => run.feed_open = false,
            }
        }
    }

    fn enqueue(&self, run: &mut Run, desired: Box<Desired>) {
        let Standing::Send(attempt) = desired.standing else { return };
        if !self.approved.holds(&desired.entry) {
            run.ending.get_or_insert(Ending::Changed);
            return;
        }
        run.queue.push_back(Waiting { desired, attempt, tries: 0 });
    }

    /// How many messages of the queue have a free slot, whatever the time. Requests for several
    /// recipients wait until they are full, or nothing more comes.
    fn ready(&self, run: &Run) -> usize {
        let open = run.open.saturating_sub(run.unsettled.len());
        let free = self.width(run).saturating_sub(open);
        let batch = self.batch(run);
        let waiting = run.queue.len();
        if run.ending.is_some() || (waiting < batch && run.feed_open) || free < batch.min(waiting) {
            return 0;
        }
        whole_batches(free.min(waiting), batch)
    }

    fn batch(&self, run: &Run) -> usize {
        self.delivery.batch.min(self.width(run))
    }

    /// Takes from the queue what may leave now: within the rate and the free slots.
    fn due(&self, run: &mut Run) -> Vec<Waiting> {
        let now = Instant::now();
        let (ready, due) = (self.ready(run), run.pacer.due(now));
        if ready == 0 || due == 0 {
            return Vec::new();
        }
        if let Some(leave_by) = self.leave_by
            && Timestamp::now() > leave_by
        {
            let problem = format!("the offer would not run long enough for a message that leaves after {leave_by:.0}");
            run.ending = Some(Ending::Late(problem));
            return Vec::new();
        }
        let batch = self.batch(run);
        let many = whole_batches(ready.min(due.max(batch)), batch);
        run.pacer.take(many, now);
        run.queue.drain(..many).collect()
    }

    /// Makes outcomes and intents durable in one commit, then starts the requests of those granted.
    async fn commit(
        &mut self,
        run: &mut Run,
        claims: Vec<Waiting>,
        requests: &mut JoinSet<Report>,
    ) -> Result<(), String> {
        let now = Timestamp::now();
        let intents: Vec<Intent> = claims
            .iter()
            .map(|waiting| Intent {
                key: waiting.desired.key,
                attempt: waiting.attempt,
                digest: waiting.desired.digest,
                coupon: waiting.desired.message.coupon.clone(),
                expires: waiting.desired.message.expiry.map(|expiry| expiry.at(now)),
                masked: waiting.desired.address.masked(),
            })
            .collect();
        let settle = run.unsettled.clone();
        let answers = self.ledger.commit(Batch { settle, claim: intents }).await.map_err(|error| error.to_string())?;
        run.open = run.open.saturating_sub(run.unsettled.len());
        run.unsettled.clear();

        let mut together: Vec<Waiting> = Vec::new();
        for (waiting, answer) in claims.into_iter().zip(answers) {
            if answer == Claim::Held {
                run.progress.held += 1;
                continue;
            }
            run.open += 1;
            let apart = together.len() >= self.delivery.batch
                || together.first().is_some_and(|first| first.desired.digest != waiting.desired.digest);
            if apart {
                self.start(std::mem::take(&mut together), now, requests);
            }
            together.push(waiting);
        }
        if !together.is_empty() {
            self.start(together, now, requests);
        }
        self.tell(run);
        Ok(())
    }

    /// After the ledger failed nothing more starts. What is under way is waited for, and its
    /// outcomes are offered to the ledger once more; what it does not take is in doubt.
    async fn salvage(&mut self, run: &mut Run, requests: &mut JoinSet<Report>) {
        let _ = self.events.send(Event::Stopping);
        run.ending = Some(Ending::Interrupted);
        while let Some(joined) = requests.join_next().await {
            if let Ok(report) = joined {
                self.settle(run, report);
            }
        }
        let settle = run.unsettled.clone();
        if self.ledger.commit(Batch { settle, claim: Vec::new() }).await.is_ok() {
            run.open = run.open.saturating_sub(run.unsettled.len());
            run.unsettled.clear();
        }
        for lost in &run.unsettled {
            match &lost.ending {
                ledger::Ending::Outcome(Outcome::Accepted { .. }) => run.progress.accepted -= 1,
                ledger::Ending::Outcome(Outcome::Rejected { .. }) => run.progress.rejected -= 1,
                ledger::Ending::Outcome(Outcome::Unknown { .. }) => run.progress.unknown -= 1,
                ledger::Ending::NotSent { .. } => {}
            }
        }
        run.progress.unknown += run.open as u64;
    }

    fn start(&self, carried: Vec<Waiting>, intent: Timestamp, requests: &mut JoinSet<Report>) {
        let gateway = Arc::clone(&self.gateway);
        requests.spawn(async move {
            let first = &carried[0].desired;
            let request = Request {
                to: carried.iter().map(|waiting| waiting.desired.address).collect(),
                message: first.message.clone(),
                expires: first.message.expiry.map(|expiry| expiry.at(intent)),
                reference: (carried.len() == 1).then(|| first.key.to_string()),
            };
            let reply = gateway.send(request).await;
            Report { carried, reply }
        });
    }

    /// Waits for whatever comes first: a report, a message, the next slot in time, or the user.
    async fn wait(
        &self,
        run: &mut Run,
        feed: &mut Feed,
        requests: &mut JoinSet<Report>,
        stop: &mut tokio::sync::watch::Receiver<bool>,
    ) {
        let wants_more = run.feed_open && run.ending.is_none() && run.queue.len() < self.batch(run);
        let waits_for_time = self.ready(run) > 0;
        let stopping = run.ending.is_some();
        tokio::select! {
            biased;
            Some(joined) = requests.join_next(), if !requests.is_empty() => {
                self.joined(run, joined);
                while let Some(joined) = requests.try_join_next() {
                    self.joined(run, joined);
                }
                self.tell(run);
            }
            Ok(_) = stop.wait_for(|stop| *stop), if !stopping => {
                run.ending = Some(Ending::Interrupted);
                let _ = self.events.send(Event::Stopping);
            }
            desired = feed.recv(), if wants_more => match desired {
                Some(desired) => self.enqueue(run, desired),
                None => run.feed_open = false,
            },
            () = tokio::time::sleep_until(run.pacer.next()), if waits_for_time => {}
        }
    }

    /// A task that panicked leaves its intents open: they are unknown, and found by the next run.
    fn joined(&self, run: &mut Run, joined: Result<Report, tokio::task::JoinError>) {
        match joined {
            Ok(report) => self.settle(run, report),
            Err(error) => {
                run.ending.get_or_insert(Ending::Hopeless(format!("a request broke off inside this program: {error}")));
            }
        }
    }

    fn settle(&self, run: &mut Run, report: Report) {
        match report.reply {
            Reply::Settled(outcomes) => {
                run.setbacks = 0;
                let untold =
                    std::iter::repeat_with(|| Outcome::Unknown { reason: "the answer left this one out".to_owned() });
                for (waiting, outcome) in report.carried.into_iter().zip(outcomes.into_iter().chain(untold)) {
                    self.settle_one(run, &waiting, outcome);
                }
                let p = run.progress;
                // Once some were accepted, as many as may be under way together may fail together.
                let bound = if p.accepted == 0 { HOPELESS } else { HOPELESS.max(self.delivery.concurrency as u64) };
                if run.streak >= bound {
                    let problem = format!("{} sends in a row were refused or cannot be told", run.streak);
                    run.ending.get_or_insert(Ending::Hopeless(problem));
                }
            }
            Reply::NotSent(not_sent) => self.not_sent(run, report.carried, &not_sent),
        }
    }

    fn settle_one(&self, run: &mut Run, waiting: &Waiting, outcome: Outcome) {
        let trouble = |outcome: &'static str, reason: &str| {
            let _ = self.events.send(Event::Trouble {
                to: waiting.desired.address.masked(),
                outcome,
                reason: reason.to_owned(),
            });
        };
        match &outcome {
            Outcome::Accepted { .. } => {
                run.progress.accepted += 1;
                run.streak = 0;
            }
            Outcome::Rejected { reason } => {
                run.streak += 1;
                run.progress.rejected += 1;
                trouble("rejected", reason);
            }
            Outcome::Unknown { reason } => {
                run.streak += 1;
                run.progress.unknown += 1;
                trouble("unknown", reason);
            }
        }
        run.unsettled.push(Settlement {
            key: waiting.desired.key,
            attempt: waiting.attempt,
            ending: ledger::Ending::Outcome(outcome),
        });
    }

    /// Nothing was sent: the attempts end, and the messages wait for another, unless the run is over.
    fn not_sent(&self, run: &mut Run, carried: Vec<Waiting>, not_sent: &NotSent) {
        for waiting in &carried {
            let ending = ledger::Ending::NotSent { reason: not_sent.reason().to_owned() };
            run.unsettled.push(Settlement { key: waiting.desired.key, attempt: waiting.attempt, ending });
        }
        let reason = not_sent.reason().to_owned();
        let asked = match not_sent {
            NotSent::Account { .. } => {
                run.ending.get_or_insert(Ending::Account(reason));
                None
            }
            NotSent::Expired { .. } => {
                run.ending.get_or_insert(Ending::Late(reason));
                None
            }
            NotSent::Throttled { retry_after, .. } => Some(*retry_after),
            NotSent::Unreachable { .. } => Some(None),
        };
        let Some(retry_after) = asked else {
            run.progress.not_sent += carried.len() as u64;
            return;
        };
        let tries = carried.iter().map(|waiting| waiting.tries).max().unwrap_or(0);
        let never_reached = run.progress.accepted == 0 && matches!(not_sent, NotSent::Unreachable { .. });
        if tries + 1 >= if never_reached { FIRST_TRIES } else { MOST_TRIES } {
            run.ending.get_or_insert(Ending::Unreachable(not_sent.reason().to_owned()));
        }
        if run.ending.is_none() {
            run.progress.retries += carried.len() as u64;
        }
        for waiting in carried.into_iter().rev() {
            run.queue.push_front(Waiting { attempt: waiting.attempt + 1, tries: waiting.tries + 1, ..waiting });
        }
        // The whole number waits, not this message alone. Requests that were under way together
        // fail together, so only the first of them makes the pause longer.
        let now = Instant::now();
        let asked = retry_after.map(|asked| now + asked.min(LONGEST_RETRY_AFTER));
        if run.held_until.is_some_and(|until| until > now) {
            if let Some(until) = asked {
                run.pacer.hold(until);
                run.held_until = run.held_until.max(asked);
            }
        } else {
            let chosen = FIRST_PAUSE.saturating_mul(1 << run.setbacks.min(8)).min(LONGEST_PAUSE);
            let pause = retry_after.map_or(chosen, |asked| asked.min(LONGEST_RETRY_AFTER).max(chosen));
            run.setbacks += 1;
            run.pacer.hold(now + pause);
            run.held_until = Some(now + pause);
            if run.ending.is_none() {
                let _ = self.events.send(Event::Waiting { reason: not_sent.reason().to_owned(), pause });
            }
        }
    }

    fn tell(&self, run: &mut Run) {
        run.progress.in_flight = (run.open - run.unsettled.len().min(run.open)) as u64;
        let _ = self.events.send(Event::Progress(run.progress));
    }
}

/// As many as fill whole batches; fewer than one are the last.
fn whole_batches(messages: usize, batch: usize) -> usize {
    if messages <= batch { messages } else { messages - messages % batch }
}
