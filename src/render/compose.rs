//! Rendering the message of one recipient.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::Error;

use super::environment::{CompileError, Expressions, Field, References, explain, fails_for_every_row};
use super::limits::{check_media_url, check_param, check_url_param};
use crate::domain::media::{MediaFile, MediaKind};
use crate::domain::message::{Media, TemplateHead};
use crate::domain::row::Row;

/// What fills one template.
#[derive(Debug, Clone)]
pub struct CompiledTemplate {
    /// The template.
    pub head: Arc<TemplateHead>,
    /// The parameters of the body.
    pub params: Vec<Field>,
    /// The parameter of the button's URL.
    pub url_param: Option<Field>,
    /// The media of the header.
    pub media: Option<(MediaKind, HeaderMedia)>,
}

impl CompiledTemplate {
    fn fields(&self) -> impl Iterator<Item = &Field> {
        let media = match &self.media {
            Some((_, HeaderMedia::Url(field))) => Some(field),
            Some((_, HeaderMedia::File(_))) | None => None,
        };
        self.params.iter().chain(&self.url_param).chain(media)
    }
}

/// The media of the header, before rendering.
#[derive(Debug, Clone)]
pub enum HeaderMedia {
    /// A URL that may contain expressions.
    Url(Field),
    /// A file.
    File(Arc<MediaFile>),
}

/// Why one row gets no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderFailure {
    /// The kind.
    pub kind: RenderFailureKind,
    /// The explanation, without data of the row.
    pub detail: String,
}

/// The kinds of [`RenderFailure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenderFailureKind {
    /// An expression cannot be evaluated.
    Expression,
    /// `audience.template` evaluates to a name that no template has.
    UnknownTemplate,
    /// WhatsApp would refuse the value of a parameter.
    BadParameter,
}

/// A message without coupon and expiry.
#[derive(Debug, Clone)]
pub struct Content {
    /// The template.
    pub template: Arc<TemplateHead>,
    /// The media of the header.
    pub media: Option<(MediaKind, Media)>,
    /// The parameters of the body.
    pub params: Vec<String>,
    /// The parameter of the button's URL.
    pub url_param: Option<String>,
}

/// Renders messages.
pub struct Composer {
    expressions: Expressions,
    condition: Option<Field>,
    selection: Option<Field>,
    templates: BTreeMap<String, CompiledTemplate>,
}

impl std::fmt::Debug for Composer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Composer").field("templates", &self.templates).finish_non_exhaustive()
    }
}

impl Composer {
    /// A composer without templates, for a campaign with these variables.
    pub fn new(name: &str, edition: u32, vars: &BTreeMap<String, serde_json::Value>) -> Self {
        Self {
            expressions: Expressions::new(name, edition, vars),
            condition: None,
            selection: None,
            templates: BTreeMap::new(),
        }
    }

    /// Compiles a text that may contain expressions.
    pub fn compile(&mut self, source: &str) -> Result<(Field, References), CompileError> {
        self.expressions.compile(source)
    }

    /// Compiles an expression that is true or false.
    pub fn compile_condition(&mut self, source: &str) -> Result<(Field, References), CompileError> {
        self.expressions.compile_condition(source)
    }

    /// Sets `audience.where`.
    pub fn set_condition(&mut self, condition: Field) {
        self.condition = Some(condition);
    }

    /// Sets `audience.template`.
    pub fn set_selection(&mut self, selection: Field) {
        self.selection = Some(selection);
    }

    /// Adds a template under its key.
    pub fn add_template(&mut self, spec: CompiledTemplate) {
        self.templates.insert(spec.head.key.clone(), spec);
    }

    /// Whether any template uploads a file with each request.
    pub fn uploads(&self) -> bool {
        self.templates.values().any(|template| matches!(template.media, Some((_, HeaderMedia::File(_)))))
    }

    /// The templates, by key.
    pub fn templates(&self) -> &BTreeMap<String, CompiledTemplate> {
        &self.templates
    }

