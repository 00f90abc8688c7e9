//! Where in which file a value of the manifest stands.
//!
//! There is no second YAML parser. To find a node, its file is deserialized once more by a seed
//! that walks to the node and fails there on purpose: the parser's own error then carries the
//! node's position, through anchors, aliases and merge keys. That costs one parse for each finding,
//! so the bytes that are parsed for it are bounded: what is found in a large file after that has no line.

use std::cell::Cell;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::domain::diagnostic::{Location, SourceFile};

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
    /// How many bytes were parsed to find places.
    searched: Cell<usize>,
}

/// The most bytes that are parsed to find places: a hundred places in a file of 40 kB.
const MAX_SEARCHED: usize = 4 * 1024 * 1024;

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
    pub fn value(&self, pointer: &Pointer) -> Option<Location> {
        self.locate(pointer, false)
    }

    /// The place of the last key of `pointer`, or of the nearest value around it.
    pub fn key(&self, pointer: &Pointer) -> Option<Location> {
        self.locate(pointer, true)
    }

    /// The text of the scalar at `pointer`, exactly as the user wrote it.
    pub fn written(&self, pointer: &Pointer) -> Option<String> {
        match self.value(pointer)? {
            Location::Span(file, span) => file.text.get(span).map(str::to_owned),
            Location::Line { .. } => None,
        }
    }

    /// The places of several keys of one mapping, by one search. `None` for a key that came there by a merge.
    pub fn keys(&self, mapping: &Pointer, names: &[&str]) -> Vec<Option<Location>> {
        let mut places = vec![None; names.len()];
        let Some((mount, steps)) = self.mount(mapping).filter(|(mount, _)| self.may_search(mount)) else {
            return places;
        };
        let mut found = Vec::new();
        let seed = Keys { steps: &steps, wanted: names, found: &mut found };
        // It ends with the document, or with a mistake that was found before.
        let _ = seed.deserialize(serde_yaml::Deserializer::from_str(&mount.file.text));
        let lines = Lines::of(&mount.file.text);
        for (index, line, column) in found {
            let span = token(&mount.file.text, lines.offset(line, column));
            places[index] = Some(Location::Span(Arc::clone(&mount.file), span));
        }
        places
    }

    /// Whether a file may be parsed once more to find a place.
    fn may_search(&self, mount: &Mount) -> bool {
        let searched = self.searched.get().saturating_add(mount.file.text.len());
        let may = searched <= MAX_SEARCHED;
        if may {
            self.searched.set(searched);
        }
        may
    }

    fn locate(&self, pointer: &Pointer, key: bool) -> Option<Location> {
        let (mount, mut steps) = self.mount(pointer)?;
        if !self.may_search(mount) {
            return Some(Location::Line { path: mount.file.path.clone(), line: None, column: None });
        }
        let mut key = key && matches!(steps.last(), Some(Step::Key(_)));
        loop {
            if let Some(start) = find(&mount.file.text, &steps, key) {
                let span = token(&mount.file.text, start);
                return Some(Location::Span(Arc::clone(&mount.file), span));
            }
            if steps.pop().is_none() {
                return Some(Location::Span(Arc::clone(&mount.file), token(&mount.file.text, 0)));
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

/// Where the lines of a text start, for several searches.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(ends).collect() }
    }

    /// The byte offset of a line and a column, as [`offset`] tells it.
    fn offset(&self, line: usize, column: usize) -> usize {
        let Some(start) = self.starts.get(line.saturating_sub(1)).copied() else { return self.text.len() };
        start + offset(&self.text[start..], 1, column)
    }
}

/// Walks to a mapping and notes where some of its keys stand, without ending there.
struct Keys<'a> {
    steps: &'a [Step],
    wanted: &'a [&'a str],
    /// For each key that was found: its index in `wanted`, its line and its column.
    found: &'a mut Vec<(usize, usize, usize)>,
}

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping or a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        let Some(Step::Index(wanted)) = self.steps.first() else { return Err(de::Error::custom(Found)) };
        for _ in 0..*wanted {
            sequence.next_element::<IgnoredAny>()?;
        }
        sequence.next_element_seed(Keys { steps: &self.steps[1..], ..self })?;
        Err(de::Error::custom(Found))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if let Some(step) = self.steps.first() {
            let wanted = match step {
                Step::Key(key) => Some(key.as_str()),
                Step::Index(_) => None,
            };
            while let Some(seen) = map.next_key_seed(KeySeed { wanted, stop: false })? {
                if matches!(seen, Seen::Wanted) {
                    map.next_value_seed(Keys { steps: &self.steps[1..], ..self })?;
                    return Err(de::Error::custom(Found));
                }
                map.next_value::<IgnoredAny>()?;
            }
            return Err(de::Error::custom(Found));
        }
        let indices: std::collections::HashMap<&str, usize> =
            self.wanted.iter().enumerate().map(|(index, name)| (*name, index)).collect();
        loop {
            let index = Cell::new(None);
            match map.next_key_seed(AnyOf { indices: &indices, index: &index }) {
                Ok(None) => return Err(de::Error::custom(Found)),
                Ok(Some(())) => {}
                // The seed has refused the key to learn where it stands.
                Err(error) => match index.get() {
                    Some(index) => {
                        let (line, column) = line_column(&error.to_string());
                        self.found.push((index, line, column));
                    }
                    None => return Err(error),
                },
            }
            map.next_value::<IgnoredAny>()?;
        }
    }
}

