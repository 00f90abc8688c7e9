//! What the ledger has recorded, as JSON: runs, entries, links and contradictions, and the outputs of
//! `status`, `sends`, `resolve`, `ledger check` and `ledger export`.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::FormatVersion;
use crate::cli::recipients::Row;
use crate::domain::send::SendState;
use crate::ledger::protocol::Finding;
use crate::ledger::query::{CampaignStatus, Check, SendRecord, time};
use crate::ledger::record::instant;
use crate::ledger::{
    Contradiction, EvidenceSource, Head, JournalEntry, JournalKind, Link, LinkKind, RunCounts, RunRecord, SendKey,
};
use crate::util::hex;

/// One run, as the ledger has recorded it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct RunJson {
    /// The run's number in this ledger. Numbers rise.
    id: i64,
    /// The campaign, by the name that it is recorded under.
    campaign: String,
    /// The edition of the campaign.
    edition: u32,
    /// The name in the manifest. It differs from `campaign` if the campaign was renamed.
    name: String,
    /// The hash of the approved plan.
    plan_hash: String,
    /// The instant that the plan's expiry counts from.
    planned_at: Timestamp,
    /// How many recipients the campaign had.
    recipients: u64,
    /// The manifest's path below the project's root. Older versions did not record this and the next four fields.
    manifest: Option<String>,
    /// Where messages went: `sandbox`, `loopback`, or the provider's host name.
    destination: Option<String>,
    /// A fingerprint of the account that messages were sent from.
    account: Option<String>,
    /// The number that messages were sent from.
    sender: Option<String>,
    /// The environment that the manifest was read for.
    environment: Option<String>,
    /// The machine that the run was started on.
    host: String,
    /// The person, or the pipeline's user, who started it.
    actor: String,
    /// The process id.
    pid: u32,
    /// The version of sendform.
    version: String,
    /// When the run started.
    started_at: Timestamp,
    /// The run's last heartbeat, where heartbeats are recorded.
    heartbeat_at: Option<Timestamp>,
    /// When the run ended; null if no ending is recorded.
    ended_at: Option<Timestamp>,
    /// How it ended: `complete`, `partial`, `interrupted`, `stopped`, `lost`, `unlocked` or `restored`; later
    /// versions may record others.
    ending: Option<String>,
    /// The results of its attempts; null if no ending is recorded.
    counts: Option<RunCountsJson>,
    /// Whether the run is under way.
    live: bool,
}

/// The results of the attempts of one run.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
struct RunCountsJson {
    /// Messages that the provider accepted.
    accepted: u64,
    /// Messages that the provider rejected.
    rejected: u64,
    /// Messages that may have been sent.
    unknown: u64,
    /// Attempts that provably sent nothing.
    not_sent: u64,
}

impl From<RunCounts> for RunCountsJson {
    fn from(counts: RunCounts) -> Self {
        let RunCounts { accepted, rejected, unknown, not_sent } = counts;
        Self { accepted, rejected, unknown, not_sent }
    }
}

impl From<&RunRecord> for RunJson {
    fn from(run: &RunRecord) -> Self {
        let run = run.clone();
        Self {
            id: run.id,
            campaign: run.campaign,
            edition: run.edition,
            name: run.name,
            plan_hash: run.plan_hash,
            planned_at: run.planned_at,
            recipients: run.recipients,
            manifest: run.manifest,
            destination: run.destination,
            account: run.account,
            sender: run.sender,
            environment: run.environment,
            host: run.host,
            actor: run.actor,
            pid: run.pid,
            version: run.version,
            started_at: run.started_at,
            heartbeat_at: run.heartbeat_at,
            ended_at: run.ended_at,
            ending: run.ending.map(|ending| ending.to_string()),
            counts: run.counts.map(RunCountsJson::from),
            live: run.live,
        }
    }
}

/// A result that a run reported and that the record could not follow, because the send had been settled otherwise.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ContradictionJson {
    /// The send.
    send: String,
    /// The run that reported it.
    run: i64,
    /// When.
    at: Timestamp,
    /// The attempt.
    attempt: u32,
    /// The result that the run reported.
    said: SendState,
    /// The provider's id of the message.
    message_id: Option<String>,
    /// The provider's reason.
    reason: Option<String>,
    /// The recorded state of the send at that time.
    stood: SendState,
    /// The last recorded attempt at that time.
    stood_attempt: u32,
}

