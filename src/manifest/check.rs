//! The checks that a schema cannot express, and the step from what was written to what is meant.
//!
//! Limits are WhatsApp's, as Meta's page "Limited-time offer templates" and the older send page
//! state them; where providers disagree, the stricter figure counts. Every check runs, so that a
//! manifest gets all of its errors at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use url::Url;

use super::read::Document;
use super::source::Pointer;
use super::{Given, types};
use crate::audience::{AudienceSpec, E164, PhoneReader, SourceSpec, SuppressSpec};
use crate::campaign::{Campaign, CouponSpec, Delivery, Rate};
use crate::diagnostic::{Diagnostic, Severity, did_you_mean};
use crate::gateway::kaleyra::{Callback, KaleyraSpec};
use crate::message::TemplateHead;
use crate::message::media::{MediaFile, MediaKind};
use crate::message::render::{Composer, Field, MediaSpec, NAMES, References, TemplateSpec, check_media_url};
use crate::offer::coupon::{self, CouponCode};
use crate::offer::expiry::{self, Encoding, ExpiryError, ExpiryRule};
use crate::offer::pool::PoolSpec;
use crate::secret::SecretRef;
use crate::table::Table;

/// How long one request may take unless the manifest says otherwise. Other clients of this API
/// use 8 to 50 seconds.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an offer must still run when a message leaves, unless the manifest says otherwise:
/// under one hour the timer is red from the start. Source: Meta, "Limited-time offer templates".
const DEFAULT_AT_LEAST: Duration = Duration::from_secs(3_600);

/// A pointer from keys and positions.
macro_rules! at {
    ($($step:expr),+) => { Pointer(vec![$(super::source::Step::from($step)),+]) };
}

/// Checks a manifest that fits its schema. The campaign is there unless a part of it could not be built.
pub fn check(
    path: &Path,
    manifest: &types::Campaign,
    document: &Document,
    given: &Given,
    now: Timestamp,
) -> (Option<Campaign>, Vec<Diagnostic>) {
    let mut check = Check { document, found: Vec::new(), columns: BTreeMap::new(), now };
    let vars = check.vars(manifest, given);
    let mut composer = Composer::new(&manifest.name, manifest.edition, &vars);
    let declared: BTreeSet<&str> = manifest.vars.keys().map(String::as_str).collect();
    let timed = manifest.templates.values().any(|template| template.offer.has_expiration);

    if manifest.templates.is_empty() {
        check.error(
            &at!("templates"),
            "missing-key",
            "`templates` is empty",
            "describe at least one approved template",
        );
    }
    for (key, template) in &manifest.templates {
        if let Some(spec) = check.template(key, template, &mut composer, &declared) {
            composer.add_template(spec);
        }
    }
    let gateway = check.gateway(&manifest.gateway);
    let audience = check.audience(&manifest.audience, manifest.templates.len(), &mut composer, &declared);
    let coupons = check.coupons(&manifest.coupons);
    let (expiry, at_least) = check.expiry(manifest.expiry.as_ref(), timed);
    let delivery = check.delivery(&manifest.delivery, &manifest.coupons);
    if let Some(audience) = &audience {
        check.tables(audience, &composer);
    }
    let campaign = (|| {
        Some(Campaign {
            path: path.to_owned(),
            name: manifest.name.clone(),
            edition: manifest.edition,
            gateway: gateway?,
            vars,
            audience: audience?,
            composer,
            coupons: coupons?,
            expiry,
            at_least,
            delivery: delivery?,
            most_recipients: manifest.limits.recipients,
        })
    })();
    (campaign, check.found)
}

struct Check<'a> {
    document: &'a Document,
    found: Vec<Diagnostic>,
    /// The columns that expressions read, and where each is read first.
    columns: BTreeMap<String, Pointer>,
    now: Timestamp,
}

