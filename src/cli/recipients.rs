//! Finds the audience row of each recorded send.
//!
//! The ledger holds no number in the clear. With its key, each row's number makes the send key that
//! the ledger has, so the row of a send is found by reading the audience again.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ui::Ui;
use crate::audience::source;
use crate::cli::error::CommandError;
use crate::cli::session;
use crate::domain::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::domain::input::AudienceInput;
use crate::domain::row::{self, RowLocation};
use crate::ledger::{BySend, LedgerError, LedgerKey, LedgerLocation, RunRecord, SendKey};
use crate::manifest;

/// The rows of some sends.
pub(super) struct Rows {
    /// The source of each, and where it is in the source.
    found: BySend<(usize, RowLocation)>,
    sources: Vec<String>,
    /// Whether every row was read: then who was not found is not in the audience.
    complete: bool,
}

/// What is known of the row of one send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Row {
    /// The row, as `FILE:LINE`.
    At(String),
    /// The audience has no row with this person's number any more.
    Gone,
    /// Not all of the audience could be read.
    NotFound,
}

impl Rows {
    /// The row of this send's recipient.
    pub(crate) fn of(&self, key: &SendKey) -> Row {
        match self.found.get(key) {
            Some((source, location)) => Row::At(format!("{}:{location}", self.sources[*source])),
            None if self.complete => Row::Gone,
            None => Row::NotFound,
        }
    }

    /// Finds the first row of each person among `wanted`, in the audience of a manifest. Says once why rows are
    /// missing.
    pub(crate) async fn find(
        ui: &Ui,
        place: &LedgerLocation,
        manifest: &Path,
        data_dirs: &[PathBuf],
        runs: &[&RunRecord],
        wanted: &HashSet<SendKey>,
    ) -> Result<Option<Self>, CommandError> {
        let key = match session::key_of_recorded(place).await {
            Ok(key) => key,
            Err(problem @ (LedgerError::Key { .. } | LedgerError::KeyNotGiven | LedgerError::WrongKey { .. })) => {
                ui.say(&format!("note: the rows of these sends are not shown, because finding them needs the ledger's key: {problem}"));
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let read = match manifest::audience(manifest, data_dirs) {
            Ok((audience, problems)) => read(&audience, problems, &key, runs, wanted),
            Err(problems) => {
                let rows = Self { found: BySend::default(), sources: Vec::new(), complete: false };
                Read { rows, problems }
            }
        };
        if !read.problems.0.is_empty() {
            let warning = |problem| Diagnostic { severity: Severity::Warning, ..problem };
            ui.problems(&read.problems.0.into_iter().map(warning).collect::<Vec<_>>());
            ui.say("\nnote: not all of the audience could be read, so some rows may be missing below\n");
        }
        Ok(Some(read.rows))
    }
}

struct Read {
    rows: Rows,
    problems: Diagnostics,
}

/// How many broken rows are reported one by one.
const MAX_REPORTED: usize = 5;

/// Reads the sources until every wanted send is found. Rows that get no message today (who is on a
/// suppression list since, whom `where` does not select) are found as well.
fn read(
    audience: &AudienceInput,
    Diagnostics(mut problems): Diagnostics,
    key: &LedgerKey,
    runs: &[&RunRecord],
    wanted: &HashSet<SendKey>,
) -> Read {
    let scopes: HashSet<(&str, u32)> = runs.iter().map(|run| (run.campaign.as_str(), run.edition)).collect();
    let keys: Vec<_> = scopes.into_iter().map(|(campaign, edition)| key.send_keys(campaign, edition)).collect();
    let mut found = BySend::default();
    for (index, spec) in audience.sources.iter().enumerate() {
        let open = source::open(spec).and_then(|source| source.require(&audience.phone).map(|phone| (source, phone)));
        let (mut source, phone) = match open {
            Ok(open) => open,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        let mut row = row::Row::new(Arc::clone(source.columns()));
        while found.len() < wanted.len() {
            let location = match source.next(&mut row) {
                Ok(Some(location)) => location,
                Ok(None) => break,
                Err(problem) => {
                    problems.push(problem);
                    if problems.len() >= MAX_REPORTED {
                        break;
                    }
                    continue;
                }
            };
            let Ok(number) = audience.reader.read(row.cell(phone)) else { continue };
            for key in keys.iter().map(|keys| keys.of(number.identity())).filter(|key| wanted.contains(key)) {
                found.entry(key).or_insert((index, location));
            }
        }
    }
    let sources = audience.sources.iter().map(ToString::to_string).collect();
    Read { rows: Rows { found, sources, complete: problems.is_empty() }, problems: Diagnostics(problems) }
}