    /// Whether `where` selects a row. The error is a detail without personal data.
    pub fn selects(&self, row: &Arc<Row>) -> Result<bool, String> {
        let Some(condition) = &self.condition else { return Ok(true) };
        let answer =
            self.expressions.render(condition, row, "").map_err(|error| explain("`where`", condition, row, &error))?;
        match answer.as_str() {
            "true" | "True" => Ok(true),
            "false" | "False" => Ok(false),
            _ => Err("`where` is neither true nor false; compare with `==`, or test with `is defined`".to_owned()),
        }
    }

    /// Renders one recipient's message, with `coupon` as their code.
    pub fn compose(&self, row: &Arc<Row>, coupon: &str) -> Result<Content, RenderFailure> {
        let template = self.choose(row)?;
        let render = |what: &dyn Fn() -> String, field: &Field| {
            self.expressions.render(field, row, coupon).map_err(|error| expression_failure(&what(), field, row, &error))
        };
        let mut params = Vec::with_capacity(template.params.len());
        for (index, field) in template.params.iter().enumerate() {
            let what = || format!("`body.params[{index}]`");
            let value = render(&what, field)?;
            check_param(&value).map_err(|problem| bad_parameter(&what(), problem))?;
            params.push(value);
        }
        let url_param = match &template.url_param {
            None => None,
            Some(field) => {
                let value = render(&|| "`url_button.param`".to_owned(), field)?;
                check_url_param(&value, &template.head.button_url)
                    .map_err(|problem| bad_parameter("`url_button.param`", problem))?;
                Some(value)
            }
        };
        let media = match &template.media {
            None => None,
            Some((kind, HeaderMedia::File(file))) => Some((*kind, Media::File(Arc::clone(file)))),
            Some((kind, HeaderMedia::Url(field))) => {
                let url = render(&|| "the `url` of the header".to_owned(), field)?;
                // A URL that is the same for everybody was checked with the manifest.
                if field.literal().is_none() {
                    check_media_url(&url, *kind)
                        .map_err(|problem| bad_parameter("the `url` of the header", &problem))?;
                }
                Some((*kind, Media::Url(url)))
            }
        };
        Ok(Content { template: Arc::clone(&template.head), media, params, url_param })
    }

    /// Renders everything for one row and returns the errors that would occur for every row, such as an endless
    /// loop or a filter that does not exist.
    pub fn trial(&self, row: &Arc<Row>) -> Vec<String> {
        let all = self.templates.values().flat_map(CompiledTemplate::fields);
        let mut problems = Vec::new();
        for field in self.condition.iter().chain(&self.selection).chain(all) {
            if let Err(error) = self.expressions.render(field, row, "TRIAL")
                && let Some(problem) = fails_for_every_row(&error)
            {
                problems.push(problem);
            }
        }
        problems.dedup();
        problems
    }

    fn choose(&self, row: &Arc<Row>) -> Result<&CompiledTemplate, RenderFailure> {
        let unknown =
            |detail: &str| RenderFailure { kind: RenderFailureKind::UnknownTemplate, detail: detail.to_owned() };
        let Some(selection) = &self.selection else {
            return self.templates.values().next().ok_or_else(|| unknown("the campaign has no template"));
        };
        let key = self
            .expressions
            .render(selection, row, "")
            .map_err(|error| expression_failure("`audience.template`", selection, row, &error))?;
        self.templates
            .get(key.trim())
            .ok_or_else(|| unknown("`audience.template` evaluates to a name that is not in `templates`"))
    }
}

fn expression_failure(what: &str, field: &Field, row: &Row, error: &Error) -> RenderFailure {
    RenderFailure { kind: RenderFailureKind::Expression, detail: explain(what, field, row, error) }
}

fn bad_parameter(what: &str, problem: &str) -> RenderFailure {
    RenderFailure { kind: RenderFailureKind::BadParameter, detail: format!("{what} {problem}") }
}
