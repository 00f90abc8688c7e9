//! The campaign's part of the plan hash: every field that an approval covers, in one canonical form.
//!
//! The form is a sorted list of JSON pointer and value. It is made from the serialised [`Campaign`], which has the shape
//! of a manifest. These rules hold for as long as hashes begin with `v2`:
//!
//! * A field that has its default is left out, and a default never changes. So a manifest that does not use a feature
//!   has the same hash before and after the feature exists.
//! * A value has one form, however it is written: `90m` and `1h30m` are the same duration.
//! * [`RULES`] says what form each field has, and [`LEFT_OUT`] which fields an approval does not cover, and why. A test
//!   holds both against the manifest's schema. A field that neither names is covered as it is written.
//!
//! The plan shows the list, so that `apply` can name what changed. What must not be shown is replaced by four digits of
//! its hash: enough to notice a change, too little to guess from.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::domain::campaign::{Campaign, ExpirySpec, MediaSource};
use crate::domain::canonical::Canonical;
use crate::domain::expiry::{self, ExpiryRule};

/// How a field becomes a value of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As it is written.
    Plain,
    /// As it is written, unless it is this JSON text, which is the default.
    Unless(&'static str),
    /// The fact that the block is there, for a block whose every field may be left out.
    Present,
    /// A duration in one unit, unless it is this default.
    Duration(Option<&'static str>),
    /// Messages per second, minute or hour, unless it is this default.
    Rate(&'static str),
    /// A number or a percentage.
    Bound,
    /// The instant at which the offer ends.
    Instant,
    /// The URL that requests go to, whether it is written or follows from the region.
    BaseUrl,
    /// A media file, by the hash of its content.
    Media,
    /// A text with expressions. A long number in it may be somebody's.
    Expression,
    /// A URL whose query may hold a token.
    Url,
    /// A phone number, shown by its last four digits.
    Sender,
    /// A command, shown by its first word.
    Command,
    /// Never shown.
    Hidden,
}

/// Where something other than the default is covered. `*` stands for any key or position.
const RULES: &[(&str, Form)] = &[
    ("/apiVersion", Form::Unless("\"sendform/v1\"")),
    ("/kind", Form::Unless("\"Campaign\"")),
    ("/name", Form::Plain),
    ("/moved/from", Form::Plain),
    ("/edition", Form::Unless("1")),
    ("/gateway/kaleyra/domain", Form::BaseUrl),
    ("/gateway/kaleyra/base_url", Form::BaseUrl),
    ("/gateway/kaleyra/sid/env", Form::Plain),
    ("/gateway/kaleyra/sid/file", Form::Plain),
    ("/gateway/kaleyra/sid/exec", Form::Command),
    ("/gateway/kaleyra/api_key/env", Form::Plain),
    ("/gateway/kaleyra/api_key/file", Form::Plain),
    ("/gateway/kaleyra/api_key/exec", Form::Command),
    ("/gateway/kaleyra/from", Form::Sender),
    ("/gateway/kaleyra/callback/profile_id", Form::Plain),
    ("/gateway/kaleyra/callback/url", Form::Url),
    ("/gateway/kaleyra/send_ref", Form::Unless("true")),
    ("/gateway/kaleyra/expiry_encoding", Form::Unless("\"absolute\"")),
    ("/gateway/kaleyra/timeout", Form::Duration(Some("30s"))),
    ("/templates/*/name", Form::Plain),
    ("/templates/*/language", Form::Plain),
    ("/templates/*/header/image/url", Form::Url),
    ("/templates/*/header/image/file", Form::Media),
    ("/templates/*/header/video/url", Form::Url),
    ("/templates/*/header/video/file", Form::Media),
    ("/templates/*/offer/text", Form::Plain),
    ("/templates/*/offer/has_expiration", Form::Plain),
    ("/templates/*/body/text", Form::Plain),
    ("/templates/*/body/params/*", Form::Expression),
    ("/templates/*/url_button/label", Form::Plain),
    ("/templates/*/url_button/url", Form::Url),
    ("/templates/*/url_button/param", Form::Expression),
    ("/audience/sources/*/delimiter", Form::Unless("\",\"")),
    ("/audience/sources/*/multiline", Form::Unless("false")),
    ("/audience/phone", Form::Plain),
    ("/audience/default_region", Form::Plain),
    ("/audience/id", Form::Plain),
    ("/audience/where", Form::Expression),
    ("/audience/template", Form::Expression),
    ("/audience/suppress/*/phone", Form::Plain),
    ("/audience/suppress/*/delimiter", Form::Unless("\",\"")),
    ("/audience/suppress/*/multiline", Form::Unless("false")),
    ("/audience/suppress/*/invalid", Form::Unless("\"error\"")),
    ("/coupons/code", Form::Hidden),
    ("/coupons/pool", Form::Present),
    ("/coupons/pool/column", Form::Plain),
    ("/coupons/pool/delimiter", Form::Unless("\",\"")),
    ("/coupons/pool/multiline", Form::Unless("false")),
    ("/coupons/generate/prefix", Form::Unless("\"\"")),
    ("/coupons/generate/alphabet", Form::Unless("\"ABCDEFGHJKLMNPQRSTUVWXYZ23456789\"")),
    ("/coupons/generate/length", Form::Plain),
    ("/expiry/at", Form::Instant),
    ("/expiry/timezone", Form::Plain),
    ("/expiry/after", Form::Duration(None)),
    ("/expiry/from", Form::Unless("\"plan\"")),
    ("/expiry/at_least", Form::Duration(Some("1h"))),
    ("/delivery/rate", Form::Rate("80/s")),
    ("/delivery/concurrency", Form::Unless("50")),
    ("/delivery/batch", Form::Unless("1")),
    ("/delivery/stop_when/rejected", Form::Bound),
    ("/delivery/stop_when/unknown", Form::Bound),
    ("/delivery/stop_when/within", Form::Unless("200")),
    ("/limits/recipients", Form::Plain),
];

/// What an approval does not cover, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    ("/description", "a note for reviewers, which changes nothing"),
    ("/vars/*/default", "the variable's value is covered, wherever it comes from"),
    ("/vars/*/description", "a note for reviewers, which changes nothing"),
    ("/audience/sources/*/csv", "where a file lies; the recipients in it are covered as messages"),
    ("/audience/suppress/*/csv", "where a file lies; whom it leaves out is covered as messages"),
    ("/coupons/pool/csv", "where a file lies; the codes in it are covered as messages"),
];

/// Fields of the campaign that the manifest does not have.
const DERIVED: &[&str] = &["/templates/*/header/image/digest", "/templates/*/header/video/digest"];

/// What else decides what an `apply` does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether messages go to the embedded sandbox.
    pub sandbox: bool,
    /// Whether sends that the provider rejected are tried again.
    pub retry_rejected: bool,
}

