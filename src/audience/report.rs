//! How much was read from each source of an audience, and what looks wrong about it.

use crate::domain::diagnostic::{Code, Diagnostic};
use crate::domain::input::AudienceInput;
use crate::util::human::grouped;

/// What was read from a source.
#[derive(Debug, Clone, Default)]
pub struct SourceReport {
    /// The number of rows.
    pub rows: u64,
    /// Warnings about its rows.
    pub warnings: Vec<Diagnostic>,
}

/// What was read from a suppression list.
#[derive(Debug, Clone, Default)]
pub struct ListReport {
    /// The number of rows.
    pub rows: u64,
    /// The number of rows without a valid number that `invalid: skip` skipped.
    pub skipped: u64,
    /// The number of rows of the audience that the list excludes.
    pub matched: u64,
    /// The number of rows of the audience that are on the list, and that `where` excludes before it.
    pub filtered: u64,
    /// Warnings about its rows.
    pub warnings: Vec<Diagnostic>,
}

/// What was read from all sources and lists, in the order of the manifest.
#[derive(Debug, Clone, Default)]
pub struct ReadReport {
    /// The sources.
    pub sources: Vec<SourceReport>,
    /// The suppression lists.
    pub suppress: Vec<ListReport>,
}

impl ReadReport {
    /// Warnings about sources and lists that contribute nothing, and about their rows. Whom a list matches is
    /// known only after the audience was read: `matched` says whether it was.
    pub fn warnings(&self, spec: &AudienceInput, matched: bool) -> Vec<Diagnostic> {
        let mut warnings = Vec::new();
        for (list, read) in spec.suppress.iter().zip(&self.suppress) {
            let name = &list.source;
            let problem = match read {
                ListReport { rows: 0, .. } => Diagnostic::warning(
                    Code::SuppressionEmpty,
                    format!("the suppression list `{name}` has no rows, so it excludes nobody"),
                ),
                ListReport { matched: 0, filtered: 0, rows, .. } if matched => Diagnostic::warning(
                    Code::SuppressionMatchesNobody,
                    format!(
                        "nobody in the audience is on the suppression list `{name}` ({}), so it excludes nobody",
                        rows_of(*rows)
                    ),
                ),
                _ => continue,
            };
            warnings.push(list.source.locate(problem, None));
        }
        for (source, read) in spec.sources.iter().zip(&self.sources) {
            if read.rows == 0 {
                let message = format!("the source `{source}` has a header but no rows");
                warnings.push(source.locate(Diagnostic::warning(Code::CsvNoRows, message), None));
            }
        }
        let lists = self.suppress.iter().map(|read| &read.warnings);
        warnings.extend(lists.chain(self.sources.iter().map(|read| &read.warnings)).flatten().cloned());
        warnings
    }
}

fn rows_of(rows: u64) -> String {
    if rows == 1 { "1 row".to_owned() } else { format!("{} rows", grouped(rows)) }
}