/// The position at the end of an error of the YAML library, which leaves out the first line's first column.
fn line_column(error: &str) -> (usize, usize) {
    let position = || {
        let (line, column) = error.rsplit_once(" at line ")?.1.split_once(" column ")?;
        Some((line.parse().ok()?, column.parse().ok()?))
    };
    position().unwrap_or((1, 1))
}

/// Refuses a key that is one of several, and notes which.
struct AnyOf<'a> {
    indices: &'a std::collections::HashMap<&'a str, usize>,
    index: &'a Cell<Option<usize>>,
}

impl<'de> DeserializeSeed<'de> for AnyOf<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyOf<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<(), E> {
        match self.indices.get(key) {
            Some(index) => {
                self.index.set(Some(*index));
                Err(E::custom(Found))
            }
            None => Ok(()),
        }
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }
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
        let map = SourceMap { mounts: vec![Mount { at: Pointer::root(), file }], ..SourceMap::default() };
        match map.locate(&Pointer(pointer.to_vec()), key).unwrap() {
            Location::Span(file, span) => {
                let (line, column) = file.line_column(span.start);
                (line, column, file.text[span].to_owned())
            }
            Location::Line { .. } => unreachable!(),
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
    fn several_keys_are_found_by_one_search_where_single_ones_are() {
        let text = "a:\n  - x: 1\n    é: [1, 2]\n    \"q z\": {b: c}\n    1: 2\n  - other: 3\nb: 1\n";
        let file = Arc::new(SourceFile { path: "m.yaml".into(), text: text.to_owned() });
        let map = SourceMap { mounts: vec![Mount { at: Pointer::root(), file }], ..SourceMap::default() };
        for (mapping, names) in [
            (vec![Step::from("a"), Step::from(0)], vec!["x", "é", "q z", "nothing"]),
            (vec![Step::from("a"), Step::from(1)], vec!["other"]),
            (vec![], vec!["a", "b"]),
        ] {
            let mapping = Pointer(mapping);
            let span = |place: Option<Location>| match place {
                Some(Location::Span(_, span)) => Some(span),
                _ => None,
            };
            let places = map.keys(&mapping, &names);
            for (name, place) in names.iter().zip(places) {
                let expected = (*name != "nothing").then(|| span(map.key(&mapping.join(*name))).unwrap());
                assert_eq!(span(place), expected, "{name}");
            }
        }
    }

    #[test]
    fn searches_in_a_large_file_end() {
        let file =
            Arc::new(SourceFile { path: "m.yaml".into(), text: format!("a: {}\n", "x".repeat(MAX_SEARCHED / 4)) });
        let map = SourceMap { mounts: vec![Mount { at: Pointer::root(), file }], ..SourceMap::default() };
        let with_line = (0..100).filter(|_| matches!(map.value(&Pointer::root()), Some(Location::Span(..)))).count();
        assert_eq!(with_line, 3);
    }

    #[test]
    fn a_missing_key_points_at_the_mapping_that_lacks_it() {
        assert_eq!(place(&["list".into(), "nothing".into()], true), (3, 1, "list".into()));
    }
}
