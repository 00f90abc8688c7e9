//! Expressions: compiling them once, checking their names, rendering one recipient.
//!
//! The language is the part of minijinja's that [`language`](super::language) allows, without clock,
//! randomness or files, with a bound on the work that one text may do. What is undefined cannot be printed, and neither can `none`, so that
//! nobody is ever greeted with an empty name. An expression may test an empty cell
//! (`{% if recipient.city %}`), since misspelt names are found before anything is rendered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value, context};
use url::Url;

use super::language;
use crate::audience::{Reason, Row};
use crate::domain::media::{MediaFile, MediaKind};
use crate::domain::message::{Media, TemplateHead};

/// The work that one text may do for one row, in steps and in pieces of 64 bytes that it makes: hundreds of
/// times what a message needs.
const FUEL: u64 = 10_000;

/// The longest cell that an expression works with, in bytes.
const MAX_CELL: usize = 16 * 1024;

/// What is said of a longer one.
const LONG_CELL: &str = "a cell has more bytes than expressions work with";

/// WhatsApp's limit for a URL with its variable. Source: Meta, "Limited-time offer templates".
const MAX_URL: usize = 2_000;

/// The names that expressions see.
pub const NAMES: [&str; 4] = ["recipient", "vars", "campaign", "coupon"];

/// A compiled piece of text.
#[derive(Debug, Clone)]
pub struct Field(Kind);

#[derive(Debug, Clone)]
enum Kind {
    /// No expression in it.
    Literal(Arc<str>),
    /// The name under which the environment holds it, the columns that it reads, and what it comes
    /// to in the plain case.
    Compiled(String, Arc<[String]>, Option<Arc<[Piece]>>),
}

/// A part of a text that needs no evaluation: what most texts are made of. An empty cell without a
/// default is left to the engine, which says what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// As it stands.
    Text(String),
    /// `recipient.column`, or with `| default('…')`.
    Column(String, Option<String>),
}

impl Field {
    /// The text, if it holds no expression.
    pub fn literal(&self) -> Option<&str> {
        match &self.0 {
            Kind::Literal(text) => Some(text),
            Kind::Compiled(..) => None,
        }
    }
}

/// What fills one template.
#[derive(Debug, Clone)]
pub struct TemplateSpec {
    /// The template.
    pub head: Arc<TemplateHead>,
    /// What fills the body.
    pub params: Vec<Field>,
    /// What fills the URL.
    pub url_param: Option<Field>,
    /// The media above the text.
    pub media: Option<(MediaKind, MediaSpec)>,
}

/// The media above the text, before rendering.
#[derive(Debug, Clone)]
pub enum MediaSpec {
    /// A URL that may hold expressions.
    Url(Field),
    /// A file.
    File(Arc<MediaFile>),
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

/// Why one row gets no message. Holds nothing of the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The kind.
    pub reason: Reason,
    /// In words.
    pub detail: String,
}

/// A message without coupon and expiry.
#[derive(Debug, Clone)]
pub struct Content {
    /// The template.
    pub template: Arc<TemplateHead>,
    /// The media above the text.
    pub media: Option<(MediaKind, Media)>,
    /// What fills the body.
    pub params: Vec<String>,
    /// What fills the URL.
    pub url_param: Option<String>,
}

/// Renders messages.
pub struct Composer {
    env: Environment<'static>,
    fields: usize,
    admits: Option<Field>,
    select: Option<Field>,
    templates: BTreeMap<String, TemplateSpec>,
    vars: Value,
    campaign: Value,
    /// The variables that are texts.
    texts: BTreeMap<String, String>,
}

impl std::fmt::Debug for Composer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Composer").field("templates", &self.templates).finish_non_exhaustive()
    }
}

impl Composer {
    /// A composer without templates, for a campaign with these variables.
    pub fn new(name: &str, edition: u32, vars: &BTreeMap<String, serde_json::Value>) -> Self {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        env.set_fuel(Some(FUEL));
        env.set_auto_escape_callback(|_| AutoEscape::None);
        env.set_formatter(|out, state, value| {
            if value.is_none() {
                return Err(Error::new(ErrorKind::InvalidOperation, "the value is none"));
            }
            minijinja::escape_formatter(out, state, value)
        });
        env.remove_global("debug");
        Self {
            env,
            fields: 0,
            admits: None,
            select: None,
            templates: BTreeMap::new(),
            vars: Value::from(minijinja::value::Serde(vars)),
            campaign: context! { name => name, edition => edition },
            texts: vars.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect(),
        }
    }

