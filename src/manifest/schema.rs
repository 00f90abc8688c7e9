//! The JSON Schemas, generated from the types, and validation against them in words.
//!
//! A schema violation is only as good as the sentence that it becomes, so nothing of the
//! validator's own text reaches the user: each kind of violation is told anew, with what the
//! schema says was expected (`x-expected`), and alternatives are unfolded to the one that was meant.

use std::sync::OnceLock;

use jsonschema::error::ValidationErrorKind;
use jsonschema::paths::{Location, LocationSegment};
use jsonschema::{ValidationError, Validator};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use super::read::Document;
use super::source::{Pointer, Step};
use super::types;
use crate::domain::diagnostic::{Code, Diagnostic, MAX_ERRORS, did_you_mean, is_full};

/// The schema of a campaign, a block or a file of decisions, for editors: the blocks of a campaign may be `use:`
/// references. `None` for an unknown kind.
pub fn for_editors(kind: &str) -> Option<Value> {
    let mut schema = match kind {
        "campaign" => of::<types::Campaign>(),
        "gateway" => of::<types::Gateway>(),
        "template" => of::<types::Template>(),
        "audience" => of::<types::Audience>(),
        "coupons" => of::<types::Coupons>(),
        "expiry" => of::<types::Expiry>(),
        "delivery" => of::<types::Delivery>(),
        "decisions" => of::<super::decisions::Decisions>(),
        _ => return None,
    };
    if kind == "campaign" {
        allow_use(&mut schema);
    }
    Some(schema)
}

/// The schema of a campaign, made once for all manifests of a command.
pub fn campaign() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(of::<types::Campaign>)
}

/// The schema of a type.
pub fn of<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let schema: Schema = generator.into_root_schema_for::<T>();
    schema.to_value()
}

/// Lets each block of a campaign be written as `use: path.yaml` as well.
fn allow_use(schema: &mut Value) {
    schema["$defs"]["Use"] = json!({
        "description": "A block that stands in a file of its own.",
        "type": "object",
        "properties": { "use": { "description": "The file, relative to this one.", "type": "string" } },
        "required": ["use"],
        "additionalProperties": false,
    });
    let or_use = |node: &mut Value| {
        let description = node.get("description").cloned();
        let block = node.take();
        *node = json!({ "anyOf": [block, { "$ref": "#/$defs/Use" }] });
        if let Some(description) = description {
            node["description"] = description;
        }
    };
    or_use(&mut schema["properties"]["templates"]["additionalProperties"]);
    for block in ["gateway", "vars", "templates", "audience", "coupons", "expiry", "delivery", "limits"] {
        or_use(&mut schema["properties"][block]);
    }
}

/// Checks a manifest against its schema and tells every violation.
pub fn validate(document: &Document) -> Vec<Diagnostic> {
    // Made once for all manifests of a command.
    static CAMPAIGN: OnceLock<Result<(Value, Validator), String>> = OnceLock::new();
    violations(CAMPAIGN.get_or_init(prepare::<types::Campaign>), document)
}

/// Checks a document against the schema of a type and tells every violation.
pub fn validate_as<T: JsonSchema>(document: &Document) -> Vec<Diagnostic> {
    violations(&prepare::<T>(), document)
}

/// The schema of a type, and what checks it.
fn prepare<T: JsonSchema>() -> Result<(Value, Validator), String> {
    let schema = of::<T>();
    let validator = validator(&schema)?;
    Ok((schema, validator))
}

fn violations(prepared: &Result<(Value, Validator), String>, document: &Document) -> Vec<Diagnostic> {
    let (schema, validator) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return vec![Diagnostic::error(Code::Internal, format!("the schema is broken: {error}"))],
    };
    let telling = Telling { document, schema };
    let mut found = Vec::new();
    for error in validator.iter_errors(&document.value) {
        telling.tell(&error, &mut found);
        if is_full(&found) {
            break;
        }
    }
    found
}

fn validator(schema: &Value) -> Result<Validator, String> {
    jsonschema::options().offline().build(schema).map_err(|error| error.masked().to_string())
}

struct Telling<'a> {
    document: &'a Document,
    schema: &'a Value,
}

