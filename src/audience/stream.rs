//! One pass over the sources.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::dedupe::People;
use super::report::{ListReport, ReadReport, SourceReport};
use super::source::problems::Problems;
use super::source::{self, RowSource};
use super::suppress::{Lists, Suppressed};
use super::{AudienceItem, Excluded, Exclusion, Recipient};
use crate::domain::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::domain::input::{AudienceInput, SourceInput};
use crate::domain::phone::{E164, PhoneError};
use crate::domain::row::{Row, RowOrigin};
use crate::util::pipeline::{Sender, run_pipeline};

/// An audience that is ready to be read.
pub struct Audience {
    spec: AudienceInput,
    suppressed: Suppressed,
    lists: Vec<ListReport>,
}

impl Audience {
    /// Reads the suppression lists. The error contains the problems of all lists.
    pub fn open(spec: &AudienceInput) -> Result<Self, Diagnostics> {
        let mut suppressed = Suppressed::default();
        let mut problems = Problems::default();
        let lists = spec
            .suppress
            .iter()
            .enumerate()
            .map(|(position, list)| suppressed.read(position, list, &spec.phone, &spec.reader, &mut problems))
            .collect();
        problems.into_result()?;
        Ok(Self { spec: spec.clone(), suppressed, lists })
    }

    /// Streams all rows to `visit`, in the order of the sources, until it breaks. Returns how much was read.
    ///
    /// `condition` evaluates `where` for a row; its error is a detail without personal data.
    ///
    /// A source that cannot be read is an error. The rest of it is still read, to report every problem at
    /// once, but no further row is visited.
    ///
    /// `visit` runs on a second thread while this one reads rows and numbers, which is half of the work.
    pub fn rows(
        &self,
        mut condition: impl FnMut(&Arc<Row>) -> Result<bool, String> + Send,
        mut visit: impl FnMut(AudienceItem) -> ControlFlow<()> + Send,
    ) -> Result<ReadReport, Diagnostics> {
        let ((problems, sources), seen) = run_pipeline(
            |sender| self.read(sender),
            |chunks| {
                let mut seen = Seen::new(&self.lists);
                for read in chunks.flatten() {
                    let item = self.item(read, &mut condition, &mut seen);
                    if visit(item).is_break() {
                        return None;
                    }
                }
                Some(seen)
            },
        );
        let mut report = ReadReport { sources, suppress: self.lists.clone() };
        if let Some(seen) = seen {
            problems.into_result()?;
            seen.check(&self.spec)?;
            report.suppress = seen.lists;
        }
        Ok(report)
    }

    /// The estimated number of rows; 0 if there is no estimate.
    pub fn size_hint(&self) -> usize {
        let hints = self.spec.sources.iter().map(|spec| source::open(spec).map_or(0, |source| source.size_hint()));
        hints.fold(0, usize::saturating_add)
    }

    /// Reads all sources, in chunks, until the end or until the receiver is gone.
    fn read(&self, sender: &Sender<Vec<ReadRow>>) -> (Problems, Vec<SourceReport>) {
        let mut problems = Problems::default();
        let mut reports = Vec::new();
        for (position, spec) in self.spec.sources.iter().enumerate() {
            let Some(mut source) = open_source(spec, &self.spec, &mut problems) else { continue };
            let mut filled = FilledColumns::new(&*source, &self.spec);
            let mut report = SourceReport::default();
            let mut next = Row::new(Arc::clone(source.columns()));
            let mut chunk = Vec::with_capacity(CHUNK_LEN);
            loop {
                let location = match source.next(&mut next) {
                    Ok(Some(location)) => location,
                    Ok(None) => break,
                    Err(problem) => {
                        problems.add(problem);
                        continue;
                    }
                };
                report.rows += 1;
                if !problems.is_empty() {
                    continue;
                }
                filled.add(&next);
                let number = self.spec.reader.read(next.cell(filled.phone));
                // Most rows are as long as the one before, so each gets its memory at once.
                let following = Row::with_room_of(&next);
                let row = Arc::new(std::mem::replace(&mut next, following));
                chunk.push(ReadRow { origin: RowOrigin { source: position, location }, row, number });
                if chunk.len() == CHUNK_LEN
                    && !sender.send(std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK_LEN)))
                {
                    return (problems, reports);
                }
            }
            filled.check(&*source, report.rows, &mut problems);
            report.warnings = source.warnings();
            reports.push(report);
            if !sender.send(chunk) {
                return (problems, reports);
            }
        }
        (problems, reports)
    }

    fn item(
        &self,
        read: ReadRow,
        condition: &mut impl FnMut(&Arc<Row>) -> Result<bool, String>,
        seen: &mut Seen,
    ) -> AudienceItem {
        let ReadRow { origin, row, number } = read;
        seen.rows += 1;
        let excluded = |reason, detail| AudienceItem::Excluded(Excluded { origin, reason, detail });
        match condition(&row) {
            Ok(true) => {}
            Ok(false) => {
                if !self.suppressed.is_empty()
                    && let Ok(address) = number
                    && let Some(lists) = self.suppressed.lists_of(&address.identity())
                {
                    seen.count(lists, |list| &mut list.filtered);
                }
                return excluded(Exclusion::Filtered, None);
            }
            Err(detail) => return excluded(Exclusion::ConditionFailed, Some(detail)),
        }
        let address = match number {
            Ok(address) => address,
            Err(PhoneError::Missing) => return excluded(Exclusion::MissingNumber, None),
            Err(error) => return excluded(Exclusion::InvalidNumber, Some(error.to_string())),
        };
        let identity = address.identity();
        if let Some(lists) = self.suppressed.lists_of(&identity) {
            seen.count(lists, |list| &mut list.matched);
            return excluded(Exclusion::Suppressed, None);
        }
        match seen.people.add(address) {
            Ok(()) => AudienceItem::Recipient(Recipient { origin, address, identity, row }),
            Err(reason) => excluded(reason, None),
        }
    }
}

