//! Holds the record, the provider and the summaries against each other.

use super::source::key;
use super::world::World;
use crate::apply::{RunEnding, RunSummary};
use crate::ledger::{RecordedEnding, SendState, query};

/// What a run says of itself.
pub(super) fn summary(world: &World, summary: &RunSummary) {
    let done = summary.progress;
    let known = done.accepted + done.rejected + done.unknown;
    if done.granted < known {
        world.problem(format!("run {} has {known} outcomes of {} claims", summary.run, done.granted));
    }
    let alone = !world.scenario.shared || world.scenario.appliers == 1;
    if summary.ending == RunEnding::Finished && alone && known + done.held < summary.planned {
        world.problem(format!(
            "run {} finished, and {} of its sends are missing",
            summary.run,
            summary.planned - known
        ));
    }
    if summary.ending == RunEnding::Finished && done.in_flight > 0 {
        world.problem(format!("run {} finished with {} requests in flight", summary.run, done.in_flight));
    }
    if !summary.lost.is_empty() && world.seen(|seen| seen.reported_lost) == 0 {
        world.problem(format!("run {} did not keep what the ledger has lost", summary.run));
    }
    if !summary.lost.is_empty() && !world.seen(|seen| seen.failed_over) {
        world.problem(format!("run {} takes {} sends for lost that are not", summary.run, summary.lost.len()));
    }
}

/// Everything, after the last run.
pub(super) async fn world(world: &World, finished: bool) {
    let scenario = &world.scenario;
    // What a ledger that was rolled back has forgotten may be sent again: nobody promises otherwise.
    if world.seen(|seen| seen.failed_over) {
        return;
    }
    let may_be_left = scenario.leave_by.is_some();
    if !finished && !may_be_left {
        world.problem("the last applier does not finish".to_owned());
    }
    let mut unknown = 0;
    for person in 0..scenario.people {
        let key = key(person);
        let taken = world.seen(|seen| seen.taken.get(&key).cloned().unwrap_or_default());
        let stand = world.store.last_attempt(&key);
        let state = stand.map(|stand| stand.state);
        if taken.len() > 1 {
            world.problem(format!("{key} got the message {} times: attempts {taken:?}", taken.len()));
        }
        let fits = match state {
            Some(SendState::Accepted) => !taken.is_empty(),
            // The run of an open intent is dead by now: whoever reads it takes it for unknown.
            Some(SendState::Unknown | SendState::Intent) => true,
            Some(SendState::Rejected) => taken.is_empty(),
            None | Some(SendState::NotSent) => taken.is_empty() && (!finished || may_be_left),
        };
        if !fits {
            world.problem(format!("{key} is recorded as {state:?}, and the provider took attempts {taken:?}"));
        }
        if let Some(stand) = stand.filter(|stand| matches!(stand.state, SendState::Unknown | SendState::Intent)) {
            let own_fault = world.seen(|seen| seen.own_fault.contains(&(key, stand.attempt)));
            unknown += u64::from(!own_fault);
        }
    }
    let Ok(mut ledger) = world.store.open(None) else { return };
    for run in ledger.runs().await.unwrap_or_default() {
        if matches!(run.ending, None | Some(RecordedEnding::Lost | RecordedEnding::Unlocked)) {
            world.troubled(run.id, 1);
        }
    }
    let troubled: u64 = world.seen(|seen| seen.troubled_runs.values().sum());
    let bound = troubled * scenario.delivery.concurrency as u64;
    if unknown > bound {
        world.problem(format!("{unknown} sends are unknown without a fault of their own, and {bound} may be"));
    }
    match query::check(ledger.as_mut()).await {
        Ok(check) => check.problems.into_iter().for_each(|problem| world.problem(format!("ledger check: {problem}"))),
        Err(error) => world.problem(format!("ledger check: {error}")),
    }
}
