//! From files to one JSON value: YAML, merge keys, `use:` references.
//!
//! The text is loaded into YAML's own value type first, since only that notices duplicate keys.
//! What a file may hold is bounded by [`yaml`], and how many files a manifest may be made of here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};
use serde_yaml::Value as Yaml;

use super::lower::unevaluated;
use super::recognise::{Keys, fits_text, may_be_used};
use super::source::{Mount, Pointer, SourceMap, offset, token};
use crate::domain::diagnostic::{self, Code, Diagnostic, Diagnostics, Location, SourceFile};
use crate::project::files::Files;
use crate::util::fs::FileError;
use crate::util::yaml::{self, MAX_BYTES, Refusal};

/// How deep `use:` references may go before they are taken for a mistake.
const MAX_DEPTH: usize = 8;

/// How many files a manifest may be made of. A file that is used twice counts twice.
const MAX_FILES: usize = 64;

/// How many bytes a text may have. WhatsApp's longest has 2,000 characters.
const MAX_TEXT: usize = 64 * 1024;

/// How many bytes a key may have.
const MAX_KEY: usize = 1_000;

/// How many bytes those files may have together.
const MAX_BYTES_OF_ALL: usize = 8 * 1024 * 1024;

/// A manifest with every `use:` replaced by what it refers to.
#[derive(Debug)]
pub struct Document {
    /// The whole manifest as JSON.
    pub value: Value,
    /// Where each part of it was written.
    pub sources: SourceMap,
}

/// Reads a manifest that should fit `schema`, and everything that it uses.
pub fn read(path: &Path, files: &Files, schema: &Value) -> Result<Document, Diagnostics> {
    let mut reader = Reader {
        files,
        schema,
        sources: SourceMap::default(),
        trail: Vec::new(),
        found: Vec::new(),
        bytes: 0,
        exhausted: false,
    };
    let value = reader.file(path, &Pointer::root(), None);
    match value {
        Some(value) if reader.found.is_empty() => Ok(Document { value, sources: reader.sources }),
        _ => Err(Diagnostics(diagnostic::limit(reader.found))),
    }
}

/// The directories that a campaign's files may lie in. Where there is no manifest, a name that is close to
/// the one that was typed is suggested.
pub fn files(manifest: &Path, data_dirs: &[PathBuf]) -> Result<Files, Diagnostics> {
    Files::of_campaign(manifest, data_dirs).map_err(|mut problems| {
        for problem in problems.0.iter_mut().filter(|problem| problem.code == Code::NoSuchFile) {
            problem.hint = neighbours(manifest);
        }
        problems
    })
}

struct Reader<'a> {
    files: &'a Files,
    schema: &'a Value,
    sources: SourceMap,
    /// The files being read, outermost first, to notice a file that uses itself.
    trail: Vec<PathBuf>,
    found: Vec<Diagnostic>,
    /// How many bytes were read.
    bytes: usize,
    /// Whether the manifest is made of too many files, which is told once.
    exhausted: bool,
}

