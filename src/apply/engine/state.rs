//! Everything that a run knows, and the one method that changes it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, watch};

use super::backoff::Backoff;
use super::committer::{Answered, Committer, Purpose, Waits};
use super::intake::Intake;
use super::recent::{LostOutcome, Recent};
use super::recent_ids::RecentIds;
use super::{LEDGER_PATIENCE, MIN_REPORTED_PAUSE, QueuedSend};
use crate::apply::breaker::Breaker;
use crate::apply::feed::Messages;
use crate::apply::limiter::Limiter;
use crate::apply::{Event, Progress, RunEnding, ShutdownRequest};
use crate::domain::campaign::Delivery;
use crate::domain::clock::Clock;
use crate::gateway::{Gateway, Reply};
use crate::ledger::{AttemptResult, Batch, BySend, Claim, Committed, Intent, LedgerError, Settlement};
use crate::plan::Approved;

/// What happens to a run.
pub(super) enum Input {
    /// Time has passed, and everything that happened was told: the state decides what is next.
    Tick,
    /// The user asks to stop.
    Shutdown(ShutdownRequest),
    /// Messages came from the feed.
    Messages(Messages),
    /// The feed has given its last message.
    MessagesEnded,
    /// A request was answered.
    Replied(Report),
    /// The task of a request crashed.
    RequestCrashed(String),
    /// The commit that was under way is over; nothing if the time for it was over.
    Committed(Option<Result<Committed, LedgerError>>),
    /// The slot of time that was asked for: when it starts.
    Slot(Result<Instant, LedgerError>),
    /// The next chunk of the plan.
    Chunk(Result<u64, LedgerError>),
}

/// A request that was answered.
pub(super) struct Report {
    pub(super) sends: Vec<QueuedSend>,
    pub(super) reply: Reply,
    /// When the commit of its intents started.
    pub(super) started: Instant,
}

/// What the driver is to do. The last one of a tick is `Commit`, `Wait` or `Finish`.
pub(super) enum Action {
    /// Start a request.
    Send(Sending),
    /// Ask for a slot of time.
    ReserveSlot { messages: u32, max: u32 },
    /// Ask for the next chunk of the plan.
    RequestChunk,
    /// Let nothing leave from the sender number, from any applier, for this long.
    PauseSender(Duration),
    /// Wait for no request any more.
    AbortRequests,
    /// Make this durable, and wait for nothing else meanwhile: what ends while a commit is under way is
    /// made durable by the next. So commits group themselves.
    Commit { batch: Arc<Batch>, answer_by: Option<Instant> },
    /// Wait for the next input.
    Wait(Wait),
    /// The run, or the round, is over.
    Finish(RunEnding),
}

/// A request that may start: its intents are durable.
pub(super) struct Sending {
    pub(super) sends: Vec<QueuedSend>,
    /// When the intents were written: the expiry counts from it.
    pub(super) at: Timestamp,
    /// When their commit started.
    pub(super) started: Instant,
}

/// What is waited for, besides a request to stop and answers about slots and chunks.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wait {
    pub(super) until: Option<Instant>,
    pub(super) replies: bool,
    pub(super) messages: bool,
}

/// The time of an input.
#[derive(Clone, Copy)]
pub(super) struct Now<'a> {
    pub(super) instant: Instant,
    pub(super) clock: &'a dyn Clock,
}

/// What the run is doing.
pub(super) enum Mode {
    /// It claims and sends.
    Running,
    /// The ledger has failed: it waits for the requests in flight, and starts nothing.
    Draining(RunEnding),
    /// It offers the ledger its last outcomes.
    Flushing(RunEnding),
}

