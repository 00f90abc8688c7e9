//! Checks the whole record against the protocol, and the chain against the runs.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::domain::send::{BySend, EvidenceSource, SendKey, SendState};
use crate::ledger::chain::{JournalDigest, LinkKind};
use crate::ledger::contradiction::Contradiction;
use crate::ledger::head::{EndLink, StartLink};
use crate::ledger::protocol::{self, LastAttempt, ReportContext, ReportEffect};
use crate::ledger::{Head, JournalEntry, JournalKind, Ledger, LedgerError, Link, RunRecord};

/// The result of a check.
#[derive(Debug, Default)]
pub struct Check {
    /// How many runs were checked.
    pub runs: u64,
    /// How many entries of the journal were checked.
    pub entries: u64,
    /// How many sends they are about.
    pub sends: u64,
    /// How many runs ended without sealing their part of the journal.
    pub unsealed: u64,
    /// The problems that were found. Empty if there are none.
    pub problems: Vec<String>,
    /// Reports of runs that the record could not follow. They are no problem of the record.
    pub contradictions: Vec<Contradiction>,
}

/// How many problems are listed one by one.
const MAX_PROBLEMS: usize = 50;

/// The head of the chain; nothing for a ledger without one.
pub async fn head(ledger: &mut dyn Ledger) -> Result<Option<Head>, LedgerError> {
    Ok(ledger.chain().await?.last().map(|link| link.head))
}

/// Checks that the ledger holds a head that was printed before. Returns the problem if it does not.
pub async fn check_head(ledger: &mut dyn Ledger, wanted: Head) -> Result<Option<String>, LedgerError> {
    let chain = ledger.chain().await?;
    let last = chain.last().map_or(0, |link| link.head.number);
    if chain.iter().any(|link| link.head == wanted) {
        return Ok(None);
    }
    Ok(Some(if wanted.number > last {
        format!("the ledger is behind: its head is link {last}, and link {} was seen before", wanted.number)
    } else {
        format!(
            "link {} of the ledger differs from the one that was seen before: it is another ledger, or a copy that was used separately",
            wanted.number
        )
    }))
}

/// Checks the whole record against the protocol.
pub async fn check(ledger: &mut dyn Ledger) -> Result<Check, LedgerError> {
    let mut check = Check::default();
    let mut problems: Vec<String> = ledger.verify_storage().await?;
    // Runs may begin and end during the check. So the chain is read first and the runs last: by then the
    // journal and the runs hold everything that the chain mentions.
    let links = ledger.chain().await?;
    let mut known: BySend<Known> = BySend::default();
    // Late acceptances of earlier attempts: their intents are looked up afterwards.
    let mut late: HashMap<(SendKey, u32), i64> = HashMap::new();
    let mut digests: HashMap<i64, JournalDigest> = HashMap::new();
    let mut entries = 0;
    ledger
        .journal(None, &mut |entry| {
            entries += 1;
            digests.entry(entry.run).or_default().add(&entry);
            let before = known.get(&entry.key).copied();
            if let Some(problem) = forbidden(before, &entry) {
                problems.push(format!("entry {}, send {}: {problem}", entry.seq, entry.key));
            }
            if before.is_some_and(|before| before.last.attempt > entry.attempt) {
                late.insert((entry.key, entry.attempt), entry.run);
            }
            known.insert(entry.key, Known::after(before, &entry));
        })
        .await?;
    if !late.is_empty() {
        ledger
            .journal(None, &mut |entry| {
                if entry.state() == SendState::Intent && late.get(&(entry.key, entry.attempt)) == Some(&entry.run) {
                    late.remove(&(entry.key, entry.attempt));
                }
            })
            .await?;
        problems.extend(
            late.keys().map(|(key, attempt)| format!("send {key}: attempt {attempt} was accepted without an intent")),
        );
    }
    check.contradictions = ledger.contradictions().await?;
    check.entries = entries;
    check.sends = known.len() as u64;
    let runs: BTreeMap<i64, RunRecord> = ledger.runs().await?.into_iter().map(|run| (run.id, run)).collect();
    check.runs = runs.len() as u64;
    for run in digests.keys().filter(|run| !runs.contains_key(run)) {
        problems.push(format!("the journal mentions run {run}, which is not recorded"));
    }
    let sealed = check_chain(&links, &runs, &mut problems);
    for run in runs.values() {
        match run.digest {
            None if run.live => {}
            None => check.unsealed += 1,
            Some(digest) if sealed.contains(&run.id) => {
                if digests.get(&run.id).copied().unwrap_or_default().bytes() != digest {
                    problems.push(format!("the journal of run {} differs from what the run sealed", run.id));
                }
            }
            // The run ended while the journal was read.
            Some(_) => {}
        }
    }
    let more = problems.len().saturating_sub(MAX_PROBLEMS);
    problems.truncate(MAX_PROBLEMS);
    if more > 0 {
        problems.push(format!("and {more} more"));
    }
    check.problems = problems;
    Ok(check)
}

