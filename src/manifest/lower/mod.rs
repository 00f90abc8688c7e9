//! The checks that a schema cannot express, and the step from what was written to what is meant.
//!
//! Limits are WhatsApp's, as Meta's page "Limited-time offer templates" and the older send page
//! state them; where providers disagree, the stricter figure counts. Every check runs, so that a
//! manifest gets all of its errors at once.

mod offer;
mod template;
pub(super) mod unevaluated;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use url::Url;

use super::read::Document;
use super::source::Pointer;
use super::types;
use crate::audience::source::csv::Table;
use crate::audience::{AudienceSpec, MAX_LISTS, SourceSpec, SuppressSpec};
use crate::domain::campaign::{Bound, Campaign, Delivery, Rate, StopWhen};
use crate::domain::diagnostic::{Code, Diagnostic, Severity, did_you_mean, is_full};
use crate::domain::expiry::{self, Encoding};
use crate::domain::phone::{E164, PhoneReader};
use crate::domain::secret::SecretRef;
use crate::gateway::kaleyra::{Callback, KaleyraSpec};
use crate::project::files::Files;
use crate::render::compose::{Composer, Field, MediaSpec, NAMES, References};
use crate::util::fs::InputFile;

/// How long one request may take unless the manifest says otherwise. Other clients of this API
/// use 8 to 50 seconds.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest time without progress that a manifest may ask for.
const MAX_TIMEOUT: Duration = Duration::from_secs(3_600);

/// How long an offer must still run when a message leaves, unless the manifest says otherwise:
/// under one hour the timer is red from the start. Source: Meta, "Limited-time offer templates".
const DEFAULT_AT_LEAST: Duration = Duration::from_secs(3_600);

/// How many templates a campaign can have: WhatsApp has some seventy languages.
const MAX_TEMPLATES: usize = 250;

/// How many bytes the files above all templates may have together.
const MAX_MEDIA_BYTES: usize = 512 * 1024 * 1024;

/// How many sources an audience can have.
const MAX_TABLES: usize = 250;

/// A pointer from keys and positions.
macro_rules! at {
    ($($step:expr),+) => { $crate::manifest::source::Pointer(vec![$($crate::manifest::source::Step::from($step)),+]) };
}

use at;

/// Checks a manifest that fits its schema. The campaign is there unless a part of it could not be built.
pub fn check(
    path: &Path,
    manifest: &types::Campaign,
    document: &Document,
    files: &Files,
    given: &BTreeMap<String, serde_json::Value>,
    now: Timestamp,
) -> (Option<Campaign>, Vec<Diagnostic>) {
    let mut check = Check::new(document, files, now);
    let vars = check.vars(manifest, given);
    let mut composer = Composer::new(&manifest.name, manifest.edition, &vars);
    let declared: BTreeSet<&str> = manifest.vars.keys().map(String::as_str).collect();
    let timed = manifest.templates.values().any(|template| template.offer.has_expiration);

    if manifest.templates.is_empty() {
        check.error(
            &at!("templates"),
            Code::MissingKey,
            "`templates` is empty",
            "describe at least one approved template",
        );
    }
    if manifest.templates.len() > MAX_TEMPLATES {
        let message = format!("the campaign has {} templates; it can have {MAX_TEMPLATES}", manifest.templates.len());
        check.error(&at!("templates"), Code::TooManyEntries, message, "one for each language and variant is enough");
    }
    let mut media_bytes = 0;
    for (key, template) in manifest.templates.iter().take(MAX_TEMPLATES) {
        if media_bytes > MAX_MEDIA_BYTES {
            let message = format!("the headers of the templates before this one have {media_bytes} bytes together");
            let hint = format!("they are kept in memory, and may have {MAX_MEDIA_BYTES}; use URLs for some of them");
            check.error(&at!("templates", key.as_str()), Code::TooManyEntries, message, hint);
            break;
        }
        if let Some(spec) = check.template(key, template, &mut composer, &declared) {
            if let Some((_, MediaSpec::File(file))) = &spec.media {
                media_bytes += file.content.len();
            }
            composer.add_template(spec);
        }
    }
    let gateway = check.gateway(&manifest.gateway);
    let audience = check.audience(&manifest.audience, manifest.templates.len(), &mut composer, &declared);
    let coupons = check.coupons(&manifest.coupons);
    let (expiry, at_least, zone) = check.expiry(manifest.expiry.as_ref(), timed);
    let delivery = check.delivery(&manifest.delivery, &manifest.coupons);
    if let Some(audience) = &audience {
        check.tables(audience, &composer);
    }
    let campaign = (|| {
        Some(Campaign {
            path: path.to_owned(),
            name: manifest.name.clone(),
            record: manifest.moved.as_ref().map_or(&manifest.name, |moved| &moved.from).clone(),
            moved_from: manifest.moved.as_ref().map(|moved| moved.from.clone()),
            edition: manifest.edition,
            gateway: gateway?,
            vars,
            audience: audience?,
            composer,
            coupons: coupons?,
            expiry,
            zone,
            at_least,
            delivery: delivery?,
            most_recipients: manifest.limits.recipients,
            manifest: document.value.clone(),
        })
    })();
    (campaign, check.found)
}

