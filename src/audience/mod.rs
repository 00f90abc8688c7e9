//! The audience: rows in, people out.
//!
//! [`Audience::open`] reads the suppression lists and the headers; [`Audience::rows`] then streams
//! the sources once, in order. Each row either becomes a [`Recipient`] or is left out under a
//! [`Reason`], in this order of questions: does `where` admit it, is there a number, is the person
//! suppressed, was the person there before. So every row of every source is accounted for.
//!
//! Only what tells people apart is kept in memory: a few bytes for each.

mod report;
pub mod source;
mod suppress;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::domain::phone::{E164, Identity, PhoneError, PhoneReader};
use ::csv::StringRecord;
use hashbrown::HashSet;
use minijinja::Value;
use minijinja::value::{Enumerator, Object};

use crate::audience::source::csv::{self, Columns, Table};
use crate::domain::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::util::fs::InputFile;
use crate::util::pipeline::{Giver, hand_over};
pub use report::{ListRead, ReadReport, SourceRead, whole_rows_warning};
use suppress::Suppressed;
pub use suppress::{MAX_LISTS, column as suppression_column};

/// How many broken rows are reported one by one; the rest are counted.
const MOST_TOLD: usize = 20;

/// Where people come from and who is left out.
#[derive(Debug, Clone)]
pub struct AudienceSpec {
    /// The lists, in order.
    pub sources: Vec<SourceSpec>,
    /// The column of the phone number.
    pub phone: String,
    /// The column of the id, if there is one.
    pub id: Option<String>,
    /// Reads numbers, with the default region.
    pub reader: PhoneReader,
    /// Who must not be written to.
    pub suppress: Vec<SuppressSpec>,
}

/// One list of people.
#[derive(Debug, Clone)]
pub struct SourceSpec {
    /// The CSV file.
    pub path: InputFile,
    /// The byte between two cells.
    pub delimiter: u8,
    /// Whether cells may hold line breaks.
    pub multiline: bool,
}

/// One list of people who must not be written to.
#[derive(Debug, Clone)]
pub struct SuppressSpec {
    /// The CSV file.
    pub path: InputFile,
    /// The byte between two cells.
    pub delimiter: u8,
    /// Whether cells may hold line breaks.
    pub multiline: bool,
    /// The column of the phone number, if it is named.
    pub phone: Option<String>,
    /// Whether rows that are no number are passed over.
    pub skip_invalid: bool,
}

/// Why a row gets no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// `where` says no.
    Filtered,
    /// The cell of the number is empty.
    MissingNumber,
    /// The cell of the number holds something else.
    InvalidNumber,
    /// The person is on a suppression list.
    Suppressed,
    /// The person has an earlier row.
    Duplicate,
    /// An earlier row has the other form of this Argentine number: the same person, or a landline with the same digits.
    PossibleDuplicate,
    /// An expression could not be evaluated for this row.
    RenderError,
    /// `audience.template` names no template for this row.
    UnknownTemplate,
    /// A parameter would be sent empty, or in a form that WhatsApp refuses.
    BadParameter,
    /// The provider refused this message before; `--retry-rejected` tries it again.
    Rejected,
}

impl Reason {
    /// Whether the row was meant to get a message: these are worth a look.
    pub fn is_problem(self) -> bool {
        !matches!(self, Reason::Filtered | Reason::Suppressed | Reason::Duplicate)
    }

    /// The reason in machine-readable output.
    pub fn code(self) -> &'static str {
        match self {
            Reason::Filtered => "filtered",
            Reason::MissingNumber => "missing_number",
            Reason::InvalidNumber => "invalid_number",
            Reason::Suppressed => "suppressed",
            Reason::Duplicate => "duplicate",
            Reason::PossibleDuplicate => "possible_duplicate",
            Reason::RenderError => "render_error",
            Reason::UnknownTemplate => "unknown_template",
            Reason::BadParameter => "bad_parameter",
            Reason::Rejected => "rejected",
        }
    }

    /// The reason as a person reads it, after a count.
    pub fn words(self) -> &'static str {
        match self {
            Reason::Filtered => "not selected by `where`",
            Reason::MissingNumber => "without a number",
            Reason::InvalidNumber => "with something that is no phone number",
            Reason::Suppressed => "on a suppression list",
            Reason::Duplicate => "of a person with an earlier row",
            Reason::PossibleDuplicate => "of an Argentine number whose other form has an earlier row",
            Reason::RenderError => "that an expression could not be evaluated for",
            Reason::UnknownTemplate => "without a template",
            Reason::BadParameter => "with a parameter that WhatsApp refuses",
            Reason::Rejected => "refused by the provider before",
        }
    }
}

