//! Diagnostics as text, JSON, GitHub annotations and SARIF.

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::FormatVersion;
use crate::domain::diagnostic::{Code, Diagnostic, Location, Severity};

/// A finding as a drawn snippet, with ANSI styles when `styled`.
pub(crate) fn text(finding: &Diagnostic, styled: bool) -> String {
    let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(finding.message.as_str()).id(finding.code.as_str());
    let mut group: Group<'_> = match &finding.location {
        Some(Location::Span(file, span)) => {
            let mut annotation = AnnotationKind::Primary.span(span.clone());
            if let Some(label) = &finding.label {
                annotation = annotation.label(label.as_str());
            }
            title.element(
                Snippet::source(file.text.as_str()).path(file.path.display().to_string()).annotation(annotation),
            )
        }
        Some(Location::Line { path, line, column }) => {
            let mut origin = Origin::path(path.display().to_string());
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
    match &finding.hint {
        // Without a source there is no gutter for the hint to hang on.
        Some(hint) if finding.location.is_none() => return format!("{}\n  hint: {hint}", renderer.render(&[group])),
        Some(hint) => group = group.element(Level::HELP.with_name(Some("hint")).message(hint.as_str())),
        None => {}
    }
    renderer.render(&[group])
}

/// What `validate --format json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ValidateJson {
    /// The version of this format: minor adds, major breaks.
    format_version: FormatVersion,
    /// Whether there are no errors.
    valid: bool,
    /// The findings.
    diagnostics: Vec<DiagnosticJson>,
}

/// One finding.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DiagnosticJson {
    /// What it is about.
    code: Code,
    /// Whether it is an error.
    severity: Severity,
    /// What is wrong.
    message: String,
    /// What to do about it.
    hint: Option<String>,
    /// The file, as a user would type it.
    file: Option<String>,
    /// The line, from 1.
    line: Option<u64>,
    /// The column in characters, from 1.
    column: Option<u64>,
}

impl From<&Diagnostic> for DiagnosticJson {
    fn from(finding: &Diagnostic) -> Self {
        let (file, line, column) = finding.position();
        Self {
            code: finding.code,
            severity: finding.severity,
            message: finding.message.clone(),
            hint: finding.hint.clone(),
            file,
            line,
            column,
        }
    }
}

impl ValidateJson {
    /// The findings of a whole command.
    pub(crate) fn new(found: &[Diagnostic]) -> Self {
        Self {
            format_version: FormatVersion::VALIDATE,
            valid: !found.iter().any(|finding| finding.severity == Severity::Error),
            diagnostics: found.iter().map(DiagnosticJson::from).collect(),
        }
    }
}

/// A finding as a workflow command of GitHub Actions. In its text `%`, carriage return and line feed are escaped.
pub(crate) fn github(finding: &Diagnostic) -> String {
    let escape = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let level = if finding.severity == Severity::Error { "error" } else { "warning" };
    let (file, line, column) = finding.position();
    let mut properties = Vec::new();
    properties.extend(file.map(|file| format!("file={}", escape(&file).replace(':', "%3A").replace(',', "%2C"))));
    properties.extend(line.map(|line| format!("line={line}")));
    properties.extend(column.map(|column| format!("col={column}")));
    properties.push(format!("title={}", finding.code));
    let hint = finding.hint.as_deref().map_or_else(String::new, |hint| format!(" ({hint})"));
    format!("::{level} {}::{}\n", properties.join(","), escape(&format!("{}{hint}", finding.message)))
}

/// All findings as one SARIF 2.1.0 document.
pub(crate) fn sarif(found: &[Diagnostic]) -> Value {
    let results: Vec<_> = found
        .iter()
        .map(|finding| {
            let (file, line, column) = finding.position();
            let hint = finding.hint.as_deref().map_or_else(String::new, |hint| format!(". {hint}"));
            let region = line.map(|line| json!({ "startLine": line, "startColumn": column.unwrap_or(1) }));
            let location = file.map(|file| {
                let mut physical = json!({ "artifactLocation": { "uri": file } });
                if let Some(region) = region {
                    physical["region"] = region;
                }
                json!({ "physicalLocation": physical })
            });
            json!({
                "ruleId": finding.code,
                "level": if finding.severity == Severity::Error { "error" } else { "warning" },
                "message": { "text": format!("{}{hint}", finding.message) },
                "locations": location.into_iter().collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{ "tool": { "driver": { "name": "sendform", "version": env!("CARGO_PKG_VERSION") } }, "results": results }],
    })
}
