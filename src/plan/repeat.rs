//! Whether a new campaign is an old one under another name.
//!
//! Send keys differ by campaign, so a renamed campaign would send to everybody again. When nothing is
//! recorded of a campaign yet, its first recipients are looked up under every other campaign of the
//! ledger: most of them having had the same words there is no coincidence.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::audience::Identity;
use crate::ledger::{Ledger, LedgerError, LedgerKey, SendKey, State};

/// How many recipients are looked up.
pub const SAMPLE: usize = 100_000;

/// Another campaign that most recipients had the same message from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Repeat {
    /// The other campaign.
    pub campaign: String,
    /// Its edition.
    pub edition: u32,
    /// How many of the recipients that were looked up had the same message from it.
    pub same: u64,
    /// How many were looked up.
    pub of: u64,
}

/// Looks for a campaign, other than `record`, that most of `sample` had the same message from.
pub async fn find(
    ledger: &mut dyn Ledger,
    key: &LedgerKey,
    record: &str,
    sample: &[(Identity, i64)],
) -> Result<Option<Repeat>, LedgerError> {
    if sample.is_empty() {
        return Ok(None);
    }
    let mut others: Vec<(String, u32, String)> = Vec::new();
    for run in ledger.runs().await? {
        if run.campaign != record && !others.iter().any(|other| other.0 == run.campaign && other.1 == run.edition) {
            others.push((run.campaign, run.edition, run.name));
        }
    }
    for (campaign, edition, name) in others {
        let keys = key.send_keys(&campaign, edition);
        let wanted: HashMap<SendKey, i64> =
            sample.iter().map(|(person, likeness)| (keys.of(*person), *likeness)).collect();
        let mut had: HashMap<SendKey, (bool, State)> = HashMap::new();
        ledger
            .journal(Some(&campaign), &mut |entry| {
                let Some(likeness) = wanted.get(&entry.key) else { return };
                let send = had.entry(entry.key).or_insert((false, entry.state));
                send.1 = entry.state;
                if entry.state == State::Intent {
                    send.0 = entry.likeness == Some(*likeness);
                }
            })
            .await?;
        let same = had.values().filter(|(same, state)| *same && *state != State::NotSent && *state != State::Rejected);
        let same = same.count() as u64;
        if same * 2 > wanted.len() as u64 {
            return Ok(Some(Repeat { campaign: name, edition, same, of: wanted.len() as u64 }));
        }
    }
    Ok(None)
}
