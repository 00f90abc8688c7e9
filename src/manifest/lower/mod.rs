//! The checks that a schema cannot express, and the step from the manifest to the campaign and its working forms.
//!
//! There is one file for each block of the manifest. Limits are WhatsApp's, as Meta's page "Limited-time offer
//! templates" and the older send page state them; where providers disagree, the stricter figure applies. Every check
//! runs, so that all errors of a manifest are reported together.

mod audience;
mod coupons;
mod delivery;
mod expiry;
mod gateway;
mod template;
pub(super) mod unevaluated;
mod vars;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::Value;

use super::read::Document;
use super::source::Pointer;
use super::{Compiled, types};
use crate::domain::campaign::{Campaign, CouponSpec, Limits, Moved, TemplateSpec};
use crate::domain::diagnostic::{Code, Diagnostic, Severity, did_you_mean, is_full};
use crate::domain::input::{AudienceInput, CsvInput, PoolInput, SourceInput};
use crate::project::files::Files;
use crate::render::{CompileError, Composer, Field, HeaderMedia, NAMES, References};
use crate::util::fs::InputFile;

/// The largest number of templates: WhatsApp has some seventy languages.
const MAX_TEMPLATES: usize = 250;

/// The largest size of all header files together.
const MAX_MEDIA_BYTES: usize = 512 * 1024 * 1024;

/// The pointer to a value, from the keys on the way to it.
fn at(keys: &[&str]) -> Pointer {
    Pointer(keys.iter().map(|key| (*key).into()).collect())
}

/// Checks a manifest that fits its schema, and makes the campaign of it. There is a campaign unless a part of it could
/// not be made.
pub fn lower(
    manifest: &types::Campaign,
    document: &Document,
    files: &Files,
    vars: &BTreeMap<String, Value>,
    now: Timestamp,
) -> (Option<(Campaign, Compiled)>, Vec<Diagnostic>) {
    let mut lowering = Lowering::new(document, files, now);
    let vars = lowering.vars(manifest, vars);
    let mut composer = Composer::new(&manifest.name, manifest.edition, &vars);
    let declared: BTreeSet<&str> = manifest.vars.keys().map(String::as_str).collect();
    let timed = manifest.templates.values().any(|template| template.offer.has_expiration);

    let templates = lowering.templates(&manifest.templates, &mut composer, &declared);
    let gateway = lowering.gateway(&manifest.gateway);
    let audience = lowering.audience(&manifest.audience, manifest.templates.len(), &mut composer, &declared);
    let coupons = lowering.coupons(&manifest.coupons);
    let expiry = lowering.expiry(manifest.expiry.as_ref(), timed);
    let delivery = lowering.delivery(&manifest.delivery, &manifest.coupons);
    if let Some((_, input)) = &audience {
        lowering.data_files(input, &composer);
    }
    let lowered = (|| {
        let ((audience, input), (coupons, pool)) = (audience?, coupons?);
        let campaign = Campaign {
            name: manifest.name.clone(),
            moved: manifest.moved.as_ref().map(|moved| Moved { from: moved.from.clone() }),
            edition: manifest.edition,
            description: manifest.description.clone(),
            gateway: gateway?,
            vars,
            templates,
            audience,
            coupons,
            expiry,
            delivery: delivery?,
            limits: Limits { recipients: manifest.limits.recipients },
        };
        Some((campaign, Compiled { composer, audience: input, pool }))
    })();
    (lowered, lowering.found)
}

/// Checks an audience alone, as far as it takes to read its rows: expressions may be wrong, and files that
/// are not found are reported beside the result.
pub fn audience(
    audience: &types::Audience,
    document: &Document,
    files: &Files,
) -> Result<(AudienceInput, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut lowering = Lowering::new(document, files, Timestamp::UNIX_EPOCH);
    let mut composer = Composer::new("", 1, &BTreeMap::new());
    let Some((_, input)) = lowering.audience(audience, 1, &mut composer, &BTreeSet::new()) else {
        return Err(lowering.found);
    };
    let about_file = |problem: &Diagnostic| Code::OF_FILES.contains(&problem.code);
    Ok((input, lowering.found.into_iter().filter(about_file).collect()))
}

