//! Diagnostics as text, JSON, GitHub annotations and SARIF.

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde_json::{Value, json};

use crate::domain::diagnostic::{Diagnostic, Location, Severity};

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

/// A finding as data, for `--format json`.
pub(crate) fn json(finding: &Diagnostic) -> Value {
    let (file, line, column) = finding.position();
    json!({
        "code": finding.code,
        "severity": finding.severity,
        "message": finding.message,
        "hint": finding.hint,
        "file": file,
        "line": line,
        "column": column,
    })
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