impl Telling<'_> {
    fn tell(&self, error: &ValidationError<'_>, found: &mut Vec<Diagnostic>) {
        let at = pointer(error.instance_path());
        let name = if at.0.is_empty() { "the manifest".to_owned() } else { format!("`{at}`") };
        let keyword = error.schema_path().as_str();
        let node = keyword.rfind('/').and_then(|end| self.schema.pointer(&keyword[..end])).unwrap_or(&Value::Null);
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                let keys: Vec<&str> = unexpected.iter().take(MAX_ERRORS + 1).map(String::as_str).collect();
                let places = self.document.sources.keys(&at, &keys);
                for (key, place) in keys.into_iter().zip(places) {
                    let place = place.or_else(|| self.document.sources.key(&at.join(key)));
                    found.push(Diagnostic { location: place, ..unknown_key(key, &at, node) });
                }
            }
            ValidationErrorKind::Required { property } => {
                let property = property.as_str().unwrap_or_default();
                let described = node["properties"][property]["description"].as_str().map(first_sentence);
                let problem =
                    Diagnostic::error(Code::MissingKey, format!("{name} needs `{property}`")).maybe_hint(described);
                found.push(Diagnostic { location: self.document.sources.key(&at), ..problem });
            }
            ValidationErrorKind::Type { .. } => found.push(self.wrong_type(&at, &name, error.instance(), node)),
            ValidationErrorKind::Enum { options } => {
                let options = options.as_array().cloned().unwrap_or_default();
                found.push(self.not_an_option(&at, error.instance(), &options));
            }
            ValidationErrorKind::Constant { expected_value } => {
                found.push(self.not_an_option(&at, error.instance(), std::slice::from_ref(expected_value.as_ref())));
            }
            ValidationErrorKind::OneOfNotValid { context } | ValidationErrorKind::AnyOf { context } => {
                self.unfold(&at, &name, error.instance(), node, context, found);
            }
            _ => found.push(self.out_of_bounds(&at, &name, error.instance(), node)),
        }
    }

    fn wrong_type(&self, at: &Pointer, name: &str, instance: &Value, node: &Value) -> Diagnostic {
        let wanted: Vec<&str> = match &node["type"] {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect(),
            _ => Vec::new(),
        };
        let wanted_words: Vec<&str> = wanted.iter().map(|kind| noun(kind)).collect();
        let message = format!("{name} must be {}, but this is {}", wanted_words.join(" or "), noun(kind_of(instance)));
        let mut problem = Diagnostic::error(Code::WrongType, message);
        problem.location = self.document.sources.value(at);
        let expected = node["x-expected"].as_str().map(|expected| format!("expected {expected}"));
        if wanted.contains(&"string") && (instance.is_number() || instance.is_boolean()) {
            let written = self.document.sources.written(at).unwrap_or_else(|| instance.to_string());
            problem = problem.hint(match duration_in_milliseconds(at, instance) {
                Some(hint) => hint,
                None => format!("YAML reads this as {}; quote it: \"{written}\"", noun(kind_of(instance))),
            });
        } else {
            problem = problem.maybe_hint(expected);
        }
        problem
    }

    fn not_an_option(&self, at: &Pointer, instance: &Value, options: &[Value]) -> Diagnostic {
        let names: Vec<&str> = options.iter().filter_map(Value::as_str).collect();
        let written = instance.as_str().map_or_else(|| instance.to_string(), str::to_owned);
        let known = list(&names);
        let hint = match did_you_mean(&written, names.iter().copied()) {
            Some(near) if names.len() > 1 => format!("did you mean `{near}`? Expected one of {known}"),
            _ if names.len() > 1 => format!("expected one of {known}"),
            _ => format!("expected {known}"),
        };
        let problem = Diagnostic::error(Code::NotAnOption, format!("`{at}` cannot be `{written}`")).hint(hint);
        Diagnostic { location: self.document.sources.value(at), ..problem }
    }

    fn out_of_bounds(&self, at: &Pointer, name: &str, instance: &Value, node: &Value) -> Diagnostic {
        let message = match instance {
            Value::String(text) => format!("{name} has {} characters: not what is allowed", text.chars().count()),
            Value::Array(_) | Value::Object(_) => format!("{name} is empty or too long"),
            other => format!("{name} cannot be {other}"),
        };
        let length = node.get("maxLength").or(node.get("minLength")).is_some();
        let message = match instance {
            Value::String(text) if !length => format!("{name} cannot be `{text}`"),
            _ => message,
        };
        let bounds = node["x-expected"].as_str().map(str::to_owned).or_else(|| {
            let bound = |key: &str| node.get(key).map(ToString::to_string);
            match (bound("minimum"), bound("maximum")) {
                (Some(least), Some(most)) => Some(format!("{least} to {most}")),
                (Some(least), None) => Some(format!("{least} or more")),
                (None, Some(most)) => Some(format!("at most {most}")),
                (None, None) => None,
            }
        });
        let problem =
            Diagnostic::error(Code::OutOfBounds, message).maybe_hint(bounds.map(|bounds| format!("expected {bounds}")));
        Diagnostic { location: self.document.sources.value(at), ..problem }
    }

    /// Alternatives are told apart by the key that a block has, or by the kind of a value: the
    /// errors of the alternative that was meant are told, not that none of them matched.
    fn unfold(
        &self,
        at: &Pointer,
        name: &str,
        instance: &Value,
        node: &Value,
        context: &[Vec<ValidationError<'static>>],
        found: &mut Vec<Diagnostic>,
    ) {
        let branches = node["oneOf"].as_array().or_else(|| node["anyOf"].as_array()).cloned().unwrap_or_default();
        // A fieldless enum: each alternative is one constant, or several of them.
        let constants: Vec<Value> = branches
            .iter()
            .flat_map(|branch| match (branch.get("const"), branch["enum"].as_array()) {
                (Some(constant), _) => vec![constant.clone()],
                (None, Some(several)) => several.clone(),
                (None, None) => Vec::new(),
            })
            .collect();
        if !constants.is_empty() {
            found.push(self.not_an_option(at, instance, &constants));
            return;
        }
        // `Option<Block>` is "the block or null", and a null never gets here.
        let real: Vec<usize> = (0..branches.len()).filter(|index| branches[*index]["type"] != "null").collect();
        if let [only] = real[..] {
            for error in &context[only] {
                self.tell(error, found);
            }
            return;
        }
        let names: Vec<&str> = branches.iter().filter_map(|branch| branch["required"][0].as_str()).collect();
        let known = list(&names);
        let problem = match instance.as_object() {
            None if names.contains(&"env") && instance.is_string() => {
                // The line holds what should be secret, so it is not shown, only named.
                let literal = Diagnostic::error(Code::SecretLiteral, format!("{name} holds the secret itself"))
                    .hint("write `{ env: NAME }`, `{ file: PATH }` or `{ exec: [COMMAND] }`; what was in Git is no secret any more: replace it at the provider");
                let (file, line, column) =
                    Diagnostic { location: self.document.sources.value(at), ..literal.clone() }.position();
                found.push(literal.in_file(file.unwrap_or_default(), line, column));
                return;
            }
            None => Diagnostic::error(
                Code::WrongType,
                format!("{name} must be a mapping with one of {known}, but this is {}", noun(kind_of(instance))),
            )
            .maybe_hint(names.first().map(|first| format!("write `{{ {first}: … }}`"))),
            Some(map) => {
                let chosen: Vec<&str> = names.iter().copied().filter(|name| map.contains_key(*name)).collect();
                match chosen[..] {
                    [one] if map.len() == 1 => {
                        let branch = branches.iter().position(|branch| branch["required"][0] == one).unwrap_or(0);
                        for error in &context[branch] {
                            self.tell(error, found);
                        }
                        return;
                    }
                    [] => {
                        let typed = map.keys().next().map_or("", String::as_str);
                        let hint = match did_you_mean(typed, names.iter().copied()) {
                            Some(near) => format!("did you mean `{near}`?"),
                            None => format!("expected one of {known}"),
                        };
                        let problem =
                            Diagnostic::error(Code::UnknownKey, format!("{name} has no key `{typed}`")).hint(hint);
                        found.push(Diagnostic { location: self.document.sources.key(&at.join(typed)), ..problem });
                        return;
                    }
                    _ => Diagnostic::error(Code::TooManyKeys, format!("{name} must have exactly one of {known}"))
                        .hint("keep one key, remove the others"),
                }
            }
        };
        found.push(Diagnostic { location: self.document.sources.value(at), ..problem });
    }
}

