//! What the record says, for people and pipelines: figures, single sends, and whether it is sound.
//!
//! All of it is read from the runs, the chain and the journal, so it is the same for every ledger.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;
use serde_json::{Value, json};

use super::chain::{EndLink, Head, JournalDigest, Link, LinkKind, StartLink};
use super::contradiction::ContradictionJson;
use super::protocol::{self, Hearing, Held, Stand};
use super::{BySend, Contradiction, Entry, Ledger, LedgerError, RunCounts, RunRecord, SendKey, SendState, Source};

/// One campaign's figures, for `status`.
#[derive(Debug, Clone)]
pub struct CampaignStatus {
    /// The campaign.
    pub campaign: String,
    /// Its edition.
    pub edition: u32,
    /// How many people the last run was for.
    pub recipients: u64,
    /// By state.
    pub accepted: u64,
    /// By state.
    pub rejected: u64,
    /// By state.
    pub unknown: u64,
    /// Being sent by runs that are under way now.
    pub in_flight: u64,
    /// What its runs reported that the record could not follow.
    pub contradictions: Vec<Contradiction>,
    /// Its runs, the latest first.
    pub runs: Vec<RunRecord>,
}

/// One send as the record has it.
#[derive(Debug, Clone)]
pub struct SendRecord {
    /// The campaign of its last run.
    pub campaign: String,
    /// Its edition.
    pub edition: u32,
    /// Where it stands. The intent of a run that is over is unknown.
    pub state: SendState,
    /// The last entry.
    pub last: Entry,
    /// The number with its middle hidden.
    pub masked: String,
    /// The run that claimed the last attempt.
    pub run: i64,
}

/// What `ledger check` found.
#[derive(Debug, Default, Serialize)]
pub struct Check {
    /// How many runs were looked at.
    pub runs: u64,
    /// How many entries of the journal were.
    pub entries: u64,
    /// How many sends they are about.
    pub sends: u64,
    /// How many runs ended without sealing their part of the journal.
    pub unsealed: u64,
    /// What is wrong. Empty if all is well.
    pub problems: Vec<String>,
    /// What runs reported that the record could not follow. The record is sound all the same.
    pub contradictions: Vec<ContradictionJson>,
    /// The same in words.
    #[serde(skip)]
    pub contradicting: Vec<String>,
}

/// How many problems are told one by one.
const MOST_PROBLEMS: usize = 50;

