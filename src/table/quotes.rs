//! Whether the quotes of a row say what the CSV library reads from them.
//!
//! A quote that opens a cell must be closed, and a separator or the end of the row must follow (white
//! space may stand between). A quote inside a cell that does not begin with one is a character like
//! others: `5" screen`. Inside a quoted cell a quote is written twice.

use memchr::{memchr, memchr2};

use super::lines::breaks;

/// What is wrong with a row's quotes. Each holds how many line breaks stand in the row before the
/// quote that opens the cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The file ends inside a quoted cell.
    NeverClosed { breaks_before: u64 },
    /// A quoted cell holds a line break, and this file's cells may not.
    LineBreak { breaks_before: u64 },
    /// More than white space stands between a closing quote and the next separator.
    TextBehind { breaks_before: u64 },
}

/// What stands in the quoted cells of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Quoted {
    /// How many line breaks.
    pub(super) breaks: u64,
    /// How many cells hold a line with as many separators as a whole row has.
    pub(super) whole_rows: u64,
}

/// Checks a row that holds a quote, the first one at `first`. `row` is without the end of its line, and
/// `columns` is how many cells a row has.
pub(super) fn check(row: &[u8], first: usize, delimiter: u8, columns: usize, multiline: bool) -> Result<Quoted, Flaw> {
    let has_breaks = memchr2(b'\n', b'\r', row).is_some();
    let mut quoted = Quoted::default();
    let mut next = Some(first);
    while let Some(open) = next {
        if open > 0 && row[open - 1] != delimiter {
            next = find(row, open + 1);
            continue;
        }
        let before = |at: usize| if has_breaks { breaks(&row[..at]) } else { 0 };
        let Some(close) = closing(row, open) else {
            return Err(Flaw::NeverClosed { breaks_before: before(open) });
        };
        let cell = &row[open + 1..close];
        if has_breaks {
            let inside = breaks(cell);
            if inside > 0 && !multiline {
                return Err(Flaw::LineBreak { breaks_before: before(open) });
            }
            quoted.breaks += inside;
            quoted.whole_rows += u64::from(inside > 0 && holds_a_row(cell, delimiter, columns));
        }
        let blanks = row[close + 1..].iter().take_while(|byte| is_blank(**byte, delimiter)).count();
        let behind = close + 1 + blanks;
        if row.get(behind).is_some_and(|byte| *byte != delimiter) {
            return Err(Flaw::TextBehind { breaks_before: before(open) });
        }
        next = find(row, behind);
    }
    Ok(quoted)
}

fn find(row: &[u8], from: usize) -> Option<usize> {
    row.get(from..).and_then(|rest| memchr(b'"', rest)).map(|at| from + at)
}

/// The quote that closes the cell that the one at `open` opens.
fn closing(row: &[u8], open: usize) -> Option<usize> {
    let mut from = open + 1;
    loop {
        let quote = find(row, from)?;
        if row.get(quote + 1) != Some(&b'"') {
            return Some(quote);
        }
        from = quote + 2;
    }
}

fn is_blank(byte: u8, delimiter: u8) -> bool {
    byte != delimiter && (byte == b' ' || byte == b'\t')
}

/// Whether a line of a cell, from the second on, could be a row of its own.
fn holds_a_row(cell: &[u8], delimiter: u8, columns: usize) -> bool {
    cell.split(|byte| matches!(byte, b'\n' | b'\r'))
        .skip(1)
        .any(|line| !line.is_empty() && line.iter().filter(|byte| **byte == delimiter).count() + 1 >= columns)
}