impl Reader<'_> {
    /// Reads one file, whose root stands at `at`; `asked` is where it was asked for.
    fn file(&mut self, path: &Path, at: &Pointer, asked: Option<Location>) -> Option<Value> {
        let text = match self.text(path) {
            Ok(text) => text,
            Err(mut problem) => {
                if asked.is_some() {
                    problem.location = asked;
                }
                self.found.push(problem);
                return None;
            }
        };
        self.bytes += text.len();
        if self.sources.mounts.len() >= MAX_FILES || self.bytes > MAX_BYTES_OF_ALL {
            self.exhausted = true;
            let problem = Diagnostic::error(
                Code::TooManyFiles,
                format!(
                    "this manifest is made of more than {MAX_FILES} files, or of more than {MAX_BYTES_OF_ALL} bytes"
                ),
            )
            .hint("each `use:` counts, also of the same file; write the block out, or use fewer files");
            self.found.push(Diagnostic { location: asked, ..problem });
            return None;
        }
        let file = Arc::new(SourceFile { path: path.to_owned(), text });
        let mut yaml: Yaml = match yaml::parse(&file.text) {
            Ok(yaml) => yaml,
            Err(refusal) => {
                let problem = refused(&file, &refusal);
                let shown = fits_text(self.schema, &file.text);
                self.found.push(if shown { problem } else { without_content(problem) });
                return None;
            }
        };
        if yaml.is_null() {
            self.found.push(
                Diagnostic::error(Code::EmptyFile, format!("`{}` is empty", path.display()))
                    .hint("`sendform init` writes a campaign to start from")
                    .in_file(path, None, None),
            );
            return None;
        }
        if let Err(error) = yaml.apply_merge() {
            self.found.push(Diagnostic::error(Code::MergeKey, error.to_string()).in_file(path, None, None));
            return None;
        }
        let keys = Keys::at(self.schema, at);
        if !keys.fit(&yaml) {
            let problem =
                not_a_manifest(path, at, &yaml).hint(format!("expected a mapping with keys such as {}", keys.list()));
            self.found.push(match asked {
                Some(asked) => problem.at(asked),
                None => problem.in_file(path, None, None),
            });
            return None;
        }
        self.sources.mounts.push(Mount { at: at.clone(), file });
        self.trail.push(path.to_owned());
        let value = self.convert(yaml, at);
        self.trail.pop();
        value
    }

    fn text(&self, path: &Path) -> Result<String, Diagnostic> {
        let content = self.files.project_file(path.to_owned()).and_then(|file| {
            let open = file.open(MAX_BYTES)?;
            open.read(MAX_BYTES).map_err(|error| FileError::Unreadable(path.display().to_string(), error))
        });
        let bytes = content.map_err(|error| {
            let problem = error.diagnostic(path);
            match error {
                FileError::Missing(_) => problem.maybe_hint(neighbours(path)),
                FileError::Outside { .. } => problem.hint(
                    "an empty `sendform.yaml` marks the root of a project; without one it is the directory of the campaign",
                ),
                FileError::NotRegular(_, "a directory") => problem.hint("name the campaign's file inside it"),
                FileError::TooLarge { .. } => {
                    problem.hint("recipients and codes belong in CSV files that the manifest refers to")
                }
                _ => problem,
            }
        })?;
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => {
                let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
                Err(Diagnostic::error(Code::NotUtf8, format!("`{}` is not UTF-8", path.display()))
                    .hint("save the file as UTF-8")
                    .in_file(path, Some(line), None))
            }
        }
    }

    fn convert(&mut self, yaml: Yaml, at: &Pointer) -> Option<Value> {
        if diagnostic::is_full(&self.found) {
            return None;
        }
        match yaml {
            Yaml::Null => {
                // A key that was left empty is never meant: `where:` without an expression would
                // send to everybody.
                let problem = Diagnostic::error(Code::MissingValue, format!("`{at}` has no value"))
                    .hint("give it one, or remove the key");
                self.found.push(Diagnostic { location: self.sources.key(at), ..problem });
                None
            }
            Yaml::Bool(value) => Some(Value::Bool(value)),
            Yaml::String(value) if value.len() > MAX_TEXT => {
                let problem = Diagnostic::error(
                    Code::TextTooLong,
                    format!("`{at}` has {} bytes; a text has at most {MAX_TEXT}", value.len()),
                );
                self.report(problem, at);
                None
            }
            Yaml::String(value) => Some(Value::String(value)),
            Yaml::Number(number) => self.number(&number, at),
            Yaml::Sequence(items) => {
                let items: Vec<_> =
                    items.into_iter().enumerate().map(|(index, item)| self.convert(item, &at.join(index))).collect();
                items.into_iter().collect::<Option<Vec<_>>>().map(Value::Array)
            }
            Yaml::Mapping(entries) => {
                if let Some(path) = used(&entries) {
                    return self.use_file(&path, at);
                }
                let mut map = Map::with_capacity(entries.len());
                let mut whole = true;
                for (key, value) in entries {
                    let Some(key) = self.key(&key, at) else {
                        whole = false;
                        continue;
                    };
                    match self.convert(value, &at.join(key.as_str())) {
                        Some(value) => drop(map.insert(key, value)),
                        None => whole = false,
                    }
                }
                whole.then_some(Value::Object(map))
            }
            Yaml::Tagged(tagged) => {
                let problem = Diagnostic::error(
                    Code::YamlTag,
                    format!("`{}` is a YAML tag, which a manifest does not use", tagged.tag),
                )
                .hint("remove the tag");
                self.report(problem, at);
                None
            }
        }
    }

    fn number(&mut self, number: &serde_yaml::Number, at: &Pointer) -> Option<Value> {
        let value = if let Some(value) = number.as_u64() {
            Some(Value::from(value))
        } else if let Some(value) = number.as_i64() {
            Some(Value::from(value))
        } else {
            number.as_f64().and_then(serde_json::Number::from_f64).map(Value::Number)
        };
        if value.is_none() {
            self.report(Diagnostic::error(Code::NotANumber, format!("`{number}` is no finite number")), at);
        }
        value
    }

    fn key(&mut self, key: &Yaml, at: &Pointer) -> Option<String> {
        match key {
            Yaml::String(key) if key == "<<" => {
                let problem =
                    Diagnostic::error(Code::MergeKey, "this merge key merges something that itself has a merge key")
                        .hint("write the keys out, or move the block to a file of its own and `use:` it");
                self.report(problem, at);
                None
            }
            Yaml::String(key) if key.len() > MAX_KEY => {
                let problem = Diagnostic::error(
                    Code::TextTooLong,
                    format!("a key of `{at}` has {} bytes; a key has at most {MAX_KEY}", key.len()),
                );
                self.report(problem, at);
                None
            }
            Yaml::String(key) => Some(key.clone()),
            other => {
                let written = serde_yaml::to_string(other).unwrap_or_default();
                let written = written.trim();
                let problem = Diagnostic::error(Code::KeyNotAString, format!("the key `{written}` is not a text"))
                    .hint(format!("quote it: `\"{written}\"`"));
                self.report(problem, at);
                None
            }
        }
    }

    fn use_file(&mut self, path: &str, at: &Pointer) -> Option<Value> {
        if self.exhausted {
            return None;
        }
        let place = self.sources.value(&at.join("use"));
        if !may_be_used(at) {
            let mut problem = Diagnostic::error(Code::UseNotAllowed, format!("`use:` cannot stand for `{at}`"))
                .hint("a block such as `gateway` or `audience`, or a template, may stand in a file of its own");
            problem.location = place;
            self.found.push(problem);
            return None;
        }
        if let Some(opener) = unevaluated::opener(path) {
            let problem = unevaluated::problem(&at.join("use").to_string(), opener);
            self.found.push(Diagnostic { location: place, ..problem });
            return None;
        }
        let resolved = self.sources.directory(at).join(path);
        let problem = if self.trail.contains(&resolved) {
            Some(Diagnostic::error(Code::UseCycle, format!("`{path}` uses itself, directly or through others")))
        } else if self.trail.len() >= MAX_DEPTH {
            let message = format!("`{path}` is used through {MAX_DEPTH} files, which is the most");
            Some(Diagnostic::error(Code::UseTooDeep, message).hint("use it from a file further up"))
        } else {
            None
        };
        if let Some(problem) = problem {
            self.found.push(Diagnostic { location: place, ..problem });
            return None;
        }
        self.file(&resolved, at, place)
    }

    fn report(&mut self, mut problem: Diagnostic, at: &Pointer) {
        if diagnostic::is_full(&self.found) {
            return;
        }
        problem.location = self.sources.value(at);
        self.found.push(problem);
    }
}

