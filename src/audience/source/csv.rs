//! CSV files with a header row, read strictly.
//!
//! Errors never show a cell, since it may hold a name or a number. White space around a cell is not part
//! of it.
//!
//! The CSV library always finds *some* way to read a file: a quote that is never closed makes the rest
//! of the file one cell. So [`quotes`] checks the bytes of each row that holds a quote and rejects what the
//! library would have to guess.

mod lines;
mod quotes;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use csv::{Reader, ReaderBuilder, StringRecord, Trim};

use self::lines::Lines;
use self::quotes::Flaw;
use super::RowSource;
use crate::domain::diagnostic::{Code, Diagnostic, did_you_mean};
use crate::domain::input::CsvInput;
use crate::domain::row::{Columns, Row, RowLocation};
use crate::util::fs::{FileError, InputFile, MAX_DATA_BYTES};
use crate::util::human::count;

/// The longest row. What is longer is another kind of file, or has a quote that is never closed.
const MAX_ROW_BYTES: usize = 8 << 20;

/// The most columns that a table may have, as in spreadsheets.
const MAX_COLUMNS: usize = 16_384;

/// The most columns that are listed where one is missing.
const MAX_LISTED: usize = 30;

/// Cells that hold a whole row: most likely a quote that was closed too late.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct WholeRows {
    cells: u64,
    /// The line of the row with the first one.
    first_line: u64,
}

/// An open CSV file.
pub struct CsvSource {
    file: InputFile,
    columns: Arc<Columns>,
    reader: Reader<Tap>,
    /// The row that was read last, untrimmed.
    record: StringRecord,
    lines: Lines,
    delimiter: u8,
    multiline: bool,
    /// Set by an error that leaves uncertain where the next row begins. Nothing more is read.
    broken: bool,
    whole_rows: WholeRows,
}

impl CsvSource {
    /// Opens a file and reads its header.
    pub fn open(spec: &CsvInput) -> Result<Self, Diagnostic> {
        let open = spec.path.open(MAX_DATA_BYTES).map_err(|error| error.diagnostic(&spec.path))?;
        let reader = ReaderBuilder::new()
            .delimiter(spec.delimiter)
            .trim(Trim::Headers)
            .buffer_capacity(1 << 16)
            .from_reader(Tap::new(open.into_file()));
        let mut source = Self {
            file: spec.path.clone(),
            columns: Arc::default(),
            reader,
            record: StringRecord::new(),
            lines: Lines::default(),
            delimiter: spec.delimiter,
            multiline: spec.multiline,
            broken: false,
            whole_rows: WholeRows::default(),
        };
        source.columns = Arc::new(source.header()?);
        Ok(source)
    }

    fn header(&mut self) -> Result<Columns, Diagnostic> {
        let shown = self.file.display().to_string();
        let header = self.reader.headers().cloned();
        let line = self.check_bytes(0, !is_io(header.as_ref().err()))?;
        let header = header.map_err(|error| self.explain(&error, line))?;
        let problem = |code, message| Diagnostic::error(code, message).in_file(&self.file, Some(line), None);
        if header.len() > MAX_COLUMNS {
            let message = format!("`{shown}` has {} columns; the maximum is {MAX_COLUMNS}", header.len());
            return Err(problem(Code::CsvTooManyColumns, message));
        }
        let names: Vec<String> = header.iter().map(str::to_owned).collect();
        if names.iter().all(String::is_empty) {
            return Err(Diagnostic::error(Code::CsvEmpty, format!("`{shown}` is empty: it has no header row"))
                .in_file(&self.file, None, None));
        }
        if names.iter().any(|name| looks_like_a_number(name)) {
            return Err(problem(
                Code::CsvNoHeader,
                format!("the first row of `{shown}` contains a number of seven or more digits, so it is not a header"),
            )
            .hint("add a first row with the column names; a column name has fewer than seven digits"));
        }
        Columns::new(names).map_err(|(first, second)| {
            let name = &header[first];
            let which = match looks_like_a_name(name) {
                true => format!("two columns named `{name}`"),
                false => format!("the same name for columns {} and {}", first + 1, second + 1),
            };
            problem(Code::CsvDuplicateColumn, format!("`{shown}` has {which}")).hint("rename one of them")
        })
    }

