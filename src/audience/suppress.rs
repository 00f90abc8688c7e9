//! Suppression lists: people who must not get a message.
//!
//! A list that suppresses nobody is the most expensive mistake that a file can contain, since everybody on
//! it gets the offer. So a row without a valid number is an error unless `invalid: skip` skips it, a list
//! in which no row has a valid number is always an error, and the plan shows for each list how many rows it
//! has and how many rows of the audience it excludes.

use std::sync::Arc;

use hashbrown::HashMap;

use super::report::ListReport;
use super::source::{self, RowSource, problems::Problems};
use crate::domain::diagnostic::{Code, Diagnostic};
use crate::domain::input::SuppressInput;
use crate::domain::phone::{Identity, PhoneError, PhoneReader};
use crate::domain::row::Row;

/// The maximum number of suppression lists of a campaign: each has a bit in a word.
pub const MAX_LISTS: usize = 64;

/// A set of suppression lists: a bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lists(u64);

impl Lists {
    /// The positions of the lists.
    pub(super) fn positions(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let position = (left != 0).then(|| left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(position)
        })
    }
}

/// The people on all suppression lists.
#[derive(Default)]
pub(super) struct Suppressed {
    people: HashMap<Identity, u64>,
}

impl Suppressed {
    /// The lists that a person is on; `None` if there are none.
    pub(super) fn lists_of(&self, person: &Identity) -> Option<Lists> {
        self.people.get(person).copied().map(Lists)
    }

    /// Whether nobody is suppressed.
    pub(super) fn is_empty(&self) -> bool {
        self.people.is_empty()
    }

    /// Reads the list at a position.
    pub(super) fn read(
        &mut self,
        position: usize,
        list: &SuppressInput,
        phone: &str,
        reader: &PhoneReader,
        problems: &mut Problems,
    ) -> ListReport {
        let mut report = ListReport::default();
        let open = source::open(&list.source)
            .and_then(|source| phone_column(&*source, list, phone).map(|column| (source, column)));
        let (mut source, column) = match open {
            Ok(open) => open,
            Err(problem) => {
                problems.add(problem);
                return report;
            }
        };
        // The manifest's checks allow no more lists than bits.
        let bit = 1 << position.min(MAX_LISTS - 1);
        let mut of_rows = Problems::default();
        let (mut empty, mut invalid) = (0, 0);
        let mut row = Row::new(Arc::clone(source.columns()));
        loop {
            let location = match source.next(&mut row) {
                Ok(Some(location)) => location,
                Ok(None) => break,
                Err(problem) => {
                    of_rows.add(problem);
                    continue;
                }
            };
            report.rows += 1;
            let error = match reader.read(row.cell(column)) {
                Ok(number) => {
                    *self.people.entry(number.identity()).or_default() |= bit;
                    continue;
                }
                Err(error) => error,
            };
            let without = error == PhoneError::Missing;
            *(if without { &mut empty } else { &mut invalid }) += 1;
            if list.skip_invalid {
                continue;
            }
            let name = &list.source;
            let message = match error {
                PhoneError::Missing => format!("this row of `{name}` has no phone number, so it suppresses nobody"),
                error => format!("this row of `{name}` suppresses nobody: {error}"),
            };
            let problem = Diagnostic::error(Code::SuppressionNotANumber, message)
                .hint("correct or remove the row, or set `invalid: skip` to skip such rows");
            of_rows.add(source.locate(problem, Some(location)));
        }
        report.skipped = empty + invalid;
        report.warnings = source.warnings();
        if report.rows > 0 && report.skipped == report.rows {
            let column = source.columns().names().get(column).map_or("", String::as_str);
            let name = &list.source;
            let (code, message) = if invalid == 0 {
                (Code::EmptyColumn, format!("the column `{column}` of `{name}` is empty in every row"))
            } else {
                (Code::SuppressionNoNumber, format!("no row of `{name}` has a valid number in the column `{column}`"))
            };
            // One error instead of one for each row.
            of_rows = Problems::default();
            let problem = Diagnostic::error(code, format!("{message}, so the list suppresses nobody"))
                .hint("set `phone:` to the column that contains the phone numbers");
            of_rows.add(source.locate(problem, None));
        }
        problems.append(of_rows);
        report
    }
}

/// The column of a suppression list that contains the phone number: the one that the manifest names, the only
/// one, or the one with the same name as in the audience.
pub fn phone_column(source: &dyn RowSource, list: &SuppressInput, phone: &str) -> Result<usize, Diagnostic> {
    match &list.phone {
        Some(name) => source.require(name),
        None if source.columns().names().len() == 1 => Ok(0),
        None => source.require(phone).map_err(|problem| problem.hint("set `phone:` to the name of its column")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_of_lists_are_their_positions() {
        assert_eq!(Lists(0).positions().count(), 0);
        assert_eq!(Lists(1 << 63 | 1 << 2 | 1).positions().collect::<Vec<_>>(), [0, 2, 63]);
    }
}
