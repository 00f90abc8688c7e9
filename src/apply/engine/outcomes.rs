//! What follows from a reply.

use std::time::{Duration, Instant};

use super::state::{Action, Report, State};
use super::{MAX_FIRST_TRIES, MAX_TRIES, QueuedSend};
use crate::apply::breaker::BreakerAction;
use crate::apply::{Event, RunEnding};
use crate::gateway::{NotSent, Outcome, Reply};
use crate::ledger::{AttemptResult, Settlement};

impl State {
    /// Takes a reply.
    pub(super) fn settle(&mut self, now: Instant, report: Report, actions: &mut Vec<Action>) {
        let Report { sends, reply, started } = report;
        for send in &sends {
            self.in_flight.remove(&send.desired.key);
        }
        self.intake.uploads.ended(&sends[0].desired.message);
        let outcomes = match self.believed(&sends, reply) {
            Reply::Settled(outcomes) => outcomes,
            Reply::Refused { outcomes, reason } => {
                self.ending.get_or_insert(RunEnding::AccountRefused(reason));
                outcomes
            }
            Reply::NotSent(not_sent) => return self.not_sent(now, sends, &not_sent, actions),
        };
        let missing =
            std::iter::repeat_with(|| Outcome::Unknown { reason: "the answer did not mention this one".to_owned() });
        for (send, outcome) in sends.into_iter().zip(outcomes.into_iter().chain(missing)) {
            self.settle_one(now, &send, outcome, started, actions);
        }
    }

    fn settle_one(
        &mut self,
        now: Instant,
        send: &QueuedSend,
        outcome: Outcome,
        started: Instant,
        actions: &mut Vec<Action>,
    ) {
        let trouble = match &outcome {
            Outcome::Accepted { .. } => {
                self.progress.accepted += 1;
                self.backoff.succeeded();
                None
            }
            Outcome::Rejected { reason } => {
                self.progress.rejected += 1;
                self.backoff.succeeded();
                Some(("rejected", reason.clone()))
            }
            Outcome::Unknown { reason } => {
                self.progress.unknown += 1;
                if let Some(notice) = self.gateway.take_notice() {
                    self.report(Event::Notice(notice));
                }
                Some(("unknown", reason.clone()))
            }
        };
        let action = self.breaker.judge(&outcome, started, now);
        if let Some((outcome, reason)) = trouble.clone() {
            self.report(Event::Trouble { to: send.desired.address.masked(), outcome, reason });
        }
        self.unrecorded_outcomes.push(Settlement {
            key: send.desired.key,
            attempt: send.attempt,
            result: AttemptResult::Outcome(outcome),
        });
        let ending = match action {
            BreakerAction::Continue => return,
            BreakerAction::Pause => {
                let reason = trouble.map(|(_, reason)| reason).unwrap_or_default();
                return self.pause(now, reason, None, actions);
            }
            BreakerAction::StopFailing(problem) => RunEnding::TooManyFailures(problem),
            BreakerAction::StopUnknown(problem) => RunEnding::TooManyUnknown(problem),
            BreakerAction::StopAtLimit(problem) => RunEnding::LimitReached(problem),
        };
        self.ending.get_or_insert(ending);
    }

    /// Nothing was sent: the attempts end, and the messages wait for another, unless the run is over.
    fn not_sent(&mut self, now: Instant, sends: Vec<QueuedSend>, not_sent: &NotSent, actions: &mut Vec<Action>) {
        let reason = not_sent.reason().to_owned();
        self.progress.attempts_not_sent += sends.len() as u64;
        for send in &sends {
            let result = AttemptResult::NotSent { reason: reason.clone() };
            self.unrecorded_outcomes.push(Settlement { key: send.desired.key, attempt: send.attempt, result });
        }
        let retry_after = match not_sent {
            NotSent::Account { .. } => {
                self.ending.get_or_insert(RunEnding::AccountRefused(reason));
                self.progress.not_sent += sends.len() as u64;
                return;
            }
            NotSent::Expired { .. } => {
                self.ending.get_or_insert(RunEnding::ExpiryTooClose(reason));
                self.progress.not_sent += sends.len() as u64;
                return;
            }
            NotSent::Throttled { retry_after, .. } => *retry_after,
            NotSent::Unreachable { .. } => None,
        };
        let tries = sends.iter().map(|send| send.tries).max().unwrap_or(0);
        let never_reached = self.progress.accepted == 0 && matches!(not_sent, NotSent::Unreachable { .. });
        if tries + 1 >= if never_reached { MAX_FIRST_TRIES } else { MAX_TRIES } {
            self.ending.get_or_insert(RunEnding::Unreachable(reason.clone()));
        }
        if self.ending.is_none() {
            self.progress.retries += sends.len() as u64;
        }
        for send in sends.into_iter().rev() {
            self.queue().push_front(QueuedSend { attempt: send.attempt + 1, tries: send.tries + 1, ..send });
        }
        self.pause(now, reason, retry_after, actions);
    }

    /// Lets nothing leave for a while, from any applier.
    fn pause(&mut self, now: Instant, reason: String, retry_after: Option<Duration>, actions: &mut Vec<Action>) {
        let Some(pause) = self.backoff.failed(now, retry_after) else { return };
        if pause.reported && self.ending.is_none() {
            self.report(Event::Waiting { reason, pause: pause.length });
        }
        self.limiter.pause(pause.until);
        if self.limiter.is_shared() {
            actions.push(Action::PauseSender(pause.length));
        }
    }
}