/// What an approval of a campaign covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// In the order of their pointers, which are unique.
    fields: BTreeMap<String, Field>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    value: Value,
    /// What the plan shows, if that is not the value.
    shown: Option<Value>,
}

impl Fingerprint {
    /// Lists the fields of a campaign.
    pub fn of(campaign: &Campaign) -> Result<Self, serde_json::Error> {
        Ok(Self::over(campaign, &serde_json::to_value(campaign)?))
    }

    fn over(campaign: &Campaign, fields: &Value) -> Self {
        let mut builder = Builder { campaign, fields: BTreeMap::new() };
        builder.walk(fields, &mut Vec::new());
        for (name, value) in &campaign.vars {
            builder.add(&["vars".to_owned(), name.clone()], value.clone(), None);
        }
        Self { fields: builder.fields }
    }

    /// The digest of the campaign as it is applied with these options.
    pub fn digest(&self, options: Options) -> [u8; 32] {
        let set = options.set();
        let mut canonical = Canonical::new(b"sendform campaign v2");
        canonical.number((set.len() + self.fields.len()) as u64);
        for name in set {
            canonical.text(name);
            canonical.text("true");
        }
        for (pointer, field) in &self.fields {
            canonical.text(pointer);
            canonical.text(&canonical_json(&field.value));
        }
        canonical.finish()
    }

    /// The fields as the plan shows them.
    pub fn shown(&self, options: Options) -> BTreeMap<String, Value> {
        let set = options.set().into_iter().map(|name| (name.to_owned(), Value::Bool(true)));
        let fields = self
            .fields
            .iter()
            .map(|(pointer, field)| (pointer.clone(), field.shown.clone().unwrap_or_else(|| field.value.clone())));
        set.chain(fields).collect()
    }
}

impl Options {
    /// The names of those that are set. They stand before every pointer, and are none.
    fn set(self) -> Vec<&'static str> {
        let all = [("option retry_rejected", self.retry_rejected), ("option sandbox", self.sandbox)];
        all.into_iter().filter(|(_, set)| *set).map(|(name, _)| name).collect()
    }
}

struct Builder<'a> {
    campaign: &'a Campaign,
    fields: BTreeMap<String, Field>,
}