/// What is said of a key that a block does not have.
fn unknown_key(key: &str, at: &Pointer, node: &Value) -> Diagnostic {
    let known: Vec<&str> =
        node["properties"].as_object().map_or_else(Vec::new, |map| map.keys().map(String::as_str).collect());
    let holder = if at.0.is_empty() { "a campaign".to_owned() } else { format!("`{at}`") };
    let hint = if key == "footer" {
        "a limited-time-offer template has no footer; put an opt-out line into `body`".to_owned()
    } else if let Some(near) = did_you_mean(key, known.iter().copied()) {
        format!("did you mean `{near}`?")
    } else {
        format!("known keys: {}", list(&known))
    };
    Diagnostic::error(Code::UnknownKey, format!("{holder} has no key `{key}`")).hint(hint)
}

/// A bare number where a time is expected is the vendor's own example taken at its word.
fn duration_in_milliseconds(at: &Pointer, instance: &Value) -> Option<String> {
    let field = match at.0.as_slice() {
        [Step::Key(block), Step::Key(field)] if block == "expiry" => field.as_str(),
        _ => return None,
    };
    let days = instance.as_f64()? / 86_400_000.0;
    match field {
        "at" => Some(
            "write the instant as text, such as \"2026-12-31T23:59:59\" with a `timezone`; for a duration use `after`"
                .to_owned(),
        ),
        "after" if days >= 0.01 => {
            Some(format!("durations carry their unit: if these are milliseconds, write `{}`", human_days(days)))
        }
        _ => Some("durations carry their unit, such as `14d` or `36h`".to_owned()),
    }
}

fn human_days(days: f64) -> String {
    if (days - days.round()).abs() < 1e-9 {
        format!("{}d", days.round())
    } else {
        format!("{}h", (days * 24.0).round())
    }
}

fn pointer(location: &Location) -> Pointer {
    Pointer(
        location
            .segments()
            .map(|segment| match segment {
                LocationSegment::Property(key) => Step::Key(key.into_owned()),
                LocationSegment::Index(index) => Step::Index(index),
            })
            .collect(),
    )
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The word that a person uses for a JSON type.
fn noun(kind: &str) -> &'static str {
    match kind {
        "null" => "nothing",
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "a text",
        "array" => "a list",
        _ => "a mapping",
    }
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{}`", name.escape_debug())).collect::<Vec<_>>().join(", ")
}

fn first_sentence(text: &str) -> String {
    let text = text.replace('\n', " ");
    let end = text.find(". ").unwrap_or(text.len());
    text[..end].trim_end_matches('.').to_owned()
}
