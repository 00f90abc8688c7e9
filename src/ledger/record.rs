//! What a ledger records: runs, and the journal of their sends.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

use super::error::UnknownValue;
use super::protocol::LastAttempt;
use crate::domain::clock::Clock;
use crate::domain::expiry::ExpiresAt;
use crate::domain::send::{Evidence, EvidenceSource, Intent, SendKey, SendState, Settlement};

/// The number that stands for each state in the column `kind` of the journal, and in `state`.
pub(crate) mod code {
    /// [`SendState::Intent`](super::SendState::Intent)
    pub(crate) const INTENT: i16 = 1;
    /// [`SendState::Accepted`](super::SendState::Accepted)
    pub(crate) const ACCEPTED: i16 = 2;
    /// [`SendState::Rejected`](super::SendState::Rejected)
    pub(crate) const REJECTED: i16 = 3;
    /// [`SendState::Unknown`](super::SendState::Unknown)
    pub(crate) const UNKNOWN: i16 = 4;
    /// [`SendState::NotSent`](super::SendState::NotSent)
    pub(crate) const NOT_SENT: i16 = 5;
}

/// The number that stands for a state.
pub(crate) fn state_code(state: SendState) -> i16 {
    match state {
        SendState::Intent => code::INTENT,
        SendState::Accepted => code::ACCEPTED,
        SendState::Rejected => code::REJECTED,
        SendState::Unknown => code::UNKNOWN,
        SendState::NotSent => code::NOT_SENT,
    }
}

/// The state that a number stands for.
pub(crate) fn state_of(code: i64) -> Result<SendState, UnknownValue> {
    SendState::ALL
        .into_iter()
        .find(|state| i64::from(state_code(*state)) == code)
        .ok_or_else(|| UnknownValue::new("kind", code))
}

/// Who uses a ledger, and the clock of their machine. Recorded with each run.
#[derive(Debug, Clone)]
pub struct Operator {
    /// The machine.
    pub host: String,
    /// The person, or the pipeline's user.
    pub actor: String,
    /// The clock that the record's times are taken from.
    pub clock: Arc<dyn Clock>,
}

impl Operator {
    /// The wall clock, in milliseconds since 1970.
    pub(super) fn now_ms(&self) -> i64 {
        self.clock.now().as_millisecond()
    }
}

/// What is recorded when a run starts.
#[derive(Debug, Clone)]
pub struct RunStart {
    /// The campaign, by the name that it is recorded under.
    pub campaign: String,
    /// The edition of the campaign.
    pub edition: u32,
    /// The name in the manifest. It differs from `campaign` if the campaign was renamed.
    pub name: String,
    /// The manifest's path below the project's root, with `/`.
    pub manifest: String,
    /// Where messages go: `sandbox`, `loopback`, or the provider's host name.
    pub destination: String,
    /// The account that messages are sent from: a fingerprint of the SID, made with the ledger's key.
    /// None in the sandbox.
    pub account: Option<String>,
    /// The environment that the manifest was read for, if it has environments.
    pub environment: Option<String>,
    /// The hash of the approved plan.
    pub plan_hash: String,
    /// The instant that the plan's expiry counts from.
    pub planned_at: Timestamp,
    /// Whether a code belongs to one recipient for ever, as codes of a pool and generated codes do.
    pub unique_codes: bool,
    /// How many recipients the campaign has.
    pub recipients: u64,
    /// The number that messages are sent from. All appliers share its rate.
    pub sender: String,
    /// The time between two messages from that number.
    pub interval: Duration,
    /// Whether sends that the provider rejected may be claimed again.
    pub retry_rejected: bool,
    /// How long this run may be silent before another applier may fence it off.
    pub lease: Duration,
    /// How long a request of this run can take, from the first attempt to connect to the last byte of
    /// the answer. The gateway enforces it.
    pub longest_request: Duration,
    /// The machine that the run is started on.
    pub host: String,
    /// The person, or the pipeline's user, who starts it.
    pub actor: String,
}

/// The results of the attempts of one run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCounts {
    /// Messages that the provider accepted.
    pub accepted: u64,
    /// Messages that the provider rejected.
    pub rejected: u64,
    /// Messages that may have been sent.
    pub unknown: u64,
    /// Attempts that provably sent nothing.
    pub not_sent: u64,
}