/// The name that a campaign is recorded under, by the name that it has or had.
fn recorded_as(runs: &[RunRecord], name: &str) -> Option<String> {
    let by = |of: fn(&RunRecord) -> &str| runs.iter().rev().find(|run| of(run) == name);
    by(|run| &run.name).or_else(|| by(|run| &run.campaign)).map(|run| run.campaign.clone())
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
            if entry.source.is_none() {
                let counts = counts.entry(entry.run).or_default();
                match entry.state {
                    SendState::Accepted => counts.accepted += 1,
                    SendState::Rejected => counts.rejected += 1,
                    SendState::Unknown => counts.unknown += 1,
                    SendState::NotSent => counts.not_sent += 1,
                    SendState::Intent => {}
                }
            }
            let send = sends.entry(entry.key).or_insert((entry.state, entry.run));
            if entry.source.is_none() && (send.0, entry.state) == (SendState::Accepted, SendState::Unknown) {
                // Its run took the acceptance back.
                let counts = counts.entry(entry.run).or_default();
                counts.accepted = counts.accepted.saturating_sub(1);
            }
            send.0 = entry.state;
            if entry.state == SendState::Intent {
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
        // A run that did not get to say how it ended still has its entries.
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

/// Sends of which an earlier attempt was accepted, as its run reported too late: whatever became of
/// later attempts, nothing more is sent.
async fn accepted_before(ledger: &mut dyn Ledger) -> Result<HashSet<SendKey>, LedgerError> {
    let contradictions = ledger.contradictions().await?;
    Ok(contradictions.iter().filter(|found| found.said == SendState::Accepted).map(|found| found.key).collect())
}

/// The sends that `wanted` picks by key, as they stand, in the order of their last entries.
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
            let (state, masked) = (entry.state, entry.masked.clone());
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

/// What runs reported of one send that the record could not follow.
pub async fn contradictions(ledger: &mut dyn Ledger, key: SendKey) -> Result<Vec<Contradiction>, LedgerError> {
    let mut found = ledger.contradictions().await?;
    found.retain(|contradiction| contradiction.key == key);
    Ok(found)
}

/// Every entry of one send.
pub async fn history(ledger: &mut dyn Ledger, key: SendKey) -> Result<Vec<Entry>, LedgerError> {
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

/// The head of the chain; nothing for a ledger without one.
pub async fn head(ledger: &mut dyn Ledger) -> Result<Option<Head>, LedgerError> {
    Ok(ledger.chain().await?.last().map(|link| link.head))
}

/// Why a ledger is not the one, or behind the one, that had this head; nothing if it is.
pub async fn behind(ledger: &mut dyn Ledger, wanted: Head) -> Result<Option<String>, LedgerError> {
    let chain = ledger.chain().await?;
    let last = chain.last().map_or(0, |link| link.head.number);
    if chain.iter().any(|link| link.head == wanted) {
        return Ok(None);
    }
    Ok(Some(if wanted.number > last {
        format!("the ledger is behind: its head is link {last}, and link {} was seen before", wanted.number)
    } else {
        format!(
            "the ledger has another link {} than was seen before: it is another ledger, or a copy that went its own way",
            wanted.number
        )
    }))
}

/// Holds the whole record against the protocol.
pub async fn check(ledger: &mut dyn Ledger) -> Result<Check, LedgerError> {
    let mut check = Check::default();
    let mut problems: Vec<String> = ledger.sound().await?;
    // Appliers may begin and end meanwhile. So the chain is read first and the runs last: what the
    // chain says of a run is in the journal by then, and recorded.
    let links = ledger.chain().await?;
    let mut known: BySend<Known> = BySend::default();
    // Late acceptances of earlier attempts: the intents that they are about are looked for afterwards.
    let mut late: HashMap<(SendKey, u32), i64> = HashMap::new();
    let mut digests: HashMap<i64, JournalDigest> = HashMap::new();
    let mut entries = 0;
    ledger
        .journal(None, &mut |entry| {
            entries += 1;
            digests.entry(entry.run).or_default().add(&entry);
            let before = known.get(&entry.key).copied();
            if let Some(problem) = illegal(before, &entry) {
                problems.push(format!("entry {}, send {}: {problem}", entry.seq, entry.key));
            }
            if before.is_some_and(|before| before.stand.attempt > entry.attempt) {
                late.insert((entry.key, entry.attempt), entry.run);
            }
            known.insert(entry.key, Known::after(before, &entry));
        })
        .await?;
    if !late.is_empty() {
        ledger
            .journal(None, &mut |entry| {
                if entry.state == SendState::Intent && late.get(&(entry.key, entry.attempt)) == Some(&entry.run) {
                    late.remove(&(entry.key, entry.attempt));
                }
            })
            .await?;
        problems.extend(
            late.keys().map(|(key, attempt)| format!("send {key}: attempt {attempt} was accepted and never began")),
        );
    }
    let contradictions = ledger.contradictions().await?;
    check.contradicting =
        contradictions.iter().map(|found| format!("send {}: {}", found.key, found.sentence())).collect();
    check.contradictions = contradictions.iter().map(ContradictionJson::from).collect();
    check.entries = entries;
    check.sends = known.len() as u64;
    let runs: BTreeMap<i64, RunRecord> = ledger.runs().await?.into_iter().map(|run| (run.id, run)).collect();
    check.runs = runs.len() as u64;
    for run in digests.keys().filter(|run| !runs.contains_key(run)) {
        problems.push(format!("the journal names run {run}, which is not recorded"));
    }
    let sealed = chain(&links, &runs, &mut problems);
    for run in runs.values() {
        match run.digest {
            None if run.live => {}
            None => check.unsealed += 1,
            Some(digest) if sealed.contains(&run.id) => {
                if digests.get(&run.id).copied().unwrap_or_default().bytes() != digest {
                    problems.push(format!("the journal of run {} is not as the run sealed it", run.id));
                }
            }
            // It ended while the journal was read.
            Some(_) => {}
        }
    }
    let more = problems.len().saturating_sub(MOST_PROBLEMS);
    problems.truncate(MOST_PROBLEMS);
    if more > 0 {
        problems.push(format!("and {more} more"));
    }
    check.problems = problems;
    Ok(check)
}

/// What `check` knows of a send.
#[derive(Debug, Clone, Copy)]
struct Known {
    stand: Stand,
    /// Of which attempt its run said so itself.
    own_word: Option<u32>,
    /// For which attempt an id was recorded last.
    id_of: Option<u32>,
}

impl Known {
    fn after(before: Option<Self>, entry: &Entry) -> Self {
        let (attempt, run) = match before {
            Some(before) if entry.state != SendState::Intent => {
                (before.stand.attempt.max(entry.attempt), before.stand.run)
            }
            _ => (entry.attempt, entry.run),
        };
        Self {
            stand: Stand { state: entry.state, attempt, run },
            own_word: entry.source.is_none().then_some(entry.attempt),
            id_of: entry.message_id.is_some().then_some(entry.attempt),
        }
    }
}

/// Why an entry may not follow what is recorded before it.
fn illegal(before: Option<Known>, entry: &Entry) -> Option<String> {
    let stand = before.map(|before| before.stand);
    let open = |states: &[SendState]| {
        stand.is_some_and(|stand| stand.attempt == entry.attempt && states.contains(&stand.state))
    };
    let allowed = match (entry.state, entry.source) {
        // An intent that the ledger had lost comes back with whatever attempt it was.
        (SendState::Intent, Some(Source::Decision)) => stand.is_none_or(|stand| stand.attempt < entry.attempt),
        // Whether refused sends may be tried again was up to the run.
        (SendState::Intent, _) => protocol::may_claim(stand, entry.attempt, true),
        (state, None) => before.is_some_and(|before| {
            let stand = before.stand;
            // Format 1 did not say that the run of an attempt was over: others wrote `unknown`.
            let run = if state == SendState::Unknown || entry.attempt < stand.attempt { stand.run } else { entry.run };
            let own_word = before.own_word == Some(entry.attempt);
            let held = Held { stand, claimed: true, own_word, has_id: before.id_of == Some(entry.attempt) };
            matches!(protocol::hear(Some(held), entry.attempt, run, state), Hearing::Moves | Hearing::AddsId)
        }),
        (_, Some(Source::Abandoned)) => open(&[SendState::Intent]),
        // A lost send that comes back makes no send pending that may have arrived.
        (SendState::Accepted | SendState::Unknown, Some(Source::Decision)) => {
            open(&[SendState::Unknown]) && entry.state == SendState::Accepted
                || stand.is_some_and(|stand| {
                    stand.attempt >= entry.attempt && matches!(stand.state, SendState::NotSent | SendState::Rejected)
                })
        }
        (_, Some(_)) => open(&[SendState::Unknown]),
    };
    let before =
        stand.map_or_else(|| "nothing".to_owned(), |stand| format!("{} of attempt {}", stand.state, stand.attempt));
    (!allowed).then(|| format!("{} of attempt {} after {before}", entry.state, entry.attempt))
}

/// Computes the chain anew from the runs. Tells which runs it says have ended.
fn chain(links: &[Link], runs: &BTreeMap<i64, RunRecord>, problems: &mut Vec<String>) -> HashSet<i64> {
    let mut started = HashSet::new();
    let mut sealed = HashSet::new();
    let mut before: Option<Head> = None;
    for link in links {
        let run = link.run.and_then(|run| runs.get(&run));
        let expected = match (link.kind, before, run) {
            (LinkKind::Ledger, None, _) => Some(link.head),
            (LinkKind::Start, Some(before), Some(run)) => {
                started.insert(run.id);
                Some(before.started(&StartLink {
                    run: run.id,
                    campaign: &run.campaign,
                    edition: run.edition,
                    plan_hash: &run.plan_hash,
                    started_at: run.started_at.as_millisecond(),
                }))
            }
            (LinkKind::End, Some(before), Some(run)) => {
                sealed.insert(run.id);
                match (run.ended_at, &run.ending, run.counts, run.digest) {
                    (Some(ended_at), Some(ending), Some(counts), Some(digest)) => Some(before.ended(&EndLink {
                        run: run.id,
                        ending,
                        ended_at: ended_at.as_millisecond(),
                        counts,
                        digest,
                    })),
                    _ => None,
                }
            }
            (LinkKind::Restored, Some(before), _) => {
                link.detail.as_deref().map(|detail| before.noted(link.kind, detail))
            }
            _ => None,
        };
        if expected != Some(link.head) {
            problems.push(format!("link {} of the chain does not follow from the one before", link.head.number));
        }
        before = Some(link.head);
    }
    let last = started.iter().max().copied().unwrap_or(0);
    for run in runs.values().filter(|run| run.id < last && !started.contains(&run.id)) {
        problems.push(format!("run {} is not in the chain", run.id));
    }
    sealed
}

/// An instant of the record, to the second.
pub fn time(milliseconds: i64) -> String {
    format!("{:.0}", super::instant(milliseconds))
}

/// An entry as JSON; its code in full only if asked for.
pub fn entry_json(entry: &Entry, full: bool) -> Value {
    let hex = |bytes: &[u8; 32]| blake3::Hash::from(*bytes).to_hex().to_string();
    let coupon = entry.coupon.as_deref().map(|code| if full { code.to_owned() } else { "***".to_owned() });
    json!({
        "seq": entry.seq,
        "run": entry.run,
        "at": super::instant(entry.at),
        "send": entry.key.to_string(),
        "attempt": entry.attempt,
        "state": entry.state,
        "to": entry.masked,
        "digest": entry.digest.as_ref().map(hex),
        "coupon": coupon,
        "expires": entry.expires.map(super::instant),
        "message_id": entry.message_id,
        "reason": entry.reason,
        "source": entry.source,
        "actor": entry.actor,
    })
}

/// A link of the chain as JSON.
pub fn link_json(link: &Link) -> Value {
    json!({ "head": link.head.to_string(), "kind": link.kind.as_str(), "run": link.run, "detail": link.detail })
}