impl Check<'_> {
    fn report(&mut self, at: &Pointer, mut problem: Diagnostic) {
        problem.place = self.document.sources.value(at);
        self.found.push(problem);
    }

    fn error(&mut self, at: &Pointer, code: &'static str, message: impl Into<String>, hint: impl Into<String>) {
        let hint = hint.into();
        let problem = Diagnostic::error(code, message);
        self.report(at, if hint.is_empty() { problem } else { problem.hint(hint) });
    }

    fn path(&self, at: &Pointer, written: &str) -> PathBuf {
        self.document.sources.directory(at).join(written)
    }

    fn vars(&mut self, manifest: &types::Campaign, given: &Given) -> BTreeMap<String, serde_json::Value> {
        let mut vars = BTreeMap::new();
        for (name, var) in &manifest.vars {
            let default = var.default.as_ref().map(|scalar| &scalar.0);
            match (given.get(name), default) {
                (Some(value), default) => match like(value, default) {
                    Some(value) => drop(vars.insert(name.clone(), value)),
                    None => self.error(
                        &at!("vars", name.as_str()),
                        "var-type",
                        format!("the value given for variable `{name}` is of another kind than its default"),
                        "give a value of the same kind: a number, `true` or `false`, or text",
                    ),
                },
                (None, Some(value)) => drop(vars.insert(name.clone(), value.clone())),
                (None, None) => {
                    self.error(
                        &at!("vars", name.as_str()),
                        "var-missing",
                        format!("variable `{name}` has no default, and no value was given"),
                        format!("pass `--var {name}=…`"),
                    );
                }
            }
        }
        for name in given.keys().filter(|name| !manifest.vars.contains_key(*name)) {
            let near = did_you_mean(name, manifest.vars.keys().map(String::as_str));
            self.found.push(
                Diagnostic::error("var-unknown", format!("the campaign has no variable `{name}`"))
                    .maybe_hint(near.map(|near| format!("did you mean `{near}`?"))),
            );
        }
        vars
    }

    /// Compiles a text, and looks at the names that it uses.
    fn field(&mut self, at: &Pointer, source: &str, composer: &mut Composer, vars: &BTreeSet<&str>) -> Option<Field> {
        self.compiled(at, composer.compile(source), vars)
    }

    fn compiled(
        &mut self,
        at: &Pointer,
        compiled: Result<(Field, References), crate::message::render::CompileError>,
        vars: &BTreeSet<&str>,
    ) -> Option<Field> {
        let (field, references) = match compiled {
            Ok(compiled) => compiled,
            Err(error) => {
                let line = error.line.map_or_else(String::new, |line| format!(", in line {line} of this text"));
                self.error(at, "expression", format!("this expression is wrong: {}{line}", error.message), "");
                return None;
            }
        };
        for unknown in &references.unknown {
            let hint = match did_you_mean(unknown, NAMES) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("a column is `recipient.{unknown}`, a variable is `vars.{unknown}`"),
            };
            self.error(at, "unknown-name", format!("there is no `{unknown}` here"), hint);
        }
        for var in references.vars.iter().filter(|var| !vars.contains(var.as_str())) {
            let hint = match did_you_mean(var, vars.iter().copied()) {
                Some(near) => format!("did you mean `vars.{near}`?"),
                None => format!("add it under `vars:`, as `{var}: {{ default: … }}`"),
            };
            self.error(at, "unknown-var", format!("there is no variable `{var}`"), hint);
        }
        for column in references.columns {
            self.columns.entry(column).or_insert_with(|| at.clone());
        }
        Some(field)
    }

    fn template(
        &mut self,
        key: &str,
        template: &types::Template,
        composer: &mut Composer,
        vars: &BTreeSet<&str>,
    ) -> Option<TemplateSpec> {
        let before = self.errors();
        let root = at!("templates", key);
        let media =
            template.header.as_ref().and_then(|header| self.header(&root.join("header"), header, composer, vars));

        let body = root.join("body");
        let wanted = self.placeholders(&body.join("text"), &template.body.text);
        if wanted != template.body.params.len() {
            let given = template.body.params.len();
            self.error(
                &body.join(if template.body.params.is_empty() { "text" } else { "params" }),
                "param-count",
                format!("`body.text` has {} but `body.params` has {given}", count(wanted, "placeholder")),
                "WhatsApp refuses a message whose parameters do not match the template (its error 132000)",
            );
        }
        let mut params = Vec::new();
        for (index, param) in template.body.params.iter().enumerate() {
            params.extend(self.field(&body.join("params").join(index), param, composer, vars));
        }
        let url_param = self.url_button(&root.join("url_button"), &template.url_button, composer, vars);
        if self.errors() > before {
            return None;
        }
        let head = TemplateHead {
            key: key.to_owned(),
            name: template.name.clone(),
            language: template.language.clone(),
            offer_text: template.offer.text.clone(),
            has_expiration: template.offer.has_expiration,
            body: template.body.text.clone(),
            button_label: template.url_button.label.clone(),
            button_url: template.url_button.url.clone(),
        };
        Some(TemplateSpec { head: Arc::new(head), params, url_param, media })
    }

    fn header(
        &mut self,
        at: &Pointer,
        header: &types::Header,
        composer: &mut Composer,
        vars: &BTreeSet<&str>,
    ) -> Option<(MediaKind, MediaSpec)> {
        let (kind, media) = match header {
            types::Header::Image(media) => (MediaKind::Image, media),
            types::Header::Video(media) => (MediaKind::Video, media),
        };
        let at = at.join(kind.word());
        match media {
            types::Media::Url(url) => {
                let at = at.join("url");
                let field = self.field(&at, url, composer, vars)?;
                if let Some(url) = field.literal()
                    && let Err(problem) = check_media_url(url, kind)
                {
                    self.error(
                        &at,
                        "media-url",
                        format!("this URL {problem}"),
                        "Kaleyra takes a public URL with a file extension, such as `https://cdn.example.com/offer.mp4`",
                    );
                    return None;
                }
                Some((kind, MediaSpec::Url(field)))
            }
            types::Media::File(path) => {
                let at = at.join("file");
                let resolved = self.path(&at, path);
                match MediaFile::read(&resolved, kind) {
                    Ok(file) => Some((kind, MediaSpec::File(Arc::new(file)))),
                    Err(error) => {
                        self.error(
                            &at,
                            "media-file",
                            error.to_string(),
                            "paths are relative to the file that they are written in",
                        );
                        None
                    }
                }
            }
        }
    }

    /// How many placeholders a text has; tells those that are out of order.
    fn placeholders(&mut self, at: &Pointer, text: &str) -> usize {
        let mut numbers = BTreeSet::new();
        for part in text.split("{{").skip(1) {
            let inside = part.split("}}").next().unwrap_or_default().trim();
            match inside.parse::<usize>() {
                Ok(number) if number >= 1 && part.contains("}}") => drop(numbers.insert(number)),
                _ => self.error(
                    at,
                    "placeholder",
                    format!("`{{{{{inside}` is no placeholder: the approved text has `{{{{1}}}}`, `{{{{2}}}}`…"),
                    "write the text as it was approved, and the expressions into `params`",
                ),
            }
        }
        let highest = numbers.last().copied().unwrap_or(0);
        if highest != numbers.len() {
            self.error(
                at,
                "placeholder",
                format!("the placeholders must be numbered 1 to {}, without gaps", numbers.len()),
                "",
            );
        }
        numbers.len()
    }

    fn url_button(
        &mut self,
        at: &Pointer,
        button: &types::UrlButton,
        composer: &mut Composer,
        vars: &BTreeSet<&str>,
    ) -> Option<Field> {
        let url_at = at.join("url");
        let variables = button.url.matches("{{").count();
        let plain = button.url.replace("{{1}}", "x");
        if variables > 1 || (variables == 1 && !button.url.ends_with("{{1}}")) {
            self.error(
                &url_at,
                "url-variable",
                "a button's URL may hold one variable, `{{1}}`, and only at its end",
                "this is how WhatsApp approves templates; put the rest into `param`",
            );
        } else if !Url::parse(&plain).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
            self.error(
                &url_at,
                "url",
                format!("`{}` is not a web address", button.url),
                "such as `https://shop.example.com/{{1}}`",
            );
        }
        match (&button.param, variables) {
            (Some(param), 1..) => self.field(&at.join("param"), param, composer, vars),
            (Some(_), _) => {
                self.error(
                    &at.join("param"),
                    "url-param",
                    "there is nothing for `param` to fill: the URL has no `{{1}}`",
                    "end the URL with `{{1}}`, or remove `param`",
                );
                None
            }
            (None, 1..) => {
                self.error(
                    &url_at,
                    "url-param",
                    "the URL ends in `{{1}}`, and no `param` fills it",
                    "add `param:` beside `url:`",
                );
                None
            }
            (None, _) => None,
        }
    }

    fn secret(&mut self, at: &Pointer, secret: &types::Secret) -> SecretRef {
        match secret {
            types::Secret::Env(name) => SecretRef::Env(name.clone()),
            types::Secret::File(path) => SecretRef::File(self.path(&at.join("file"), path)),
            types::Secret::Exec(words) => {
                if words.is_empty() {
                    self.error(
                        &at.join("exec"),
                        "empty-command",
                        "`exec` names no program",
                        "such as `exec: [pass, show, kaleyra]`",
                    );
                }
                SecretRef::Exec(words.clone())
            }
        }
    }

    fn gateway(&mut self, gateway: &types::Gateway) -> Option<KaleyraSpec> {
        let types::Gateway::Kaleyra(kaleyra) = gateway;
        let root = at!("gateway", "kaleyra");
        let base_url = match (&kaleyra.domain, &kaleyra.base_url) {
            (Some(domain), None) => Url::parse(match domain {
                types::Domain::In => "https://api.in.kaleyra.io",
                types::Domain::Sg => "https://api.kaleyra.io",
                types::Domain::Eu => "https://api.eu.kaleyra.io",
                types::Domain::Na => "https://api.na.kaleyra.ai",
            })
            .ok(),
            (None, Some(text)) => self.base_url(&root.join("base_url"), text),
            (Some(_), Some(_)) => {
                self.error(
                    &root.join("base_url"),
                    "domain-twice",
                    "`domain` and `base_url` both say where to send",
                    "remove one of them",
                );
                None
            }
            (None, None) => {
                self.error(
                    &root,
                    "missing-key",
                    "`gateway.kaleyra` needs `domain` or `base_url`",
                    "the console shows the account's \"API Domain\": `in`, `sg`, `eu` or `na`",
                );
                None
            }
        };
        let from = E164::parse_exact(&kaleyra.from);
        let timeout = match &kaleyra.timeout {
            None => Some(DEFAULT_TIMEOUT),
            Some(text) => self.duration(&root.join("timeout"), text),
        };
        let callback = kaleyra.callback.as_ref().and_then(|callback| match callback {
            types::Callback::ProfileId(id) => Some(Callback::ProfileId(id.clone())),
            types::Callback::Url(url) => {
                if !Url::parse(url).is_ok_and(|parsed| matches!(parsed.scheme(), "http" | "https")) {
                    self.error(
                        &root.join("callback").join("url"),
                        "url",
                        format!("`{url}` is not a web address"),
                        "such as `https://hooks.example.com/whatsapp`",
                    );
                    return None;
                }
                Some(Callback::Url(url.clone()))
            }
        });
        let sid = self.secret(&root.join("sid"), &kaleyra.sid);
        let api_key = self.secret(&root.join("api_key"), &kaleyra.api_key);
        Some(KaleyraSpec {
            base_url: base_url?,
            sid,
            api_key,
            from: from?,
            callback,
            send_ref: kaleyra.send_ref,
            encoding: match kaleyra.expiry_encoding {
                types::ExpiryEncoding::Absolute => Encoding::Absolute,
                types::ExpiryEncoding::Duration => Encoding::Duration,
            },
            timeout: timeout?,
        })
    }

    fn base_url(&mut self, at: &Pointer, text: &str) -> Option<Url> {
        let Ok(url) = Url::parse(text) else {
            self.error(at, "url", format!("`{text}` is not a web address"), "such as `https://api.in.kaleyra.io`");
            return None;
        };
        if let Err(problem) = crate::gateway::kaleyra::check_base_url(&url) {
            self.error(at, "base-url", problem, "use `https://`; plain http is for a sandbox on this machine");
            return None;
        }
        Some(url)
    }

    fn duration(&mut self, at: &Pointer, text: &str) -> Option<Duration> {
        match expiry::parse_duration(text) {
            Ok(duration) => Some(duration),
            Err(error) => {
                self.expiry_error(at, &error);
                None
            }
        }
    }

    fn audience(
        &mut self,
        audience: &types::Audience,
        templates: usize,
        composer: &mut Composer,
        vars: &BTreeSet<&str>,
    ) -> Option<AudienceSpec> {
        let root = at!("audience");
        let reader = PhoneReader::new(audience.default_region.as_deref());
        if reader.is_none() {
            let region = audience.default_region.as_deref().unwrap_or_default();
            self.error(
                &root.join("default_region"),
                "unknown-region",
                format!("there is no region `{region}`"),
                "a country as two capital letters, such as `IN`",
            );
        }
        if let Some(condition) = &audience.where_ {
            let at = root.join("where");
            let compiled = composer.compile_condition(condition);
            if let Some(field) = self.compiled(&at, compiled, vars) {
                composer.set_condition(field);
            }
        }
        match &audience.template {
            Some(select) => {
                let at = root.join("template");
                if let Some(field) = self.field(&at, select, composer, vars) {
                    if let Some(key) = field.literal()
                        && !composer.templates().contains_key(key.trim())
                    {
                        let near = did_you_mean(key, composer.templates().keys().map(String::as_str))
                            .map(|near| format!("did you mean `{near}`?"));
                        self.report(
                            &at,
                            Diagnostic::error("unknown-template", format!("there is no template `{key}`"))
                                .maybe_hint(near),
                        );
                    }
                    composer.set_selection(field);
                }
            }
            None if templates > 1 => self.error(
                &root,
                "missing-key",
                "with several templates, `audience.template` must say who gets which",
                "such as `template: \"{{ 'hi' if recipient.lang == 'hi' else 'en' }}\"`",
            ),
            None => {}
        }
        let sources = audience
            .sources
            .iter()
            .enumerate()
            .map(|(index, source)| SourceSpec {
                path: self.path(&root.join("sources").join(index).join("csv"), &source.csv),
                delimiter: byte(source.delimiter),
            })
            .collect();
        let suppress = audience
            .suppress
            .iter()
            .enumerate()
            .map(|(index, list)| SuppressSpec {
                path: self.path(&root.join("suppress").join(index).join("csv"), &list.csv),
                delimiter: byte(list.delimiter),
                phone: list.phone.clone(),
                skip_invalid: list.invalid == types::InvalidRow::Skip,
            })
            .collect();
        Some(AudienceSpec {
            sources,
            phone: audience.phone.clone(),
            id: audience.id.clone(),
            reader: reader?,
            suppress,
        })
    }

    /// Opens every CSV file far enough to know its columns, and renders the first row on trial.
    fn tables(&mut self, audience: &AudienceSpec, composer: &Composer) {
        for (index, source) in audience.sources.iter().enumerate() {
            let at = at!("audience", "sources").join(index).join("csv");
            let table = match Table::open(&source.path, source.delimiter) {
                Ok(table) => table,
                Err(problem) => {
                    self.table_problem(&at, problem);
                    continue;
                }
            };
            let named = [(Some(&audience.phone), "phone"), (audience.id.as_ref(), "id")];
            for (column, key) in named {
                if let Some(column) = column
                    && table.columns().position(column).is_none()
                {
                    let problem = table.no_column(column);
                    self.report(&at!("audience", key), problem);
                }
            }
            let absent: Vec<(String, Pointer)> = self
                .columns
                .iter()
                .filter(|(column, _)| table.columns().position(column).is_none())
                .map(|(column, at)| (column.clone(), at.clone()))
                .collect();
            for (column, at) in absent {
                let problem = table.no_column(&column);
                self.report(&at, problem);
            }
            if self.errors() == 0
                && let Ok(Some(row)) = crate::audience::first_row(table)
            {
                for problem in composer.trial(&row) {
                    self.found.push(Diagnostic::error("expression", problem).in_file(&source.path, Some(2), None));
                }
            }
        }
        for (index, list) in audience.suppress.iter().enumerate() {
            let at = at!("audience", "suppress").join(index).join("csv");
            match Table::open(&list.path, list.delimiter) {
                Ok(table) => {
                    if let Err(problem) = crate::audience::suppression_column(&table, list, &audience.phone) {
                        self.report(&at, problem);
                    }
                }
                Err(problem) => self.table_problem(&at, problem),
            }
        }
    }

    /// A problem with a whole file is told where the manifest names it; one with a row, in the file.
    fn table_problem(&mut self, at: &Pointer, problem: Diagnostic) {
        let (_, line, _) = problem.position();
        if line.is_some() { self.found.push(problem) } else { self.report(at, problem) }
    }

    fn coupons(&mut self, coupons: &types::Coupons) -> Option<CouponSpec> {
        let root = at!("coupons");
        match coupons {
            types::Coupons::Code(code) => match CouponCode::new(code) {
                Ok(code) => {
                    if !code.is_plain() {
                        self.report(&root.join("code"), plain_warning());
                    }
                    Some(CouponSpec::Code(code))
                }
                Err(error) => {
                    self.error(&root.join("code"), "coupon", error.to_string(), "");
                    None
                }
            },
            types::Coupons::Pool(pool) => {
                let at = root.join("pool").join("csv");
                let spec = PoolSpec {
                    path: self.path(&at, &pool.csv),
                    delimiter: byte(pool.delimiter),
                    column: pool.column.clone(),
                };
                if let Err(problem) = spec.open() {
                    self.table_problem(&at, problem);
                }
                Some(CouponSpec::Pool(spec))
            }
            types::Coupons::Generate(generate) => self.generate(&root.join("generate"), generate),
        }
    }

    fn generate(&mut self, at: &Pointer, generate: &types::Generate) -> Option<CouponSpec> {
        let alphabet: BTreeSet<char> = generate.alphabet.chars().collect();
        let total = generate.prefix.chars().count() + usize::from(generate.length);
        let before = self.errors();
        if alphabet.len() != generate.alphabet.chars().count() {
            self.error(
                &at.join("alphabet"),
                "coupon",
                "the alphabet has a character twice",
                "some codes would be likelier than others",
            );
        } else if alphabet.len() < 2 {
            self.error(&at.join("alphabet"), "coupon", "the alphabet needs at least two characters", "");
        }
        if let Err(error) =
            coupon::check(&format!("{}{}", generate.prefix, generate.alphabet.chars().next().unwrap_or('A')))
        {
            self.error(&at.join("prefix"), "coupon", error.to_string(), "");
        } else if total > coupon::MAX_CHARACTERS {
            self.error(
                &at.join("length"),
                "coupon",
                format!("prefix and length together give codes of {total} characters; WhatsApp allows at most 15"),
                "shorten one of them",
            );
        }
        if generate.alphabet.chars().any(|character| character.is_whitespace() || character.is_control()) {
            self.error(&at.join("alphabet"), "coupon", "the alphabet holds white space or an invisible character", "");
        }
        if self.errors() > before {
            return None;
        }
        if !generate.prefix.chars().chain(generate.alphabet.chars()).all(|character| character.is_ascii_alphanumeric())
        {
            self.report(at, plain_warning());
        }
        Some(CouponSpec::Generate {
            prefix: generate.prefix.clone(),
            alphabet: generate.alphabet.clone(),
            length: usize::from(generate.length),
        })
    }

    fn expiry(&mut self, expiry: Option<&types::Expiry>, timed: bool) -> (Option<ExpiryRule>, Duration) {
        let root = at!("expiry");
        let Some(expiry) = expiry else {
            if timed {
                self.error(
                    &at!("templates"),
                    "missing-key",
                    "a template has `has_expiration: true`, and there is no `expiry`",
                    "add `expiry: { after: 14d }`, or `at:` with a `timezone`",
                );
            }
            return (None, DEFAULT_AT_LEAST);
        };
        if !timed {
            self.error(
                &root,
                "expiry-unused",
                "no template has `has_expiration: true`, so `expiry` would never be shown",
                "remove it, or set `has_expiration` as the template was approved",
            );
        }
        let at_least = match &expiry.at_least {
            Some(text) => self.duration(&root.join("at_least"), text).unwrap_or(DEFAULT_AT_LEAST),
            None => DEFAULT_AT_LEAST,
        };
        let rule = match (&expiry.at, &expiry.after) {
            (Some(at), None) => {
                if expiry.from.is_some() {
                    self.error(
                        &root.join("from"),
                        "expiry",
                        "`from` goes with `after`; `at` is an instant already",
                        "remove `from`",
                    );
                }
                self.expiry_at(&root, at, expiry.timezone.as_deref(), at_least)
            }
            (None, Some(after)) => {
                if expiry.timezone.is_some() {
                    self.error(
                        &root.join("timezone"),
                        "expiry",
                        "`timezone` goes with `at`; `after` needs none",
                        "remove `timezone`",
                    );
                }
                let duration = self.duration(&root.join("after"), after);
                if let Some(duration) = duration
                    && duration < at_least
                {
                    self.error(
                        &root.join("after"),
                        "expiry-too-soon",
                        format!("an offer of {after} never runs for {} when a message leaves", words(at_least)),
                        "lengthen `after`, or set `at_least`",
                    );
                }
                duration.map(|duration| match expiry.from.unwrap_or_default() {
                    types::ExpiryFrom::Plan => ExpiryRule::AfterPlan(duration),
                    types::ExpiryFrom::Send => ExpiryRule::AfterSend(duration),
                })
            }
            (Some(_), Some(_)) => {
                self.error(&root, "expiry", "`at` and `after` both say when the offer ends", "keep one of them");
                None
            }
            (None, None) => {
                self.error(
                    &root,
                    "missing-key",
                    "`expiry` needs `at` or `after`",
                    "such as `after: 14d`, or `at: \"2026-12-31T23:59:59\"` with `timezone: Asia/Kolkata`",
                );
                None
            }
        };
        (rule, at_least)
    }

    fn expiry_at(
        &mut self,
        root: &Pointer,
        at: &str,
        timezone: Option<&str>,
        at_least: Duration,
    ) -> Option<ExpiryRule> {
        let instant = match expiry::parse_at(at, timezone) {
            Ok(instant) => instant,
            Err(error) => {
                let key = if matches!(error, ExpiryError::UnknownZone(_) | ExpiryError::ZoneTwice(_)) {
                    "timezone"
                } else {
                    "at"
                };
                self.expiry_error(&root.join(key), &error);
                return None;
            }
        };
        let at = root.join("at");
        if instant.instant().as_second() < 86_400 * 365 {
            self.error(
                &at,
                "expiry-past",
                format!("{instant} is in 1970"),
                "a number of milliseconds is not an instant; for a duration use `after: 14d`",
            );
        } else if instant.instant() <= self.now {
            self.error(&at, "expiry-past", format!("the offer ended at {instant}"), "choose an instant in the future");
        } else if instant.remaining(self.now) < at_least {
            self.error(
                &at,
                "expiry-too-soon",
                format!("the offer ends at {instant}, in less than {}", words(at_least)),
                "choose a later end, or set `at_least`",
            );
        }
        Some(ExpiryRule::At(instant))
    }

    fn expiry_error(&mut self, at: &Pointer, error: &ExpiryError) {
        let hint = match error {
            ExpiryError::NotATime(_) => "such as \"2026-12-31T23:59:59\"".to_owned(),
            ExpiryError::BareNumber(number) => match number.parse::<f64>() {
                Ok(milliseconds) if (864_000.0..1e12).contains(&milliseconds) => {
                    let days = milliseconds / 86_400_000.0;
                    format!("durations carry their unit: {number} milliseconds are `after: {days}d`")
                }
                _ => "write an instant such as \"2026-12-31T23:59:59\", or a duration with its unit, such as `14d`"
                    .to_owned(),
            },
            ExpiryError::NoZone(_) => {
                "add `timezone:`, such as `Asia/Kolkata`, or an offset, such as `+05:30`".to_owned()
            }
            ExpiryError::ZoneTwice(_) => "remove `timezone`, or the offset".to_owned(),
            ExpiryError::UnknownZone(zone) => match nearest_zone(zone) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "a name of the IANA time zone database, such as `Asia/Kolkata`".to_owned(),
            },
            ExpiryError::Gap(..) => "choose a time an hour earlier or later".to_owned(),
            ExpiryError::Fold(..) => "say which one with an offset, such as `+02:00`, and remove `timezone`".to_owned(),
            ExpiryError::NotADuration(_) => "durations are written `14d`, `36h` or `90m`".to_owned(),
        };
        self.error(at, "expiry", error.to_string(), hint);
    }

    fn delivery(&mut self, delivery: &types::Delivery, coupons: &types::Coupons) -> Option<Delivery> {
        let root = at!("delivery");
        let rate = match &delivery.rate {
            None => Some(Rate::DEFAULT),
            Some(text) => {
                let rate = Rate::parse(text);
                if rate.is_none() {
                    self.error(
                        &root.join("rate"),
                        "rate",
                        format!("`{text}` is not a rate"),
                        "such as `80/s`, `600/m` or `5000/h`",
                    );
                }
                rate
            }
        };
        let batch = delivery.batch.unwrap_or(1) as usize;
        let concurrency = delivery.concurrency.unwrap_or(50) as usize;
        if batch > 1 && !matches!(coupons, types::Coupons::Code(_)) {
            self.error(
                &root.join("batch"),
                "batch",
                "several recipients in one request share one code, and this campaign gives each a code of their own",
                "remove `batch`, or use `coupons.code`",
            );
        }
        if batch > concurrency {
            self.error(
                &root.join("batch"),
                "batch",
                format!("`batch` is {batch}, but only {concurrency} messages may be under way at once"),
                "raise `concurrency`",
            );
        }
        Some(Delivery { rate: rate?, concurrency, batch })
    }

    fn errors(&self) -> usize {
        self.found.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
    }
}