/// The state of a run.
pub(super) struct State {
    pub(super) delivery: Delivery,
    pub(super) approved: Arc<Approved>,
    pub(super) leave_by: Option<Timestamp>,
    /// Asked for what is known at once: the upload budget and its notices.
    pub(super) gateway: Arc<dyn Gateway>,
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) figures: watch::Sender<Progress>,

    pub(super) mode: Mode,
    pub(super) shutdown: ShutdownRequest,
    /// Why nothing more is claimed.
    pub(super) ending: Option<RunEnding>,
    pub(super) progress: Progress,
    pub(super) intake: Intake,
    pub(super) limiter: Limiter,
    pub(super) committer: Committer,
    pub(super) backoff: Backoff,
    pub(super) breaker: Breaker,
    pub(super) recent_ids: RecentIds,
    /// How many requests have not reported yet.
    pub(super) requests: usize,
    /// Intents whose request has not reported yet. With `unrecorded_outcomes` they are what would be
    /// unknown if the process died now.
    pub(super) in_flight: BySend<u32>,
    /// Outcomes that are not durable yet.
    pub(super) unrecorded_outcomes: Vec<Settlement>,
    /// Whether it was reported that the run stops for a reason of its own.
    reported_stop: bool,
    /// What this run has told the ledger lately.
    pub(super) recent: Recent,
    /// Whether the ledger is still to be asked what it has lost.
    pub(super) compare_again: bool,
    /// How many outcomes the record could not take.
    pub(super) overruled: u64,
    /// Outcomes that the record holds no intent of.
    pub(super) lost: Vec<LostOutcome>,
}

/// What a state is made of.
pub(super) struct Parts {
    pub(super) delivery: Delivery,
    pub(super) approved: Arc<Approved>,
    pub(super) leave_by: Option<Timestamp>,
    pub(super) gateway: Arc<dyn Gateway>,
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) figures: watch::Sender<Progress>,
    /// Whether other appliers share the rate and the plan.
    pub(super) shared: bool,
    pub(super) now: Instant,
}