    /// Compiles a text that may hold expressions.
    pub fn compile(&mut self, source: &str) -> Result<(Field, References), CompileError> {
        if !source.contains("{{") && !source.contains("{%") && !source.contains("{#") {
            return Ok((Field(Kind::Literal(source.into())), References::default()));
        }
        if source.len() > language::MAX_SOURCE {
            // Even to parse it could take long.
            language::check(source)?;
        }
        let name = format!("field {}", self.fields);
        self.fields += 1;
        self.env.add_template_owned(name.clone(), source.to_owned()).map_err(|error| compile_error(&error, source))?;
        language::check(source)?;
        let template = self.env.get_template(&name).map_err(|error| compile_error(&error, source))?;
        let references = references(template.undeclared_variables(true), source);
        let columns = references.columns.iter().cloned().collect();
        let pieces = pieces(source, &self.texts).map(Into::into);
        Ok((Field(Kind::Compiled(name, columns, pieces)), references))
    }

    /// Compiles an expression that is true or false.
    pub fn compile_condition(&mut self, source: &str) -> Result<(Field, References), CompileError> {
        if source.len() > language::MAX_SOURCE {
            language::check(source)?;
        }
        self.env.compile_expression(source).map_err(|error| compile_error(&error, source))?;
        self.compile(&format!("{{{{ ({source}) }}}}"))
    }

    /// Sets `audience.where`.
    pub fn set_condition(&mut self, condition: Field) {
        self.admits = Some(condition);
    }

    /// Sets `audience.template`.
    pub fn set_selection(&mut self, selection: Field) {
        self.select = Some(selection);
    }

    /// Adds a template under its key.
    pub fn add_template(&mut self, spec: TemplateSpec) {
        self.templates.insert(spec.head.key.clone(), spec);
    }

    /// Whether any template uploads a file with each request.
    pub fn uploads(&self) -> bool {
        self.templates.values().any(|template| matches!(template.media, Some((_, MediaSpec::File(_)))))
    }

    /// The templates, by key.
    pub fn templates(&self) -> &BTreeMap<String, TemplateSpec> {
        &self.templates
    }

    /// Whether `where` admits a row. The error is a detail without personal data.
    pub fn admits(&self, row: &Arc<Row>) -> Result<bool, String> {
        let Some(condition) = &self.admits else { return Ok(true) };
        let answer = self.render(condition, row, "").map_err(|error| self.tell("where", condition, row, &error))?;
        match answer.as_str() {
            "true" | "True" => Ok(true),
            "false" | "False" => Ok(false),
            _ => Err("`where` is neither true nor false; compare with `==`, or test with `is defined`".to_owned()),
        }
    }

    /// Renders one recipient's message, with `coupon` as the code that they get.
    pub fn compose(&self, row: &Arc<Row>, coupon: &str) -> Result<Content, Fault> {
        let template = self.choose(row)?;
        let render = |what: &dyn Fn() -> String, field: &Field| {
            self.render(field, row, coupon)
                .map_err(|error| Fault { reason: Reason::RenderError, detail: self.tell(&what(), field, row, &error) })
        };
        let mut params = Vec::with_capacity(template.params.len());
        for (index, field) in template.params.iter().enumerate() {
            let what = || format!("`body.params[{index}]`");
            let value = render(&what, field)?;
            check_param(&value).map_err(|problem| bad(&what(), problem))?;
            params.push(value);
        }
        let url_param = match &template.url_param {
            None => None,
            Some(field) => {
                let value = render(&|| "`url_button.param`".to_owned(), field)?;
                check_url_param(&value, &template.head.button_url)
                    .map_err(|problem| bad("`url_button.param`", problem))?;
                Some(value)
            }
        };
        let media = match &template.media {
            None => None,
            Some((kind, MediaSpec::File(file))) => Some((*kind, Media::File(Arc::clone(file)))),
            Some((kind, MediaSpec::Url(field))) => {
                let url = render(&|| "the header's `url`".to_owned(), field)?;
                // One that is the same for everybody was checked with the manifest.
                if field.literal().is_none() {
                    check_media_url(&url, *kind).map_err(|problem| bad("the header's `url`", &problem))?;
                }
                Some((*kind, Media::Url(url)))
            }
        };
        Ok(Content { template: Arc::clone(&template.head), media, params, url_param })
    }

