//! Times of the record, as text.

use crate::ledger::record::instant;

/// An instant of the record, to the second.
pub fn time(milliseconds: i64) -> String {
    format!("{:.0}", instant(milliseconds))
}