/// Checks an audience alone, as far as it takes to read its rows: expressions may be wrong, and files that
/// are not found are told beside the rest.
pub fn audience(
    audience: &types::Audience,
    document: &Document,
    files: &Files,
) -> Result<(AudienceSpec, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut check = Check::new(document, files, Timestamp::UNIX_EPOCH);
    let mut composer = Composer::new("", 1, &BTreeMap::new());
    let Some(spec) = check.audience(audience, 1, &mut composer, &BTreeSet::new()) else { return Err(check.found) };
    let about_file = |problem: &Diagnostic| Code::OF_FILES.contains(&problem.code);
    Ok((spec, check.found.into_iter().filter(about_file).collect()))
}

struct Check<'a> {
    document: &'a Document,
    files: &'a Files,
    found: Vec<Diagnostic>,
    /// The columns that expressions read, and where each is read first.
    columns: BTreeMap<String, Pointer>,
    /// Where the manifest names each source and each suppression list that was found.
    sources_at: Vec<Pointer>,
    suppress_at: Vec<Pointer>,
    now: Timestamp,
}

impl<'a> Check<'a> {
    fn new(document: &'a Document, files: &'a Files, now: Timestamp) -> Self {
        Self {
            document,
            files,
            found: Vec::new(),
            columns: BTreeMap::new(),
            sources_at: Vec::new(),
            suppress_at: Vec::new(),
            now,
        }
    }
}

