//! CSV files with a header row: what is read, strictly, and what is said when it cannot be.
//!
//! A cell is never shown in an error, since it may be somebody's name or number. White space
//! around a cell is not part of it.
//!
//! The CSV library always finds *some* way to read a file: a quote that is never closed makes the rest
//! of the file one cell. So [`quotes`] looks at the bytes of each row that holds a quote and refuses
//! what the library would have to guess.

mod lines;
mod quotes;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use csv::{Reader, ReaderBuilder, StringRecord, Trim};
use hashbrown::HashMap;

use self::lines::Lines;
use self::quotes::Flaw;
use crate::domain::diagnostic::{Code, Diagnostic, did_you_mean};
use crate::util::fs::{FileError, InputFile, MAX_DATA_BYTES};

/// The longest row. What is longer is another kind of file, or has a quote that is never closed.
const MAX_ROW_BYTES: usize = 8 << 20;

/// The most columns that a table may have, as in spreadsheets.
const MAX_COLUMNS: usize = 16_384;

/// The most columns that are listed where one is missing.
const MAX_LISTED: usize = 30;

/// The columns of a table, by position and by name.
#[derive(Debug, Default)]
pub struct Columns {
    names: Vec<String>,
    positions: HashMap<String, usize>,
}

impl Columns {
    /// The position of a column.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.positions.get(name).copied()
    }

    /// The names, in the order of the file.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

/// Cells that hold a whole row: most likely a quote that was closed too late.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WholeRows {
    /// How many such cells there are.
    pub cells: u64,
    /// The line of the row with the first one.
    pub first_line: u64,
}

/// An open CSV file.
pub struct Table {
    file: InputFile,
    columns: Arc<Columns>,
    reader: Reader<Tap>,
    lines: Lines,
    delimiter: u8,
    multiline: bool,
    /// Nothing more is read after an error that makes the rest of the file uncertain.
    broken: bool,
    rows: u64,
    whole_rows: WholeRows,
}

impl Table {
    /// Opens a file and reads its header. Cells may hold line breaks only if it is `multiline`.
    pub fn open(file: &InputFile, delimiter: u8, multiline: bool) -> Result<Self, Diagnostic> {
        let open = file.open(MAX_DATA_BYTES).map_err(|error| error.diagnostic(file))?;
        let reader = ReaderBuilder::new()
            .delimiter(delimiter)
            .trim(Trim::Headers)
            .buffer_capacity(1 << 16)
            .from_reader(Tap::new(open.into_file()));
        let mut table = Self {
            file: file.clone(),
            columns: Arc::default(),
            reader,
            lines: Lines::default(),
            delimiter,
            multiline,
            broken: false,
            rows: 0,
            whole_rows: WholeRows::default(),
        };
        table.columns = Arc::new(table.header()?);
        Ok(table)
    }

    fn header(&mut self) -> Result<Columns, Diagnostic> {
        let shown = self.file.display().to_string();
        let header = self.reader.headers().cloned();
        let line = self.look_at_row(0, !is_io(header.as_ref().err()))?;
        let header = header.map_err(|error| self.explain(&error, line))?;
        let problem = |code, message| Diagnostic::error(code, message).in_file(&self.file, Some(line), None);
        if header.len() > MAX_COLUMNS {
            let message = format!("`{shown}` has {} columns; a table has at most {MAX_COLUMNS}", header.len());
            return Err(problem(Code::CsvTooManyColumns, message));
        }
        let names: Vec<String> = header.iter().map(str::to_owned).collect();
        if names.iter().all(String::is_empty) {
            return Err(Diagnostic::error(Code::CsvEmpty, format!("`{shown}` is empty: there is no header row"))
                .in_file(&self.file, None, None));
        }
        if names.iter().any(|name| looks_like_a_number(name)) {
            return Err(problem(
                Code::CsvNoHeader,
                format!("the first row of `{shown}` holds a number of seven or more digits, so it is no header"),
            )
            .hint("put a row with the columns' names at the top; a name has fewer than seven digits"));
        }
        let mut positions = HashMap::new();
        for (position, name) in names.iter().enumerate() {
            if !name.is_empty()
                && let Some(first) = positions.insert(name.clone(), position)
            {
                let which = match looks_like_a_name(name) {
                    true => format!("two columns `{name}`"),
                    false => format!("columns {} and {} of the same name", first + 1, position + 1),
                };
                return Err(
                    problem(Code::CsvDuplicateColumn, format!("`{shown}` has {which}")).hint("rename one of them")
                );
            }
        }
        Ok(Columns { names, positions })
    }

