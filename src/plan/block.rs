//! Rows that get no message, and why.

use std::cmp::Ordering;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::audience::{Excluded, Exclusion};
use crate::domain::row::RowOrigin;
use crate::render::{RenderFailure, RenderFailureKind};

/// A row that gets no message.
#[derive(Debug, Clone)]
pub struct Blocked {
    /// Which row it is.
    pub origin: RowOrigin,
    /// Why.
    pub reason: BlockReason,
    /// More about the reason, without data of the row.
    pub detail: Option<String>,
}

/// Why a row gets no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BlockReason {
    /// `where` does not select the row.
    Filtered,
    /// The cell of the phone number is empty.
    MissingNumber,
    /// The cell of the phone number contains something else.
    InvalidNumber,
    /// The person is on a suppression list.
    Suppressed,
    /// The person has an earlier row.
    Duplicate,
    /// An earlier row has the other form of this Argentine number: the same person, or a landline with the same digits.
    PossibleDuplicate,
    /// An expression cannot be evaluated for the row.
    RenderError,
    /// `audience.template` names no template for the row.
    UnknownTemplate,
    /// WhatsApp would refuse the value of a parameter.
    BadParameter,
    /// The provider rejected this message before; `--retry-rejected` sends it again.
    Rejected,
}

impl Ord for BlockReason {
    /// By the code, so that a plan lists reasons in the order of their codes.
    fn cmp(&self, other: &Self) -> Ordering {
        self.code().cmp(other.code())
    }
}

impl PartialOrd for BlockReason {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl BlockReason {
    /// Whether the row was meant to get a message, so that somebody should look at it.
    pub fn is_problem(self) -> bool {
        !matches!(self, BlockReason::Filtered | BlockReason::Suppressed | BlockReason::Duplicate)
    }

    /// The reason in machine-readable output.
    pub fn code(self) -> &'static str {
        match self {
            BlockReason::Filtered => "filtered",
            BlockReason::MissingNumber => "missing_number",
            BlockReason::InvalidNumber => "invalid_number",
            BlockReason::Suppressed => "suppressed",
            BlockReason::Duplicate => "duplicate",
            BlockReason::PossibleDuplicate => "possible_duplicate",
            BlockReason::RenderError => "render_error",
            BlockReason::UnknownTemplate => "unknown_template",
            BlockReason::BadParameter => "bad_parameter",
            BlockReason::Rejected => "rejected",
        }
    }

    /// The reason in words, after a count.
    pub fn words(self) -> &'static str {
        match self {
            BlockReason::Filtered => "not selected by `where`",
            BlockReason::MissingNumber => "no phone number",
            BlockReason::InvalidNumber => "not a phone number",
            BlockReason::Suppressed => "on a suppression list",
            BlockReason::Duplicate => "duplicate of an earlier row",
            BlockReason::PossibleDuplicate => "possible duplicate: the other form of an earlier Argentine number",
            BlockReason::RenderError => "an expression cannot be evaluated",
            BlockReason::UnknownTemplate => "unknown template",
            BlockReason::BadParameter => "a parameter that WhatsApp rejects",
            BlockReason::Rejected => "rejected by the provider before",
        }
    }
}

impl From<Excluded> for Blocked {
    fn from(excluded: Excluded) -> Self {
        let reason = match excluded.reason {
            Exclusion::Filtered => BlockReason::Filtered,
            Exclusion::ConditionFailed => BlockReason::RenderError,
            Exclusion::MissingNumber => BlockReason::MissingNumber,
            Exclusion::InvalidNumber => BlockReason::InvalidNumber,
            Exclusion::Suppressed => BlockReason::Suppressed,
            Exclusion::Duplicate => BlockReason::Duplicate,
            Exclusion::PossibleDuplicate => BlockReason::PossibleDuplicate,
        };
        Self { origin: excluded.origin, reason, detail: excluded.detail }
    }
}

impl Blocked {
    /// A row whose message cannot be rendered.
    pub fn unrenderable(origin: RowOrigin, failure: RenderFailure) -> Self {
        let reason = match failure.kind {
            RenderFailureKind::Expression => BlockReason::RenderError,
            RenderFailureKind::UnknownTemplate => BlockReason::UnknownTemplate,
            RenderFailureKind::BadParameter => BlockReason::BadParameter,
        };
        Self { origin, reason, detail: Some(failure.detail) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_read_back_from_its_code() {
        for reason in [
            BlockReason::Filtered,
            BlockReason::MissingNumber,
            BlockReason::InvalidNumber,
            BlockReason::Suppressed,
            BlockReason::Duplicate,
            BlockReason::PossibleDuplicate,
            BlockReason::RenderError,
            BlockReason::UnknownTemplate,
            BlockReason::BadParameter,
            BlockReason::Rejected,
        ] {
            assert_eq!(serde_json::from_value::<BlockReason>(reason.code().into()).unwrap(), reason);
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.code());
        }
    }
}