impl Check<'_> {
    fn report(&mut self, at: &Pointer, mut problem: Diagnostic) {
        if is_full(&self.found) {
            return;
        }
        problem.location = self.document.sources.value(at);
        self.found.push(problem);
    }

    fn error(&mut self, at: &Pointer, code: Code, message: impl Into<String>, hint: impl Into<String>) {
        let hint = hint.into();
        let problem = Diagnostic::error(code, message);
        self.report(at, if hint.is_empty() { problem } else { problem.hint(hint) });
    }

    fn path(&self, at: &Pointer, written: &str) -> PathBuf {
        self.document.sources.directory(at).join(written)
    }

    /// A CSV file that the manifest names.
    fn data_file(&mut self, at: &Pointer, written: &str) -> Option<InputFile> {
        let directory = self.document.sources.directory(at);
        match self.files.data_file(&directory, Path::new(written)) {
            Ok(file) => Some(file),
            Err(error) => {
                let problem = error.diagnostic(Path::new(written)).maybe_hint(self.files.data_hint(&error));
                self.report(at, problem);
                None
            }
        }
    }

    fn vars(
        &mut self,
        manifest: &types::Campaign,
        given: &BTreeMap<String, serde_json::Value>,
    ) -> BTreeMap<String, serde_json::Value> {
        let mut vars = BTreeMap::new();
        for (name, value) in
            given.iter().filter(|(_, value)| !value.is_string() && !value.is_number() && !value.is_boolean())
        {
            let kind = if value.is_null() { "nothing" } else { "a list or a mapping" };
            self.found.push(
                Diagnostic::error(Code::WrongVarType, format!("the value given for variable `{name}` is {kind}"))
                    .hint("a variable is a text, a number, or true or false"),
            );
            if is_full(&self.found) {
                break;
            }
        }
        for (name, var) in &manifest.vars {
            let default = var.default.as_ref().map(|scalar| &scalar.0);
            match (given.get(name), default) {
                (Some(value), default) => match like(value, default) {
                    Some(value) => drop(vars.insert(name.clone(), value)),
                    None => self.error(
                        &at!("vars", name.as_str()),
                        Code::WrongVarType,
                        format!("the value given for variable `{name}` is of another kind than its default"),
                        "give a value of the same kind: a number, `true` or `false`, or text",
                    ),
                },
                (None, Some(value)) => drop(vars.insert(name.clone(), value.clone())),
                (None, None) => {
                    self.error(
                        &at!("vars", name.as_str()),
                        Code::MissingVar,
                        format!("variable `{name}` has no default, and no value was given"),
                        format!("pass `--var {name}=…`"),
                    );
                }
            }
        }
        for (name, value) in given {
            if let Some(opener) = value.as_str().and_then(unevaluated::opener) {
                self.found.push(unevaluated::problem(&format!("--var {name}"), opener));
            }
        }
        for name in given.keys().filter(|name| !manifest.vars.contains_key(*name)) {
            if is_full(&self.found) {
                break;
            }
            let near = did_you_mean(name, manifest.vars.keys().map(String::as_str));
            self.found.push(
                Diagnostic::error(Code::UnknownVar, format!("the campaign has no variable `{name}`"))
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
        compiled: Result<(Field, References), crate::render::compose::CompileError>,
        vars: &BTreeSet<&str>,
    ) -> Option<Field> {
        let (field, references) = match compiled {
            Ok(compiled) => compiled,
            Err(error) => {
                let line = error.line.map_or_else(String::new, |line| format!(", in line {line} of this text"));
                self.error(
                    at,
                    Code::InvalidExpression,
                    format!("this expression is wrong: {}{line}", error.message),
                    "",
                );
                return None;
            }
        };
        // Nothing is added once there are more errors than are told, so nothing is compared either.
        let full = is_full(&self.found);
        for unknown in references.unknown.iter().filter(|_| !full) {
            let hint = match did_you_mean(unknown, NAMES) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("a column is `recipient.{unknown}`, a variable is `vars.{unknown}`"),
            };
            self.error(at, Code::UnknownName, format!("there is no `{unknown}` here"), hint);
        }
        for var in references.vars.iter().filter(|var| !full && !vars.contains(var.as_str())) {
            let hint = match did_you_mean(var, vars.iter().copied()) {
                Some(near) => format!("did you mean `vars.{near}`?"),
                None => format!("add it under `vars:`, as `{var}: {{ default: … }}`"),
            };
            self.error(at, Code::UnknownVar, format!("there is no variable `{var}`"), hint);
        }
        for column in references.columns {
            self.columns.entry(column).or_insert_with(|| at.clone());
        }
        Some(field)
    }

    fn secret(&mut self, at: &Pointer, secret: &types::Secret) -> SecretRef {
        match secret {
            types::Secret::Env(name) => SecretRef::Env(name.clone()),
            types::Secret::File(path) => {
                SecretRef::File { written: path.clone(), path: self.path(&at.join("file"), path) }
            }
            types::Secret::Exec(words) => {
                if words.is_empty() {
                    self.error(
                        &at.join("exec"),
                        Code::EmptyCommand,
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
                    Code::DomainAndBaseUrl,
                    "`domain` and `base_url` both say where to send",
                    "remove one of them",
                );
                None
            }
            (None, None) => {
                self.error(
                    &root,
                    Code::MissingKey,
                    "`gateway.kaleyra` needs `domain` or `base_url`",
                    "the console shows the account's \"API Domain\": `in`, `sg`, `eu` or `na`",
                );
                None
            }
        };
        let from = E164::parse_exact(&kaleyra.from);
        let timeout = match &kaleyra.timeout {
            None => Some(DEFAULT_TIMEOUT),
            Some(text) => self.timeout(&root.join("timeout"), text),
        };
        let callback = kaleyra.callback.as_ref().and_then(|callback| match callback {
            types::Callback::ProfileId(id) => Some(Callback::ProfileId(id.clone())),
            types::Callback::Url(url) => {
                let checked = Url::parse(url)
                    .map_err(|_| "this is not a web address".to_owned())
                    .and_then(|url| crate::gateway::kaleyra::check_callback_url(&url));
                if let Err(problem) = checked {
                    self.error(
                        &root.join("callback").join("url"),
                        Code::InvalidUrl,
                        problem,
                        "such as `https://hooks.example.com/whatsapp`; plain http is for tests on this machine",
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
            let shown = crate::ledger::location::redact(text);
            self.error(
                at,
                Code::InvalidUrl,
                format!("`{shown}` is not a web address"),
                "such as `https://api.in.kaleyra.io`",
            );
            return None;
        };
        if let Err(problem) = crate::gateway::kaleyra::check_base_url(&url) {
            self.error(at, Code::UnsafeBaseUrl, problem, "use `https://`; plain http is for a sandbox on this machine");
            return None;
        }
        Some(url)
    }

    fn timeout(&mut self, at: &Pointer, text: &str) -> Option<Duration> {
        let timeout = self.duration(at, text)?;
        if timeout > MAX_TIMEOUT {
            let hint = "an upload that makes progress may take ten times as long";
            self.error(at, Code::InvalidTimeout, format!("`{text}` is more than an hour"), hint);
            return None;
        }
        Some(timeout)
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
        let (sources, lists) = (audience.sources.len(), audience.suppress.len());
        for (key, number, most) in [("sources", sources, MAX_TABLES), ("suppress", lists, MAX_LISTS)] {
            if number > most {
                let message = format!("`audience.{key}` has {number} files; it can have {most}");
                self.error(&root.join(key), Code::TooManyEntries, message, "join some of them into one");
                return None;
            }
        }
        let reader = PhoneReader::new(audience.default_region.as_deref());
        if reader.is_none() {
            let region = audience.default_region.as_deref().unwrap_or_default();
            self.error(
                &root.join("default_region"),
                Code::UnknownRegion,
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
                            Diagnostic::error(Code::UnknownTemplate, format!("there is no template `{key}`"))
                                .maybe_hint(near),
                        );
                    }
                    composer.set_selection(field);
                }
            }
            None if templates > 1 => self.error(
                &root,
                Code::MissingKey,
                "with several templates, `audience.template` must say who gets which",
                "such as `template: \"{{ 'hi' if recipient.lang == 'hi' else 'en' }}\"`",
            ),
            None => {}
        }
        // A file that cannot be found is told, and the others are checked all the same.
        let mut sources = Vec::new();
        for (index, source) in audience.sources.iter().enumerate() {
            let at = root.join("sources").join(index).join("csv");
            if let Some(path) = self.data_file(&at, &source.csv) {
                sources.push(SourceSpec { path, delimiter: byte(source.delimiter), multiline: source.multiline });
                self.sources_at.push(at);
            }
        }
        let mut suppress = Vec::new();
        for (index, list) in audience.suppress.iter().enumerate() {
            let at = root.join("suppress").join(index).join("csv");
            if let Some(path) = self.data_file(&at, &list.csv) {
                suppress.push(SuppressSpec {
                    path,
                    delimiter: byte(list.delimiter),
                    multiline: list.multiline,
                    phone: list.phone.clone(),
                    skip_invalid: list.invalid == types::InvalidRow::Skip,
                });
                self.suppress_at.push(at);
            }
        }
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
        for (source, at) in audience.sources.iter().zip(self.sources_at.clone()) {
            let table = match Table::open(&source.path, source.delimiter, source.multiline) {
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
                if is_full(&self.found) {
                    break;
                }
                let problem = table.no_column(&column);
                self.report(&at, problem);
            }
            if self.errors() == 0
                && let Ok(Some((row, line))) = crate::audience::first_row(table)
            {
                for problem in composer.trial(&row) {
                    self.found.push(Diagnostic::error(Code::InvalidExpression, problem).in_file(
                        &source.path,
                        Some(line),
                        None,
                    ));
                }
            }
        }
        for (list, at) in audience.suppress.iter().zip(self.suppress_at.clone()) {
            match Table::open(&list.path, list.delimiter, list.multiline) {
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

    fn delivery(&mut self, delivery: &types::Delivery, coupons: &types::Coupons) -> Option<Delivery> {
        let root = at!("delivery");
        let rate = match &delivery.rate {
            None => Some(Rate::DEFAULT),
            Some(text) => {
                let rate = Rate::parse(text);
                if rate.is_none() {
                    self.error(
                        &root.join("rate"),
                        Code::InvalidRate,
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
                Code::InvalidBatch,
                "several recipients in one request share one code, and this campaign gives each a code of their own",
                "remove `batch`, or use `coupons.code`",
            );
        }
        if batch > concurrency {
            self.error(
                &root.join("batch"),
                Code::InvalidBatch,
                format!("`batch` is {batch}, but only {concurrency} messages may be under way at once"),
                "raise `concurrency`",
            );
        }
        let stop_when = match &delivery.stop_when {
            None => None,
            Some(stop_when) => Some(self.stop_when(&root.join("stop_when"), stop_when)?),
        };
        Some(Delivery { rate: rate?, concurrency, batch, stop_when })
    }

    fn stop_when(&mut self, root: &Pointer, stop_when: &types::StopWhen) -> Option<StopWhen> {
        let within = stop_when.within.unwrap_or(200) as usize;
        let mut bound = |name: &str, most: &Option<types::Most>| {
            let Some(types::Most(text)) = most else { return Some(None) };
            let bound = Bound::parse(text);
            match bound {
                None => self.error(
                    &root.join(name),
                    Code::InvalidStopWhen,
                    format!("`{text}` is neither a number nor a share"),
                    "such as `20` or `5%`",
                ),
                Some(Bound::Count(count)) if count > within as u64 => self.error(
                    &root.join(name),
                    Code::InvalidStopWhen,
                    format!("`{text}` is never reached within {within} sends"),
                    "raise `within`, or lower the number",
                ),
                Some(_) => return Some(bound),
            }
            None
        };
        let (rejected, unknown) = (bound("rejected", &stop_when.rejected), bound("unknown", &stop_when.unknown));
        let (rejected, unknown) = (rejected?, unknown?);
        if rejected.is_none() && unknown.is_none() {
            self.error(
                root,
                Code::InvalidStopWhen,
                "`stop_when` has no bound".to_owned(),
                "set `rejected`, `unknown`, or both",
            );
            return None;
        }
        Some(StopWhen { within, rejected, unknown })
    }

    fn errors(&self) -> usize {
        self.found.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
    }
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
