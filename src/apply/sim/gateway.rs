//! The provider as one process reaches it, and everything that it may do.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::process::Process;
use super::source::person_of;
use crate::gateway::{Gateway, NotSent, Outcome, Reply, Request};
use crate::ledger::{SendKey, SendState};

pub(super) struct SimGateway {
    pub(super) process: Arc<Process>,
}

/// What the provider does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Accept,
    ShortAnswer,
    Reject,
    Unknown,
    UnknownTaken,
    TakenLate,
    Unreachable,
    Throttle,
    Account,
    Refused,
    Expired,
    RepeatId,
    Panic,
}

impl SimGateway {
    fn act(&self) -> Act {
        let world = &self.process.world;
        let faults = &world.scenario.faults;
        let acts = [
            (Act::Unreachable, faults.unreachable),
            (Act::Expired, faults.expired),
            (Act::Throttle, faults.throttle),
            (Act::Account, faults.account),
            (Act::Refused, faults.refused),
            (Act::Reject, faults.reject),
            (Act::Unknown, faults.unknown),
            (Act::UnknownTaken, faults.unknown_taken),
            (Act::TakenLate, faults.taken_late),
            (Act::RepeatId, faults.repeat_id),
            (Act::Panic, faults.panic),
            (Act::ShortAnswer, faults.short_answer),
        ];
        acts.into_iter().find(|(_, often)| world.fault(*often)).map_or(Act::Accept, |(act, _)| act)
    }

    /// A request starts: its first byte leaves. The attempt of each recipient.
    fn start(&self, request: &Request<'_>) -> Vec<(SendKey, u32)> {
        let world = &self.process.world;
        let run = self.process.run();
        world.seen(|seen| seen.requests += 1);
        let mut attempts = Vec::new();
        for to in &request.to {
            let key = super::source::key(person_of(*to));
            let stand = world.store.last_attempt(&key);
            let attempt = stand.map_or(0, |stand| stand.attempt);
            let failed_over = world.seen(|seen| seen.failed_over);
            let claimed = stand.is_some_and(|stand| stand.state == SendState::Intent && Some(stand.run) == run);
            if !claimed && !failed_over {
                world.problem(format!("run {run:?} starts a request for {key} whose record is {stand:?}"));
            }
            let started = world.seen(|seen| {
                let started = seen.started.entry((key, attempt)).or_default();
                *started += 1;
                *started
            });
            if started > 1 && !failed_over {
                world.problem(format!("{started} requests for attempt {attempt} of {key}"));
            }
            attempts.push((key, attempt));
        }
        attempts
    }

    fn take(&self, attempts: &[(SendKey, u32)]) {
        for (key, attempt) in attempts {
            self.process.world.seen(|seen| seen.taken.entry(*key).or_default().push(*attempt));
        }
    }

    fn own_fault(&self, attempts: &[(SendKey, u32)]) {
        self.process.world.seen(|seen| seen.own_fault.extend(attempts.iter().copied()));
    }
}

#[async_trait]
impl Gateway for SimGateway {
    async fn send(&self, request: Request<'_>) -> Reply {
        let (process, world) = (&self.process, &self.process.world);
        process.latency(30).await;
        let act = self.act();
        let reason = || "simulated".to_owned();
        match act {
            Act::Unreachable => return Reply::NotSent(NotSent::Unreachable { reason: reason() }),
            Act::Expired => return Reply::NotSent(NotSent::Expired { reason: reason() }),
            _ => {}
        }
        if request.lease.as_ref().is_some_and(|lease| !lease.holds()) {
            return Reply::NotSent(NotSent::Unreachable { reason: "the lease is over".to_owned() });
        }
        let attempts = self.start(&request);
        world.note(format_args!("run {:?} requests {attempts:?}: {act:?}", process.run()));
        // From here on the provider has it, whatever becomes of the process.
        match act {
            Act::Accept | Act::ShortAnswer | Act::RepeatId | Act::UnknownTaken => self.take(&attempts),
            Act::TakenLate => {
                let (world, attempts) = (Arc::clone(world), attempts.clone());
                let after = world.roll(|rng| rng.millis(1_000, 30_000));
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    for (key, attempt) in attempts {
                        world.note(format_args!("the provider takes {key} attempt {attempt} late"));
                        world.seen(|seen| seen.taken.entry(key).or_default().push(attempt));
                    }
                });
            }
            _ => {}
        }
        match act {
            Act::Unknown | Act::UnknownTaken | Act::TakenLate | Act::Refused | Act::Panic => self.own_fault(&attempts),
            Act::ShortAnswer => self.own_fault(&attempts[attempts.len() - 1..]),
            _ => {}
        }
        process.latency(world.scenario.max_latency).await;
        if process.is_gone() {
            world.problem(format!("a reply reaches run {:?} after its process has crashed", process.run()));
        }
        let unknown = || Outcome::Unknown { reason: reason() };
        let accepted = |_: &(SendKey, u32)| {
            let message_id = world.seen(|seen| {
                let id = format!("m{}", seen.ids.len());
                seen.ids.push(id.clone());
                id
            });
            Outcome::Accepted { message_id }
        };
        match act {
            Act::Accept => Reply::Settled(attempts.iter().map(accepted).collect()),
            Act::ShortAnswer => Reply::Settled(attempts.iter().skip(1).map(accepted).collect()),
            Act::Reject => Reply::Settled(vec![Outcome::Rejected { reason: reason() }; attempts.len()]),
            Act::Unknown | Act::UnknownTaken | Act::TakenLate => Reply::Settled(vec![unknown(); attempts.len()]),
            Act::Throttle => {
                let asks = world.roll(|rng| rng.chance(500).then(|| Duration::from_secs(rng.between(1, 90))));
                Reply::NotSent(NotSent::Throttled { reason: reason(), retry_after: asks })
            }
            Act::Account => Reply::NotSent(NotSent::Account { reason: reason() }),
            Act::Refused => Reply::Refused { outcomes: vec![unknown(); attempts.len()], reason: reason() },
            Act::RepeatId => {
                // Of this run or of another; without any, it is a new one.
                let earlier = world.roll(|rng| rng.next());
                let id = world.seen(|seen| {
                    let count = seen.ids.len() as u64;
                    if count == 0 { None } else { seen.ids.get((earlier % count) as usize).cloned() }
                });
                self.own_fault(&attempts);
                if let Some(run) = process.run() {
                    world.troubled(run, 4);
                }
                match id {
                    Some(id) => Reply::Settled(vec![Outcome::Accepted { message_id: id }; attempts.len()]),
                    None => Reply::Settled(attempts.iter().map(accepted).collect()),
                }
            }
            // Without the message that a panic prints.
            Act::Panic => std::panic::resume_unwind(Box::new("simulated")),
            Act::Unreachable | Act::Expired => Reply::NotSent(NotSent::Unreachable { reason: reason() }),
        }
    }
}
