//! Single sends.

use std::collections::HashMap;

use super::{accepted_before, recorded_as};
use crate::domain::send::{SendKey, SendState};
use crate::ledger::{Contradiction, JournalEntry, Ledger, LedgerError, RunRecord};

/// One send, as recorded.
#[derive(Debug, Clone)]
pub struct SendRecord {
    /// The name of the campaign in its last run.
    pub campaign: String,
    /// The edition of the campaign.
    pub edition: u32,
    /// The state of the send. The intent of a run that is over counts as unknown.
    pub state: SendState,
    /// The last entry of the journal about it.
    pub last: JournalEntry,
    /// The phone number with its middle digits hidden.
    pub masked: String,
    /// The run that claimed the last attempt.
    pub run: i64,
}

/// The sends whose keys `wanted` selects, in the order of their last entries.
pub async fn sends(
    ledger: &mut dyn Ledger,
    campaign: Option<&str>,
    wanted: impl Fn(&SendKey) -> bool + Send + Sync,
) -> Result<Vec<SendRecord>, LedgerError> {
    let all = ledger.runs().await?;
    let recorded_as = campaign.and_then(|name| recorded_as(&all, name));
    if campaign.is_some() && recorded_as.is_none() {
        return Ok(Vec::new());
    }
    let runs: HashMap<i64, RunRecord> = all.into_iter().map(|run| (run.id, run)).collect();
    let accepted = accepted_before(ledger).await?;
    let mut found: HashMap<SendKey, SendRecord> = HashMap::new();
    ledger
        .journal(recorded_as.as_deref(), &mut |entry| {
            if !wanted(&entry.key) {
                return;
            }
            let Some(run) = runs.get(&entry.run) else { return };
            let state = entry.state();
            let masked = entry.intent().and_then(|intent| intent.masked.clone());
            let record = found.entry(entry.key).or_insert_with(|| SendRecord {
                campaign: run.name.clone(),
                edition: run.edition,
                state,
                masked: String::new(),
                run: run.id,
                last: entry.clone(),
            });
            record.state = state;
            if state == SendState::Intent {
                record.run = entry.run;
            }
            if let Some(masked) = masked {
                record.masked = masked;
            }
            record.last = entry;
        })
        .await?;
    let mut found: Vec<SendRecord> = found.into_values().collect();
    for record in &mut found {
        if record.state == SendState::Intent && runs.get(&record.run).is_some_and(|run| !run.live) {
            record.state = SendState::Unknown;
        }
        if matches!(record.state, SendState::NotSent | SendState::Rejected) && accepted.contains(&record.last.key) {
            record.state = SendState::Accepted;
        }
    }
    found.sort_by_key(|record| record.last.seq);
    Ok(found)
}

/// The reports about one send that the record could not follow.
pub async fn contradictions(ledger: &mut dyn Ledger, key: SendKey) -> Result<Vec<Contradiction>, LedgerError> {
    let mut found = ledger.contradictions().await?;
    found.retain(|contradiction| contradiction.key == key);
    Ok(found)
}

/// All entries of one send.
pub async fn history(ledger: &mut dyn Ledger, key: SendKey) -> Result<Vec<JournalEntry>, LedgerError> {
    let mut entries = Vec::new();
    ledger
        .journal(None, &mut |entry| {
            if entry.key == key {
                entries.push(entry);
            }
        })
        .await?;
    Ok(entries)
}
