//! A reviewed file of decisions about sends whose outcome cannot be told, for `resolve --file`.

use std::path::Path;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;

use super::types::ApiVersion;
use super::{read, schema};
use crate::domain::canonical::ContentDigest;
use crate::domain::coupon::CouponCode;
use crate::domain::diagnostic::{Code, Diagnostic, Diagnostics, limit};
use crate::domain::expiry::ExpiresAt;
use crate::domain::send::Resolution;
use crate::domain::send::{Intent, SendKey, SendState};
use crate::project::files::Files;

/// Decisions about sends whose outcome cannot be told. `sendform sends list --state unknown --format
/// decisions` writes one to fill in.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Decisions {
    /// The version of the format.
    #[serde(rename = "apiVersion")]
    pub api_version: ApiVersion,
    /// What the file is.
    pub kind: DecisionsKind,
    /// What the decisions rest on, for those that say nothing themselves.
    pub reason: Option<String>,
    /// One for each send.
    #[schemars(length(min = 1), extend("x-expected" = "at least one decision"))]
    pub decisions: Vec<Decision>,
}

/// What the file is.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub enum DecisionsKind {
    /// Decisions about sends.
    Decisions,
}

/// What was decided about one send.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// The send, as `sends list` names it.
    #[schemars(regex(pattern = r"^[0-9a-f]{32}$"))]
    #[schemars(extend("x-expected" = "32 hexadecimal digits, in quotes"))]
    pub send: String,
    /// The attempt that was looked at. A decision about an earlier attempt than the last is refused.
    #[schemars(range(min = 1))]
    pub attempt: Option<u32>,
    /// What became of it. `unknown` is for a send that the ledger has lost.
    #[serde(rename = "as")]
    pub decided: Decided,
    /// What this decision rests on.
    pub reason: Option<String>,
    /// The provider's id of the message.
    #[schemars(length(min = 1))]
    pub message_id: Option<String>,
    /// What the ledger was told before the request, if it has lost it. `apply` writes this.
    pub lost: Option<Lost>,
}

/// What became of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Decided {
    /// The provider took it: it is never sent again.
    Accepted,
    /// The provider refused it: it is never sent again, unless `--retry-rejected` asks for it.
    Rejected,
    /// It was not sent: it is pending again, under a new attempt.
    NotSent,
    /// It may have been sent: it is never sent again by itself.
    Unknown,
}

impl Decided {
    /// What it shows, unless it shows nothing.
    pub fn resolution(self) -> Option<Resolution> {
        match self {
            Decided::Accepted => Some(Resolution::Accepted),
            Decided::Rejected => Some(Resolution::Rejected),
            Decided::NotSent => Some(Resolution::NotSent),
            Decided::Unknown => None,
        }
    }

    /// The state that it leads to.
    pub fn state(self) -> SendState {
        self.resolution().map_or(SendState::Unknown, Resolution::state)
    }
}

/// A send that the ledger has lost, as the run that made it remembers it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lost {
    /// The campaign, by the name that it is recorded under.
    pub campaign: String,
    /// Its edition.
    pub edition: u32,
    /// The run.
    pub run: i64,
    /// The instant of the run's plan.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub planned_at: Timestamp,
    /// The number with its middle hidden.
    pub to: String,
    /// The code that the recipient got.
    pub coupon: String,
    /// Whether the code belongs to this recipient for ever.
    pub unique_code: bool,
    /// The digest of the message.
    #[schemars(regex(pattern = r"^[0-9a-f]{64}$"))]
    #[schemars(extend("x-expected" = "64 hexadecimal digits, in quotes"))]
    pub digest: String,
    /// A short digest of the message without code and expiry.
    pub likeness: i64,
    /// When the offer ends, in milliseconds since 1970.
    pub expires: Option<i64>,
}

impl Lost {
    /// The intent, as the run told it to the ledger.
    fn intent(&self, key: SendKey, attempt: u32) -> Result<Intent, String> {
        let digest = blake3::Hash::from_hex(&self.digest).map_err(|_| "`lost.digest` is not 64 hexadecimal digits")?;
        Ok(Intent {
            key,
            attempt,
            digest: ContentDigest(*digest.as_bytes()),
            similarity_digest: self.likeness,
            coupon: CouponCode::new(&self.coupon).map_err(|error| format!("`lost.coupon`: {error}"))?,
            expires: match self.expires {
                None => None,
                Some(at) => Some(ExpiresAt::from_millisecond(at).ok_or("`lost.expires` is not an instant")?),
            },
            masked: self.to.clone(),
        })
    }
}

/// A decision that has been checked.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The send.
    pub key: SendKey,
    /// What the decision rests on.
    pub reason: String,
    /// The attempt that was looked at.
    pub attempt: Option<u32>,
    /// What became of it.
    pub decided: Decided,
    /// The provider's id.
    pub message_id: Option<String>,
    /// The send, if the ledger has lost it, and its intent.
    pub lost: Option<(Lost, Intent)>,
}

/// Reads a file of decisions.
pub fn load(path: &Path) -> Result<Vec<Checked>, Diagnostics> {
    let document = read::read(path, &Files::beside(path)?, &schema::of::<Decisions>())?;
    let found = schema::validate_as::<Decisions>(&document);
    if !found.is_empty() {
        return Err(Diagnostics(limit(found)));
    }
    let wrong =
        |code: Code, message: String| Diagnostics::from(Diagnostic::error(code, message).in_file(path, None, None));
    let file: Decisions = serde_json::from_value(document.value.clone())
        .map_err(|error| wrong(Code::SchemaMismatch, format!("the file does not fit its schema: {error}")))?;
    // Ordered, not hashed: these keys are anybody's, and equal halves of them would collide.
    let mut seen = std::collections::BTreeSet::new();
    file.decisions
        .into_iter()
        .map(|decision| {
            let key: SendKey = decision.send.parse().map_err(|problem| wrong(Code::InvalidSendKey, problem))?;
            if !seen.insert(key) {
                return Err(wrong(Code::DuplicateDecision, format!("there are two decisions about the send {key}")));
            }
            let reason = decision.reason.clone().or_else(|| file.reason.clone()).unwrap_or_default();
            if reason.trim().is_empty() {
                return Err(wrong(Code::MissingReason, format!("the decision about the send {key} has no `reason`")));
            }
            let lost = match decision.lost {
                None if decision.decided == Decided::Unknown => {
                    return Err(wrong(Code::NoDecision, format!("`unknown` decides nothing about the send {key}")));
                }
                None => None,
                Some(lost) => {
                    let attempt = decision
                        .attempt
                        .ok_or_else(|| wrong(Code::MissingAttempt, format!("the lost send {key} has no `attempt`")))?;
                    let intent = lost.intent(key, attempt).map_err(|problem| wrong(Code::InvalidLostSend, problem))?;
                    Some((lost, intent))
                }
            };
            let Decision { attempt, decided, message_id, .. } = decision;
            Ok(Checked { key, reason, attempt, decided, message_id, lost })
        })
        .collect()
}
