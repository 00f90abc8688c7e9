//! Reading foreign YAML within limits.
//!
//! The YAML library limits neither the time that nested brackets take nor the memory that aliases expand to.
//! Therefore two passes check a text before it becomes a value: [`nesting`] checks its nesting, and a walk that
//! builds nothing measures what its aliases expand to. All limits apply to the content of the file and never to
//! time, so a file is refused on every machine or on none.

mod nesting;

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde_yaml::Value;

/// The most bytes that a file of YAML may have. It is written by people; what is larger is another kind of file.
pub const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The most bytes that all texts of a file may have once its aliases are expanded.
const MAX_EXPANDED_BYTES: usize = 8 * 1024 * 1024;

/// The most values (keys, texts, numbers, lists, mappings) that a file may have once its aliases are expanded.
const MAX_VALUES: usize = 200_000;

/// Why a text is not read.
#[derive(Debug)]
pub enum Refusal {
    /// Nested too deeply, at this byte.
    TooDeep(usize),
    /// Too many lines that start with `%`, at this byte.
    Directives(usize),
    /// Its aliases expand to too much, or it has too many values without them.
    TooMuch,
    /// What the YAML library says.
    Yaml(serde_yaml::Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::TooDeep(_) => f.write_str("it is nested too deeply"),
            Refusal::Directives(_) => f.write_str("it has too many lines that start with `%`"),
            Refusal::TooMuch => f.write_str("it holds more than such a file can hold, perhaps by its aliases"),
            Refusal::Yaml(error) => error.fmt(f),
        }
    }
}

/// Reads one document, within the bounds.
pub fn parse(text: &str) -> Result<Value, Refusal> {
    if text.len() as u64 > MAX_BYTES {
        return Err(Refusal::TooMuch);
    }
    nesting::check(text).map_err(|problem| match problem {
        nesting::Problem::TooDeep(at) => Refusal::TooDeep(at),
        nesting::Problem::Directives(at) => Refusal::Directives(at),
    })?;
    let budget = Budget { bytes: Cell::new(MAX_EXPANDED_BYTES), values: Cell::new(MAX_VALUES) };
    // Other errors come again below.
    if Measure(&budget).deserialize(serde_yaml::Deserializer::from_str(text)).is_err() && budget.is_spent() {
        return Err(Refusal::TooMuch);
    }
    serde_yaml::from_str(text).map_err(|error| {
        if error.to_string().contains("repetition limit exceeded") { Refusal::TooMuch } else { Refusal::Yaml(error) }
    })
}

/// Reads one document as a type, within the bounds.
pub fn parse_as<T: de::DeserializeOwned>(text: &str) -> Result<T, Refusal> {
    // An error of the type is told with its position only if the text is read once more.
    parse(text)?;
    serde_yaml::from_str(text).map_err(Refusal::Yaml)
}

/// Reads a file of settings, within the bounds. A pipe would never end.
pub fn read(path: &Path) -> std::io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(std::io::Error::other(format!("it has more than {MAX_BYTES} bytes")));
    }
    Ok(text)
}

/// What is left of the bounds.
struct Budget {
    bytes: Cell<usize>,
    values: Cell<usize>,
}

impl Budget {
    fn is_spent(&self) -> bool {
        self.values.get() == 0
    }

    fn take<E: de::Error>(&self, bytes: usize) -> Result<(), E> {
        match (self.values.get().checked_sub(1), self.bytes.get().checked_sub(bytes)) {
            (Some(values @ 1..), Some(bytes)) => {
                self.values.set(values);
                self.bytes.set(bytes);
                Ok(())
            }
            _ => {
                self.values.set(0);
                Err(E::custom("too much"))
            }
        }
    }
}

/// Walks through a document as if to build its value.
#[derive(Clone, Copy)]
struct Measure<'a>(&'a Budget);

impl<'de> DeserializeSeed<'de> for Measure<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

macro_rules! scalars {
    ($($method:ident: $type:ty),*) => {
        $(fn $method<E: de::Error>(self, _: $type) -> Result<(), E> { self.0.take(0) })*
    };
}

impl<'de> Visitor<'de> for Measure<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128, visit_f64: f64);

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.0.take(text.len())
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.0.take(0)
    }

    fn visit_none<E: de::Error>(self) -> Result<(), E> {
        self.0.take(0)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        self.0.take(0)?;
        while sequence.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.0.take(0)?;
        while map.next_key_seed(self)?.is_some() {
            map.next_value_seed(self)?;
        }
        Ok(())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<(), A::Error> {
        self.0.take(0)?;
        let ((), content) = tagged.variant_seed(self)?;
        content.newtype_variant_seed(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_aliases_repeat_counts_as_often_as_it_is_repeated() {
        let long = "x".repeat(1 << 20);
        let within = format!("a: &a {long}\nb: [{}]\n", ["*a"; 6].join(", "));
        assert!(parse(&within).is_ok());
        let above = format!("a: &a {long}\nb: [{}]\n", ["*a"; 8].join(", "));
        assert!(matches!(parse(&above), Err(Refusal::TooMuch)));
        let merged = format!("a: &a {{ k: {long} }}\nb:\n{}", "- <<: *a\n".repeat(100_000));
        assert!(matches!(parse(&merged), Err(Refusal::TooMuch)));
        let tagged = format!("a: &a !x {long}\nb: [{}]\n", ["*a"; 1_000].join(", "));
        assert!(matches!(parse(&tagged), Err(Refusal::TooMuch)));
    }

    #[test]
    fn too_many_values_are_refused_and_ordinary_mistakes_are_the_librarys_to_tell() {
        assert!(matches!(parse(&"- a\n".repeat(MAX_VALUES)), Err(Refusal::TooMuch)));
        assert!(matches!(parse("a: 1\na: 2\n"), Err(Refusal::Yaml(_))));
        assert!(matches!(parse("a: [\n"), Err(Refusal::Yaml(_))));
        assert!(matches!(parse("*a"), Err(Refusal::Yaml(_))));
    }
}
