//! What the program prints.
//!
//! Each JSON document is a struct with a `format_version` of its own and a published schema:
//! `sendform schema KIND` prints it, and `schema/` holds it. Diagnostics are also printed as text, as
//! annotations for GitHub, and as SARIF.

pub(crate) mod diagnostics;
pub(crate) mod ledger;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::manifest::schema::of;

/// The version of one output format: the minor number rises with each addition, the major with each change that
/// breaks a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct FormatVersion(&'static str);

impl FormatVersion {
    /// Of `status`.
    pub(crate) const STATUS: Self = Self("2.1");
    /// Of `sends list`.
    pub(crate) const SENDS_LIST: Self = Self("2.0");
    /// Of `sends show`.
    pub(crate) const SENDS_SHOW: Self = Self("2.0");
    /// Of `resolve`.
    pub(crate) const RESOLVE: Self = Self("2.0");
    /// Of `ledger check`.
    pub(crate) const LEDGER_CHECK: Self = Self("2.0");
    /// Of `ledger export`.
    pub(crate) const LEDGER_EXPORT: Self = Self("2.0");
    /// Of `validate`.
    pub(crate) const VALIDATE: Self = Self("1.0");
}

/// The kinds of output that have a schema.
pub(crate) const KINDS: [&str; 7] =
    ["validate", "status", "sends-list", "sends-show", "resolve", "ledger-check", "ledger-export"];

/// The schema of one kind of output. `None` for an unknown kind.
pub(crate) fn schema(kind: &str) -> Option<Value> {
    Some(match kind {
        "validate" => of::<diagnostics::ValidateJson>(),
        "status" => of::<ledger::StatusJson>(),
        "sends-list" => of::<ledger::SendsListJson>(),
        "sends-show" => of::<ledger::SendsShowJson>(),
        "resolve" => of::<ledger::ResolveJson>(),
        "ledger-check" => of::<ledger::LedgerCheckJson>(),
        "ledger-export" => of::<ledger::ExportLine>(),
        _ => return None,
    })
}
