//! CSV files with a header row: what is read, strictly, and what is said when it cannot be.
//!
//! A cell is never shown in an error, since it may be somebody's name or number. White space
//! around a cell is not part of it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use csv::{Reader, ReaderBuilder, StringRecord, Trim};
use hashbrown::HashMap;

use crate::diagnostic::{Diagnostic, did_you_mean};

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

/// An open CSV file.
pub struct Table {
    path: PathBuf,
    columns: Arc<Columns>,
    reader: Reader<File>,
}

impl Table {
    /// Opens a file and reads its header.
    pub fn open(path: &Path, delimiter: u8) -> Result<Self, Diagnostic> {
        let shown = path.display();
        let problem = |code, message: String| Diagnostic::error(code, message).in_file(path, None, None);
        let file = File::open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => problem("no-such-file", format!("there is no file `{shown}`"))
                .hint("paths are relative to the file that they are written in"),
            _ => problem("unreadable-file", format!("cannot read `{shown}`: {error}")),
        })?;
        if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
            return Err(problem("unreadable-file", format!("`{shown}` is a directory")));
        }
        let mut reader =
            ReaderBuilder::new().delimiter(delimiter).trim(Trim::Headers).buffer_capacity(1 << 16).from_reader(file);
        let header = reader.headers().map_err(|error| explain(path, &error))?.clone();
        if header.len() > MAX_COLUMNS {
            let message = format!("`{shown}` has {} columns; a table has at most {MAX_COLUMNS}", header.len());
            return Err(problem("csv-too-many-columns", message));
        }
        let names: Vec<String> = header.iter().map(str::to_owned).collect();
        if names.iter().all(String::is_empty) {
            return Err(problem("csv-empty", format!("`{shown}` is empty: there is no header row")));
        }
        let mut positions = HashMap::new();
        for (position, name) in names.iter().enumerate() {
            if !name.is_empty() && positions.insert(name.clone(), position).is_some() {
                return Err(Diagnostic::error("csv-duplicate-column", format!("`{shown}` has two columns `{name}`"))
                    .hint("rename one of them")
                    .in_file(path, Some(1), None));
            }
        }
        if names.iter().any(|name| looks_like_a_number(name)) {
            return Err(Diagnostic::error(
                "csv-no-header",
                format!("the first row of `{shown}` holds a phone number, so it is no header"),
            )
            .hint("put a row with the columns' names at the top")
            .in_file(path, Some(1), None));
        }
        Ok(Self { path: path.to_owned(), columns: Arc::new(Columns { names, positions }), reader })
    }

    /// The file's path, as the user would type it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The columns.
    pub fn columns(&self) -> &Arc<Columns> {
        &self.columns
    }

    /// The position of a column that must be there.
    pub fn require(&self, column: &str) -> Result<usize, Diagnostic> {
        self.columns.position(column).ok_or_else(|| self.no_column(column))
    }

    /// What is said of a column that is not there.
    pub fn no_column(&self, column: &str) -> Diagnostic {
        let names = || self.columns.names.iter().map(String::as_str).filter(|name| !name.is_empty());
        let hint = match did_you_mean(column, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let more = if names().nth(MAX_LISTED).is_some() { ", …" } else { "" };
                let listed: Vec<String> = names().take(MAX_LISTED).map(|name| format!("`{name}`")).collect();
                format!("columns: {}{more}", listed.join(", "))
            }
        };
        Diagnostic::error("no-such-column", format!("`{}` has no column `{column}`", self.path.display()))
            .hint(hint)
            .in_file(&self.path, Some(1), None)
    }

    /// Reads the next row into `record` and tells its line, from 1. `Ok(None)` at the end.
    /// After an error the next row can be read.
    pub fn next(&mut self, record: &mut StringRecord) -> Result<Option<u64>, Diagnostic> {
        match self.reader.read_record(record) {
            Ok(true) => {
                // Few cells need it, and it makes a new row.
                if record.iter().any(|cell| cell.trim().len() != cell.len()) {
                    record.trim();
                }
                Ok(Some(record.position().map_or(0, csv::Position::line)))
            }
            Ok(false) => Ok(None),
            Err(error) => Err(explain(&self.path, &error)),
        }
    }
}

/// A first row such as `+919876543210,Asha` is data. Names of columns have letters.
fn looks_like_a_number(name: &str) -> bool {
    let digits = name.bytes().filter(u8::is_ascii_digit).count();
    digits >= 8 && name.chars().all(|character| character.is_ascii_digit() || "+-() ".contains(character))
}

fn explain(path: &Path, error: &csv::Error) -> Diagnostic {
    let shown = path.display();
    let line = error.position().map(csv::Position::line);
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => Diagnostic::error(
            "csv-ragged",
            format!("a row of `{shown}` has {len} cells where the header has {expected_len}"),
        )
        .hint("a cell that holds the delimiter must be quoted")
        .in_file(path, line, None),
        csv::ErrorKind::Utf8 { err, .. } => {
            Diagnostic::error("csv-not-utf8", format!("cell {} of this row of `{shown}` is not UTF-8", err.field() + 1))
                .hint("export the file as UTF-8")
                .in_file(path, line, None)
        }
        csv::ErrorKind::Io(error) => {
            Diagnostic::error("unreadable-file", format!("cannot read `{shown}`: {error}")).in_file(path, line, None)
        }
        _ => Diagnostic::error("csv", format!("`{shown}` is not readable as CSV")).in_file(path, line, None),
    }
}

/// About how many rows a file holds, from how long its first are; 0 for what is no file.
pub fn rows_about(path: &Path) -> usize {
    const LOOK: u64 = 1 << 16;
    let Ok(there) = std::fs::metadata(path) else { return 0 };
    let mut first = Vec::new();
    if !there.is_file() || File::open(path).and_then(|file| file.take(LOOK).read_to_end(&mut first)).is_err() {
        return 0;
    }
    let lines = first.iter().filter(|byte| **byte == b'\n').count() as u64;
    // A little more: where one row too many comes, all of them move.
    let rows = there.len().saturating_mul(lines) / (first.len() as u64).max(1);
    usize::try_from(rows + rows / 16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_guessed_from_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("people.csv");
        std::fs::write(&path, "9876543210,Asha\n".repeat(20_000)).unwrap();
        assert_eq!(rows_about(&path), 20_000 + 20_000 / 16);
        std::fs::write(&path, "").unwrap();
        assert_eq!((rows_about(&path), rows_about(directory.path()), rows_about(&path.join("no"))), (0, 0, 0));
    }
}