    /// Checks the bytes of the row that was read from `start`, if the row is `whole`, and returns its line.
    fn check_bytes(&mut self, start: u64, whole: bool) -> Result<u64, Diagnostic> {
        let end = self.reader.position().byte();
        let bytes = self.reader.get_ref().bytes(start, end);
        let bytes = if start == 0 { bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes) } else { bytes };
        let (line, row) = self.lines.row(bytes);
        // Most files hold no quote at all.
        if !whole || !self.reader.get_ref().has_quotes || memchr::memchr(b'"', row).is_none() {
            return Ok(line);
        }
        let columns = self.columns.names().len();
        let quoted = quotes::check(row, self.delimiter, columns, self.multiline).map_err(|flaw| {
            self.broken = true;
            explain_flaw(&self.file, flaw, line)
        })?;
        self.lines.breaks_in_cells(quoted.breaks);
        if quoted.whole_rows > 0 && start > 0 {
            if self.whole_rows.cells == 0 {
                self.whole_rows.first_line = line;
            }
            self.whole_rows.cells += quoted.whole_rows;
        }
        Ok(line)
    }

    fn explain(&mut self, error: &csv::Error, line: u64) -> Diagnostic {
        let shown = self.file.display();
        let problem = |code, message, line| Diagnostic::error(code, message).in_file(&self.file, line, None);
        match error.kind() {
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => problem(
                Code::CsvRagged,
                format!("a row of `{shown}` has {len} cells, but the header has {expected_len}"),
                Some(line),
            )
            .hint("quote a cell that contains the delimiter"),
            csv::ErrorKind::Utf8 { err, .. } => problem(
                Code::CsvNotUtf8,
                format!("cell {} of this row of `{shown}` is not UTF-8", err.field() + 1),
                Some(line),
            )
            .hint("export the file as UTF-8"),
            csv::ErrorKind::Io(error) => {
                self.broken = true;
                match error.get_ref().is_some_and(|source| source.is::<RowTooLong>()) {
                    true => Diagnostic::error(
                        Code::CsvRowTooLong,
                        format!("a row of `{shown}` has more than {MAX_ROW_BYTES} bytes"),
                    )
                    .hint("check whether this is a CSV file, and whether a quote is never closed")
                    .in_file(&self.file, Some(line), None),
                    false => Diagnostic::error(Code::UnreadableFile, format!("cannot read `{shown}`: {error}"))
                        .in_file(&self.file, Some(line), None),
                }
            }
            _ => problem(Code::CsvUnreadable, format!("`{shown}` cannot be read as CSV"), Some(line)),
        }
    }
}

impl RowSource for CsvSource {
    fn columns(&self) -> &Arc<Columns> {
        &self.columns
    }

    fn next(&mut self, row: &mut Row) -> Result<Option<RowLocation>, Diagnostic> {
        if self.broken {
            return Ok(None);
        }
        let start = self.reader.position().byte();
        self.reader.get_mut().keep_from(start);
        let read = self.reader.read_record(&mut self.record);
        if let Ok(false) = read {
            return Ok(None);
        }
        let line = self.check_bytes(start, !is_io(read.as_ref().err()))?;
        if let Err(error) = read {
            return Err(self.explain(&error, line));
        }
        let record = &self.record;
        if record.iter().any(has_blank_ends) {
            row.clear();
            record.iter().for_each(|cell| row.push(cell.trim()));
        } else {
            let end = |position| record.range(position).map_or(0, |range| range.end);
            row.fill(record.as_slice(), (0..record.len()).map(end));
        }
        Ok(Some(RowLocation::Line(line)))
    }

    /// Estimated from the length of the first rows.
    fn size_hint(&self) -> usize {
        const SAMPLE_BYTES: usize = 1 << 16;
        let file = &self.reader.get_ref().file;
        let mut first = vec![0; SAMPLE_BYTES];
        let (Ok(metadata), Ok(length)) = (file.metadata(), file.read_at(&mut first, 0)) else { return 0 };
        let lines = first[..length].iter().filter(|byte| **byte == b'\n').count() as u64;
        let rows = metadata.len().saturating_mul(lines) / (length as u64).max(1);
        // A little more: one row too many would move all of them.
        usize::try_from(rows + rows / 16).unwrap_or(0)
    }

    fn name(&self) -> String {
        self.file.display().to_string()
    }

    fn locate(&self, problem: Diagnostic, row: Option<RowLocation>) -> Diagnostic {
        problem.in_file(&self.file, row.and_then(RowLocation::line), None)
    }

    /// The file may be something else than a list of people, so the hint lists the columns only if all of
    /// them look like names.
    fn no_column(&self, column: &str) -> Diagnostic {
        let names = self.columns.names().iter().map(String::as_str).filter(|name| !name.is_empty());
        let names: Vec<&str> = names.collect();
        let hint = if !names.iter().all(|name| looks_like_a_name(name)) {
            "the first row must contain the column names".to_owned()
        } else if let Some(near) = did_you_mean(column, names.iter().copied()) {
            format!("did you mean `{near}`?")
        } else {
            let listed: Vec<String> = names.iter().take(MAX_LISTED).map(|name| format!("`{name}`")).collect();
            let more = if names.len() > MAX_LISTED { ", …" } else { "" };
            format!("columns: {}{more}", listed.join(", "))
        };
        Diagnostic::error(Code::NoSuchColumn, format!("`{}` has no column `{column}`", self.file.display()))
            .hint(hint)
            .in_file(&self.file, Some(1), None)
    }