impl From<&Contradiction> for ContradictionJson {
    fn from(found: &Contradiction) -> Self {
        Self {
            send: found.key.to_string(),
            run: found.run,
            at: instant(found.at),
            attempt: found.attempt,
            said: found.said,
            message_id: found.message_id.clone(),
            reason: found.reason.clone(),
            stood: found.stood,
            stood_attempt: found.stood_attempt,
        }
    }
}

fn contradictions(found: &[Contradiction]) -> Vec<ContradictionJson> {
    found.iter().map(ContradictionJson::from).collect()
}

/// Who wrote an entry, if the run of the attempt did not.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum EntrySource {
    /// A person decided.
    Decision,
    /// The provider sent a delivery receipt for the message.
    Receipt,
    /// The provider's report lists the message.
    Report,
    /// The run of the attempt was over and had recorded no result.
    Abandoned,
}

impl EntrySource {
    fn of(kind: &JournalKind) -> Option<Self> {
        match kind {
            JournalKind::Settlement { .. } => None,
            JournalKind::Intent(intent) => intent.restored.is_some().then_some(Self::Decision),
            JournalKind::Abandoned { .. } => Some(Self::Abandoned),
            JournalKind::Evidence { source, .. } => Some(match source {
                EvidenceSource::Decision => Self::Decision,
                EvidenceSource::Receipt => Self::Receipt,
                EvidenceSource::Report => Self::Report,
            }),
        }
    }
}

/// One entry of the journal: a send moved to another state.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct EntryJson {
    /// The entry's number, which rises for each send.
    seq: i64,
    /// The run of the attempt.
    run: i64,
    /// When it was written.
    at: Timestamp,
    /// The send.
    send: String,
    /// The attempt, from 1.
    attempt: u32,
    /// The state of the send from then on.
    state: SendState,
    /// Of an intent: the phone number with its middle digits hidden.
    to: Option<String>,
    /// Of an intent: the digest of the message.
    digest: Option<String>,
    /// Of an intent: the code; `***` unless `--full` is given.
    coupon: Option<String>,
    /// Of an intent: when the offer ends.
    expires: Option<Timestamp>,
    /// The provider's id of the message.
    message_id: Option<String>,
    /// The reason for the state.
    reason: Option<String>,
    /// Who wrote the entry, if the run of the attempt did not.
    source: Option<EntrySource>,
    /// The person who decided.
    actor: Option<String>,
}

impl EntryJson {
    /// Shows the code only if `full` is set.
    pub(crate) fn new(entry: &JournalEntry, full: bool) -> Self {
        let intent = entry.intent();
        let coupon = intent.and_then(|intent| intent.coupon.as_deref()).map(|code| if full { code } else { "***" });
        Self {
            seq: entry.seq,
            run: entry.run,
            at: instant(entry.at),
            send: entry.key.to_string(),
            attempt: entry.attempt,
            state: entry.state(),
            to: intent.and_then(|intent| intent.masked.clone()),
            digest: intent.and_then(|intent| intent.digest).map(|digest| hex::encode(&digest)),
            coupon: coupon.map(ToOwned::to_owned),
            expires: intent.and_then(|intent| intent.expires).map(instant),
            message_id: entry.message_id().map(ToOwned::to_owned),
            reason: entry.reason().map(ToOwned::to_owned),
            source: EntrySource::of(&entry.kind),
            actor: entry.actor().map(ToOwned::to_owned),
        }
    }
}

/// What `status --format json` prints: one campaign if one is named, else all of them.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum StatusJson {
    /// The campaign that the command names.
    One(OneCampaign),
    /// All campaigns.
    All {
        /// The version of this format: minor adds, major breaks.
        format_version: FormatVersion,
        /// The campaigns.
        campaigns: Vec<CampaignJson>,
    },
}

/// The campaign that the command names.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct OneCampaign {
    /// The version of this format: minor adds, major breaks.
    format_version: FormatVersion,
    /// The campaign, by the name that it is recorded under.
    campaign: Option<String>,
    /// The edition; null if nothing is recorded and the command names no manifest.
    edition: Option<u32>,
    /// How many recipients the last run was for.
    recipients: u64,
    /// How many sends are in each state.
    counts: CountsJson,
    /// Results that runs reported and that the record could not follow.
    contradictions: Vec<ContradictionJson>,
    /// The last run.
    last_run: Option<RunJson>,
    /// All runs, the latest first.
    runs: Vec<RunJson>,
}

