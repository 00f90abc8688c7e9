//! The fast path: texts that need no evaluation, as most do.

use std::collections::BTreeMap;

use crate::domain::row::Row;

/// A part of a text that needs no evaluation. An empty cell without a default is left to the engine, which
/// reports what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// A fixed text.
    Text(String),
    /// `recipient.column`, or with `| default('…')`.
    Column(String, Option<String>),
}

impl Piece {
    /// The text for a row; `None` if the engine has to evaluate it.
    pub(super) fn render<'a>(&'a self, row: &'a Row) -> Option<&'a str> {
        match self {
            Piece::Text(text) => Some(text),
            Piece::Column(column, default) => row.get(column).or(default.as_deref()),
        }
    }
}

/// The parts of a text whose expressions are all `recipient.column`, `recipient.column |
/// default('…')` or `vars.name`; `None` for any other text.
pub(super) fn pieces(source: &str, text_vars: &BTreeMap<String, String>) -> Option<Vec<Piece>> {
    let word = |text: &str| {
        !text.is_empty()
            && !text.starts_with(|first: char| first.is_ascii_digit())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    // Statements, comments and the engine's treatment of line ends are left to the engine.
    if source.contains("{%") || source.contains("{#") || source.contains(['\n', '\r']) {
        return None;
    }
    let mut pieces = Vec::new();
    let mut rest = source;
    while let Some((before, after)) = rest.split_once("{{") {
        let (expression, after) = after.split_once("}}")?;
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        let (name, filter) = match expression.split_once('|') {
            Some((name, filter)) => (name.trim(), Some(filter.trim())),
            None => (expression.trim(), None),
        };
        let default = match filter {
            None => None,
            Some(filter) => {
                let quoted = filter.strip_prefix("default(")?.strip_suffix(')')?.trim();
                let text = ['\'', '"'].iter().find_map(|quote| quoted.strip_prefix(*quote)?.strip_suffix(*quote))?;
                if text.contains(['\'', '"', '\\', '{', '}']) {
                    return None;
                }
                Some(text.to_owned())
            }
        };
        match name.split_once('.') {
            Some(("recipient", column)) if word(column) => pieces.push(Piece::Column(column.to_owned(), default)),
            Some(("vars", name)) if default.is_none() => pieces.push(Piece::Text(text_vars.get(name)?.clone())),
            _ => return None,
        }
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Some(pieces)
}