/// What the check knows of a send.
#[derive(Debug, Clone, Copy)]
struct Known {
    last: LastAttempt,
    /// The attempt for which its run itself reported this state.
    own_word: Option<u32>,
    /// The attempt for which a message id was recorded last.
    id_of: Option<u32>,
}

impl Known {
    fn after(before: Option<Self>, entry: &JournalEntry) -> Self {
        let state = entry.state();
        let (attempt, run) = match before {
            Some(before) if state != SendState::Intent => (before.last.attempt.max(entry.attempt), before.last.run),
            _ => (entry.attempt, entry.run),
        };
        Self {
            last: LastAttempt { state, attempt, run },
            own_word: entry.is_of_its_run().then_some(entry.attempt),
            id_of: entry.message_id().is_some().then_some(entry.attempt),
        }
    }
}

/// Why an entry may not follow what is recorded before it.
fn forbidden(before: Option<Known>, entry: &JournalEntry) -> Option<String> {
    let last = before.map(|before| before.last);
    let state = entry.state();
    let was = |wanted: SendState| last.is_some_and(|last| last.attempt == entry.attempt && last.state == wanted);
    let allowed = match &entry.kind {
        // A lost intent is recorded again with whatever attempt it was.
        JournalKind::Intent(intent) if intent.restored.is_some() => {
            last.is_none_or(|last| last.attempt < entry.attempt)
        }
        // Whether rejected sends may be claimed again was up to the run.
        JournalKind::Intent(_) => protocol::may_claim(last, entry.attempt, true),
        JournalKind::Settlement { .. } => before.is_some_and(|before| {
            let last = before.last;
            // In format 1, whoever found that a run was over wrote `unknown` without a source.
            let run = if state == SendState::Unknown || entry.attempt < last.attempt { last.run } else { entry.run };
            let own_word = before.own_word == Some(entry.attempt);
            let context = ReportContext { last, claimed: true, own_word, has_id: before.id_of == Some(entry.attempt) };
            matches!(
                protocol::evaluate_report(Some(context), entry.attempt, run, state),
                ReportEffect::Moves | ReportEffect::AddsId
            )
        }),
        JournalKind::Abandoned { .. } => was(SendState::Intent),
        // Recording a lost send again never makes a send pending that may have arrived.
        JournalKind::Evidence { source: EvidenceSource::Decision, .. }
            if matches!(state, SendState::Accepted | SendState::Unknown) =>
        {
            was(SendState::Unknown) && state == SendState::Accepted
                || last.is_some_and(|last| {
                    last.attempt >= entry.attempt && matches!(last.state, SendState::NotSent | SendState::Rejected)
                })
        }
        JournalKind::Evidence { .. } => was(SendState::Unknown),
    };
    let before =
        last.map_or_else(|| "nothing".to_owned(), |last| format!("{} of attempt {}", last.state, last.attempt));
    (!allowed).then(|| format!("{state} of attempt {} after {before}", entry.attempt))
}

/// Computes the chain again from the runs. Returns the runs whose ends are in the chain.
fn check_chain(links: &[Link], runs: &BTreeMap<i64, RunRecord>, problems: &mut Vec<String>) -> HashSet<i64> {
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
                        ending: ending.as_str(),
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
