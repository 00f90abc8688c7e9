//! What is wrong with a file, where, and what to do about it.
//!
//! A [`Diagnostic`] is data: the command line decides whether it becomes a drawn snippet, a JSON
//! object, a GitHub annotation or SARIF. Its [`Code`] is stable, so that a pipeline may match on it;
//! its text is not.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::util::fs::FileError;
use schemars::JsonSchema;
use serde::Serialize;

/// Defines [`Code`]: each variant with the name that users see.
macro_rules! codes {
    ($($variant:ident = $name:literal,)*) => {
        /// What a finding is about. The names are stable: they are printed as `error[NAME]` and in every
        /// machine-readable output.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
        #[expect(missing_docs, reason = "the names say it")]
        pub enum Code {
            $(#[serde(rename = $name)] $variant,)*
        }

        impl Code {
            /// All codes, in the order of their names.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name that users see, in kebab case.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

codes! {
    AccountRefused = "account-refused",
    AliasBomb = "alias-bomb",
    AlphabetTooSmall = "alphabet-too-small",
    AmbiguousFile = "ambiguous-file",
    AnswerMayCome = "answer-may-come",
    CampaignMismatch = "campaign-mismatch",
    CannotConfirm = "cannot-confirm",
    CannotWrite = "cannot-write",
    CodeTaken = "code-taken",
    CouponCharacters = "coupon-characters",
    CsvCellHoldsARow = "csv-cell-holds-a-row",
    CsvDuplicateColumn = "csv-duplicate-column",
    CsvEmpty = "csv-empty",
    CsvLineBreak = "csv-line-break",
    CsvNoHeader = "csv-no-header",
    CsvNoRows = "csv-no-rows",
    CsvNotUtf8 = "csv-not-utf8",
    CsvOnlyDuplicates = "csv-only-duplicates",
    CsvOpenQuote = "csv-open-quote",
    CsvRagged = "csv-ragged",
    CsvRowTooLong = "csv-row-too-long",
    CsvTextAfterQuote = "csv-text-after-quote",
    CsvTooManyColumns = "csv-too-many-columns",
    CsvUnreadable = "csv-unreadable",
    DecisionRefused = "decision-refused",
    DomainAndBaseUrl = "domain-and-base-url",
    DuplicateCampaignName = "duplicate-campaign-name",
    DuplicateDecision = "duplicate-decision",
    DuplicateKey = "duplicate-key",
    EmptyColumn = "empty-column",
    EmptyCommand = "empty-command",
    EmptyFile = "empty-file",
    ExpiryInThePast = "expiry-in-the-past",
    ExpiryTooClose = "expiry-too-close",
    ExpiryTooSoon = "expiry-too-soon",
    ExpiryUnused = "expiry-unused",
    FailureLimit = "failure-limit",
    FileOutside = "file-outside",
    FileTooLarge = "file-too-large",
    InputsChanged = "inputs-changed",
    Internal = "internal",
    InvalidBatch = "invalid-batch",
    InvalidCoupon = "invalid-coupon",
    InvalidExpiry = "invalid-expiry",
    InvalidExpression = "invalid-expression",
    InvalidLedgerHead = "invalid-ledger-head",
    InvalidLedgerKey = "invalid-ledger-key",
    InvalidLedgerUrl = "invalid-ledger-url",
    InvalidLostSend = "invalid-lost-send",
    InvalidMediaUrl = "invalid-media-url",
    InvalidPlaceholder = "invalid-placeholder",
    InvalidPlanFile = "invalid-plan-file",
    InvalidPlanHash = "invalid-plan-hash",
    InvalidProjectFile = "invalid-project-file",
    InvalidRate = "invalid-rate",
    InvalidSendKey = "invalid-send-key",
    InvalidStopWhen = "invalid-stop-when",
    InvalidTimeout = "invalid-timeout",
    InvalidUrl = "invalid-url",
    InvalidUrlVariable = "invalid-url-variable",
    InvalidVarFile = "invalid-var-file",
    IsADatabase = "is-a-database",
    KeyNotAString = "key-not-a-string",
    LedgerAnother = "ledger-another",
    LedgerChanged = "ledger-changed",
    LedgerDamaged = "ledger-damaged",
    LedgerExists = "ledger-exists",
    LedgerFenced = "ledger-fenced",
    LedgerForgotSends = "ledger-forgot-sends",
    LedgerHeld = "ledger-held",
    LedgerKeyMissing = "ledger-key-missing",
    LedgerMissing = "ledger-missing",
    LedgerMoved = "ledger-moved",
    LedgerNotDurable = "ledger-not-durable",
    LedgerOnEphemeralDisk = "ledger-on-ephemeral-disk",
    LedgerRefused = "ledger-refused",
    LedgerStorage = "ledger-storage",
    LedgerTooNew = "ledger-too-new",
    LedgerUnreachable = "ledger-unreachable",
    MergeKey = "merge-key",
    MissingAttempt = "missing-attempt",
    MissingKey = "missing-key",
    MissingReason = "missing-reason",
    MissingValue = "missing-value",
    MissingVar = "missing-var",
    MixedAnswers = "mixed-answers",
    MoreErrors = "more-errors",
    MovedCampaignRecorded = "moved-campaign-recorded",
    NoCampaignFound = "no-campaign-found",
    NoDecision = "no-decision",
    NoSuchColumn = "no-such-column",
    NoSuchFile = "no-such-file",
    NoSuchSend = "no-such-send",
    NobodyLeft = "nobody-left",
    NotALedger = "not-a-ledger",
    NotAManifest = "not-a-manifest",
    NotANumber = "not-a-number",
    NotAnOption = "not-an-option",
    NotConfirmed = "not-confirmed",
    NotEvaluated = "not-evaluated",
    NotUtf8 = "not-utf8",
    NothingRecorded = "nothing-recorded",
    OutOfBounds = "out-of-bounds",
    OutcomesLost = "outcomes-lost",
    OutcomesNotRecorded = "outcomes-not-recorded",
    ParamCountMismatch = "param-count-mismatch",
    PlanMismatch = "plan-mismatch",
    PoolCodesDifferByCase = "pool-codes-differ-by-case",
    PoolDuplicateCode = "pool-duplicate-code",
    PoolTooSmall = "pool-too-small",
    ProviderUnreachable = "provider-unreachable",
    RecipientBlocked = "recipient-blocked",
    RecipientNotFound = "recipient-not-found",
    RepeatedMessage = "repeated-message",
    SandboxFailed = "sandbox-failed",
    SchemaMismatch = "schema-mismatch",
    SecretLiteral = "secret-literal",
    SecretUnavailable = "secret-unavailable",
    SendLimit = "send-limit",
    SeveralDocuments = "several-documents",
    SuppressionEmpty = "suppression-empty",
    SuppressionMatchesNobody = "suppression-matches-nobody",
    SuppressionNoNumber = "suppression-no-number",
    SuppressionNotANumber = "suppression-not-a-number",
    TextTooLong = "text-too-long",
    TooDeep = "too-deep",
    TooManyDirectives = "too-many-directives",
    TooManyEntries = "too-many-entries",
    TooManyFailures = "too-many-failures",
    TooManyFiles = "too-many-files",
    TooManyKeys = "too-many-keys",
    TooManyUnknown = "too-many-unknown",
    TwoProjects = "two-projects",
    UndecidedOutcomes = "undecided-outcomes",
    UnknownKey = "unknown-key",
    UnknownName = "unknown-name",
    UnknownRegion = "unknown-region",
    UnknownTemplate = "unknown-template",
    UnknownVar = "unknown-var",
    UnreadableDataDir = "unreadable-data-dir",
    UnreadableFile = "unreadable-file",
    UnsafeBaseUrl = "unsafe-base-url",
    UnusableMediaFile = "unusable-media-file",
    UrlParamMismatch = "url-param-mismatch",
    Usage = "usage",
    UseCycle = "use-cycle",
    UseNotAllowed = "use-not-allowed",
    UseTooDeep = "use-too-deep",
    WouldOverwrite = "would-overwrite",
    WrongLedgerKey = "wrong-ledger-key",
    WrongType = "wrong-type",
    WrongVarType = "wrong-var-type",
    YamlSyntax = "yaml-syntax",
    YamlTag = "yaml-tag",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A file as it was read, kept so that a diagnostic can show the line that it speaks of.
#[derive(Debug)]
pub struct SourceFile {
    /// The path as the user would type it.
    pub path: PathBuf,
    /// The whole text, without a byte order mark.
    pub text: String,
}

impl SourceFile {
    /// Line and column, both from 1 and the column in characters, of a byte offset.
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
        (line, column)
    }
}

/// Whether the finding stops the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing may be planned or sent.
    Error,
    /// Worth a look; does not stop anything.
    Warning,
}

/// Where a finding points.
#[derive(Debug, Clone)]
pub enum Location {
    /// A range of bytes in a file whose text may be shown.
    Span(Arc<SourceFile>, Range<usize>),
    /// A position in a file whose text holds personal data and is therefore never shown.
    Line {
        /// The file, as the user would type it.
        path: PathBuf,
        /// From 1; `None` when the whole file is meant.
        line: Option<u64>,
        /// From 1, in characters.
        column: Option<u64>,
    },
}

/// One finding.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    /// What it is about.
    pub code: Code,
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// A few words under the marked text.
    pub label: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Where, if it is anywhere.
    pub location: Option<Location>,
}

impl Diagnostic {
    /// An error with no place yet.
    pub fn error(code: Code, message: impl Into<String>) -> Self {
        let message = cut(message.into());
        Self { code, severity: Severity::Error, message, label: None, hint: None, location: None }
    }

    /// A warning with no place yet.
    pub fn warning(code: Code, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(cut(hint.into()));
        self
    }

    /// Adds a hint if there is one.
    #[must_use]
    pub fn maybe_hint(mut self, hint: Option<impl Into<String>>) -> Self {
        self.hint = hint.map(|hint| cut(hint.into())).or(self.hint);
        self
    }

    /// Adds the words under the marked text.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Adds the place.
    #[must_use]
    pub fn at(mut self, location: Location) -> Self {
        self.location = Some(location);
        self
    }

    /// Points at a line of a file whose text is never shown. Lines and columns count from 1.
    #[must_use]
    pub fn in_file(self, path: impl Into<PathBuf>, line: Option<u64>, column: Option<u64>) -> Self {
        self.at(Location::Line { path: path.into(), line, column })
    }

    /// The file, the line and the column, as far as they are known.
    pub fn position(&self) -> (Option<String>, Option<u64>, Option<u64>) {
        match &self.location {
            None => (None, None, None),
            Some(Location::Span(file, span)) => {
                let (line, column) = file.line_column(span.start);
                (Some(file.path.display().to_string()), Some(line as u64), Some(column as u64))
            }
            Some(Location::Line { path, line, column }) => (Some(path.display().to_string()), *line, *column),
        }
    }
}

/// The maximum number of errors reported per file. Nobody reads more, and each costs a search for its place.
pub const MAX_ERRORS: usize = 100;

/// Whether a list holds more errors than are told, so that nothing has to be added.
pub fn is_full(found: &[Diagnostic]) -> bool {
    // Warnings do not count: they must never keep an error out.
    found.len() > MAX_ERRORS && errors(found) > MAX_ERRORS
}

/// Cuts a list to the errors that are told, and says so.
pub fn limit(mut found: Vec<Diagnostic>) -> Vec<Diagnostic> {
    if is_full(&found) {
        found.truncate(MAX_ERRORS);
        found.push(
            Diagnostic::error(Code::MoreErrors, format!("there are more errors; the first {MAX_ERRORS} are shown"))
                .hint("correct these and check again"),
        );
    }
    found
}

fn errors(found: &[Diagnostic]) -> usize {
    found.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
}

/// The most characters of a message or hint, which may quote what somebody wrote.
const MAX_TEXT: usize = 2_000;

/// A message or hint, cut if it quotes too much.
fn cut(text: String) -> String {
    if text.len() <= MAX_TEXT {
        return text;
    }
    let end = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}… ({} more bytes)", &text[..end], text.len() - end)
}

/// A closed list of findings with at least one error, as a value that stops a command.
#[derive(Debug, Clone)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// How many of them are errors.
    pub fn errors(&self) -> usize {
        errors(&self.0)
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(one: Diagnostic) -> Self {
        Self(vec![one])
    }
}

impl fmt::Display for Diagnostic {
    /// One line for the finding and one for its hint. The command line draws the marked text as well.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}[{}]: {}", self.code, self.message)?;
        if let (Some(file), line, column) = self.position() {
            write!(f, "\n  --> {file}")?;
            for number in [line, column].into_iter().flatten() {
                write!(f, ":{number}")?;
            }
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// The longest word that is compared with others. Comparing takes the product of both lengths.
const MAX_WORD: usize = 64;

/// The most words that a word is compared with.
const MAX_KNOWN: usize = 1_000;

/// The word of `known` that somebody who typed `typed` most likely meant.
pub fn did_you_mean<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if typed.len() > MAX_WORD {
        return None;
    }
    let folded = |word: &str| word.to_lowercase().replace(['-', '_', ' '], "");
    let wanted = folded(typed);
    known
        .into_iter()
        .take(MAX_KNOWN)
        .filter(|word| word.len() <= MAX_WORD)
        .map(|word| (strsim::damerau_levenshtein(&wanted, &folded(word)), word))
        .filter(|(distance, word)| *distance <= (word.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

impl Code {
    /// Every code that a [`FileError`] has.
    pub const OF_FILES: [Self; 5] =
        [Self::NoSuchFile, Self::FileOutside, Self::AmbiguousFile, Self::FileTooLarge, Self::UnreadableFile];
}

impl FileError {
    /// The code of the error's diagnostic.
    pub fn code(&self) -> Code {
        match self {
            FileError::Missing(_) => Code::NoSuchFile,
            FileError::Outside { .. } => Code::FileOutside,
            FileError::Twice(..) => Code::AmbiguousFile,
            FileError::TooLarge { .. } => Code::FileTooLarge,
            FileError::NotRegular(..) | FileError::Replaced(_) | FileError::Unreadable(..) => Code::UnreadableFile,
        }
    }

    /// The error as a finding about the file as a whole.
    pub fn diagnostic(&self, path: &Path) -> Diagnostic {
        let hint = match self {
            FileError::Missing(_) => Some("paths are relative to the file that they are written in"),
            FileError::Twice(..) => Some("remove one of the two, or write the path of the one that is meant"),
            _ => None,
        };
        Diagnostic::error(self.code(), self.to_string()).maybe_hint(hint).in_file(path, None, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_finds_its_word_and_a_strange_one_finds_none() {
        let known = ["audience", "default_region", "expiry"];
        assert_eq!(did_you_mean("audiense", known), Some("audience"));
        assert_eq!(did_you_mean("defaultRegion", known), Some("default_region"));
        assert_eq!(did_you_mean("footer", known), None);
    }

    #[test]
    fn many_errors_are_cut_and_warnings_keep_none_out() {
        let error = || Diagnostic::error(Code::WrongType, "wrong");
        let warnings = vec![Diagnostic::warning(Code::EmptyColumn, "odd"); 3 * MAX_ERRORS];
        assert!(!is_full(&warnings));
        let few: Vec<_> = warnings.into_iter().chain([error()]).collect();
        assert_eq!(errors(&limit(few)), 1);
        let cut = limit(vec![error(); MAX_ERRORS + 7]);
        assert_eq!((cut.len(), cut.last().unwrap().code), (MAX_ERRORS + 1, Code::MoreErrors));
    }

    #[test]
    fn a_message_that_quotes_too_much_is_cut() {
        let message = Diagnostic::error(Code::WrongType, "é".repeat(1 << 20)).message;
        assert!(message.len() < MAX_TEXT + 40 && message.ends_with("more bytes)"), "{}", message.len());
        assert_eq!(did_you_mean(&"a".repeat(1 << 20), ["aaaa"]), None);
        assert_eq!(did_you_mean("aaaa", [&*"a".repeat(1 << 20), "aaab"]), Some("aaab"));
    }

    #[test]
    fn each_code_has_one_name_in_kebab_case_and_the_list_is_in_order() {
        let names: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
        for (code, name) in Code::ALL.iter().zip(&names) {
            assert_eq!(serde_json::to_value(code).unwrap(), *name);
            assert!(
                name.split('-').all(|word| !word.is_empty()
                    && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())),
                "{name}"
            );
        }
        // An exit code or a severity is no problem's name.
        assert!(!names.iter().any(|name| ["error", "invalid", "warning", "failed"].contains(name)));
    }

    #[test]
    fn columns_count_characters_from_one() {
        let file = SourceFile { path: "a".into(), text: "é: 1\nb: ü x\n".into() };
        assert_eq!(file.line_column(0), (1, 1));
        let x = file.text.find('x').unwrap();
        assert_eq!(file.line_column(x), (2, 6));
    }
}