/// Reads every source of an audience to its end and checks everything but `where` and the numbers of the sources.
/// Returns warnings; the error contains all problems.
pub fn check_files(spec: &AudienceInput) -> Result<Vec<Diagnostic>, Diagnostics> {
    let mut problems = Problems::default();
    let lists = match Audience::open(spec) {
        Ok(audience) => audience.lists,
        Err(found) => {
            found.0.into_iter().for_each(|problem| problems.add(problem));
            Vec::new()
        }
    };
    let mut sources = Vec::new();
    for of_source in &spec.sources {
        let Some(mut source) = open_source(of_source, spec, &mut problems) else { continue };
        let mut filled = FilledColumns::new(&*source, spec);
        let mut report = SourceReport::default();
        let mut row = Row::new(Arc::clone(source.columns()));
        loop {
            match source.next(&mut row) {
                Ok(Some(_)) => {
                    report.rows += 1;
                    filled.add(&row);
                }
                Ok(None) => break,
                Err(problem) => problems.add(problem),
            }
        }
        filled.check(&*source, report.rows, &mut problems);
        report.warnings = source.warnings();
        sources.push(report);
    }
    if problems.is_empty() && sources.iter().all(|source| source.rows == 0) {
        spec.sources.first().into_iter().for_each(|first| problems.add(no_rows(first)));
    }
    problems.into_result()?;
    Ok(ReadReport { sources, suppress: lists }.warnings(spec, false))
}

fn open_source(source: &SourceInput, spec: &AudienceInput, problems: &mut Problems) -> Option<Box<dyn RowSource>> {
    match source::open(source).and_then(|source| source.require(&spec.phone).map(|_| source)) {
        Ok(source) => Some(source),
        Err(problem) => {
            problems.add(problem);
            None
        }
    }
}

fn no_rows(source: &SourceInput) -> Diagnostic {
    let problem = Diagnostic::error(Code::CsvNoRows, format!("`{source}` has a header but no rows"));
    source.locate(problem.hint("nobody would get the offer"), None)
}

/// Which of the columns that the manifest names have a value in at least one row.
struct FilledColumns {
    /// The column of the phone number.
    phone: usize,
    phone_filled: bool,
    /// The column of the id, until a row has a value in it.
    id: Option<usize>,
}

impl FilledColumns {
    fn new(source: &dyn RowSource, spec: &AudienceInput) -> Self {
        let position = |column: &str| source.columns().position(column);
        let id = spec.id.as_deref().and_then(position);
        Self { phone: position(&spec.phone).unwrap_or_default(), phone_filled: false, id }
    }

    fn add(&mut self, row: &Row) {
        self.phone_filled = self.phone_filled || !row.cell(self.phone).is_empty();
        if self.id.is_some_and(|id| !row.cell(id).is_empty()) {
            self.id = None;
        }
    }

    /// Reports columns that are empty in every row.
    fn check(&self, source: &dyn RowSource, rows: u64, problems: &mut Problems) {
        if rows == 0 || !problems.is_empty() {
            return;
        }
        let phone = (!self.phone_filled).then_some(self.phone);
        for (column, key) in [(phone, "audience.phone"), (self.id, "audience.id")] {
            let Some(name) = column.and_then(|column| source.columns().names().get(column)) else { continue };
            let message = format!("the column `{name}` of `{}` is empty in every row", source.name());
            let problem =
                Diagnostic::error(Code::EmptyColumn, message).hint(format!("set `{key}` to a column that has values"));
            problems.add(source.locate(problem, None));
        }
    }
}

/// How many rows are handed to the other thread together.
const CHUNK_LEN: usize = 512;

/// A row, and the number in it.
struct ReadRow {
    origin: RowOrigin,
    row: Arc<Row>,
    number: Result<E164, PhoneError>,
}

/// What is known of the rows so far.
struct Seen {
    rows: u64,
    people: People,
    lists: Vec<ListReport>,
}

impl Seen {
    fn new(lists: &[ListReport]) -> Self {
        Self { rows: 0, people: People::default(), lists: lists.to_vec() }
    }

    /// Counts a row that is on `lists`.
    fn count(&mut self, lists: Lists, counter: impl Fn(&mut ListReport) -> &mut u64) {
        for position in lists.positions() {
            if let Some(list) = self.lists.get_mut(position) {
                *counter(list) += 1;
            }
        }
    }

    /// Reports what is wrong with the audience as a whole.
    fn check(&self, spec: &AudienceInput) -> Result<(), Diagnostics> {
        let Some(first) = spec.sources.first() else { return Ok(()) };
        if self.rows == 0 {
            return Err(no_rows(first).into());
        }
        if self.people.len() == 1 && self.rows > 1 && self.people.duplicates() == self.rows - 1 {
            let message = format!("all {} rows of the audience have the same phone number", self.rows);
            let problem = Diagnostic::error(Code::CsvOnlyDuplicates, message)
                .hint("this looks like a broken export; if it is intended, keep one row");
            return Err(first.locate(problem, None).into());
        }
        Ok(())
    }
}
