//! How much was read from each file of an audience, and what looks wrong about it.

use super::AudienceSpec;
use crate::audience::source::csv::WholeRows;
use crate::domain::diagnostic::{Code, Diagnostic};
use crate::util::human::{count, grouped};

/// What was read from a source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourceRead {
    /// How many rows.
    pub rows: u64,
    /// Cells that hold a whole row.
    pub whole_rows: WholeRows,
}

/// What was read from a suppression list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListRead {
    /// How many rows.
    pub rows: u64,
    /// How many of them `invalid: skip` passed over.
    pub skipped: u64,
    /// How many rows of the audience it left out.
    pub matched: u64,
    /// Cells that hold a whole row.
    pub whole_rows: WholeRows,
}

/// What was read from all files, in the order of the manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadReport {
    /// The sources.
    pub sources: Vec<SourceRead>,
    /// The suppression lists.
    pub suppress: Vec<ListRead>,
}

impl ReadReport {
    /// Warnings about files that contribute nothing, and about cells that swallow rows. Whom a list
    /// matches is known only once the audience was read: `matched` says whether it was.
    pub fn warnings(&self, spec: &AudienceSpec, matched: bool) -> Vec<Diagnostic> {
        let mut warnings = Vec::new();
        for (list, read) in spec.suppress.iter().zip(&self.suppress) {
            let shown = list.path.display();
            let problem = match read {
                ListRead { rows: 0, .. } => Diagnostic::warning(
                    Code::SuppressionEmpty,
                    format!("the suppression list `{shown}` has no rows: it leaves nobody out"),
                ),
                ListRead { matched: 0, rows, .. } if matched => Diagnostic::warning(
                    Code::SuppressionMatchesNobody,
                    format!(
                        "nobody of the audience is on the suppression list `{shown}` ({}): it leaves nobody out",
                        rows_of(*rows)
                    ),
                ),
                _ => continue,
            };
            warnings.push(problem.in_file(&list.path, None, None));
        }
        for (source, read) in spec.sources.iter().zip(&self.sources) {
            if read.rows == 0 {
                let message = format!("the source `{}` has a header and no rows", source.path.display());
                warnings.push(Diagnostic::warning(Code::CsvNoRows, message).in_file(&source.path, None, None));
            }
        }
        let lists = spec.suppress.iter().map(|list| &list.path).zip(self.suppress.iter().map(|read| read.whole_rows));
        let sources =
            spec.sources.iter().map(|source| &source.path).zip(self.sources.iter().map(|read| read.whole_rows));
        for (path, whole) in lists.chain(sources).filter(|(_, whole)| whole.cells > 0) {
            warnings.push(whole_rows_warning(path, whole));
        }
        warnings
    }
}

/// What is said of cells that hold a whole row.
pub fn whole_rows_warning(path: &crate::util::fs::InputFile, whole: WholeRows) -> Diagnostic {
    let cells = count(usize::try_from(whole.cells).unwrap_or(usize::MAX), "cell");
    let verb = if whole.cells == 1 { "holds" } else { "hold" };
    Diagnostic::warning(
        Code::CsvCellHoldsARow,
        format!("{cells} of `{}` {verb} a whole row, the first in line {}", path.display(), whole.first_line),
    )
    .hint("if a quote is closed too late there, the rows inside the cell are read as text")
    .in_file(path, Some(whole.first_line), None)
}

fn rows_of(rows: u64) -> String {
    if rows == 1 { "1 row".to_owned() } else { format!("{} rows", grouped(rows)) }
}
