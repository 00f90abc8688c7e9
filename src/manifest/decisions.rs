//! A reviewed file of decisions about sends whose outcome cannot be told, for `resolve --file`.

use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

use super::types::ApiVersion;
use super::{read, schema};
use crate::diagnostic::{Diagnostic, Diagnostics, limit};
use crate::files::Files;
use crate::ledger::SendKey;
use crate::ledger::protocol::Verdict;

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
    /// What became of it.
    #[serde(rename = "as")]
    pub verdict: Verdict,
    /// What this decision rests on.
    pub reason: Option<String>,
}

/// Reads a file of decisions: each with its send and its reason.
pub fn load(path: &Path) -> Result<Vec<(SendKey, String, Decision)>, Diagnostics> {
    let document = read::read(path, &Files::beside(path)?, &schema::of::<Decisions>())?;
    let found = schema::validate_as::<Decisions>(&document);
    if !found.is_empty() {
        return Err(Diagnostics(limit(found)));
    }
    let wrong = |code: &'static str, message: String| {
        Diagnostics::from(Diagnostic::error(code, message).in_file(path, None, None))
    };
    let file: Decisions = serde_json::from_value(document.value.clone())
        .map_err(|error| wrong("decisions", format!("the file does not fit its schema: {error}")))?;
    // Ordered, not hashed: these keys are anybody's, and equal halves of them would collide.
    let mut seen = std::collections::BTreeSet::new();
    file.decisions
        .into_iter()
        .map(|decision| {
            let key: SendKey = decision.send.parse().map_err(|problem| wrong("send", problem))?;
            if !seen.insert(key) {
                return Err(wrong("decided-twice", format!("there are two decisions about the send {key}")));
            }
            let reason = decision.reason.clone().or_else(|| file.reason.clone()).unwrap_or_default();
            if reason.trim().is_empty() {
                return Err(wrong("no-reason", format!("the decision about the send {key} has no `reason`")));
            }
            Ok((key, reason, decision))
        })
        .collect()
}
