//! Expressions: compiled once, rendered for each row.
//!
//! The language is the part of minijinja's that [`language`](super::language) allows, without clock,
//! randomness or files, and with a limit on the work for one text. An undefined value cannot be printed, and
//! neither can `none`, so that nobody is ever greeted with an empty name. An expression may test an empty cell
//! (`{% if recipient.city %}`), since misspelt names are found before anything is rendered.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use minijinja::value::{Enumerator, Object};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value, context};

use super::language;
use super::plain::{Piece, pieces};
use crate::domain::row::Row;

/// The maximum work for one text and one row, in steps and in pieces of 64 bytes that it produces: hundreds of
/// times what a message needs.
const MAX_FUEL: u64 = 10_000;

/// The longest cell that an expression works with, in bytes.
const MAX_CELL_LEN: usize = 16 * 1024;

/// Marks the error about a longer cell.
const CELL_TOO_LONG: &str = "the cell is too long";

/// Marks the error about a value that is none.
const VALUE_IS_NONE: &str = "the value is none";

/// The names that expressions can use.
pub const NAMES: [&str; 4] = ["recipient", "vars", "campaign", "coupon"];

/// A compiled text.
#[derive(Debug, Clone)]
pub struct Field(FieldKind);

#[derive(Debug, Clone)]
enum FieldKind {
    /// A text without expressions.
    Literal(Arc<str>),
    /// A text with expressions.
    Template(Template),
}

#[derive(Debug, Clone)]
struct Template {
    /// Its name in the environment.
    name: String,
    /// The columns that it reads.
    columns: Arc<[String]>,
    /// Its parts, if it needs no evaluation.
    pieces: Option<Arc<[Piece]>>,
}

impl Field {
    /// The text, if it contains no expression.
    pub fn literal(&self) -> Option<&str> {
        match &self.0 {
            FieldKind::Literal(text) => Some(text),
            FieldKind::Template(_) => None,
        }
    }
}

/// What an expression refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// Columns of the row.
    pub columns: BTreeSet<String>,
    /// Variables.
    pub vars: BTreeSet<String>,
    /// Names that do not exist.
    pub unknown: BTreeSet<String>,
}

/// Why a text does not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CompileError {
    /// What is wrong.
    pub message: String,
    /// The line within the text, from 1, if the text has several.
    pub line: Option<usize>,
}

/// Compiles and renders the texts of one campaign.
pub(super) struct Expressions {
    env: Environment<'static>,
    templates: usize,
    vars: Value,
    campaign: Value,
    /// The variables that are texts.
    text_vars: BTreeMap<String, String>,
}

impl Expressions {
    pub(super) fn new(name: &str, edition: u32, vars: &BTreeMap<String, serde_json::Value>) -> Self {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        env.set_fuel(Some(MAX_FUEL));
        env.set_auto_escape_callback(|_| AutoEscape::None);
        env.set_formatter(|out, state, value| {
            if value.is_none() {
                return Err(Error::new(ErrorKind::InvalidOperation, VALUE_IS_NONE));
            }
            minijinja::escape_formatter(out, state, value)
        });
        env.remove_global("debug");
        let text_vars = vars.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
        Self {
            env,
            templates: 0,
            vars: Value::from(minijinja::value::Serde(vars)),
            campaign: context! { name => name, edition => edition },
            text_vars: text_vars.collect(),
        }
    }

    pub(super) fn compile(&mut self, source: &str) -> Result<(Field, References), CompileError> {
        if !source.contains("{{") && !source.contains("{%") && !source.contains("{#") {
            return Ok((Field(FieldKind::Literal(source.into())), References::default()));
        }
        if source.len() > language::MAX_SOURCE_LEN {
            // Even to parse it could take long.
            language::check(source)?;
        }
        let name = format!("field {}", self.templates);
        self.templates += 1;
        self.env.add_template_owned(name.clone(), source.to_owned()).map_err(|error| compile_error(&error, source))?;
        language::check(source)?;
        let template = self.env.get_template(&name).map_err(|error| compile_error(&error, source))?;
        let references = references(template.undeclared_variables(true), source);
        let columns = references.columns.iter().cloned().collect();
        let pieces = pieces(source, &self.text_vars).map(Into::into);
        Ok((Field(FieldKind::Template(Template { name, columns, pieces })), references))
    }

    pub(super) fn compile_condition(&mut self, source: &str) -> Result<(Field, References), CompileError> {
        if source.len() > language::MAX_SOURCE_LEN {
            language::check(source)?;
        }
        self.env.compile_expression(source).map_err(|error| compile_error(&error, source))?;
        self.compile(&format!("{{{{ ({source}) }}}}"))
    }

    /// Renders a text for a row, with `coupon` as its code.
    pub(super) fn render(&self, field: &Field, row: &Arc<Row>, coupon: &str) -> Result<String, Error> {
        let template = match &field.0 {
            FieldKind::Literal(text) => return Ok(text.to_string()),
            FieldKind::Template(template) => template,
        };
        if let Some(pieces) = &template.pieces
            && pieces.iter().all(|piece| piece.render(row).is_some())
        {
            return Ok(pieces.iter().filter_map(|piece| piece.render(row)).collect());
        }
        let is_long = |column: &String| row.get(column).is_some_and(|cell| cell.len() > MAX_CELL_LEN);
        if template.columns.iter().any(is_long) {
            return Err(Error::new(ErrorKind::InvalidOperation, CELL_TOO_LONG));
        }
        self.env.get_template(&template.name)?.render(context! {
            recipient => Value::from_dyn_object(Arc::clone(row)),
            vars => self.vars.clone(),
            campaign => self.campaign.clone(),
            coupon => coupon,
        })
    }
}