fn plain_warning() -> Diagnostic {
    Diagnostic::warning("coupon-characters", "this code has characters other than letters and digits")
        .hint("Meta states no character set; some clients refuse others, so send one to yourself first")
}

fn byte(delimiter: types::Delimiter) -> u8 {
    match delimiter {
        types::Delimiter::Comma => b',',
        types::Delimiter::Semicolon => b';',
        types::Delimiter::Bar => b'|',
        types::Delimiter::Tab => b'\t',
    }
}

/// A value from the command line as the kind that the default has.
fn like(value: &serde_json::Value, default: Option<&serde_json::Value>) -> Option<serde_json::Value> {
    use serde_json::Value;
    match (value, default) {
        (Value::String(text), Some(Value::Number(_))) => text
            .parse::<i64>()
            .map(Value::from)
            .ok()
            .or_else(|| text.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Value::Number)),
        (Value::String(text), Some(Value::Bool(_))) => text.parse::<bool>().map(Value::from).ok(),
        (value, Some(Value::String(_))) if !value.is_string() => Some(Value::String(value.to_string())),
        (value, _) => Some(value.clone()),
    }
}

fn nearest_zone(zone: &str) -> Option<String> {
    let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
    did_you_mean(zone, names.iter().map(String::as_str)).map(str::to_owned)
}

/// A duration as a person writes it.
pub fn words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (amount, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7_200 if !seconds.is_multiple_of(3_600) => (seconds / 60, "minute"),
        120..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    count(usize::try_from(amount).unwrap_or(usize::MAX), unit)
}

/// `1 row`, `2 rows`.
pub fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}