/// How a run ended, as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordedEnding {
    /// Every recipient is accounted for.
    Complete,
    /// The run handled every message; some were rejected, are unknown or are still pending.
    Partial,
    /// The user asked to stop.
    Interrupted,
    /// The run stopped for a reason of its own.
    Stopped,
    /// Another applier found the run silent for longer than its lease and fenced it off.
    Lost,
    /// Somebody fenced the run off with `ledger unlock`.
    Unlocked,
    /// The run was recorded for sends that the ledger had lost, with `resolve --file`.
    Restored,
    /// An ending that a newer version recorded.
    Other(String),
}

impl RecordedEnding {
    /// The endings that this version records.
    pub const ALL: [RecordedEnding; 7] = [
        RecordedEnding::Complete,
        RecordedEnding::Partial,
        RecordedEnding::Interrupted,
        RecordedEnding::Stopped,
        RecordedEnding::Lost,
        RecordedEnding::Unlocked,
        RecordedEnding::Restored,
    ];

    /// The text that stands for it in the ledger and in JSON.
    pub fn as_str(&self) -> &str {
        match self {
            RecordedEnding::Complete => "complete",
            RecordedEnding::Partial => "partial",
            RecordedEnding::Interrupted => "interrupted",
            RecordedEnding::Stopped => "stopped",
            RecordedEnding::Lost => "lost",
            RecordedEnding::Unlocked => "unlocked",
            RecordedEnding::Restored => "restored",
            RecordedEnding::Other(text) => text,
        }
    }

    /// Whether the run itself recorded this ending: then it had no request under way any more.
    fn by_the_run_itself(&self) -> bool {
        match self {
            RecordedEnding::Complete
            | RecordedEnding::Partial
            | RecordedEnding::Interrupted
            | RecordedEnding::Stopped
            | RecordedEnding::Restored => true,
            // Of an unknown ending the worst is assumed.
            RecordedEnding::Lost | RecordedEnding::Unlocked | RecordedEnding::Other(_) => false,
        }
    }
}

impl From<&str> for RecordedEnding {
    fn from(text: &str) -> Self {
        let known = Self::ALL.into_iter().find(|ending| ending.as_str() == text);
        known.unwrap_or_else(|| RecordedEnding::Other(text.to_owned()))
    }
}

impl fmt::Display for RecordedEnding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for RecordedEnding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One run, as recorded.
#[derive(Debug, Clone, Serialize)]
pub struct RunRecord {
    /// The run's number in this ledger. Numbers rise; the number is the run's epoch.
    pub id: i64,
    /// The campaign, by the name that it is recorded under.
    pub campaign: String,
    /// The edition of the campaign.
    pub edition: u32,
    /// The name in the manifest.
    pub name: String,
    /// The hash of the approved plan.
    pub plan_hash: String,
    /// The instant that the plan's expiry counts from.
    pub planned_at: Timestamp,
    /// How many recipients the campaign had.
    pub recipients: u64,
    /// The manifest's path below the project's root. Older versions did not record this and the next
    /// four fields.
    pub manifest: Option<String>,
    /// Where messages went: `sandbox`, `loopback`, or the provider's host name.
    pub destination: Option<String>,
    /// The fingerprint of the account.
    pub account: Option<String>,
    /// The number that messages were sent from.
    pub sender: Option<String>,
    /// The environment that the manifest was read for.
    pub environment: Option<String>,
    /// How long a request of this run could take.
    #[serde(skip)]
    pub longest_request: Option<Duration>,
    /// How long the run may be silent before another applier may fence it off; zero where a lock decides.
    #[serde(skip)]
    pub lease: Duration,
    /// How long ago the run gave its last sign of life, by the clock of the store.
    #[serde(skip)]
    pub silent: Duration,
    /// The machine.
    pub host: String,
    /// The person, or the pipeline's user.
    pub actor: String,
    /// The process id.
    pub pid: u32,
    /// The version of this program.
    pub version: String,
    /// When the run started.
    pub started_at: Timestamp,
    /// The run's last heartbeat, where heartbeats are recorded.
    pub heartbeat_at: Option<Timestamp>,
    /// When the run ended; nothing if no ending is recorded.
    pub ended_at: Option<Timestamp>,
    /// How it ended.
    pub ending: Option<RecordedEnding>,
    /// The results of its attempts; nothing if no ending is recorded.
    pub counts: Option<RunCounts>,
    /// Whether the run is under way.
    pub live: bool,
    /// The digest of its part of the journal, written when it ended.
    #[serde(skip)]
    pub digest: Option<[u8; 32]>,
}

/// How long a request could take in a run of a version that did not record it.
const LONGEST_REQUEST_OF_OLD_RUNS: Duration = Duration::from_secs(120);