impl Builder<'_> {
    fn walk(&mut self, value: &Value, path: &mut Vec<String>) {
        let left_out = LEFT_OUT.iter().map(|(pattern, _)| pattern).chain(DERIVED);
        if left_out.into_iter().any(|pattern| matches(pattern, path)) {
            return;
        }
        match (RULES.iter().find(|(pattern, _)| matches(pattern, path)), value) {
            (Some((_, Form::Present)), Value::Object(block)) => {
                self.add(path, Value::Bool(true), None);
                self.walk_block(block, path);
            }
            (Some((_, form)), _) => self.field(*form, value, path),
            (None, Value::Object(block)) => self.walk_block(block, path),
            (None, Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    path.push(index.to_string());
                    self.walk(item, path);
                    path.pop();
                }
            }
            (None, value) => self.add(path, value.clone(), Some(abridged(value))),
        }
    }

    fn walk_block(&mut self, block: &Map<String, Value>, path: &mut Vec<String>) {
        for (key, value) in block {
            path.push(key.clone());
            self.walk(value, path);
            path.pop();
        }
    }

    fn field(&mut self, form: Form, value: &Value, path: &[String]) {
        let text = value.as_str().unwrap_or_default();
        // The manifest was checked, so each of these can be read; what cannot is covered as it is written.
        let or_written = |canonical: Option<String>| canonical.map_or_else(|| value.clone(), Value::String);
        match form {
            Form::Plain | Form::Present => self.add(path, value.clone(), Some(abridged(value))),
            Form::Unless(default) => {
                if canonical_json(value) != default {
                    self.add(path, value.clone(), Some(abridged(value)));
                }
            }
            Form::Duration(default) => {
                let canonical = duration(text);
                if canonical.is_none() || canonical != default.and_then(duration) {
                    self.add(path, or_written(canonical), None);
                }
            }
            Form::Rate(default) => {
                let canonical = rate(text);
                if canonical.as_deref() != Some(default) {
                    self.add(path, or_written(canonical), None);
                }
            }
            Form::Bound => self.add(path, bound(value), None),
            Form::Instant => {
                let instant = match self.campaign.expiry.as_ref().map(ExpirySpec::rule) {
                    Some(ExpiryRule::At(at)) => Some(at.instant().to_string()),
                    _ => None,
                };
                self.add(path, or_written(instant), None);
            }
            Form::BaseUrl => {
                let path = ["gateway", "kaleyra", "base_url"].map(str::to_owned);
                let url = &self.campaign.gateway.base_url;
                self.add(&path, Value::from(url.as_str()), Some(without_query(url.as_str())));
            }
            Form::Media => {
                let digest = path.get(1).and_then(|key| self.media(key));
                self.add(path, or_written(digest), None);
            }
            Form::Expression => self.add(path, value.clone(), Some(without_numbers(text))),
            Form::Url => self.add(path, value.clone(), Some(without_query(text))),
            Form::Sender => {
                let shown = hidden(&format!("ending {}", last_digits(text)), text);
                self.add(path, value.clone(), Some(shown));
            }
            Form::Command => {
                let first = value.get(0).and_then(Value::as_str).unwrap_or_default();
                let shown = hidden(&format!("command `{first}`"), &canonical_json(value));
                self.add(path, value.clone(), Some(shown));
            }
            Form::Hidden => self.add(path, value.clone(), Some(hidden("", text))),
        }
    }

    fn media(&self, template: &str) -> Option<String> {
        match self.campaign.templates.get(template)?.header.as_ref()?.source() {
            MediaSource::File { digest, .. } => Some(digest.clone()),
            MediaSource::Url { .. } => None,
        }
    }

    fn add(&mut self, path: &[String], value: Value, shown: Option<Value>) {
        let shown = shown.filter(|shown| *shown != value);
        self.fields.insert(pointer(path), Field { value, shown });
    }
}

/// A JSON pointer (RFC 6901).
fn pointer(path: &[String]) -> String {
    path.iter().map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1"))).collect()
}

fn matches(pattern: &str, path: &[String]) -> bool {
    let mut steps = pattern.split('/').skip(1);
    path.iter().all(|step| steps.next().is_some_and(|wanted| wanted == "*" || wanted == step)) && steps.next().is_none()
}

/// JSON without white space and with sorted keys.
fn canonical_json(value: &Value) -> String {
    match value {
        Value::Object(block) => {
            let sorted: BTreeMap<_, _> = block.iter().collect();
            let entries: Vec<_> = sorted
                .into_iter()
                .map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), canonical_json(value)))
                .collect();
            format!("{{{}}}", entries.join(","))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(canonical_json).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