/// One row, as expressions see it: `recipient.first_name`. Empty cells are undefined, so that
/// `default('there')` works and a bare use of them is an error instead of "Hi ,".
#[derive(Debug, Default)]
pub struct Row {
    columns: Arc<Columns>,
    record: StringRecord,
}

impl Row {
    /// A row of a table.
    pub fn new(columns: Arc<Columns>, record: StringRecord) -> Self {
        Self { columns, record }
    }

    /// The cell of a column; `None` if it is empty or there is no such column.
    pub fn get(&self, column: &str) -> Option<&str> {
        self.columns.position(column).and_then(|at| self.record.get(at)).filter(|cell| !cell.is_empty())
    }
}

impl Object for Row {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get(key.as_str()?).map(Value::from)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let named = self.columns.names().iter().filter(|name| !name.is_empty());
        Enumerator::Values(named.map(|name| Value::from(name.as_str())).collect())
    }
}

/// Where a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowPlace {
    /// The position of its source, from 0.
    pub source: usize,
    /// Its line in the file, from 1.
    pub line: u64,
}

/// One person to write to.
#[derive(Debug, Clone)]
pub struct Recipient {
    /// Where the row stands.
    pub place: RowPlace,
    /// What is sent to.
    pub address: E164,
    /// Who it is.
    pub identity: Identity,
    /// The row, for expressions.
    pub row: Arc<Row>,
}

/// What became of a row.
#[derive(Debug)]
pub enum Entry {
    /// Somebody to write to.
    Recipient(Recipient),
    /// Nobody to write to.
    LeftOut(LeftOut),
}

/// A row that gets no message.
#[derive(Debug, Clone)]
pub struct LeftOut {
    /// Where the row stands.
    pub place: RowPlace,
    /// Why.
    pub reason: Reason,
    /// More about why; never anything out of the row.
    pub detail: Option<String>,
}

/// An audience that is ready to be read.
pub struct Audience {
    spec: AudienceSpec,
    suppressed: Suppressed,
    lists: Vec<ListRead>,
}

impl Audience {
    /// Reads the suppression lists. Every problem of every list is told at once.
    pub fn open(spec: &AudienceSpec) -> Result<Self, Diagnostics> {
        let mut suppressed = Suppressed::default();
        let mut found = Found::default();
        let lists = spec
            .suppress
            .iter()
            .enumerate()
            .map(|(position, list)| suppressed.read(position, list, &spec.phone, &spec.reader, &mut found))
            .collect();
        found.into_result()?;
        Ok(Self { spec: spec.clone(), suppressed, lists })
    }

    /// How many people are suppressed.
    pub fn suppressed(&self) -> usize {
        self.suppressed.len()
    }

    /// Streams all rows to `visit`, which gets them in the order of the sources, and reports how much was
    /// read from each file.
    ///
    /// `admits` answers `where` for a row; its error is a detail without personal data.
    /// A file that cannot be read as CSV is an error: what comes after the broken row is still
    /// looked at, to tell every problem at once, but nothing more is visited.
    ///
    /// A second thread visits while this one reads files and numbers, since that is half of the work.
    pub fn rows(
        &self,
        mut admits: impl FnMut(&Arc<Row>) -> Result<bool, String> + Send,
        mut visit: impl FnMut(Entry) -> ControlFlow<()> + Send,
    ) -> Result<ReadReport, Diagnostics> {
        // Numbers stay on this thread: the library's expressions are quickest on the one that used
        // them first.
        let ((found, sources), seen) = hand_over(
            |giver| self.read(giver),
            |chunks| {
                let mut seen = Seen { matched: vec![0; self.lists.len()], ..Seen::default() };
                for read in chunks.flatten() {
                    let entry = self.entry(read, &mut admits, &mut seen);
                    if visit(entry).is_break() {
                        return None;
                    }
                }
                Some(seen)
            },
        );
        let mut report = ReadReport { sources, suppress: self.lists.clone() };
        if let Some(seen) = seen {
            found.into_result()?;
            seen.check(&self.spec)?;
            for (list, matched) in report.suppress.iter_mut().zip(&seen.matched) {
                list.matched = *matched;
            }
        }
        Ok(report)
    }

    /// The estimated number of rows.
    pub fn rows_about(&self) -> usize {
        self.spec.sources.iter().map(|source| csv::rows_about(&source.path)).fold(0, usize::saturating_add)
    }