impl RunRecord {
    /// How long a request of this run may still be under way. Until then nobody can know that a send of
    /// this run without an outcome was not sent.
    pub fn may_live_for(&self) -> Duration {
        let request = self.longest_request.unwrap_or(LONGEST_REQUEST_OF_OLD_RUNS);
        let ended_itself =
            self.ended_at.is_some() && self.ending.as_ref().is_some_and(RecordedEnding::by_the_run_itself);
        let whole = if ended_itself { request } else { self.lease + request };
        whole.saturating_sub(self.silent)
    }
}

/// One entry of the journal: a send moved to another state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    /// The entry's number, which rises for each send.
    pub seq: i64,
    /// The run that wrote it; of evidence, the run of the attempt.
    pub run: i64,
    /// When it was written, in milliseconds since 1970.
    pub at: i64,
    /// The send.
    pub key: SendKey,
    /// The attempt.
    pub attempt: u32,
    /// What happened.
    pub kind: JournalKind,
}

/// What an entry of the journal records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalKind {
    /// A claim was granted: the request may start.
    Intent(RecordedIntent),
    /// The run reported how its attempt ended.
    Settlement {
        /// The state that the send has from now on.
        state: SendState,
        /// The provider's id of the message.
        message_id: Option<String>,
        /// The reason for the state.
        reason: Option<String>,
    },
    /// The run is over and recorded no result: the attempt is unknown.
    Abandoned {
        /// Why.
        reason: Option<String>,
    },
    /// Evidence settled the send.
    Evidence {
        /// The state that the send has from now on.
        state: SendState,
        /// What kind of evidence it is.
        source: EvidenceSource,
        /// Who supplied it.
        actor: Option<String>,
        /// The reason to believe it.
        reason: Option<String>,
        /// The provider's id of the message.
        message_id: Option<String>,
    },
}

/// An intent, as recorded. Versions differ in what they record of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordedIntent {
    /// The digest of the message.
    pub digest: Option<[u8; 32]>,
    /// The digest of the message without the URL's parameter, the code and the expiry.
    pub similarity_digest: Option<i64>,
    /// The phone number with its middle digits hidden.
    pub masked: Option<String>,
    /// The code.
    pub coupon: Option<String>,
    /// When the offer ends, in milliseconds since 1970.
    pub expires: Option<i64>,
    /// Who recorded it again after the ledger had lost it, if somebody did.
    pub restored: Option<Restored>,
}

/// Who recorded an intent again that the ledger had lost, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// The person.
    pub actor: Option<String>,
    /// The reason.
    pub reason: Option<String>,
}

/// The reason in the entry of an abandoned attempt.
pub(super) const ABANDONED_REASON: &str = "the run that started it ended without recording an outcome";

/// The value of the column `source` in the entry of an abandoned attempt.
pub(super) const ABANDONED_SOURCE: &str = "abandoned";

impl JournalEntry {
    fn new(run: i64, at: i64, key: SendKey, attempt: u32, kind: JournalKind) -> Self {
        Self { seq: 0, run, at, key, attempt, kind }
    }

    /// The entry of a granted claim.
    pub(super) fn of_claim(run: i64, at: i64, intent: &Intent) -> Self {
        let kind = JournalKind::Intent(RecordedIntent {
            digest: Some(intent.digest.0),
            similarity_digest: Some(intent.similarity_digest),
            masked: Some(intent.masked.clone()),
            coupon: Some(intent.coupon.expose().to_owned()),
            expires: intent.expires.map(ExpiresAt::as_millisecond),
            restored: None,
        });
        Self::new(run, at, intent.key, intent.attempt, kind)
    }

    /// The entry of an intent that is recorded again.
    pub(super) fn of_restored_claim(run: i64, at: i64, intent: &Intent, actor: &str, reason: &str) -> Self {
        let mut entry = Self::of_claim(run, at, intent);
        if let JournalKind::Intent(intent) = &mut entry.kind {
            intent.restored = Some(Restored { actor: Some(actor.to_owned()), reason: Some(reason.to_owned()) });
        }
        entry
    }

    /// The entry of a settlement.
    pub(super) fn of_settlement(run: i64, at: i64, settlement: &Settlement) -> Self {
        let kind = JournalKind::Settlement {
            state: settlement.result.state(),
            message_id: settlement.result.message_id().map(ToOwned::to_owned),
            reason: settlement.result.reason().map(ToOwned::to_owned),
        };
        Self::new(run, at, settlement.key, settlement.attempt, kind)
    }

