//! Where in which file a value of the manifest stands.
//!
//! There is no second YAML parser. To find a node, its file is deserialized once more by a seed
//! that walks to the node and fails there on purpose: the parser's own error then carries the
//! node's position, through anchors, aliases and merge keys. That costs one parse per diagnostic.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::diagnostic::{Place, SourceFile};

/// One step from a value to a value inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Into a mapping, by key.
    Key(String),
    /// Into a sequence, from 0.
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Step::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Step::Index(index)
    }
}

/// The way from the root of the manifest to a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pointer(pub Vec<Step>);

impl Pointer {
    /// The root itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// The value one step further.
    #[must_use]
    pub fn join(&self, step: impl Into<Step>) -> Self {
        let mut steps = self.0.clone();
        steps.push(step.into());
        Self(steps)
    }
}

impl fmt::Display for Pointer {
    /// As a person writes it: `templates.en.header`, `audience.sources[0]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if position == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A file whose root stands at a pointer of the manifest: the manifest at the root, and each
/// `use:` where it was written.
#[derive(Debug, Clone)]
pub(super) struct Mount {
    pub(super) at: Pointer,
    pub(super) file: Arc<SourceFile>,
}

/// All files of one manifest, and what stands where.
#[derive(Debug, Clone, Default)]
pub struct SourceMap {
    pub(super) mounts: Vec<Mount>,
}

impl SourceMap {
    fn mount(&self, pointer: &Pointer) -> Option<(&Mount, Vec<Step>)> {
        self.mounts
            .iter()
            .filter(|mount| pointer.0.starts_with(&mount.at.0))
            .max_by_key(|mount| mount.at.0.len())
            .map(|mount| (mount, pointer.0[mount.at.0.len()..].to_vec()))
    }

    /// The directory that a path written at `pointer` is relative to: that of the file it stands in.
    pub fn directory(&self, pointer: &Pointer) -> PathBuf {
        let parent = self.mount(pointer).and_then(|(mount, _)| mount.file.path.parent());
        parent.map_or_else(PathBuf::new, Path::to_path_buf)
    }

    /// The place of the value at `pointer`, or of the nearest value around it.
    pub fn value(&self, pointer: &Pointer) -> Option<Place> {
        self.locate(pointer, false)
    }

    /// The place of the last key of `pointer`, or of the nearest value around it.
    pub fn key(&self, pointer: &Pointer) -> Option<Place> {
        self.locate(pointer, true)
    }

    /// The text of the scalar at `pointer`, exactly as the user wrote it.
    pub fn written(&self, pointer: &Pointer) -> Option<String> {
        match self.value(pointer)? {
            Place::Span(file, span) => file.text.get(span).map(str::to_owned),
            Place::Line { .. } => None,
        }
    }

    fn locate(&self, pointer: &Pointer, key: bool) -> Option<Place> {
        let (mount, mut steps) = self.mount(pointer)?;
        let mut key = key && matches!(steps.last(), Some(Step::Key(_)));
        loop {
            if let Some(start) = find(&mount.file.text, &steps, key) {
                let span = token(&mount.file.text, start);
                return Some(Place::Span(Arc::clone(&mount.file), span));
            }
            if steps.pop().is_none() {
                return Some(Place::Span(Arc::clone(&mount.file), token(&mount.file.text, 0)));
            }
            // What was looked for is not there, so the thing around it is named, by its key.
            key = matches!(steps.last(), Some(Step::Key(_)));
        }
    }
}

/// The byte offset of a node, by making the parser fail there.
fn find(text: &str, steps: &[Step], key: bool) -> Option<usize> {
    let seed = Walk { steps, key };
    let error = seed.deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    let location = error.location()?;
    Some(offset(text, location.line(), location.column()))
}

/// The byte offset of a line and a column, both from 1, the column in characters.
pub(super) fn offset(text: &str, line: usize, column: usize) -> usize {
    let start = match line.checked_sub(2) {
        None => 0,
        Some(before) => {
            text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').nth(before).map_or(text.len(), |(at, _)| at + 1)
        }
    };
    let rest = &text[start..];
    let line_end = rest.find('\n').unwrap_or(rest.len());
    let within = rest[..line_end].char_indices().nth(column.saturating_sub(1)).map_or(line_end, |(at, _)| at);
    start + within
}

/// The scalar, key or opening bracket that starts at `start`, up to the end of its line at most.
pub(super) fn token(text: &str, start: usize) -> Range<usize> {
    let start = start.min(text.len());
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let line = &text[start..line_end];
    let length = match line.chars().next() {
        Some(quote @ ('"' | '\'')) => quoted(line, quote),
        Some('[' | '{') => 1,
        _ => {
            let ends = [": ", " #", ", ", "}", "]"].iter().filter_map(|end| line.find(end));
            let end = ends.min().unwrap_or(line.len());
            line[..end].trim_end().trim_end_matches([':', '\r']).len()
        }
    };
    // A mark of no width is invisible, so at least one character is marked where there is one.
    let least = line.chars().next().map_or(0, char::len_utf8);
    start..start + length.max(least)
}

fn quoted(line: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in line.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if character == '\\' && quote == '"' {
            escaped = true;
        } else if character == quote {
            return at + 1;
        }
    }
    line.len()
}