    /// Reads all sources, in chunks, until the end or until nobody listens.
    fn read(&self, giver: &Giver<Vec<ReadRow>>) -> (Found, Vec<SourceRead>) {
        let mut found = Found::default();
        let mut sources = Vec::new();
        for (source, spec) in self.spec.sources.iter().enumerate() {
            let Some(mut table) = open_source(spec, &self.spec, &mut found) else { continue };
            let columns = Arc::clone(table.columns());
            let mut filled = Filled::new(&table, &self.spec);
            let mut size = 64;
            let mut chunk = Vec::with_capacity(CHUNK);
            loop {
                // As large as the row before: a row is one piece of memory, not grown step by step.
                let mut record = StringRecord::with_capacity(size, columns.names().len());
                let line = match table.next(&mut record) {
                    Ok(Some(line)) => line,
                    Ok(None) => break,
                    Err(problem) => {
                        found.add(problem);
                        continue;
                    }
                };
                if !found.is_empty() {
                    continue;
                }
                size = record.as_slice().len() + 8;
                filled.row(&record);
                let number = self.spec.reader.read(record.get(filled.phone).unwrap_or_default());
                let row = Arc::new(Row { columns: Arc::clone(&columns), record });
                chunk.push(ReadRow { place: RowPlace { source, line }, row, number });
                if chunk.len() == CHUNK && !giver.give(std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK))) {
                    return (found, sources);
                }
            }
            filled.check(&table, &mut found);
            sources.push(SourceRead { rows: table.rows(), whole_rows: table.whole_rows() });
            if !giver.give(chunk) {
                return (found, sources);
            }
        }
        (found, sources)
    }

    fn entry(
        &self,
        read: ReadRow,
        admits: &mut impl FnMut(&Arc<Row>) -> Result<bool, String>,
        seen: &mut Seen,
    ) -> Entry {
        let ReadRow { place, row, number } = read;
        seen.rows += 1;
        let left_out = |reason, detail| Entry::LeftOut(LeftOut { place, reason, detail });
        match admits(&row) {
            Ok(true) => {}
            Ok(false) => return left_out(Reason::Filtered, None),
            Err(detail) => return left_out(Reason::RenderError, Some(detail)),
        }
        let address = match number {
            Ok(address) => address,
            Err(PhoneError::Missing) => return left_out(Reason::MissingNumber, None),
            Err(error) => return left_out(Reason::InvalidNumber, Some(error.to_string())),
        };
        let identity = address.identity();
        if let Some(lists) = self.suppressed.lists(&identity) {
            seen.matched_by(lists);
            return left_out(Reason::Suppressed, None);
        }
        if !seen.people.insert(identity) {
            seen.duplicates += 1;
            let other_form = address.identity_may_merge() && seen.argentine.get(&identity) != Some(&address);
            let reason = if other_form { Reason::PossibleDuplicate } else { Reason::Duplicate };
            return left_out(reason, None);
        }
        if address.identity_may_merge() {
            seen.argentine.insert(identity, address);
        }
        Entry::Recipient(Recipient { place, address, identity, row })
    }
}

/// Reads every file of an audience to its end and checks everything but `where` and the sources' numbers.
/// Returns warnings, or every error at once.
pub fn check_files(spec: &AudienceSpec) -> Result<Vec<Diagnostic>, Diagnostics> {
    let mut found = Found::default();
    let lists = match Audience::open(spec) {
        Ok(audience) => audience.lists,
        Err(problems) => {
            problems.0.into_iter().for_each(|problem| found.add(problem));
            Vec::new()
        }
    };
    let mut sources = Vec::new();
    let mut record = StringRecord::new();
    for source in &spec.sources {
        let Some(mut table) = open_source(source, spec, &mut found) else { continue };
        let mut filled = Filled::new(&table, spec);
        loop {
            match table.next(&mut record) {
                Ok(Some(_)) => filled.row(&record),
                Ok(None) => break,
                Err(problem) => found.add(problem),
            }
        }
        filled.check(&table, &mut found);
        sources.push(SourceRead { rows: table.rows(), whole_rows: table.whole_rows() });
    }
    if found.is_empty() && sources.iter().all(|source| source.rows == 0) {
        spec.sources.first().into_iter().for_each(|first| found.add(no_rows(first)));
    }
    found.into_result()?;
    Ok(ReadReport { sources, suppress: lists }.warnings(spec, false))
}

fn open_source(source: &SourceSpec, spec: &AudienceSpec, found: &mut Found) -> Option<Table> {
    let open = Table::open(&source.path, source.delimiter, source.multiline)
        .and_then(|table| table.require(&spec.phone).map(|_| table));
    match open {
        Ok(table) => Some(table),
        Err(problem) => {
            found.add(problem);
            None
        }
    }
}