/// One campaign of several.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CampaignJson {
    /// The campaign, by the name that it is recorded under.
    campaign: String,
    /// The edition.
    edition: u32,
    /// How many recipients the last run was for.
    recipients: u64,
    /// How many sends are in each state.
    counts: CountsJson,
    /// Results that runs reported and that the record could not follow.
    contradictions: Vec<ContradictionJson>,
    /// The last run.
    last_run: Option<RunJson>,
    /// All runs, the latest first.
    runs: Vec<RunJson>,
}

/// How many sends of a campaign are in each state.
#[derive(Debug, Clone, Copy, Default, Serialize, JsonSchema)]
pub(crate) struct CountsJson {
    /// The provider accepted the message.
    pub accepted: u64,
    /// The provider rejected the message.
    pub rejected: u64,
    /// The message may have been sent.
    pub unknown: u64,
    /// No outcome is recorded: not started, or under way.
    pub pending: u64,
    /// Being sent by runs that are under way.
    pub in_flight: u64,
}

impl From<&CampaignStatus> for CountsJson {
    fn from(status: &CampaignStatus) -> Self {
        let CampaignStatus { accepted, rejected, unknown, in_flight, .. } = *status;
        let pending = status.recipients.saturating_sub(accepted + rejected + unknown);
        Self { accepted, rejected, unknown, pending, in_flight }
    }
}

impl From<&CampaignStatus> for CampaignJson {
    fn from(status: &CampaignStatus) -> Self {
        Self {
            campaign: status.campaign.clone(),
            edition: status.edition,
            recipients: status.recipients,
            counts: status.into(),
            contradictions: contradictions(&status.contradictions),
            last_run: status.runs.first().map(RunJson::from),
            runs: status.runs.iter().map(RunJson::from).collect(),
        }
    }
}

impl StatusJson {
    /// The campaign that the command names, as far as it is recorded.
    pub(crate) fn one(name: Option<String>, edition: Option<u32>, status: Option<&CampaignStatus>) -> Self {
        Self::One(match status.map(CampaignJson::from) {
            Some(found) => OneCampaign {
                format_version: FormatVersion::STATUS,
                campaign: Some(found.campaign),
                edition: Some(found.edition),
                recipients: found.recipients,
                counts: found.counts,
                contradictions: found.contradictions,
                last_run: found.last_run,
                runs: found.runs,
            },
            None => OneCampaign {
                format_version: FormatVersion::STATUS,
                campaign: name,
                edition,
                recipients: 0,
                counts: CountsJson::default(),
                contradictions: Vec::new(),
                last_run: None,
                runs: Vec::new(),
            },
        })
    }

    /// All campaigns.
    pub(crate) fn all(campaigns: &[CampaignStatus]) -> Self {
        let campaigns = campaigns.iter().map(CampaignJson::from).collect();
        Self::All { format_version: FormatVersion::STATUS, campaigns }
    }
}

/// What `sends list --format json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SendsListJson {
    /// The version of this format: minor adds, major breaks.
    pub format_version: FormatVersion,
    /// How many sends match, also those that `--limit` leaves out.
    pub found: usize,
    /// The sends.
    pub sends: Vec<SendJson>,
}

/// One send, as the ledger has recorded it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SendJson {
    /// The send's key.
    send: String,
    /// The campaign, by the name that it is recorded under.
    campaign: String,
    /// The edition.
    edition: u32,
    /// The phone number with its middle digits hidden.
    to: String,
    /// Its state.
    state: SendState,
    /// The last attempt, from 1.
    attempt: u32,
    /// The run of the last attempt.
    run: i64,
    /// When the last entry was written, to the second.
    at: String,
    /// The provider's id of the message.
    message_id: Option<String>,
    /// The reason for the state.
    reason: Option<String>,
    /// The recipient's row in the audience, as `FILE:LINE`; null if the audience holds no row of this recipient any
    /// more; absent if the audience was not searched or could not be read to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    row: Option<Option<String>>,
}

impl SendJson {
    /// A send, with its row if the audience was searched.
    pub(crate) fn new(send: &SendRecord, row: Option<Row>) -> Self {
        Self {
            send: send.last.key.to_string(),
            campaign: send.campaign.clone(),
            edition: send.edition,
            to: send.masked.clone(),
            state: send.state,
            attempt: send.last.attempt,
            run: send.run,
            at: time(send.last.at),
            message_id: send.last.message_id().map(ToOwned::to_owned),
            reason: send.last.reason().map(ToOwned::to_owned),
            row: match row {
                Some(Row::At(place)) => Some(Some(place)),
                Some(Row::Gone) => Some(None),
                Some(Row::NotFound) | None => None,
            },
        }
    }
}