/// The path of a block that is `use: path` and nothing else.
fn used(entries: &serde_yaml::Mapping) -> Option<String> {
    let mut entries = entries.iter();
    match (entries.next(), entries.next()) {
        (Some((Yaml::String(key), Yaml::String(path))), None) if key == "use" => Some(path.clone()),
        _ => None,
    }
}

/// What is said of a file that is something else. Its content may be secret.
fn not_a_manifest(path: &Path, at: &Pointer, yaml: &Yaml) -> Diagnostic {
    let shown = path.display();
    let what = if at.0.is_empty() { "the manifest".to_owned() } else { format!("`{at}`") };
    let is = match yaml {
        Yaml::Mapping(_) => {
            return Diagnostic::error(Code::NotAManifest, format!("`{shown}` has hardly any of the keys of {what}"));
        }
        Yaml::Sequence(_) => "a list",
        _ => "a single value",
    };
    Diagnostic::error(Code::NotAManifest, format!("{what} must be a mapping, but this is {is}: `{shown}`"))
}

/// A syntax error in a file that does not look like a manifest: its kind and its position only.
fn without_content(problem: Diagnostic) -> Diagnostic {
    let (file, line, column) = problem.position();
    let message = match problem.code {
        Code::YamlSyntax => "this file is not valid YAML".to_owned(),
        Code::DuplicateKey => "a mapping of this file has a key twice".to_owned(),
        _ => problem.message,
    };
    Diagnostic { message, label: None, hint: None, ..problem }.in_file(file.unwrap_or_default(), line, column)
}