fn no_rows(source: &SourceSpec) -> Diagnostic {
    Diagnostic::error(Code::CsvNoRows, format!("`{}` has a header and no rows", source.path.display()))
        .hint("nobody would get the offer")
        .in_file(&source.path, None, None)
}

/// Which of the columns that the manifest names hold something in at least one row.
struct Filled {
    /// The column of the number.
    phone: usize,
    phone_filled: bool,
    /// The column of the id, until something was found in it.
    id: Option<usize>,
}

impl Filled {
    fn new(table: &Table, spec: &AudienceSpec) -> Self {
        let position = |column: &str| table.columns().position(column);
        let id = spec.id.as_deref().and_then(position);
        Self { phone: position(&spec.phone).unwrap_or_default(), phone_filled: false, id }
    }

    fn row(&mut self, record: &StringRecord) {
        let holds = |column: usize| record.get(column).is_some_and(|cell| !cell.is_empty());
        self.phone_filled = self.phone_filled || holds(self.phone);
        if self.id.is_some_and(holds) {
            self.id = None;
        }
    }

    /// Tells columns that are empty in every row.
    fn check(&self, table: &Table, found: &mut Found) {
        if table.rows() == 0 || !found.is_empty() {
            return;
        }
        let phone = (!self.phone_filled).then_some(self.phone);
        for (column, key) in [(phone, "audience.phone"), (self.id, "audience.id")] {
            let Some(name) = column.and_then(|column| table.columns().names().get(column)) else { continue };
            found.add(
                Diagnostic::error(
                    Code::EmptyColumn,
                    format!("the column `{name}` of `{}` is empty in every row", table.path().display()),
                )
                .hint(format!("`{key}` names it; name the column that is meant"))
                .in_file(table.path(), None, None),
            );
        }
    }
}

/// How many rows are handed from thread to thread together.
const CHUNK: usize = 512;

/// A row, and the number in it.
struct ReadRow {
    place: RowPlace,
    row: Arc<Row>,
    number: Result<E164, PhoneError>,
}

/// Who was there before.
#[derive(Default)]
struct Seen {
    rows: u64,
    duplicates: u64,
    people: HashSet<Identity>,
    /// The first form of each Argentine number.
    argentine: HashMap<Identity, E164>,
    /// For each suppression list, how many rows it left out.
    matched: Vec<u64>,
}

impl Seen {
    /// Counts a row that these lists, given as bits, leave out.
    fn matched_by(&mut self, mut lists: u64) {
        while lists != 0 {
            if let Some(count) = self.matched.get_mut(lists.trailing_zeros() as usize) {
                *count += 1;
            }
            lists &= lists - 1;
        }
    }

    /// What is wrong with an audience as a whole.
    fn check(&self, spec: &AudienceSpec) -> Result<(), Diagnostics> {
        let Some(first) = spec.sources.first() else { return Ok(()) };
        if self.rows == 0 {
            return Err(no_rows(first).into());
        }
        if self.people.len() == 1 && self.rows > 1 && self.duplicates == self.rows - 1 {
            let problem = Diagnostic::error(
                Code::CsvOnlyDuplicates,
                format!("all {} rows of the audience hold the same number", self.rows),
            );
            return Err(problem
                .hint("this looks like a broken export; keep one row if it is meant")
                .in_file(&first.path, None, None)
                .into());
        }
        Ok(())
    }
}

/// Problems of files, with a bound on how many are told.
#[derive(Default)]
struct Found {
    told: Vec<Diagnostic>,
    untold: usize,
}

impl Found {
    fn add(&mut self, problem: Diagnostic) {
        if self.told.len() < MOST_TOLD {
            self.told.push(problem);
        } else {
            self.untold += 1;
        }
    }

    fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    fn append(&mut self, other: Found) {
        other.told.into_iter().for_each(|problem| self.add(problem));
        self.untold += other.untold;
    }

    fn into_result(mut self) -> Result<(), Diagnostics> {
        if self.untold > 0 {
            self.told.push(Diagnostic::error(Code::MoreErrors, format!("and {} more of these", self.untold)));
        }
        if self.told.is_empty() { Ok(()) } else { Err(Diagnostics(self.told)) }
    }
}

/// The first row of a table and its line, to try expressions on.
pub fn first_row(mut table: Table) -> Result<Option<(Arc<Row>, u64)>, Diagnostic> {
    let mut record = StringRecord::new();
    let line = table.next(&mut record)?;
    Ok(line.map(|line| (Arc::new(Row { columns: Arc::clone(table.columns()), record }), line)))
}
