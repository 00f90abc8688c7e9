//! The driver: waits for inputs, and carries out the actions of the state. It decides nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use super::Setup;
use super::recent::LostOutcome;
use super::state::{Action, Input, Now, Parts, Report, Sending, State, Wait};
use crate::apply::feed::Feed;
use crate::apply::{Event, Progress, RunEnding, ShutdownRequest};
use crate::domain::clock::Clock;
use crate::gateway::{Gateway, Request};
use crate::ledger::{Batch, Committed, Coordinator, LedgerError, RunLedger, SendState};

/// A run: its state, and everything that the state acts on.
pub struct Engine {
    pub(super) state: State,
    pub(super) ledger: Box<dyn RunLedger>,
    gateway: Arc<dyn Gateway>,
    pub(super) coordinator: Option<Arc<dyn Coordinator>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) shutdown: watch::Receiver<ShutdownRequest>,
    /// The most urgent request to stop that the state knows of.
    shutdown_seen: ShutdownRequest,
    requests: JoinSet<Report>,
    /// Questions to the coordinator.
    answers: JoinSet<Answer>,
    actions: Vec<Action>,
}

/// An answer of the coordinator.
enum Answer {
    Slot(Result<Instant, LedgerError>),
    Chunk(Result<u64, LedgerError>),
}

/// What the driver does after everything else.
enum Next {
    Commit(Arc<Batch>, Option<Instant>),
    Wait(Wait),
    Finish(RunEnding),
}

impl Engine {
    /// A run that has sent nothing yet.
    pub fn new(setup: Setup) -> Self {
        let Setup { ledger, gateway, delivery, approved, leave_by, clock, shutdown, events, figures } = setup;
        let coordinator = ledger.coordinator();
        let state = State::new(Parts {
            delivery,
            approved,
            leave_by,
            gateway: Arc::clone(&gateway),
            events,
            figures,
            shared: coordinator.is_some(),
            now: clock.instant(),
        });
        Self {
            state,
            ledger,
            gateway,
            coordinator,
            clock,
            shutdown,
            shutdown_seen: ShutdownRequest::None,
            requests: JoinSet::new(),
            answers: JoinSet::new(),
            actions: Vec::new(),
        }
    }

    /// What happened so far.
    pub fn progress(&self) -> Progress {
        self.state.progress
    }

    /// How many outcomes the record could not take, because others had settled those sends otherwise.
    pub fn overruled(&self) -> u64 {
        self.state.overruled
    }

    /// Outcomes of which the record holds no intent: it has lost commits that were durable.
    pub fn lost(&self) -> &[LostOutcome] {
        &self.state.lost
    }

    /// How many sends of this edition the record holds as unknown now, whoever left them so.
    pub async fn count_unknown(&mut self) -> Result<u64, LedgerError> {
        Ok(self.ledger.snapshot().await?.sends.count(SendState::Unknown))
    }

    /// The ledger, to seal the run.
    pub fn into_ledger(self) -> Box<dyn RunLedger> {
        self.ledger
    }

    /// Sends what the feed holds, and says how that ended. May be called again with a further feed.
    pub async fn run(&mut self, feed: &mut Feed) -> RunEnding {
        self.state.begin_round();
        loop {
            // Replies right behind those that came get a turn: a commit for one takes as long as one for many.
            tokio::task::yield_now().await;
            self.collect(feed);
            self.input(Input::Tick);
            let mut next = self.carry_out();
            while let Some(Next::Commit(batch, answer_by)) = next {
                let result = self.commit(&batch, answer_by).await;
                drop(batch);
                let level = *self.shutdown.borrow();
                self.shut_down(level);
                self.input(Input::Committed(result));
                next = self.carry_out();
            }
            match next {
                Some(Next::Wait(wait)) => self.wait(wait, feed).await,
                Some(Next::Finish(ending)) => return ending,
                Some(Next::Commit(..)) | None => {}
            }
        }
    }

    fn input(&mut self, input: Input) {
        let now = Now { instant: self.clock.instant(), clock: self.clock.as_ref() };
        self.state.handle(now, input, &mut self.actions);
    }

    /// Passes on everything that has happened already.
    fn collect(&mut self, feed: &mut Feed) {
        let level = *self.shutdown.borrow();
        self.shut_down(level);
        while let Some(joined) = self.requests.try_join_next() {
            self.joined(joined);
        }
        while let Some(joined) = self.answers.try_join_next() {
            self.answered(joined);
        }
        while self.state.has_room() {
            match feed.try_next() {
                Ok(messages) => self.input(Input::Messages(messages)),
                Err(TryRecvError::Disconnected) => self.input(Input::MessagesEnded),
                Err(TryRecvError::Empty) => break,
            }
        }
    }

    fn shut_down(&mut self, level: ShutdownRequest) {
        if level > self.shutdown_seen {
            self.shutdown_seen = level;
            self.input(Input::Shutdown(level));
        }
    }