    /// Renders everything for one row and tells what would fail for every row: an endless loop,
    /// a filter that does not exist. What depends on the row is not told.
    pub fn trial(&self, row: &Arc<Row>) -> Vec<String> {
        let all = self.templates.values().flat_map(|template| {
            let media = template.media.as_ref().and_then(|(_, media)| match media {
                MediaSpec::Url(field) => Some(field),
                MediaSpec::File(_) => None,
            });
            template.params.iter().chain(&template.url_param).chain(media)
        });
        let mut told = Vec::new();
        for field in self.admits.iter().chain(&self.select).chain(all) {
            if let Err(error) = self.render(field, row, "TRIAL")
                && let Some(problem) = fails_always(&error)
            {
                told.push(problem);
            }
        }
        told.dedup();
        told
    }

    fn choose(&self, row: &Arc<Row>) -> Result<&TemplateSpec, Fault> {
        let Some(select) = &self.select else {
            return self
                .templates
                .values()
                .next()
                .ok_or_else(|| Fault { reason: Reason::UnknownTemplate, detail: "there is no template".to_owned() });
        };
        let key = self.render(select, row, "").map_err(|error| Fault {
            reason: Reason::RenderError,
            detail: self.tell("`audience.template`", select, row, &error),
        })?;
        self.templates.get(key.trim()).ok_or_else(|| Fault {
            reason: Reason::UnknownTemplate,
            detail: "`audience.template` gives a name that `templates` does not have".to_owned(),
        })
    }

    fn render(&self, field: &Field, row: &Arc<Row>, coupon: &str) -> Result<String, Error> {
        match &field.0 {
            Kind::Literal(text) => Ok(text.to_string()),
            Kind::Compiled(_, _, Some(pieces)) if pieces.iter().all(|piece| piece.of(row).is_some()) => {
                Ok(pieces.iter().filter_map(|piece| piece.of(row)).collect())
            }
            Kind::Compiled(_, columns, _)
                if columns.iter().any(|column| row.get(column).is_some_and(|cell| cell.len() > MAX_CELL)) =>
            {
                Err(Error::new(ErrorKind::InvalidOperation, LONG_CELL))
            }
            Kind::Compiled(name, ..) => self.env.get_template(name)?.render(context! {
                recipient => Value::from_dyn_object(Arc::clone(row)),
                vars => self.vars.clone(),
                campaign => self.campaign.clone(),
                coupon => coupon,
            }),
        }
    }

    /// An error in words that hold nothing of the row: minijinja's own may quote values.
    fn tell(&self, what: &str, field: &Field, row: &Row, error: &Error) -> String {
        if let Some(problem) = fails_always(error) {
            return format!("{what}: {problem}");
        }
        let empty: Vec<String> = match &field.0 {
            Kind::Compiled(_, columns, _) => {
                columns.iter().filter(|column| row.get(column).is_none()).map(|column| format!("`{column}`")).collect()
            }
            Kind::Literal(_) => Vec::new(),
        };
        match error.kind() {
            ErrorKind::UndefinedError if !empty.is_empty() => {
                format!(
                    "{what} uses {}, which is empty in this row; `default(…)` can stand in for it",
                    empty.join(", ")
                )
            }
            ErrorKind::InvalidOperation if error.detail() == Some("the value is none") => {
                format!("{what} gives none, which is not sent")
            }
            ErrorKind::InvalidOperation if error.detail() == Some(LONG_CELL) => {
                format!("{what}: a cell of this row has more than {MAX_CELL} bytes")
            }
            kind => format!("{what}: {kind}"),
        }
    }
}

impl Piece {
    /// What it comes to for a row; nothing if that is for the engine to say.
    fn of<'a>(&'a self, row: &'a Row) -> Option<&'a str> {
        match self {
            Piece::Text(text) => Some(text),
            Piece::Column(column, default) => row.get(column).or(default.as_deref()),
        }
    }
}

/// The parts of a text whose expressions are all `recipient.column`, `recipient.column |
/// default('…')` or `vars.name`; nothing for any other text.
fn pieces(source: &str, texts: &BTreeMap<String, String>) -> Option<Vec<Piece>> {
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
            Some(("vars", name)) if default.is_none() => pieces.push(Piece::Text(texts.get(name)?.clone())),
            _ => return None,
        }
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Some(pieces)
}