/// A manifest that is being lowered, and the problems found so far.
struct Lowering<'a> {
    document: &'a Document,
    files: &'a Files,
    found: Vec<Diagnostic>,
    /// The columns that expressions read, and where each is read first.
    columns: BTreeMap<String, Pointer>,
    /// The pointers to the sources and suppression lists whose files were found.
    sources_at: Vec<Pointer>,
    suppress_at: Vec<Pointer>,
    now: Timestamp,
}

impl<'a> Lowering<'a> {
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

impl Lowering<'_> {
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

    fn errors(&self) -> usize {
        self.found.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
    }

    /// The path that a manifest means, relative to the file that it is written in.
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

    /// Reports a problem with a whole file where the manifest names the file, and one with a row in the file.
    fn file_problem(&mut self, at: &Pointer, problem: Diagnostic) {
        let (_, line, _) = problem.position();
        if line.is_some() { self.found.push(problem) } else { self.report(at, problem) }
    }

    fn templates(
        &mut self,
        templates: &BTreeMap<String, types::Template>,
        composer: &mut Composer,
        vars: &BTreeSet<&str>,
    ) -> BTreeMap<String, TemplateSpec> {
        let root = at(&["templates"]);
        if templates.is_empty() {
            self.error(&root, Code::MissingKey, "`templates` is empty", "describe at least one approved template");
        }
        if templates.len() > MAX_TEMPLATES {
            let message = format!("the campaign has {} templates; the maximum is {MAX_TEMPLATES}", templates.len());
            self.error(&root, Code::TooManyEntries, message, "one for each language and variant is enough");
        }
        let mut specs = BTreeMap::new();
        let mut media_bytes = 0;
        for (key, template) in templates.iter().take(MAX_TEMPLATES) {
            if media_bytes > MAX_MEDIA_BYTES {
                let message = format!("the header files of the templates before this one have {media_bytes} bytes");
                let hint = format!(
                    "they are kept in memory; the maximum is {MAX_MEDIA_BYTES} bytes; use URLs for some of them"
                );
                self.error(&root.join(key.as_str()), Code::TooManyEntries, message, hint);
                break;
            }
            if let Some((spec, compiled)) = self.template(key, template, composer, vars) {
                if let Some((_, HeaderMedia::File(file))) = &compiled.media {
                    media_bytes += file.content.len();
                }
                composer.add_template(compiled);
                specs.insert(key.clone(), spec);
            }
        }
        specs
    }

    /// Compiles a text and checks the names in it.
    fn field(&mut self, at: &Pointer, source: &str, composer: &mut Composer, vars: &BTreeSet<&str>) -> Option<Field> {
        self.compiled(at, composer.compile(source), vars)
    }

    fn compiled(
        &mut self,
        at: &Pointer,
        compiled: Result<(Field, References), CompileError>,
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
        // With the maximum of errors reached, nothing more is reported, so no similar name is searched for either.
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
}

/// The codes of a campaign, and the file of a pool.
type Coupons = (CouponSpec, Option<PoolInput>);

fn character(delimiter: types::Delimiter) -> char {
    match delimiter {
        types::Delimiter::Comma => ',',
        types::Delimiter::Semicolon => ';',
        types::Delimiter::Bar => '|',
        types::Delimiter::Tab => '\t',
    }
}

/// A CSV file and how to read it.
fn csv(path: InputFile, delimiter: types::Delimiter, multiline: bool) -> SourceInput {
    SourceInput::Csv(CsvInput { path, delimiter: byte(delimiter), multiline })
}

fn byte(delimiter: types::Delimiter) -> u8 {
    match delimiter {
        types::Delimiter::Comma => b',',
        types::Delimiter::Semicolon => b';',
        types::Delimiter::Bar => b'|',
        types::Delimiter::Tab => b'\t',
    }
}