struct Walk<'a> {
    steps: &'a [Step],
    /// Whether to stop at the last step's key rather than at its value.
    key: bool,
}

struct Found;

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("found")
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// For a node that is no mapping or sequence: either it is the one looked for, or it is passed over.
macro_rules! scalar {
    ($($method:ident: $type:ty),*) => {
        $(fn $method<E: de::Error>(self, _: $type) -> Result<(), E> { self.arrived() })*
    };
}

impl Walk<'_> {
    fn arrived<E: de::Error>(&self) -> Result<(), E> {
        if self.steps.is_empty() { Err(E::custom(Found)) } else { Ok(()) }
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    scalar!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128,
            visit_f64: f64, visit_str: &str);

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.arrived()
    }

    fn visit_none<E: de::Error>(self) -> Result<(), E> {
        self.arrived()
    }

    fn visit_enum<A: de::EnumAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        self.arrived()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        self.arrived()?;
        let mut index = 0;
        loop {
            let here = matches!(self.steps.first(), Some(Step::Index(wanted)) if *wanted == index);
            let more = if here {
                sequence.next_element_seed(Walk { steps: &self.steps[1..], key: self.key })?.is_some()
            } else {
                sequence.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.arrived()?;
        let wanted = match self.steps.first() {
            Some(Step::Key(key)) => Some(key.as_str()),
            _ => None,
        };
        let stop = self.key && self.steps.len() == 1;
        while let Some(seen) = map.next_key_seed(KeySeed { wanted, stop })? {
            match seen {
                Seen::Wanted => map.next_value_seed(Walk { steps: &self.steps[1..], key: self.key })?,
                Seen::Merge => map.next_value_seed(Walk { steps: self.steps, key: self.key })?,
                Seen::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

enum Seen {
    Wanted,
    Merge,
    Other,
}

struct KeySeed<'a> {
    wanted: Option<&'a str>,
    stop: bool,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Seen;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Seen, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for KeySeed<'_> {
    type Value = Seen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Seen, E> {
        match self.wanted {
            Some(wanted) if wanted == key && self.stop => Err(E::custom(Found)),
            Some(wanted) if wanted == key => Ok(Seen::Wanted),
            _ if key == "<<" => Ok(Seen::Merge),
            _ => Ok(Seen::Other),
        }
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Seen, E> {
        Ok(Seen::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
base: &base
  rate: 80/s   # a comment
list:
  - name: é
    to: +55 # unquoted
merged:
  <<: *base
  extra: \"a: b\"
";

    fn place(pointer: &[Step], key: bool) -> (usize, usize, String) {
        let file = Arc::new(SourceFile { path: "m.yaml".into(), text: TEXT.to_owned() });
        let map = SourceMap { mounts: vec![Mount { at: Pointer::root(), file }] };
        match map.locate(&Pointer(pointer.to_vec()), key).unwrap() {
            Place::Span(file, span) => {
                let (line, column) = file.line_column(span.start);
                (line, column, file.text[span].to_owned())
            }
            Place::Line { .. } => unreachable!(),
        }
    }

    #[test]
    fn scalars_keys_and_sequence_items_are_found_where_they_stand() {
        assert_eq!(place(&["base".into(), "rate".into()], false), (2, 9, "80/s".into()));
        assert_eq!(place(&["base".into(), "rate".into()], true), (2, 3, "rate".into()));
        assert_eq!(place(&["list".into(), 0.into(), "to".into()], false), (5, 9, "+55".into()));
        assert_eq!(place(&["merged".into(), "extra".into()], false), (8, 10, "\"a: b\"".into()));
    }

    #[test]
    fn a_merged_key_is_found_where_it_was_written() {
        assert_eq!(place(&["merged".into(), "rate".into()], false).0, 2);
    }

    #[test]
    fn a_missing_key_points_at_the_mapping_that_lacks_it() {
        assert_eq!(place(&["list".into(), "nothing".into()], true), (3, 1, "list".into()));
    }
}
