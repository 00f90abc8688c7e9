//! Where rows come from.

pub mod csv;
pub mod problems;

use std::sync::Arc;

use crate::domain::diagnostic::Diagnostic;
use crate::domain::input::SourceInput;
use crate::domain::row::{Columns, Row, RowLocation};

/// A source of rows that is being read.
pub trait RowSource: Send {
    /// The columns.
    fn columns(&self) -> &Arc<Columns>;

    /// Reads the next row into `row`, which keeps its memory, and returns where it is; `Ok(None)` at the end.
    ///
    /// After an error the row after it can be read, unless it is uncertain where that begins: then the
    /// source ends.
    fn next(&mut self, row: &mut Row) -> Result<Option<RowLocation>, Diagnostic>;

    /// The estimated number of rows; 0 if there is no estimate.
    fn size_hint(&self) -> usize;

    /// The source as the user would type it.
    fn name(&self) -> String;

    /// Points a diagnostic at this source, and at a row of it.
    fn locate(&self, problem: Diagnostic, row: Option<RowLocation>) -> Diagnostic;

    /// The error for a column that this source does not have.
    fn no_column(&self, column: &str) -> Diagnostic;

    /// Warnings about the rows that were read so far.
    fn warnings(&self) -> Vec<Diagnostic> {
        Vec::new()
    }

    /// The position of a column that must exist.
    fn require(&self, column: &str) -> Result<usize, Diagnostic> {
        self.columns().position(column).ok_or_else(|| self.no_column(column))
    }
}

/// Opens a source and reads its columns.
pub fn open(spec: &SourceInput) -> Result<Box<dyn RowSource>, Diagnostic> {
    match spec {
        SourceInput::Csv(spec) => Ok(Box::new(csv::CsvSource::open(spec)?)),
    }
}

/// The first row of a source and where it is, for a trial of the expressions.
pub fn first_row(source: &mut dyn RowSource) -> Result<Option<(Arc<Row>, RowLocation)>, Diagnostic> {
    let mut row = Row::new(Arc::clone(source.columns()));
    let location = source.next(&mut row)?;
    Ok(location.map(|location| (Arc::new(row), location)))
}