/// What `sends show --format json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SendsShowJson {
    /// The version of this format: minor adds, major breaks.
    format_version: FormatVersion,
    /// The send's key.
    send: String,
    /// Everything that is recorded of the send, in order.
    entries: Vec<EntryJson>,
    /// The runs of these entries.
    runs: Vec<RunJson>,
    /// Results that runs reported of this send and that the record could not follow.
    contradictions: Vec<ContradictionJson>,
}

impl SendsShowJson {
    /// Everything that is recorded of one send. Codes are not shown.
    pub(crate) fn new<'a>(
        send: SendKey,
        entries: &[JournalEntry],
        runs: impl IntoIterator<Item = &'a RunRecord>,
        found: &[Contradiction],
    ) -> Self {
        Self {
            format_version: FormatVersion::SENDS_SHOW,
            send: send.to_string(),
            entries: entries.iter().map(|entry| EntryJson::new(entry, false)).collect(),
            runs: runs.into_iter().map(RunJson::from).collect(),
            contradictions: contradictions(found),
        }
    }
}

/// What `resolve --format json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ResolveJson {
    /// The version of this format: minor adds, major breaks.
    pub format_version: FormatVersion,
    /// How many decisions settled a send.
    pub settled: usize,
    /// How many decisions were not recorded.
    pub refused: usize,
    /// The decisions, in the order in which they were given.
    pub decisions: Vec<DecisionJson>,
}

/// What one decision did.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DecisionJson {
    /// The send's key.
    pub send: String,
    /// The outcome that was decided.
    #[serde(rename = "as")]
    pub decided: SendState,
    /// What the ledger made of it.
    pub finding: Finding,
    /// The same in words, for people.
    pub told: String,
}

/// What `ledger check --format json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LedgerCheckJson {
    /// The version of this format: minor adds, major breaks.
    format_version: FormatVersion,
    /// The ledger's id.
    id: String,
    /// The head of the ledger's chain; null for a ledger of an old format.
    head: Option<String>,
    /// The result of the check.
    check: CheckJson,
}

/// The result of a check.
#[derive(Debug, Serialize, JsonSchema)]
struct CheckJson {
    /// How many runs the ledger holds.
    runs: u64,
    /// How many entries its journal holds.
    entries: u64,
    /// How many sends they are about.
    sends: u64,
    /// How many runs ended without sealing their part of the journal.
    unsealed: u64,
    /// The problems that were found. Empty if there are none.
    problems: Vec<String>,
    /// Results that runs reported and that the record could not follow. They are no problem of the record.
    contradictions: Vec<ContradictionJson>,
}

impl LedgerCheckJson {
    /// The result of a check of the ledger with this id and head.
    pub(crate) fn new(id: String, head: Option<Head>, check: &Check) -> Self {
        Self {
            format_version: FormatVersion::LEDGER_CHECK,
            id,
            head: head.map(|head| head.to_string()),
            check: CheckJson {
                runs: check.runs,
                entries: check.entries,
                sends: check.sends,
                unsealed: check.unsealed,
                problems: check.problems.clone(),
                contradictions: contradictions(&check.contradictions),
            },
        }
    }
}

/// One line of `ledger export`. The first is the ledger; the runs and the entries of the journal follow.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum ExportLine {
    /// The ledger.
    Ledger {
        /// The version of this format: minor adds, major breaks.
        format_version: FormatVersion,
        /// The ledger's chain.
        chain: Vec<LinkJson>,
    },
    /// A run.
    Run(RunJson),
    /// An entry of the journal.
    Entry(EntryJson),
}

/// A link of the ledger's chain.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LinkJson {
    /// The link's number and hash.
    head: String,
    /// What it stands for.
    kind: LinkKind,
    /// The run that it belongs to.
    run: Option<i64>,
    /// Of a link that belongs to no run: the text that it is hashed over.
    detail: Option<String>,
}

impl From<&Link> for LinkJson {
    fn from(link: &Link) -> Self {
        Self { head: link.head.to_string(), kind: link.kind, run: link.run, detail: link.detail.clone() }
    }
}