/// Errors that do not depend on the row.
fn fails_always(error: &Error) -> Option<String> {
    match error.kind() {
        ErrorKind::OutOfFuel => {
            Some("an expression takes too long or makes too much text: is there an endless loop?".to_owned())
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

fn bad(what: &str, problem: &str) -> Fault {
    Fault { reason: Reason::BadParameter, detail: format!("{what} {problem}") }
}

/// What WhatsApp takes as a body parameter.
/// Source: Meta's error text "Param text cannot have new-line/tab characters or more than 4 consecutive spaces".
fn check_param(value: &str) -> Result<(), &'static str> {
    if value.trim().is_empty() {
        Err("would be sent empty")
    } else if value.bytes().any(|byte| matches!(byte, b'\n' | b'\r' | b'\t')) {
        Err("holds a line break or a tab, which WhatsApp refuses in a parameter")
    } else if value.as_bytes().windows(5).any(|five| five == b"     ") {
        Err("holds more than four spaces in a row, which WhatsApp refuses in a parameter")
    } else {
        Ok(())
    }
}

/// What may end a URL. Source: Meta, "Components", URL buttons: the sender encodes the value.
fn check_url_param(value: &str, url: &str) -> Result<(), &'static str> {
    if value.is_empty() {
        Err("would be sent empty")
    } else if !value.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte)) {
        Err("holds characters that a URL cannot have; pass the value through `| urlencode`")
    } else if url.len() + value.len() - "{{1}}".len().min(url.len()) > MAX_URL {
        Err("makes the URL longer than the 2000 characters that WhatsApp allows")
    } else {
        Ok(())
    }
}

/// What may be a header's URL: public https with a file extension.
/// Source: Kaleyra's send-LTO page, `media_url`.
pub fn check_media_url(url: &str, kind: MediaKind) -> Result<(), String> {
    let parsed = Url::parse(url).map_err(|_| "is not a URL".to_owned())?;
    if parsed.scheme() != "https" && parsed.scheme() != "http" {
        return Err(format!("starts with `{}:`; WhatsApp fetches `https:`", parsed.scheme()));
    }
    match parsed.host() {
        Some(url::Host::Domain(host)) if host.contains('.') && host != "localhost" && !host.ends_with(".local") => {}
        Some(url::Host::Ipv4(address))
            if !(address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_unspecified()) => {}
        Some(url::Host::Ipv6(address))
            if !(address.is_loopback() || address.is_unspecified() || address.is_unique_local()) => {}
        _ => return Err("is not public: WhatsApp could not fetch it".to_owned()),
    }
    let name = parsed.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default();
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    match extension {
        Some(extension) if kind.extensions().contains(&extension.as_str()) => Ok(()),
        Some(extension) if !extension.is_empty() => {
            Err(format!("ends in `.{extension}`; {} header takes {}", article(kind), kind.extensions().join(", ")))
        }
        _ => Err(format!("has no file extension; {} header takes {}", article(kind), kind.extensions().join(", "))),
    }
}

fn article(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Image => "an image",
        MediaKind::Video => "a video",
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

fn references(names: std::collections::HashSet<String>, source: &str) -> References {
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
    // `recipient["First name"]`: the engine tells the root of a subscript alone.
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
    use crate::audience::source::csv::Table;
    use crate::util::fs::InputFile;

    /// What the shortcut gives is what the engine gives.
    #[test]
    fn plain_texts_come_out_as_the_engine_renders_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("people.csv");
        let rows = "name,city,odd\nAsha,Pune,{{ x }}\n\"O'Hara, <b>\",,\"a\nb\"\n,Delhi,é\n";
        std::fs::write(&path, rows).unwrap();
        let vars = BTreeMap::from([("brand".to_owned(), "Lucky & Co".into()), ("number".to_owned(), 7.into())]);
        let mut composer = Composer::new("test", 1, &vars);
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
        let mut short = 0;
        for source in sources {
            let (field, _) = composer.compile(source).unwrap();
            let mut slow = field.clone();
            if let Kind::Compiled(_, _, pieces) = &mut slow.0 {
                short += usize::from(pieces.take().is_some());
            }
            let file = InputFile::below(directory.path(), &path).unwrap();
            let mut table = Table::open(&file, b',', true).unwrap();
            let mut record = csv::StringRecord::new();
            while table.next(&mut record).unwrap().is_some() {
                let row = Arc::new(Row::new(Arc::clone(table.columns()), record.clone()));
                let [quick, full] =
                    [&field, &slow].map(|field| composer.render(field, &row, "C").map_err(|error| error.kind()));
                assert_eq!(quick, full, "{source} for {record:?}");
            }
        }
        assert_eq!(short, 6, "the shortcut is taken for the texts that it is for");
    }
}