    /// The entry of an intent whose run is over.
    pub(super) fn of_abandoned(run: i64, at: i64, key: SendKey, attempt: u32) -> Self {
        Self::new(run, at, key, attempt, JournalKind::Abandoned { reason: Some(ABANDONED_REASON.to_owned()) })
    }

    /// The entry of evidence about the last attempt of a send.
    pub(super) fn of_evidence(last: LastAttempt, at: i64, evidence: &Evidence) -> Self {
        let kind = JournalKind::Evidence {
            state: evidence.resolution.state(),
            source: evidence.source,
            actor: Some(evidence.actor.clone()),
            reason: Some(evidence.reason.clone()),
            message_id: evidence.message_id.clone(),
        };
        Self::new(last.run, at, evidence.key, last.attempt, kind)
    }

    /// The entry of an outcome that a person recorded again after the ledger had lost it.
    pub(super) fn of_restored_outcome(
        run: i64,
        at: i64,
        intent: &Intent,
        state: SendState,
        message_id: Option<String>,
        actor: &str,
        reason: &str,
    ) -> Self {
        let kind = JournalKind::Evidence {
            state,
            source: EvidenceSource::Decision,
            actor: Some(actor.to_owned()),
            reason: Some(reason.to_owned()),
            message_id,
        };
        Self::new(run, at, intent.key, intent.attempt, kind)
    }

    /// The state that the send has after this entry.
    pub fn state(&self) -> SendState {
        match &self.kind {
            JournalKind::Intent(_) => SendState::Intent,
            JournalKind::Settlement { state, .. } | JournalKind::Evidence { state, .. } => *state,
            JournalKind::Abandoned { .. } => SendState::Unknown,
        }
    }

    /// The intent, if the entry is one.
    pub fn intent(&self) -> Option<&RecordedIntent> {
        match &self.kind {
            JournalKind::Intent(intent) => Some(intent),
            _ => None,
        }
    }

    /// Whether the run of the attempt wrote this entry about its own attempt.
    pub fn is_of_its_run(&self) -> bool {
        self.source().is_none()
    }

    /// The text in the column `source`: nothing if the run of the attempt wrote the entry.
    pub fn source(&self) -> Option<&'static str> {
        match self.entry_source() {
            EntrySource::Run => None,
            EntrySource::Abandoned => Some(ABANDONED_SOURCE),
            EntrySource::Evidence(source) => Some(source.as_str()),
        }
    }

    /// Where the entry comes from.
    pub(super) fn entry_source(&self) -> EntrySource {
        match &self.kind {
            JournalKind::Intent(RecordedIntent { restored: None, .. }) | JournalKind::Settlement { .. } => {
                EntrySource::Run
            }
            JournalKind::Intent(_) => EntrySource::Evidence(EvidenceSource::Decision),
            JournalKind::Abandoned { .. } => EntrySource::Abandoned,
            JournalKind::Evidence { source, .. } => EntrySource::Evidence(*source),
        }
    }

    /// The provider's id of the message.
    pub fn message_id(&self) -> Option<&str> {
        match &self.kind {
            JournalKind::Settlement { message_id, .. } | JournalKind::Evidence { message_id, .. } => {
                message_id.as_deref()
            }
            JournalKind::Intent(_) | JournalKind::Abandoned { .. } => None,
        }
    }

    /// The reason for the state.
    pub fn reason(&self) -> Option<&str> {
        match &self.kind {
            JournalKind::Intent(intent) => intent.restored.as_ref().and_then(|restored| restored.reason.as_deref()),
            JournalKind::Settlement { reason, .. }
            | JournalKind::Abandoned { reason }
            | JournalKind::Evidence { reason, .. } => reason.as_deref(),
        }
    }

    /// Who supplied the evidence, or recorded a lost intent again.
    pub fn actor(&self) -> Option<&str> {
        match &self.kind {
            JournalKind::Intent(intent) => intent.restored.as_ref().and_then(|restored| restored.actor.as_deref()),
            JournalKind::Evidence { actor, .. } => actor.as_deref(),
            JournalKind::Settlement { .. } | JournalKind::Abandoned { .. } => None,
        }
    }
}

/// Where an entry comes from, as the column `source` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntrySource {
    /// The run of the attempt.
    Run,
    /// Whoever found that the run is over.
    Abandoned,
    /// Evidence.
    Evidence(EvidenceSource),
}

