//! What is wrong with a file, where, and what to do about it.
//!
//! A [`Diagnostic`] is data: the command line decides whether it becomes a drawn snippet, a JSON
//! object, a GitHub annotation or SARIF. Its `code` is stable, so that a pipeline may match on it;
//! its text is not.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::util::fs::FileError;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing may be planned or sent.
    Error,
    /// Worth a look; does not stop anything.
    Warning,
}

/// Where a finding points.
#[derive(Debug, Clone)]
pub enum Place {
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
    /// A stable identifier in kebab case, such as `unknown-key`.
    pub code: &'static str,
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// A few words under the marked text.
    pub label: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Where, if it is anywhere.
    pub place: Option<Place>,
}

impl Diagnostic {
    /// An error with no place yet.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        let message = cut(message.into());
        Self { code, severity: Severity::Error, message, label: None, hint: None, place: None }
    }

    /// A warning with no place yet.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
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
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Points at a line of a file whose text is never shown. Lines and columns count from 1.
    #[must_use]
    pub fn in_file(self, path: impl Into<PathBuf>, line: Option<u64>, column: Option<u64>) -> Self {
        self.at(Place::Line { path: path.into(), line, column })
    }

    /// The file, the line and the column, as far as they are known.
    pub fn position(&self) -> (Option<String>, Option<u64>, Option<u64>) {
        match &self.place {
            None => (None, None, None),
            Some(Place::Span(file, span)) => {
                let (line, column) = file.line_column(span.start);
                (Some(file.path.display().to_string()), Some(line as u64), Some(column as u64))
            }
            Some(Place::Line { path, line, column }) => (Some(path.display().to_string()), *line, *column),
        }
    }

    /// The finding as machine-readable data, for `--format json`.
    pub fn to_json(&self) -> serde_json::Value {
        let (file, line, column) = self.position();
        serde_json::json!({
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "hint": self.hint,
            "file": file,
            "line": line,
            "column": column,
        })
    }

    /// The finding as a drawn snippet, with ANSI styles when `styled`.
    pub fn render(&self, styled: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(self.message.as_str()).id(self.code);
        let mut group: Group<'_> = match &self.place {
            Some(Place::Span(file, span)) => {
                let mut annotation = AnnotationKind::Primary.span(span.clone());
                if let Some(label) = &self.label {
                    annotation = annotation.label(label.as_str());
                }
                title.element(
                    Snippet::source(file.text.as_str()).path(file.path.display().to_string()).annotation(annotation),
                )
            }
            Some(Place::Line { path, line, column }) => {
                let mut origin = annotate_snippets::Origin::path(path.display().to_string());
                if let Some(line) = line {
                    origin = origin.line(usize::try_from(*line).unwrap_or(usize::MAX));
                    if let Some(column) = column {
                        origin = origin.char_column(usize::try_from(*column).unwrap_or(usize::MAX));
                    }
                }
                title.element(origin)
            }
            None => Group::with_title(title),
        };
        if self.place.is_none()
            && let Some(hint) = &self.hint
        {
            // Without a source there is no gutter for the hint to hang on.
            let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
            return format!("{}\n  hint: {hint}", renderer.render(&[group]));
        }
        if let Some(hint) = &self.hint {
            group = group.element(Level::HELP.with_name(Some("hint")).message(hint.as_str()));
        }
        let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
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
            Diagnostic::error("more-errors", format!("there are more errors; the first {MAX_ERRORS} are shown"))
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

impl std::fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            f.write_str(&diagnostic.render(false))?;
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

impl FileError {
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
        let error = || Diagnostic::error("wrong", "wrong");
        let warnings = vec![Diagnostic::warning("odd", "odd"); 3 * MAX_ERRORS];
        assert!(!is_full(&warnings));
        let few: Vec<_> = warnings.into_iter().chain([error()]).collect();
        assert_eq!(errors(&limit(few)), 1);
        let cut = limit(vec![error(); MAX_ERRORS + 7]);
        assert_eq!((cut.len(), cut.last().unwrap().code), (MAX_ERRORS + 1, "more-errors"));
    }

    #[test]
    fn a_message_that_quotes_too_much_is_cut() {
        let message = Diagnostic::error("wrong", "é".repeat(1 << 20)).message;
        assert!(message.len() < MAX_TEXT + 40 && message.ends_with("more bytes)"), "{}", message.len());
        assert_eq!(did_you_mean(&"a".repeat(1 << 20), ["aaaa"]), None);
        assert_eq!(did_you_mean("aaaa", [&*"a".repeat(1 << 20), "aaab"]), Some("aaab"));
    }

    #[test]
    fn columns_count_characters_from_one() {
        let file = SourceFile { path: "a".into(), text: "é: 1\nb: ü x\n".into() };
        assert_eq!(file.line_column(0), (1, 1));
        let x = file.text.find('x').unwrap();
        assert_eq!(file.line_column(x), (2, 6));
    }
}