/// "Did you mean" for a path: a file beside it whose name is close.
fn neighbours(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let entries = std::fs::read_dir(directory.unwrap_or(Path::new("."))).ok()?;
    let names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    crate::domain::diagnostic::did_you_mean(name, names.iter().map(String::as_str))
        .map(|near| format!("did you mean `{near}`?"))
}

/// Why a file is not read, in words.
fn refused(file: &Arc<SourceFile>, refusal: &Refusal) -> Diagnostic {
    let (problem, at) = match refusal {
        Refusal::Yaml(error) => return syntax(file, error),
        Refusal::TooDeep(at) => {
            (Diagnostic::error(Code::TooDeep, "this file is nested more deeply than a manifest can be"), *at)
        }
        Refusal::Directives(at) => (Diagnostic::error(Code::TooManyDirectives, "this file has too many lines that start with `%`"), *at),
        Refusal::TooMuch => (
            Diagnostic::error(Code::AliasBomb, "this file holds more than a manifest can hold, counting what its aliases repeat")
                .hint("write the repeated blocks out, or move them to a file of their own and `use:` it; recipients and codes belong in CSV files"),
            0,
        ),
    };
    problem.at(Location::Span(Arc::clone(file), token(&file.text, at)))
}

/// A syntax error in words: the parser's own message, with a hint for what people get wrong most.
fn syntax(file: &Arc<SourceFile>, error: &serde_yaml::Error) -> Diagnostic {
    let raw = error.to_string();
    let message = raw.split(" at line ").next().unwrap_or(&raw).to_owned();
    let location = error.location();
    let start = location.as_ref().map_or(0, |at| offset(&file.text, at.line(), at.column()));
    let line = location.as_ref().and_then(|at| file.text.lines().nth(at.line() - 1)).unwrap_or_default();

    let mut diagnostic = if raw.contains("more than one document") {
        Diagnostic::error(Code::SeveralDocuments, "this file holds more than one YAML document")
            .hint("keep one campaign in each file: remove what follows the second `---`")
    } else if raw.contains("duplicate entry") {
        Diagnostic::error(Code::DuplicateKey, message.clone()).hint("keep one of the two")
    } else if raw.contains("recursion limit") {
        Diagnostic::error(Code::TooDeep, "this file is nested more deeply than a manifest can be")
    } else if line[..line.len() - line.trim_start().len()].contains('\t') || line.trim_end().ends_with('\t') {
        Diagnostic::error(Code::YamlSyntax, message).hint("YAML does not allow tabs for indentation: use spaces")
    } else if line.contains("{{") && !line.contains("\"{{") && !line.contains("'{{") {
        Diagnostic::error(Code::YamlSyntax, message).hint("a value that starts with `{{` must be quoted: \"{{ … }}\"")
    } else {
        Diagnostic::error(Code::YamlSyntax, message)
    };

    let span = match diagnostic.code {
        Code::SeveralDocuments => second_document(&file.text),
        Code::DuplicateKey => duplicate(&file.text, &raw, start),
        _ => token(&file.text, start),
    };
    diagnostic.location = Some(Location::Span(Arc::clone(file), span));
    diagnostic
}

fn second_document(text: &str) -> std::ops::Range<usize> {
    let mut seen_content = false;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.starts_with("---") && seen_content {
            return at..at + 3;
        }
        seen_content |= !line.trim().is_empty() && !line.starts_with('#');
        at += line.len();
    }
    token(text, 0)
}

/// The second place where a duplicate key stands; the parser only tells where its mapping starts.
fn duplicate(text: &str, message: &str, from: usize) -> std::ops::Range<usize> {
    let key = message.split("key \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
    let indent = |at: usize| at - text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let mut seen = Vec::new();
    let mut at = from - indent(from);
    for line in text[at..].split_inclusive('\n') {
        let body = line.trim_start_matches([' ', '-']);
        let unquoted = body.trim_start_matches(['"', '\'']);
        if let Some(rest) = unquoted.strip_prefix(key)
            && rest.trim_start_matches(['"', '\'']).starts_with(':')
        {
            let start = at + line.len() - body.len();
            if seen.iter().any(|first| indent(*first) == indent(start)) {
                return start..start + key.len() + (body.len() - unquoted.len()) * 2;
            }
            seen.push(start);
        }
        at += line.len();
    }
    token(text, from)
}
