//! Suppression lists: who must not be written to.
//!
//! A list that suppresses nobody is the most expensive mistake that a file can hold, since everybody on
//! it gets the offer. So a row without a number is an error unless `invalid: skip` passes over it, a list
//! in which no row has a number is always one, and the plan tells for each list how many rows it has and
//! how many people of the audience stand on it.

use csv::StringRecord;
use hashbrown::HashMap;

use super::report::ListRead;
use super::{Found, SuppressSpec};
use crate::audience::source::csv::Table;
use crate::domain::diagnostic::{Code, Diagnostic};
use crate::domain::phone::{Identity, PhoneError, PhoneReader};

/// The most suppression lists of a campaign: each has a bit in a word.
pub const MAX_LISTS: usize = 64;

/// Who is suppressed, and by which lists.
#[derive(Default)]
pub(super) struct Suppressed {
    people: HashMap<Identity, u64>,
}

impl Suppressed {
    /// The lists that a person stands on, as bits; nothing if there are none.
    pub(super) fn lists(&self, person: &Identity) -> Option<u64> {
        self.people.get(person).copied()
    }

    /// How many people are suppressed.
    pub(super) fn len(&self) -> usize {
        self.people.len()
    }

    /// Reads the list at a position.
    pub(super) fn read(
        &mut self,
        position: usize,
        list: &SuppressSpec,
        phone: &str,
        reader: &PhoneReader,
        found: &mut Found,
    ) -> ListRead {
        let mut read = ListRead::default();
        let open = Table::open(&list.path, list.delimiter, list.multiline)
            .and_then(|table| column(&table, list, phone).map(|column| (table, column)));
        let (mut table, column) = match open {
            Ok(open) => open,
            Err(problem) => {
                found.add(problem);
                return read;
            }
        };
        // The manifest's checks allow no more lists than bits.
        let bit = 1 << position.min(MAX_LISTS - 1);
        let mut rows = Found::default();
        let (mut empty, mut invalid) = (0, 0);
        let mut record = StringRecord::new();
        loop {
            let line = match table.next(&mut record) {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(problem) => {
                    rows.add(problem);
                    continue;
                }
            };
            let error = match reader.read(record.get(column).unwrap_or_default()) {
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
            let shown = list.path.display();
            let message = match error {
                PhoneError::Missing => format!("this row of `{shown}` has no number, so it suppresses nobody"),
                error => format!("this row of `{shown}` is {error}, so it suppresses nobody"),
            };
            rows.add(
                Diagnostic::error(Code::SuppressionNotANumber, message)
                    .hint("correct or remove the row, or set `invalid: skip` to pass over such rows")
                    .in_file(&list.path, Some(line), None),
            );
        }
        read.rows = table.rows();
        read.skipped = empty + invalid;
        read.whole_rows = table.whole_rows();
        if read.rows > 0 && read.skipped == read.rows {
            let name = table.columns().names().get(column).map_or("", String::as_str);
            let (code, message) = if invalid == 0 {
                (Code::EmptyColumn, format!("the column `{name}` of `{}` is empty in every row", list.path.display()))
            } else {
                (
                    Code::SuppressionNoNumber,
                    format!("no row of `{}` has a number in the column `{name}`", list.path.display()),
                )
            };
            // One finding instead of one for each row.
            rows = Found::default();
            rows.add(
                Diagnostic::error(code, format!("{message}, so the list suppresses nobody"))
                    .hint("name the column that holds the numbers with `phone:`")
                    .in_file(&list.path, None, None),
            );
        }
        found.append(rows);
        read
    }
}

/// The column of a suppression list that holds the number: the one that is named, the only one,
/// or the one that is called as in the audience.
pub fn column(table: &Table, list: &SuppressSpec, phone: &str) -> Result<usize, Diagnostic> {
    match &list.phone {
        Some(name) => table.require(name),
        None if table.columns().names().len() == 1 => Ok(0),
        None => table.require(phone).map_err(|problem| problem.hint("name its column with `phone:`")),
    }
}
