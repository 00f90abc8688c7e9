//! The body of a response in a typed form, without conclusions.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::domain::phone::E164;
use crate::gateway::kaleyra::codes::{Code, is_success_word};

/// A JSON object without duplicate keys. Values are read on demand; a value that is not needed only has to be
/// well-formed.
pub(super) struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(key, value)| (&**key, *value))
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::with_capacity(8);
                while let Some((Key(key), value)) = map.next_entry()? {
                    pairs.push((key, value));
                }
                let twice = match pairs.len() {
                    few @ 0..=16 => (1..few).any(|at| pairs[..at].iter().any(|(key, _)| *key == pairs[at].0)),
                    _ => {
                        let mut keys: Vec<&str> = pairs.iter().map(|(key, _)| &**key).collect();
                        keys.sort_unstable();
                        keys.windows(2).any(|pair| pair[0] == pair[1])
                    }
                };
                if twice { Err(A::Error::custom("a key is given twice")) } else { Ok(Object(pairs)) }
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}

/// A key, without a copy unless it contains escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

pub(super) fn read<'a, T: Deserialize<'a>>(value: &'a RawValue) -> Option<T> {
    serde_json::from_str(value.get()).ok()
}

/// The meaning of `error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denial {
    /// Nothing: absent, null, false, or empty.
    None,
    /// It has a value that names no error.
    Unclear,
    /// It has a value that cannot be read, such as a duplicate key.
    Unreadable,
    /// An error.
    Error,
}

/// The top level of a response.
pub(super) struct Answer<'a>(pub(super) Object<'a>);

impl<'a> Answer<'a> {
    pub(super) fn code(&self, status: u16) -> Code {
        code(&self.0, status)
    }

    pub(super) fn denial(&self) -> Denial {
        self.0.get("error").map_or(Denial::None, denial)
    }

    /// Whether an undocumented field reports that the request failed.
    pub(super) fn fails_otherwise(&self) -> bool {
        fails_otherwise(&self.0)
    }

    pub(super) fn message(&self) -> Option<String> {
        self.0.get("message").and_then(read::<String>).filter(|text| !text.trim().is_empty())
    }

    /// Whether there is a `message` field.
    pub(super) fn has_message(&self) -> bool {
        self.0.get("message").is_some_and(|value| value.get() != "null")
    }

    /// The meaning of `totalCount` for a request with this many recipients.
    pub(super) fn total(&self, recipients: usize) -> Total {
        let Some(value) = self.0.get("totalCount") else { return Total::Fits };
        let text = value.get().trim_matches('"');
        match text.parse::<f64>() {
            Ok(none) if none <= 0.0 => Total::None,
            Ok(more) if more > recipients as f64 => Total::TooMany,
            _ => Total::Fits,
        }
    }

    /// Whether a field in which a success carries an id has a value: then a refusal proves nothing.
    pub(super) fn may_hold_id(&self) -> bool {
        self.0.iter().any(|(key, value)| holds_an_id(key, value))
    }

    /// The provider's explanation of an error; empty if there is none.
    pub(super) fn words(&self) -> String {
        let details = match self.0.get("error") {
            Some(error) => match read::<Object<'_>>(error) {
                Some(fields) => fields
                    .iter()
                    .filter_map(|(field, problem)| {
                        let problem = words(problem);
                        match field {
                            _ if problem.is_empty() => None,
                            "error" => Some(problem),
                            _ => Some(format!("{field}: {problem}")),
                        }
                    })
                    .collect::<Vec<_>>()
                    .join("; "),
                None => words(error),
            },
            None => String::new(),
        };
        if details.is_empty() { self.message().unwrap_or_default() } else { details }
    }

    /// Which of these numbers `error` names: the full number is a key, or is contained in a value.
    pub(super) fn named_in_error(&self, numbers: &[E164]) -> Vec<bool> {
        let Some(fields) = self.0.get("error").and_then(read::<Object<'_>>) else {
            return vec![false; numbers.len()];
        };
        let texts: Vec<(String, String)> =
            fields.iter().map(|(field, problem)| (field.trim_start_matches('+').to_owned(), words(problem))).collect();
        let names = |number: E164| {
            let digits = number.digits().to_string();
            texts.iter().any(|(field, problem)| *field == digits || has_number(problem, &digits))
        };
        numbers.iter().map(|number| names(*number) || number.other_form().is_some_and(names)).collect()
    }
}

/// The meaning of the `code` of a response or of an entry.
pub(super) fn code(fields: &Object<'_>, status: u16) -> Code {
    let Some(value) = fields.get("code") else { return Code::Absent };
    match value.get().as_bytes()[0] {
        b'n' => Code::Absent,
        b'"' => match read::<Cow<'_, str>>(value) {
            Some(text) if text.is_empty() => Code::Absent,
            Some(text) => Code::of(&text, status),
            None => Code::Unclear(String::new()),
        },
        b'0'..=b'9' => Code::of(value.get(), status),
        _ => Code::Unclear(String::new()),
    }
}

/// The meaning of `totalCount`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Total {
    /// It does not contradict an acceptance.
    Fits,
    /// Nothing was sent.
    None,
    /// More messages were sent than requested.
    TooMany,
}