impl State {
    /// A run that has sent nothing yet.
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { delivery, approved, leave_by, gateway, events, figures, shared, now } = parts;
        Self {
            limiter: if shared { Limiter::shared(delivery.rate, now) } else { Limiter::new(delivery.rate, now) },
            intake: Intake::new(delivery.concurrency.max(delivery.batch)),
            recent: Recent::new(shared, delivery.concurrency),
            breaker: Breaker::new(delivery.stop_when, delivery.concurrency),
            delivery,
            approved,
            leave_by,
            gateway,
            events,
            figures,
            mode: Mode::Running,
            shutdown: ShutdownRequest::None,
            ending: None,
            progress: Progress::default(),
            committer: Committer::default(),
            backoff: Backoff::default(),
            recent_ids: RecentIds::default(),
            requests: 0,
            in_flight: BySend::default(),
            unrecorded_outcomes: Vec::new(),
            reported_stop: false,
            compare_again: false,
            overruled: 0,
            lost: Vec::new(),
        }
    }

    /// A round begins, with a feed of its own.
    pub(super) fn begin_round(&mut self) {
        self.intake.open();
    }

    /// Whether the feed should be asked for what it has now.
    pub(super) fn has_room(&self) -> bool {
        matches!(self.mode, Mode::Running) && self.ending.is_none() && self.intake.has_room()
    }

    /// Changes the state. Everything else that changes it is called from here.
    pub(super) fn handle(&mut self, now: Now<'_>, input: Input, actions: &mut Vec<Action>) {
        match input {
            Input::Tick => self.tick(now, actions),
            Input::Shutdown(level) => self.shut_down(level),
            Input::Messages(messages) => {
                self.intake.add(messages);
                self.fill();
            }
            Input::MessagesEnded => self.intake.close(),
            Input::Replied(report) => {
                self.requests = self.requests.saturating_sub(1);
                self.settle(now.instant, report, actions);
            }
            Input::RequestCrashed(problem) => {
                // Its intents stay open, and are unknown in the end.
                self.requests = self.requests.saturating_sub(1);
                let problem = format!("the task of a request crashed: {problem}");
                self.ending.get_or_insert(RunEnding::Internal(problem));
            }
            Input::Committed(result) => self.committed(now, result, actions),
            Input::Slot(Ok(start)) => {
                let messages = self.limiter.slot_granted(start);
                self.report_reserved(now, messages, start);
            }
            Input::Slot(Err(error)) => {
                self.limiter.slot_failed();
                self.unanswered(now.instant, error);
            }
            Input::Chunk(answer) => {
                self.limiter.chunk_granted(answer);
                self.fill();
            }
        }
    }

    /// Decides what is next.
    fn tick(&mut self, now: Now<'_>, actions: &mut Vec<Action>) {
        match self.committer.poll(now.instant, self.shutdown) {
            Waits::Idle => {}
            Waits::Retry(batch, answer_by) => return actions.push(Action::Commit { batch, answer_by }),
            Waits::Until(until) => return actions.push(Action::Wait(Wait { until: Some(until), ..Wait::default() })),
        }
        let immediate = self.shutdown == ShutdownRequest::Immediate;
        match std::mem::replace(&mut self.mode, Mode::Running) {
            Mode::Running if !immediate => self.advance(now, actions),
            Mode::Running => {
                self.ending = Some(RunEnding::Interrupted);
                self.flush_final_outcomes(now, RunEnding::Interrupted, actions);
            }
            Mode::Draining(ending) if self.requests == 0 || immediate => {
                self.flush_final_outcomes(now, ending, actions);
            }
            Mode::Draining(ending) => {
                self.mode = Mode::Draining(ending);
                actions.push(Action::Wait(Wait { replies: true, ..Wait::default() }));
            }
            Mode::Flushing(ending) => self.finish(ending, actions),
        }
    }

    /// The usual tick: claims what may leave, records what has ended, or waits.
    fn advance(&mut self, now: Now<'_>, actions: &mut Vec<Action>) {
        self.fill();
        let claims = self.take_due(now);
        // After `take_due`, which drops slots that were not used in their time.
        self.ask_for_slots_and_chunks(now.instant, actions);
        if !claims.is_empty() || !self.unrecorded_outcomes.is_empty() {
            return self.commit(now, claims, actions);
        }
        let nothing_left = self.intake.queue.is_empty() && !self.intake.more_may_come();
        if self.requests == 0 && (nothing_left || self.ending.is_some()) {
            if self.mark_crashed_tasks_unknown() {
                return self.commit(now, Vec::new(), actions);
            }
            self.progress.not_sent += self.intake.queue.drain(..).len() as u64;
            let ending = match self.ending.take() {
                // Nobody was left to be stopped before, unless other appliers have left something.
                Some(RunEnding::TooManyUnknown(_)) if nothing_left && !self.limiter.is_shared() => RunEnding::Finished,
                ending => ending.unwrap_or(RunEnding::Finished),
            };
            return self.finish(ending, actions);
        }
        self.report_stop();
        self.publish_progress();
        let running = self.ending.is_none();
        let next = self.limiter.next().filter(|_| self.ready() > 0);
        let ask_again = self
            .limiter
            .ask_again_at()
            .filter(|at| *at > now.instant && (self.intake.awaits_chunk() || next.is_none() && self.ready() > 0));
        actions.push(Action::Wait(Wait {
            until: [next, ask_again].into_iter().flatten().min(),
            replies: true,
            messages: running && self.intake.needs_messages(self.batch()),
        }));
    }

    fn finish(&mut self, ending: RunEnding, actions: &mut Vec<Action>) {
        self.intake.discard();
        self.publish_progress();
        actions.push(Action::Finish(ending));
    }

    /// Takes a request to stop.
    fn shut_down(&mut self, level: ShutdownRequest) {
        self.shutdown = self.shutdown.max(level);
        if level == ShutdownRequest::None {
            return;
        }
        if level == ShutdownRequest::Graceful {
            self.report(Event::Stopping);
        }
        // Why the run stops by itself is worth more than that it was asked to as well.
        self.ending.get_or_insert(RunEnding::Interrupted);
    }

    /// Reports once that the run stops by itself and waits for the requests in flight: that may take a while.
    fn report_stop(&mut self) {
        let by_itself = self.ending.as_ref().is_some_and(|ending| *ending != RunEnding::Interrupted);
        if by_itself && !self.reported_stop && self.requests > 0 {
            self.reported_stop = true;
            self.report(Event::StoppingItself { in_flight: self.in_flight.len() as u64 });
        }
    }

    /// How many sends may be open now: one until one was accepted, and one after a failure.
    fn concurrency_limit(&self) -> usize {
        if self.progress.accepted > 0 && !self.backoff.one_at_a_time() { self.delivery.concurrency } else { 1 }
    }

    /// How many sends a request carries now.
    fn batch(&self) -> usize {
        self.delivery.batch.min(self.concurrency_limit())
    }

    /// Moves messages into the queue.
    fn fill(&mut self) {
        if self.ending.is_some() {
            return;
        }
        if self.intake.fill(&mut self.limiter, &self.approved).is_err() {
            self.ending = Some(RunEnding::InputsChanged);
        }
    }

    /// How many messages of the queue have a free slot, whatever the time. Requests for several
    /// recipients wait until they are full, or nothing more comes.
    fn ready(&self) -> usize {
        let free = self.concurrency_limit().saturating_sub(self.in_flight.len());
        let batch = self.batch();
        let queue = &self.intake.queue;
        let waiting = queue.len();
        if self.ending.is_some() || (waiting < batch && self.intake.more_may_come()) || free < batch.min(waiting) {
            return 0;
        }
        let messages = whole_batches(free.min(waiting), batch);
        self.intake.uploads.within_budget(queue.range(..messages), self.delivery.batch, || self.gateway.upload_budget())
    }

    /// Takes from the queue what may leave now: within the rate and the free slots.
    fn take_due(&mut self, now: Now<'_>) -> Vec<QueuedSend> {
        let (ready, due) = (self.ready(), self.limiter.due(now.instant));
        if ready == 0 || due == 0 {
            return Vec::new();
        }
        if let Some(leave_by) = self.leave_by
            && now.clock.now() > leave_by
        {
            let problem = format!("the offer would end too soon after a message that leaves after {leave_by:.0}");
            self.ending = Some(RunEnding::ExpiryTooClose(problem));
            return Vec::new();
        }
        let batch = self.batch();
        let messages = whole_batches(ready.min(due.max(batch)), batch).min(self.limiter.max_now());
        self.limiter.take(messages, now.instant);
        self.intake.queue.drain(..messages).collect()
    }

    /// Asks for the next slot of time and the next chunk of the plan in good time, however busy this run is.
    fn ask_for_slots_and_chunks(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if !self.limiter.is_shared() || self.ending.is_some() {
            return;
        }
        if self.intake.awaits_chunk()
            && let Some(error) = self.limiter.take_chunk_failure()
        {
            self.unanswered(now, error);
        }
        if self.intake.more_may_come() && self.limiter.request_chunk(now) {
            actions.push(Action::RequestChunk);
        }
        if self.ready() > 0
            && let Some((messages, max)) =
                self.limiter.reserve(now, self.intake.queue.len(), self.batch(), self.delivery.batch)
        {
            actions.push(Action::ReserveSlot { messages, max });
        }
    }

    /// The ledger grants no slot, or no chunk: it is asked again for a while, as for a commit.
    fn unanswered(&mut self, now: Instant, error: LedgerError) {
        let pause = match error {
            LedgerError::Lost { .. } => self.limiter.unreachable(now, LEDGER_PATIENCE),
            _ => None,
        };
        match pause {
            Some(pause) => self.report(Event::Waiting { reason: error.to_string(), pause }),
            None => drop(self.ending.get_or_insert(RunEnding::of_ledger(error))),
        }
    }

    /// Reports why nothing leaves, if the slot of time starts much later than a few appliers that take
    /// turns would have it: another applier was asked to slow down, or the record's clock is ahead.
    fn report_reserved(&mut self, now: Now<'_>, messages: u32, start: Instant) {
        let wait = start.saturating_duration_since(now.instant);
        let known = self.backoff.paused_until().is_some_and(|until| start < until + MIN_REPORTED_PAUSE);
        if known
            || self.ending.is_some()
            || wait < MIN_REPORTED_PAUSE.max(self.limiter.time_for(messages).saturating_mul(3))
            || !self.limiter.report_reserved(now.instant, start)
        {
            return;
        }
        let wait_signed = SignedDuration::try_from(wait).unwrap_or_default();
        if let Ok(until) = now.clock.now().saturating_add(wait_signed) {
            self.report(Event::Reserved { until, pause: wait });
        }
    }

    /// Makes outcomes and intents durable in one commit.
    fn commit(&mut self, now: Now<'_>, sends: Vec<QueuedSend>, actions: &mut Vec<Action>) {
        let at = now.clock.now();
        let claim = sends
            .iter()
            .map(|send| Intent {
                key: send.desired.key,
                attempt: send.attempt,
                digest: send.desired.digest,
                similarity_digest: send.desired.similarity_digest(),
                coupon: send.desired.message.coupon.clone(),
                expires: send.desired.message.expiry.map(|expiry| expiry.at(at)),
                masked: send.desired.address.masked(),
            })
            .collect();
        let batch = Batch { settle: std::mem::take(&mut self.unrecorded_outcomes), claim };
        let (batch, answer_by) = self.committer.start(now.instant, Purpose::Claims { sends, at }, batch);
        actions.push(Action::Commit { batch, answer_by });
    }

    /// Starts the requests of claims that were granted.
    pub(super) fn start_granted(&mut self, answered: Answered, actions: &mut Vec<Action>) {
        let Answered { sends, at, claims, given_up, started } = answered;
        // The run was asked to stop while the ledger did not answer: then nothing was claimed.
        if given_up && !sends.is_empty() {
            self.intake.queue.extend(sends);
            self.ending.get_or_insert(RunEnding::Interrupted);
            return self.publish_progress();
        }
        if !self.lost.is_empty() {
            self.give_up_granted(sends, &claims);
            return self.publish_progress();
        }
        let mut together: Vec<QueuedSend> = Vec::new();
        let mut not_granted = 0;
        for (send, answer) in sends.into_iter().zip(claims) {
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
            self.in_flight.insert(send.desired.key, send.attempt);
            let apart = together.len() >= self.delivery.batch
                || together.first().is_some_and(|first| first.desired.digest != send.desired.digest);
            if apart {
                self.start(std::mem::take(&mut together), at, started, actions);
            }
            together.push(send);
        }
        if !together.is_empty() {
            self.start(together, at, started, actions);
        }
        self.limiter.give_back(not_granted);
        self.publish_progress();
    }

    /// The ledger has lost something of this run, so nothing more starts: what was granted is settled as
    /// not sent.
    fn give_up_granted(&mut self, sends: Vec<QueuedSend>, claims: &[Claim]) {
        for (send, answer) in sends.iter().zip(claims) {
            if *answer == Claim::Granted {
                self.progress.granted += 1;
                self.progress.attempts_not_sent += 1;
                let reason = "the run was stopped before the request could start".to_owned();
                let result = AttemptResult::NotSent { reason };
                self.unrecorded_outcomes.push(Settlement { key: send.desired.key, attempt: send.attempt, result });
            }
        }
        self.intake.queue.extend(sends);
    }

    fn start(&mut self, sends: Vec<QueuedSend>, at: Timestamp, started: Instant, actions: &mut Vec<Action>) {
        self.intake.uploads.started(&sends[0].desired.message);
        self.requests += 1;
        actions.push(Action::Send(Sending { sends, at, started }));
    }

    pub(super) fn report(&self, event: Event) {
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    pub(super) fn publish_progress(&mut self) {
        self.progress.in_flight = self.in_flight.len() as u64;
        self.figures.send_replace(self.progress);
    }

    /// The queue, for what takes sends back out of it.
    pub(super) fn queue(&mut self) -> &mut VecDeque<QueuedSend> {
        &mut self.intake.queue
    }
}

/// As many as fill whole batches; fewer than one are the last.
fn whole_batches(messages: usize, batch: usize) -> usize {
    if messages <= batch { messages } else { messages - messages % batch }
}
