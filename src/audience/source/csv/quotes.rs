//! Checks that the CSV library reads the quotes of a row as they are written.
//!
//! A quote that opens a cell must be closed, and a separator or the end of the row must follow (with white
//! space in between, if any). A quote inside a cell that does not begin with one is an ordinary
//! character: `5" screen`. Inside a quoted cell a quote is written twice.

use super::lines::breaks;

/// What is wrong with the quotes of a row. Each variant has the number of line breaks in the row before the
/// quote that opens the cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The file ends inside a quoted cell.
    NeverClosed { breaks_before: u64 },
    /// A quoted cell contains a line break, which this file does not allow.
    LineBreak { breaks_before: u64 },
    /// There is text between a closing quote and the next separator.
    TextBehind { breaks_before: u64 },
}

/// What the quoted cells of a row contain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Quoted {
    /// The number of line breaks.
    pub(super) breaks: u64,
    /// The number of cells that contain a line with as many separators as a whole row.
    pub(super) whole_rows: u64,
}

/// Checks a row that contains a quote. `row` is without its line end, and `columns` is the number of cells of a
/// row. Cells are short, so comparing each byte is faster than searching for the next quote.
pub(super) fn check(row: &[u8], delimiter: u8, columns: usize, multiline: bool) -> Result<Quoted, Flaw> {
    let mut quoted = Quoted::default();
    let mut at = 0;
    while at < row.len() {
        if row[at] != b'"' {
            // A cell without quotes around it ends at the next separator.
            match row[at..].iter().position(|byte| *byte == delimiter) {
                Some(length) => at += length + 1,
                None => break,
            }
            continue;
        }
        let open = at;
        let breaks_before = || breaks(&row[..open]);
        let Some((close, has_break)) = closing(row, open) else {
            return Err(Flaw::NeverClosed { breaks_before: breaks_before() });
        };
        if has_break {
            let cell = &row[open + 1..close];
            if !multiline {
                return Err(Flaw::LineBreak { breaks_before: breaks_before() });
            }
            quoted.breaks += breaks(cell);
            quoted.whole_rows += u64::from(holds_a_row(cell, delimiter, columns));
        }
        at = close + 1;
        while row.get(at).is_some_and(|byte| is_blank(*byte, delimiter)) {
            at += 1;
        }
        if row.get(at).is_some_and(|byte| *byte != delimiter) {
            return Err(Flaw::TextBehind { breaks_before: breaks_before() });
        }
        at += 1;
    }
    Ok(quoted)
}

/// The position of the quote that closes the cell opened at `open`, and whether a line break is in between.
fn closing(row: &[u8], open: usize) -> Option<(usize, bool)> {
    let mut has_break = false;
    let mut at = open + 1;
    loop {
        match *row.get(at)? {
            b'"' if row.get(at + 1) == Some(&b'"') => at += 1,
            b'"' => return Some((at, has_break)),
            b'\n' | b'\r' => has_break = true,
            _ => {}
        }
        at += 1;
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