impl EntrySource {
    /// Reads the column `source`. A text that this version does not know must not count as the run's own.
    pub(super) fn parse(text: Option<&str>) -> Result<Self, UnknownValue> {
        let Some(text) = text else { return Ok(EntrySource::Run) };
        if text == ABANDONED_SOURCE {
            return Ok(EntrySource::Abandoned);
        }
        let known = EvidenceSource::ALL.into_iter().find(|source| source.as_str() == text);
        known.map(EntrySource::Evidence).ok_or_else(|| UnknownValue::new("source", text))
    }
}

/// The columns of one row of the journal.
#[derive(Debug, Clone)]
pub(super) struct JournalRow {
    pub(super) seq: i64,
    pub(super) run: i64,
    pub(super) at: i64,
    pub(super) state: SendState,
    pub(super) key: SendKey,
    pub(super) attempt: u32,
    pub(super) digest: Option<[u8; 32]>,
    pub(super) similarity_digest: Option<i64>,
    pub(super) masked: Option<String>,
    pub(super) coupon: Option<String>,
    pub(super) expires: Option<i64>,
    pub(super) message_id: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) source: EntrySource,
    pub(super) actor: Option<String>,
}

impl From<JournalRow> for JournalEntry {
    fn from(row: JournalRow) -> Self {
        let JournalRow { seq, run, at, state, key, attempt, message_id, reason, source, actor, .. } = row;
        let kind = match (state, source) {
            (SendState::Intent, source) => {
                let restored = (source != EntrySource::Run).then_some(Restored { actor, reason });
                JournalKind::Intent(RecordedIntent {
                    digest: row.digest,
                    similarity_digest: row.similarity_digest,
                    masked: row.masked,
                    coupon: row.coupon,
                    expires: row.expires,
                    restored,
                })
            }
            (SendState::Unknown, EntrySource::Abandoned) => JournalKind::Abandoned { reason },
            (state, EntrySource::Evidence(source)) => {
                JournalKind::Evidence { state, source, actor, reason, message_id }
            }
            // An abandoned attempt is unknown. `ledger check` reports an entry that says otherwise.
            (state, EntrySource::Run | EntrySource::Abandoned) => JournalKind::Settlement { state, message_id, reason },
        };
        Self { seq, run, at, key, attempt, kind }
    }
}

/// The part of an entry that recognising a repeated campaign needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The run of the attempt.
    pub run: i64,
    /// The send.
    pub key: SendKey,
    /// The state that the send has from now on.
    pub state: SendState,
    /// Of an intent: the digest of the message without the URL's parameter, the code and the expiry.
    pub similarity_digest: Option<i64>,
}

/// An instant from the record.
pub(crate) fn instant(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A duration as the record holds it.
pub(super) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The operator of unit tests.
#[cfg(test)]
pub(crate) fn operator() -> Operator {
    let clock = Arc::new(crate::domain::clock::SystemClock);
    Operator { host: "host".to_owned(), actor: "actor".to_owned(), clock }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_stored_under_the_names_that_older_versions_read() {
        for (ending, text) in RecordedEnding::ALL.into_iter().zip([
            "complete",
            "partial",
            "interrupted",
            "stopped",
            "lost",
            "unlocked",
            "restored",
        ]) {
            assert_eq!(ending.as_str(), text);
            assert_eq!(RecordedEnding::from(text), ending);
        }
    }

    #[test]
    fn an_ending_of_a_newer_version_is_kept_and_its_requests_may_live_for_the_whole_lease() {
        let ending = RecordedEnding::from("rescheduled");
        assert_eq!(ending, RecordedEnding::Other("rescheduled".to_owned()));
        assert_eq!(serde_json::to_value(&ending).ok(), Some("rescheduled".into()));
        assert!(!ending.by_the_run_itself());
    }

    #[test]
    fn a_source_or_a_state_of_a_newer_version_is_an_error_and_not_the_runs_own_word() {
        assert_eq!(EntrySource::parse(None), Ok(EntrySource::Run));
        assert_eq!(EntrySource::parse(Some("receipt")), Ok(EntrySource::Evidence(EvidenceSource::Receipt)));
        let error = EntrySource::parse(Some("webhook")).unwrap_err();
        assert_eq!(error.to_string(), "the column `source` holds `webhook`, which this version does not know");
        assert!(state_of(6).is_err() && state_of(0).is_err());
        assert!(SendState::ALL.into_iter().all(|state| state_of(state_code(state).into()) == Ok(state)));
    }
}
