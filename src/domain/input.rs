//! The data that a campaign reads: where its rows come from and which of them count. Plain data; the modules
//! [`audience`](crate::audience) and [`coupons`](crate::coupons) read it.

use std::fmt;

use crate::domain::diagnostic::Diagnostic;
use crate::domain::phone::PhoneReader;
use crate::domain::row::RowLocation;
use crate::util::fs::InputFile;

/// Where rows come from.
#[derive(Debug, Clone)]
pub enum SourceInput {
    /// A CSV file with a header row.
    Csv(CsvInput),
}

/// A CSV file and how to read it.
#[derive(Debug, Clone)]
pub struct CsvInput {
    /// The file.
    pub path: InputFile,
    /// The byte between two cells.
    pub delimiter: u8,
    /// Whether cells may hold line breaks.
    pub multiline: bool,
}

impl SourceInput {
    /// Points a diagnostic at this source, and at a row of it.
    pub fn locate(&self, problem: Diagnostic, row: Option<RowLocation>) -> Diagnostic {
        match self {
            SourceInput::Csv(csv) => problem.in_file(&csv.path, row.and_then(RowLocation::line), None),
        }
    }
}

impl fmt::Display for SourceInput {
    /// The source as the user would type it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceInput::Csv(csv) => write!(f, "{}", csv.path.display()),
        }
    }
}

/// Who gets a message: sources of rows, and lists of people who are excluded.
#[derive(Debug, Clone)]
pub struct AudienceInput {
    /// The sources, in order. A person in several of them counts where they appear first.
    pub sources: Vec<SourceInput>,
    /// The column of the phone number.
    pub phone: String,
    /// The column of the id, if there is one.
    pub id: Option<String>,
    /// Reads phone numbers, with the default region.
    pub reader: PhoneReader,
    /// The suppression lists.
    pub suppress: Vec<SuppressInput>,
}

/// A list of people who must not get a message.
#[derive(Debug, Clone)]
pub struct SuppressInput {
    /// The list.
    pub source: SourceInput,
    /// The column of the phone number, if the manifest names it.
    pub phone: Option<String>,
    /// Whether rows without a valid number are skipped; otherwise they are errors.
    pub skip_invalid: bool,
}

/// A pool of coupon codes.
#[derive(Debug, Clone)]
pub struct PoolInput {
    /// The list of codes.
    pub source: SourceInput,
    /// The column of the codes; a source with one column needs none.
    pub column: Option<String>,
}