/// Whether an undocumented field beside an id reports a failure: `errors`,
/// `"success": false`, `"status": "failed"`.
pub(super) fn fails_otherwise(fields: &Object<'_>) -> bool {
    fields.iter().any(|(key, value)| match key {
        "errors" | "Error" | "ERROR" | "Errors" => denial(value) != Denial::None,
        "success" => value.get() == "false",
        "status" => read::<Cow<'_, str>>(value).is_some_and(|status| {
            ["error", "failed", "failure", "rejected", "not sent", "not-sent"]
                .iter()
                .any(|failed| status.eq_ignore_ascii_case(failed))
        }),
        _ => false,
    })
}

/// The meaning of the `error` of a response or of an entry.
pub(super) fn denial(value: &RawValue) -> Denial {
    match value.get().as_bytes()[0] {
        b'n' | b'f' => Denial::None,
        // As a success has it.
        b'{' if value.get() == "{}" => Denial::None,
        b't' => Denial::Error,
        b'{' if read::<Object<'_>>(value).is_some_and(|fields| fields.is_empty()) => Denial::None,
        b'[' if read::<Vec<&RawValue>>(value).is_some_and(|list| list.is_empty()) => Denial::None,
        b'"' if value.get() == "\"\"" => Denial::None,
        b'{' => match read::<Object<'_>>(value) {
            Some(fields) if fields.iter().any(|(_, problem)| !words(problem).is_empty()) => Denial::Error,
            Some(_) => Denial::Unclear,
            None => Denial::Unreadable,
        },
        _ if value.get() == "0" => Denial::Unclear,
        _ => match words(value).trim() {
            "" | "0" | "false" | "null" => Denial::Unclear,
            text if is_success_word(text) => Denial::Unclear,
            _ => Denial::Error,
        },
    }
}

/// The texts in a value, without brackets; empty if it cannot be read.
fn words(value: &RawValue) -> String {
    fn add(value: &serde_json::Value, words: &mut Vec<String>) {
        use serde_json::Value;
        match value {
            Value::Null | Value::Bool(false) => {}
            Value::Bool(true) => words.push("true".to_owned()),
            Value::Number(number) => words.push(number.to_string()),
            Value::String(text) if text.trim().is_empty() => {}
            Value::String(text) => words.push(text.clone()),
            Value::Array(list) => list.iter().for_each(|value| add(value, words)),
            Value::Object(fields) => {
                for (field, value) in fields {
                    let mut own = Vec::new();
                    add(value, &mut own);
                    if !own.is_empty() {
                        words.push(format!("{field}: {}", own.join(", ")));
                    }
                }
            }
        }
    }
    let mut all = Vec::new();
    if let Some(value) = read(value) {
        add(&value, &mut all);
    }
    all.join(", ")
}

/// Whether a text contains a number of exactly these digits.
fn has_number(text: &str, digits: &str) -> bool {
    text.match_indices(digits).any(|(start, _)| {
        let before = text[..start].bytes().next_back();
        let after = text[start + digits.len()..].bytes().next();
        ![before, after].into_iter().flatten().any(|beside| beside.is_ascii_digit())
    })
}

/// Whether a top-level field could carry the id of a success, and has a value.
pub(super) fn holds_an_id(key: &str, value: &RawValue) -> bool {
    match key {
        "code" | "error" | "errors" | "totalCount" => false,
        _ if names_an_id(key) => holds(value),
        // A body within a body.
        _ => matches!(value.get().as_bytes()[0], b'{' | b'[') && mentions_an_id(value.get()),
    }
}

/// Whether a value is neither null nor empty.
fn holds(value: &RawValue) -> bool {
    match value.get().as_bytes()[0] {
        b'n' => false,
        b'"' => value.get() != "\"\"",
        b'[' => value.get()[1..].trim_start() != "]",
        b'{' => value.get()[1..].trim_start() != "}",
        _ => true,
    }
}

/// Whether a key could carry the ids of a success, in any spelling.
fn names_an_id(key: &str) -> bool {
    if key.len() > 12 {
        return false;
    }
    let mut plain = [0_u8; 12];
    let mut length = 0;
    for byte in key.bytes().filter(|byte| !matches!(byte, b'_' | b'-' | b' ' | b'\\')) {
        plain[length] = byte.to_ascii_lowercase();
        length += 1;
    }
    matches!(
        &plain[..length],
        b"id" | b"ids" | b"messageid" | b"messageids" | b"msgid" | b"messages" | b"data" | b"wamid"
    )
}

/// Whether a text contains such a key with a value anywhere, even if the text is not JSON.
pub(super) fn mentions_an_id(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().filter(|(_, byte)| matches!(byte, b'"' | b'\'')).any(|(start, quote)| {
        let rest = &text[start + 1..];
        let Some(end) = rest.bytes().take(13).position(|byte| byte == *quote) else { return false };
        if !rest.is_char_boundary(end) || !names_an_id(&rest[..end]) {
            return false;
        }
        let Some(value) = rest[end + 1..].trim_start().strip_prefix(':') else { return false };
        let value = value.trim_start().trim_start_matches('\\');
        let empty = |open: char, close: char| {
            value.strip_prefix(open).is_some_and(|inner| inner.trim_start_matches([' ', '\n', '\\']).starts_with(close))
        };
        !(value.starts_with("null") || empty('[', ']') || empty('{', '}') || empty('"', '"') || empty('\'', '\''))
    })
}
