//! Queries: figures, single sends, checks and exports.
//!
//! All of them read runs, chain and journal through the contract, so they are the same for every ledger.

mod check;
mod export;
mod sends;
mod status;

use std::collections::HashSet;

pub use check::{Check, check, check_head, head};
pub use export::time;
pub use sends::{SendRecord, contradictions, history, sends};
pub use status::{CampaignStatus, status};

use super::contract::Ledger;
use super::error::LedgerError;
use super::record::RunRecord;
use crate::domain::send::{SendKey, SendState};

/// The name that a campaign is recorded under, found by its present or a former name.
fn recorded_as(runs: &[RunRecord], name: &str) -> Option<String> {
    let by = |of: fn(&RunRecord) -> &str| runs.iter().rev().find(|run| of(run) == name);
    by(|run| &run.name).or_else(|| by(|run| &run.campaign)).map(|run| run.campaign.clone())
}

/// Sends of which the provider accepted an earlier attempt, which its run reported too late for the record to
/// follow. However later attempts ended, nothing more is sent.
async fn accepted_before(ledger: &mut dyn Ledger) -> Result<HashSet<SendKey>, LedgerError> {
    let contradictions = ledger.contradictions().await?;
    Ok(contradictions.iter().filter(|found| found.said == SendState::Accepted).map(|found| found.key).collect())
}