/// A row as expressions see it: `recipient.first_name`. Empty cells are undefined, so that
/// `default('there')` works and a bare use of them is an error instead of "Hi ,".
impl Object for Row {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get(key.as_str()?).map(Value::from)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let named = self.columns().names().iter().filter(|name| !name.is_empty());
        Enumerator::Values(named.map(|name| Value::from(name.as_str())).collect())
    }
}

/// The message for an error, without data of the row: minijinja's own messages may quote values. `what` is what
/// was rendered.
pub(super) fn explain(what: &str, field: &Field, row: &Row, error: &Error) -> String {
    if let Some(problem) = fails_for_every_row(error) {
        return format!("{what}: {problem}");
    }
    let empty: Vec<String> = match &field.0 {
        FieldKind::Template(Template { columns, .. }) => {
            columns.iter().filter(|column| row.get(column).is_none()).map(|column| format!("`{column}`")).collect()
        }
        FieldKind::Literal(_) => Vec::new(),
    };
    match error.kind() {
        ErrorKind::UndefinedError if !empty.is_empty() => {
            format!("{what} uses {}, which is empty in this row; `default(…)` can replace it", empty.join(", "))
        }
        ErrorKind::InvalidOperation if error.detail() == Some(VALUE_IS_NONE) => {
            format!("{what} evaluates to none, which cannot be sent")
        }
        ErrorKind::InvalidOperation if error.detail() == Some(CELL_TOO_LONG) => {
            format!("{what}: a cell of this row has more than {MAX_CELL_LEN} bytes")
        }
        kind => format!("{what}: {kind}"),
    }
}

/// The message for an error that does not depend on the row.
pub(super) fn fails_for_every_row(error: &Error) -> Option<String> {
    match error.kind() {
        ErrorKind::OutOfFuel => {
            Some("an expression takes too long or produces too much text; check it for an endless loop".to_owned())
        }
        ErrorKind::UnknownFilter
        | ErrorKind::UnknownTest
        | ErrorKind::UnknownFunction
        | ErrorKind::UnknownMethod
        | ErrorKind::TemplateNotFound
        | ErrorKind::BadInclude => Some(match error.detail() {
            Some(detail) => format!("{}: {detail}", error.kind()),
            None => error.kind().to_string(),
        }),
        _ => None,
    }
}

fn compile_error(error: &Error, source: &str) -> CompileError {
    let message = match error.detail() {
        Some(detail) => detail.to_owned(),
        None => error.kind().to_string(),
    };
    let line = error.line().filter(|_| source.trim_end().contains('\n'));
    CompileError { message, line }
}

fn references(names: HashSet<String>, source: &str) -> References {
    let mut references = References::default();
    for name in names {
        let mut parts = name.splitn(3, '.');
        let root = parts.next().unwrap_or_default();
        let member = parts.next();
        match (root, member) {
            ("recipient", Some(column)) => drop(references.columns.insert(column.to_owned())),
            ("vars", Some(var)) => drop(references.vars.insert(var.to_owned())),
            (root, _) if NAMES.contains(&root) || matches!(root, "range" | "dict" | "namespace") => {}
            (root, _) => drop(references.unknown.insert(root.to_owned())),
        }
    }
    // `recipient["First name"]`: the engine reports only the root of a subscript.
    for quote in ['"', '\''] {
        for rest in source.split(&format!("recipient[{quote}")).skip(1) {
            if let Some(end) = rest.find(quote) {
                references.columns.insert(rest[..end].to_owned());
            }
        }
    }
    references
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::row::Columns;

    #[test]
    fn plain_texts_come_out_as_the_engine_renders_them() {
        let columns = Arc::new(Columns::new(["name", "city", "odd"].map(str::to_owned).to_vec()).unwrap());
        let rows = [["Asha", "Pune", "{{ x }}"], ["O'Hara, <b>", "", "a\nb"], ["", "Delhi", "é"]].map(|cells| {
            let mut row = Row::new(Arc::clone(&columns));
            cells.iter().for_each(|cell| row.push(cell));
            Arc::new(row)
        });
        let vars = BTreeMap::from([("brand".to_owned(), "Lucky & Co".into()), ("number".to_owned(), 7.into())]);
        let mut expressions = Expressions::new("test", 1, &vars);
        let sources = [
            "{{ recipient.name }}",
            "{{recipient.name|default('there')}}",
            "Hi {{ recipient.name | default(\"you\") }} of {{ recipient.city | default('') }}!",
            "{{ vars.brand }}: {{ recipient.odd }}",
            " {{ recipient.city }} ",
            "{{ vars.number }} {{ recipient.city }}",
            "{{- recipient.name -}} x",
            "{{ recipient.name | upper }}",
            "{{ recipient.name }}\n",
            "{{ recipient.missing | default('none') }}",
            "{{ recipient.name ~ recipient.city }}",
            "{{ recipient.name | default(recipient.city) }}",
            "{{ '{{' }} {{ recipient.name }}",
        ];
        let mut plain = 0;
        for source in sources {
            let (field, _) = expressions.compile(source).unwrap();
            let mut evaluated = field.clone();
            if let FieldKind::Template(template) = &mut evaluated.0 {
                plain += usize::from(template.pieces.take().is_some());
            }
            for row in &rows {
                let [quick, full] =
                    [&field, &evaluated].map(|field| expressions.render(field, row, "C").map_err(|error| error.kind()));
                assert_eq!(quick, full, "{source} for {row:?}");
            }
        }
        assert_eq!(plain, 6, "the fast path is taken for the texts that it is for");
    }
}