    /// Only a `multiline` file can have any.
    fn warnings(&self) -> Vec<Diagnostic> {
        let WholeRows { cells, first_line } = self.whole_rows;
        if cells == 0 {
            return Vec::new();
        }
        let number = count(usize::try_from(cells).unwrap_or(usize::MAX), "cell");
        let verb = if cells == 1 { "contains" } else { "contain" };
        let message =
            format!("{number} of `{}` {verb} a whole row, the first in line {first_line}", self.file.display());
        vec![
            Diagnostic::warning(Code::CsvCellHoldsARow, message)
                .hint("if a quote is closed too late, the rows inside the cell are read as its text")
                .in_file(&self.file, Some(first_line), None),
        ]
    }
}

/// Whether a cell begins or ends with white space.
fn has_blank_ends(cell: &str) -> bool {
    match cell.as_bytes() {
        [] | [b'!'..=b'~'] | [b'!'..=b'~', .., b'!'..=b'~'] => false,
        _ => cell.trim().len() != cell.len(),
    }
}

fn is_io(error: Option<&csv::Error>) -> bool {
    error.is_some_and(|error| matches!(error.kind(), csv::ErrorKind::Io(_)))
}

fn explain_flaw(file: &InputFile, flaw: Flaw, line: u64) -> Diagnostic {
    let shown = file.display();
    let (code, message, hint, line) = match flaw {
        Flaw::NeverClosed { breaks_before } => (
            Code::CsvOpenQuote,
            format!("`{shown}` ends inside a quoted cell: the quote that opens here is never closed"),
            "close the quote; a quote inside a quoted cell is written twice (`\"\"`)",
            line + breaks_before,
        ),
        Flaw::LineBreak { breaks_before } => (
            Code::CsvLineBreak,
            format!("a quoted cell of `{shown}` that opens here contains a line break"),
            "close the quote; if cells of this file can contain line breaks, set `multiline: true`",
            line + breaks_before,
        ),
        Flaw::TextBehind { breaks_before } => (
            Code::CsvTextAfterQuote,
            format!("a quoted cell of `{shown}` has text after its closing quote"),
            "a quote inside a quoted cell is written twice (`\"\"`)",
            line + breaks_before,
        ),
    };
    Diagnostic::error(code, message).hint(hint).in_file(file, Some(line), None)
}

/// A first row such as `+919876543210,Asha` or `tel:+91 98765 43210` is data.
fn looks_like_a_number(name: &str) -> bool {
    name.chars().filter(|character| character.is_numeric()).count() >= 7
}

/// Whether this is what people call a column, and not a line of some other file.
fn looks_like_a_name(name: &str) -> bool {
    name.chars().count() <= 40
        && name.starts_with(|first: char| first.is_alphabetic() || first == '_')
        && name.chars().all(|character| character.is_alphanumeric() || " _-.()#&?".contains(character))
        && !looks_like_a_number(name)
}

/// Reads a file and keeps the bytes of the row that is being read.
struct Tap {
    file: File,
    kept: Vec<u8>,
    /// Where in the file the kept bytes begin.
    kept_from: u64,
    /// Where in the file the row begins that is being read.
    row_from: u64,
    read: u64,
    /// Whether any byte so far was a quote.
    has_quotes: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("a row is too long")]
struct RowTooLong;

impl Tap {
    fn new(file: File) -> Self {
        Self { file, kept: Vec::new(), kept_from: 0, row_from: 0, read: 0, has_quotes: false }
    }

    /// Earlier bytes are needed no more.
    fn keep_from(&mut self, offset: u64) {
        self.row_from = offset;
    }

    /// The bytes from one place of the file to another, both of which are kept.
    fn bytes(&self, from: u64, to: u64) -> &[u8] {
        let at = |offset: u64| usize::try_from(offset.saturating_sub(self.kept_from)).unwrap_or(usize::MAX);
        self.kept.get(at(from)..at(to)).unwrap_or_default()
    }
}

impl Read for Tap {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let done = usize::try_from(self.row_from - self.kept_from).unwrap_or(usize::MAX).min(self.kept.len());
        self.kept.drain(..done);
        self.kept_from += done as u64;
        if self.kept.len() > MAX_ROW_BYTES {
            return Err(io::Error::other(RowTooLong));
        }
        let count = self.file.read(buffer)?;
        self.kept.extend_from_slice(&buffer[..count]);
        self.has_quotes = self.has_quotes || memchr::memchr(b'"', &buffer[..count]).is_some();
        self.read += count as u64;
        if self.read > MAX_DATA_BYTES {
            return Err(io::Error::other(FileError::TooLarge {
                path: "the file".to_owned(),
                bytes: self.read,
                most: MAX_DATA_BYTES,
            }));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