    /// The file's path, as the user would type it.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// The columns.
    pub fn columns(&self) -> &Arc<Columns> {
        &self.columns
    }

    /// How many rows were read so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The cells read so far that hold a whole row. Only a `multiline` file can have any.
    pub fn whole_rows(&self) -> WholeRows {
        self.whole_rows
    }

    /// The position of a column that must be there.
    pub fn require(&self, column: &str) -> Result<usize, Diagnostic> {
        self.columns.position(column).ok_or_else(|| self.no_column(column))
    }

    /// The error for a column that does not exist. The file may be something else than a list of people,
    /// so columns are named only if all of them look like names.
    pub fn no_column(&self, column: &str) -> Diagnostic {
        let names: Vec<&str> = self.columns.names.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
        let hint = if !names.iter().all(|name| looks_like_a_name(name)) {
            "the first row must hold the columns' names".to_owned()
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

    /// Reads the next row into `record` and returns its line, from 1. `Ok(None)` at the end.
    /// After an error the next row can be read, unless the rest of the file became uncertain.
    pub fn next(&mut self, record: &mut StringRecord) -> Result<Option<u64>, Diagnostic> {
        if self.broken {
            return Ok(None);
        }
        let start = self.reader.position().byte();
        self.reader.get_mut().keep_from(start);
        let read = self.reader.read_record(record);
        if let Ok(false) = read {
            return Ok(None);
        }
        let line = self.look_at_row(start, !is_io(read.as_ref().err()))?;
        match read {
            Ok(_) => {
                self.rows += 1;
                // Few cells need it, and it makes a new row.
                if record.iter().any(has_blank_ends) {
                    record.trim();
                }
                Ok(Some(line))
            }
            Err(error) => Err(self.explain(&error, line)),
        }
    }

    /// Checks the bytes of the row that was read from `start`, if it is `whole`, and returns its line.
    fn look_at_row(&mut self, start: u64, whole: bool) -> Result<u64, Diagnostic> {
        let end = self.reader.position().byte();
        let bytes = self.reader.get_ref().bytes(start, end);
        let bytes = if start == 0 { bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes) } else { bytes };
        let (line, row) = self.lines.row(bytes);
        // Most files hold no quote at all.
        if !whole || !self.reader.get_ref().has_quotes || memchr::memchr(b'"', row).is_none() {
            return Ok(line);
        }
        let columns = self.columns.names.len();
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
                format!("a row of `{shown}` has {len} cells where the header has {expected_len}"),
                Some(line),
            )
            .hint("a cell that holds the delimiter must be quoted"),
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
                    .hint("this is another kind of file, or a quote is never closed")
                    .in_file(&self.file, Some(line), None),
                    false => Diagnostic::error(Code::UnreadableFile, format!("cannot read `{shown}`: {error}"))
                        .in_file(&self.file, Some(line), None),
                }
            }
            _ => problem(Code::CsvUnreadable, format!("`{shown}` is not readable as CSV"), Some(line)),
        }
    }
}

/// Whether white space stands at the beginning or the end of a cell.
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
            format!("`{shown}` ends inside a quoted cell: the quote that opens it here is never closed"),
            "close the quote; a quote inside a quoted cell is written twice (`\"\"`)",
            line + breaks_before,
        ),
        Flaw::LineBreak { breaks_before } => (
            Code::CsvLineBreak,
            format!("a quoted cell of `{shown}` that opens here holds a line break"),
            "close its quote; if cells of this file may hold line breaks, set `multiline: true`",
            line + breaks_before,
        ),
        Flaw::TextBehind { breaks_before } => (
            Code::CsvTextAfterQuote,
            format!("a quoted cell of `{shown}` goes on behind its closing quote"),
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

/// The estimated number of rows of a file, from the length of its first ones; 0 if it cannot be read.
pub fn rows_about(file: &InputFile) -> usize {
    const LOOK: u64 = 1 << 16;
    let Ok(open) = file.open(MAX_DATA_BYTES) else { return 0 };
    let len = open.len();
    let mut first = Vec::new();
    if open.into_file().take(LOOK).read_to_end(&mut first).is_err() {
        return 0;
    }
    let lines = first.iter().filter(|byte| **byte == b'\n').count() as u64;
    // A little more: where one row too many comes, all of them move.
    let rows = len.saturating_mul(lines) / (first.len() as u64).max(1);
    usize::try_from(rows + rows / 16).unwrap_or(0)
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