    fn joined(&mut self, joined: Result<Report, JoinError>) {
        match joined {
            Ok(report) => self.input(Input::Replied(report)),
            Err(error) => self.input(Input::RequestCrashed(panic_message(error))),
        }
    }

    fn answered(&mut self, joined: Result<Answer, JoinError>) {
        match joined {
            Ok(Answer::Slot(answer)) => self.input(Input::Slot(answer)),
            Ok(Answer::Chunk(answer)) => self.input(Input::Chunk(answer)),
            // Whichever it was, the run is over.
            Err(_) => self.input(Input::Slot(Err(LedgerError::Internal("a task that asks the ledger crashed")))),
        }
    }

    /// Does what the state wants, as far as that needs no waiting.
    fn carry_out(&mut self) -> Option<Next> {
        let mut next = None;
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            match action {
                Action::Send(sending) => self.send(sending),
                Action::ReserveSlot { messages, max } => {
                    let (coordinator, clock) = (self.coordinator.clone(), Arc::clone(&self.clock));
                    self.ask(async move {
                        // From the answer on: when the state takes it does not matter.
                        let delay = coordinator?.reserve(messages, max).await;
                        Some(Answer::Slot(delay.map(|delay| clock.instant() + delay)))
                    });
                }
                Action::RequestChunk => {
                    let coordinator = self.coordinator.clone();
                    self.ask(async move { Some(Answer::Chunk(coordinator?.next_chunk().await)) });
                }
                Action::PauseSender(pause) => {
                    if let Some(coordinator) = self.coordinator.clone() {
                        // Not one of `answers`: it counts for other appliers, also when this one ends.
                        tokio::spawn(async move { coordinator.pause_sender(pause).await });
                    }
                }
                Action::AbortRequests => self.requests = JoinSet::new(),
                Action::Commit { batch, answer_by } => next = Some(Next::Commit(batch, answer_by)),
                Action::Wait(wait) => next = Some(Next::Wait(wait)),
                Action::Finish(ending) => next = Some(Next::Finish(ending)),
            }
        }
        self.actions = actions;
        next
    }

    fn ask(&mut self, question: impl Future<Output = Option<Answer>> + Send + 'static) {
        self.answers.spawn(async move {
            match question.await {
                Some(answer) => answer,
                // Only a shared ledger is asked.
                None => std::future::pending().await,
            }
        });
    }

    fn send(&mut self, sending: Sending) {
        let Sending { sends, at, started } = sending;
        let gateway = Arc::clone(&self.gateway);
        let lease = self.ledger.lease();
        self.requests.spawn(async move {
            let first = &sends[0].desired;
            let request = Request {
                to: sends.iter().map(|send| send.desired.address).collect(),
                message: &first.message,
                expires: first.message.expiry.map(|expiry| expiry.at(at)),
                reference: (sends.len() == 1).then(|| first.key.to_string()),
                lease,
            };
            let reply = gateway.send(request).await;
            Report { sends, reply, started }
        });
    }

    async fn commit(
        &mut self,
        batch: &Arc<Batch>,
        answer_by: Option<Instant>,
    ) -> Option<Result<Committed, LedgerError>> {
        match answer_by {
            None => Some(self.ledger.commit(batch).await),
            Some(by) => {
                let patience = by.saturating_duration_since(self.clock.instant());
                tokio::time::timeout(patience, self.ledger.commit(batch)).await.ok()
            }
        }
    }

    /// Waits for whatever comes first, and passes it on.
    async fn wait(&mut self, wait: Wait, feed: &mut Feed) {
        let seen = self.shutdown_seen;
        // By the clock that was passed in: tokio's may run apart from it.
        let now = self.clock.instant();
        let pause = wait.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        tokio::select! {
            biased;
            Some(joined) = self.requests.join_next(), if wait.replies && !self.requests.is_empty() => {
                self.joined(joined);
            }
            level = wait_for_stop(&mut self.shutdown, |level| level > seen) => self.shut_down(level),
            messages = feed.next(), if wait.messages => self.input(match messages {
                Some(messages) => Input::Messages(messages),
                None => Input::MessagesEnded,
            }),
            Some(joined) = self.answers.join_next(), if !self.answers.is_empty() => self.answered(joined),
            () = tokio::time::sleep(pause), if wait.until.is_some() => {}
        }
    }

    /// Reports an event that is not the state's.
    pub(super) fn report(&self, event: Event) {
        self.state.report(event);
    }
}

/// What a task that crashed said last.
fn panic_message(error: JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "it was cancelled".to_owned() };
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast::<&str>().map_or_else(|_| "it says no more".to_owned(), |text| text.to_string()),
    }
}

/// How urgently the user asks to stop, once that is as urgent as `wanted`.
pub(super) async fn wait_for_stop(
    shutdown: &mut watch::Receiver<ShutdownRequest>,
    wanted: impl Fn(ShutdownRequest) -> bool,
) -> ShutdownRequest {
    let level = shutdown.wait_for(|level| wanted(*level)).await.map(|level| *level);
    match level {
        Ok(level) => level,
        // Nobody can ask any more.
        Err(_) => std::future::pending().await,
    }
}
