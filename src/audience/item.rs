//! What the audience makes of a row.

use std::sync::Arc;

use crate::domain::phone::{E164, Identity};
use crate::domain::row::{Row, RowOrigin};

/// What became of a row.
#[derive(Debug)]
pub enum AudienceItem {
    /// A person who may get a message.
    Recipient(Recipient),
    /// A row that gets no message.
    Excluded(Excluded),
}

/// One person who may get a message.
#[derive(Debug, Clone)]
pub struct Recipient {
    /// Which row it is.
    pub origin: RowOrigin,
    /// The number that the message is sent to.
    pub address: E164,
    /// The person.
    pub identity: Identity,
    /// The row, for expressions.
    pub row: Arc<Row>,
}

/// A row that gets no message.
#[derive(Debug, Clone)]
pub struct Excluded {
    /// Which row it is.
    pub origin: RowOrigin,
    /// Why.
    pub reason: Exclusion,
    /// More about the reason, without data of the row.
    pub detail: Option<String>,
}

/// Why a row gets no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exclusion {
    /// `where` does not select it.
    Filtered,
    /// `where` cannot be evaluated for it.
    ConditionFailed,
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
}