/// A duration in seconds, with as many decimals as it needs.
fn duration(text: &str) -> Option<String> {
    let duration = expiry::parse_duration(text).ok()?;
    let seconds = format!("{}.{:09}", duration.as_secs(), duration.subsec_nanos());
    Some(format!("{}s", seconds.trim_end_matches('0').trim_end_matches('.')))
}

/// A rate in the shortest unit that gives a whole number of messages.
fn rate(text: &str) -> Option<String> {
    let rate = crate::domain::campaign::Rate::parse(text)?;
    let per_hour = u64::from(rate.messages) * (3_600 / rate.per.as_secs().max(1));
    let unit = [(3_600, "s"), (60, "m"), (1, "h")].into_iter().find(|(times, _)| per_hour % times == 0);
    unit.map(|(times, unit)| format!("{}/{unit}", per_hour / times))
}

/// `5` and `"5"` are the same, and so are `5%` and `5.0%`.
fn bound(value: &Value) -> Value {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    };
    let (number, percent) = match text.strip_suffix('%') {
        Some(number) => (number.trim(), "%"),
        None => (text.as_str(), ""),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if fraction.is_empty() { "" } else { "." };
    Value::from(format!("{whole}{point}{fraction}{percent}"))
}

/// How many characters of a value the plan shows.
const MAX_SHOWN: usize = 700;

/// How many digits in a row may be somebody's number.
const LONG_NUMBER: usize = 7;

/// `words`, and four digits that change with `text`.
fn hidden(words: &str, text: &str) -> Value {
    let digest = blake3::hash(text.as_bytes()).to_hex();
    let space = if words.is_empty() { "" } else { " " };
    Value::from(format!("{words}{space}(hidden {})", &digest.as_str()[..4]))
}

/// A value, cut if it is long.
fn abridged(value: &Value) -> Value {
    match value {
        Value::String(text) if text.chars().count() > MAX_SHOWN => {
            let start: String = text.chars().take(MAX_SHOWN).collect();
            hidden(&format!("{start}…"), text)
        }
        Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null => value.clone(),
        other => abridged(&Value::from(canonical_json(other))),
    }
}

/// A text whose long numbers are hidden, also those that are written in groups.
fn without_numbers(text: &str) -> Value {
    let mut shown = String::with_capacity(text.len());
    let mut hides = false;
    let mut rest = text;
    while let Some(start) = rest.find(char::is_numeric) {
        let run = &rest[start..];
        let end = run.find(|next: char| !next.is_numeric() && !" -.()/".contains(next)).unwrap_or(run.len());
        let number = run[..end].trim_end_matches(|last: char| !last.is_numeric());
        let long = number.chars().filter(|digit| digit.is_numeric()).count() >= LONG_NUMBER;
        hides |= long;
        shown.push_str(&rest[..start]);
        shown.push_str(if long { "•••" } else { number });
        rest = &run[number.len()..];
    }
    shown.push_str(rest);
    if hides { abridged(&hidden(&shown, text)) } else { abridged(&Value::from(text)) }
}

/// A URL without what may hold a token: query, fragment, user and password.
fn without_query(text: &str) -> Value {
    let bare = text.split(['?', '#']).next().unwrap_or_default();
    let bare = match bare.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => bare.to_owned(),
    };
    if bare == text { without_numbers(text) } else { abridged(&hidden(&bare, text)) }
}

/// The last four digits of a number.
pub fn last_digits(number: &str) -> &str {
    number.get(number.len().saturating_sub(4)..).unwrap_or_default()
}

/// What changed between two lists as plans show them, in words, the first few of them.
pub fn changes(old: &BTreeMap<String, Value>, new: &BTreeMap<String, Value>) -> Vec<String> {
    const MAX_NAMED: usize = 12;
    let words = |value: Option<&Value>| match value {
        None => "default".to_owned(),
        Some(Value::String(text)) if text.chars().count() > 80 => {
            format!("{}…", text.chars().take(80).collect::<String>())
        }
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let pointers: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let mut changes: Vec<String> = pointers
        .into_iter()
        .filter(|pointer| old.get(*pointer) != new.get(*pointer))
        .map(|pointer| {
            let name = pointer.trim_start_matches('/').replace('/', ".");
            format!("`{name}`: {} then, {} now", words(old.get(pointer)), words(new.get(pointer)))
        })
        .collect();
    if changes.len() > MAX_NAMED {
        let more = changes.len() - MAX_NAMED;
        changes.truncate(MAX_NAMED);
        changes.push(format!("and {more} more fields"));
    }
    changes
}

#[cfg(test)]
mod tests;
