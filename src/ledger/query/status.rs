//! The figures of campaigns.

use std::collections::{BTreeMap, HashMap};

use super::{accepted_before, recorded_as};
use crate::domain::send::{BySend, SendState};
use crate::ledger::{Contradiction, Ledger, LedgerError, RunCounts, RunRecord};

/// The figures of one campaign.
#[derive(Debug, Clone)]
pub struct CampaignStatus {
    /// The campaign, by its latest name.
    pub campaign: String,
    /// The edition of the campaign.
    pub edition: u32,
    /// How many recipients the last run had.
    pub recipients: u64,
    /// Sends in the state `accepted`.
    pub accepted: u64,
    /// Sends in the state `rejected`.
    pub rejected: u64,
    /// Sends in the state `unknown`, and intents of runs that are over.
    pub unknown: u64,
    /// Intents of runs that are under way.
    pub in_flight: u64,
    /// Reports of its runs that the record could not follow.
    pub contradictions: Vec<Contradiction>,
    /// Its runs, the latest first.
    pub runs: Vec<RunRecord>,
}

/// The figures of all campaigns, or of one, the latest first.
pub async fn status(ledger: &mut dyn Ledger, campaign: Option<&str>) -> Result<Vec<CampaignStatus>, LedgerError> {
    let all = ledger.runs().await?;
    let recorded_as = campaign.and_then(|name| recorded_as(&all, name));
    if campaign.is_some() && recorded_as.is_none() {
        return Ok(Vec::new());
    }
    let runs: HashMap<i64, RunRecord> = all
        .into_iter()
        .filter(|run| recorded_as.as_ref().is_none_or(|wanted| run.campaign == *wanted))
        .map(|run| (run.id, run))
        .collect();
    let mut sends: BySend<(SendState, i64)> = BySend::default();
    let mut counts: HashMap<i64, RunCounts> = HashMap::new();
    ledger
        .journal(recorded_as.as_deref(), &mut |entry| {
            if !runs.contains_key(&entry.run) {
                return;
            }
            if entry.is_of_its_run() {
                let counts = counts.entry(entry.run).or_default();
                match entry.state() {
                    SendState::Accepted => counts.accepted += 1,
                    SendState::Rejected => counts.rejected += 1,
                    SendState::Unknown => counts.unknown += 1,
                    SendState::NotSent => counts.not_sent += 1,
                    SendState::Intent => {}
                }
            }
            let send = sends.entry(entry.key).or_insert((entry.state(), entry.run));
            if entry.is_of_its_run() && (send.0, entry.state()) == (SendState::Accepted, SendState::Unknown) {
                // Its run took the acceptance back.
                let counts = counts.entry(entry.run).or_default();
                counts.accepted = counts.accepted.saturating_sub(1);
            }
            send.0 = entry.state();
            if entry.state() == SendState::Intent {
                send.1 = entry.run;
            }
        })
        .await?;
    let mut found: BTreeMap<(String, u32), CampaignStatus> = BTreeMap::new();
    for run in runs.values() {
        let status = found.entry((run.campaign.clone(), run.edition)).or_insert_with(|| CampaignStatus {
            campaign: run.name.clone(),
            edition: run.edition,
            recipients: 0,
            accepted: 0,
            rejected: 0,
            unknown: 0,
            in_flight: 0,
            contradictions: Vec::new(),
            runs: Vec::new(),
        });
        // A run without a recorded ending still has its entries.
        let counts = run.counts.or_else(|| counts.get(&run.id).copied()).or(Some(RunCounts::default()));
        status.runs.push(RunRecord { counts, ..run.clone() });
    }
    let accepted = accepted_before(ledger).await?;
    for (key, (state, run)) in sends {
        let state = match state {
            SendState::NotSent | SendState::Rejected if accepted.contains(&key) => SendState::Accepted,
            state => state,
        };
        let Some(run) = runs.get(&run) else { continue };
        let Some(status) = found.get_mut(&(run.campaign.clone(), run.edition)) else { continue };
        match state {
            SendState::Accepted => status.accepted += 1,
            SendState::Rejected => status.rejected += 1,
            SendState::Intent if run.live => status.in_flight += 1,
            SendState::Intent | SendState::Unknown => status.unknown += 1,
            SendState::NotSent => {}
        }
    }
    for contradiction in ledger.contradictions().await? {
        let Some(run) = runs.get(&contradiction.run) else { continue };
        if let Some(status) = found.get_mut(&(run.campaign.clone(), run.edition)) {
            status.contradictions.push(contradiction);
        }
    }
    let mut found: Vec<CampaignStatus> = found.into_values().collect();
    for status in &mut found {
        status.runs.sort_by_key(|run| std::cmp::Reverse(run.id));
        if let Some(last) = status.runs.first() {
            status.recipients = last.recipients;
            status.campaign.clone_from(&last.name);
        }
    }
    found.sort_by_key(|status| std::cmp::Reverse(status.runs.first().map(|run| run.id)));
    Ok(found)
}
