//! Whether a file is a manifest, or a block of one, before anything of it is shown.
//!
//! Findings quote the line that they point at. A path in a manifest may name any file of the project, such
//! as one with passwords, so a file whose keys are mostly not those of the place that it is used in gets one
//! finding, without a word of its content.

use serde_json::Value;
use serde_yaml::Value as Yaml;

use super::source::{Pointer, Step};
use crate::domain::diagnostic::did_you_mean;

/// The blocks of a campaign that may stand in a file of their own, besides each template.
const BLOCKS: [&str; 8] = ["gateway", "vars", "templates", "audience", "coupons", "expiry", "delivery", "limits"];

/// What every version of the format begins with. A file that names one is a manifest, whatever else it holds.
const VERSIONS: &str = "sendform/";

/// Whether `use:` may stand at a place: for a block or a template.
pub(super) fn may_be_used(at: &Pointer) -> bool {
    match at.0.as_slice() {
        [Step::Key(block)] => BLOCKS.contains(&block.as_str()),
        [Step::Key(block), Step::Key(_)] => block == "templates",
        _ => false,
    }
}

/// The keys that a place of a manifest has.
pub(super) struct Keys<'a> {
    names: Vec<&'a str>,
    /// Whether these are the keys of each entry of a mapping whose own keys are free.
    of_entries: bool,
}

impl<'a> Keys<'a> {
    /// The keys at a place, by the schema.
    pub(super) fn at(schema: &'a Value, at: &Pointer) -> Self {
        let mut nodes = unfold(schema, vec![schema]);
        for step in &at.0 {
            let inner = nodes.iter().filter_map(|node| match step {
                Step::Key(key) => node["properties"].get(key).or_else(|| node.get("additionalProperties")),
                Step::Index(_) => node.get("items"),
            });
            nodes = unfold(schema, inner.filter(|inner| inner.is_object()).collect());
        }
        let names = names(&nodes);
        if !names.is_empty() {
            return Self { names, of_entries: false };
        }
        let entries =
            nodes.iter().filter_map(|node| node.get("additionalProperties")).filter(|entry| entry.is_object());
        Self { names: self::names(&unfold(schema, entries.collect())), of_entries: true }
    }

    /// Whether a file's value is what belongs here: a mapping with more known keys than others.
    pub(super) fn fit(&self, value: &Yaml) -> bool {
        let Yaml::Mapping(entries) = value else { return false };
        if entries.get("apiVersion").and_then(Yaml::as_str).is_some_and(|version| version.starts_with(VERSIONS)) {
            return true;
        }
        let (mut known, mut unknown) = (0, 0);
        let mut count = |key: &Yaml| match key.as_str() {
            Some(key) if self.knows(key) => known += 1,
            _ => unknown += 1,
        };
        for (key, entry) in entries {
            match entry {
                Yaml::Mapping(inner) if self.of_entries => inner.keys().for_each(&mut count),
                _ => count(key),
            }
        }
        known > unknown || known + unknown == 0
    }

    fn knows(&self, key: &str) -> bool {
        key == "use" || did_you_mean(key, self.names.iter().copied()).is_some()
    }

    /// The keys, for a hint.
    pub(super) fn list(&self) -> String {
        self.names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    }
}

/// Whether a text that is not valid YAML was meant as a manifest: more of its lines start with a key of a
/// manifest than with another one.
pub(super) fn fits_text(schema: &Value, text: &str) -> bool {
    let mut names = vec!["use"];
    collect_names(schema, &mut names);
    let (mut known, mut unknown) = (0, 0);
    for line in text.lines() {
        if line.strip_prefix("apiVersion:").is_some_and(|rest| rest.trim_start().starts_with(VERSIONS)) {
            return true;
        }
        let line = line.trim_start_matches([' ', '\t', '-', '{', '[', '"', '\'']);
        let end = line.find(|other: char| !other.is_alphanumeric() && !"_-.".contains(other)).unwrap_or(line.len());
        let behind = line[end..].trim_start_matches(['"', '\'']);
        let is_key = end > 0
            && behind.strip_prefix(':').is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        match is_key {
            true if names.contains(&&line[..end]) => known += 1,
            true => unknown += 1,
            false => {}
        }
    }
    known > unknown
}

/// Each node with what it refers to and its alternatives.
fn unfold<'a>(schema: &'a Value, nodes: Vec<&'a Value>) -> Vec<&'a Value> {
    let mut all = nodes;
    let mut next = 0;
    while let Some(node) = all.get(next).copied() {
        let reference = node["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
        let alternatives = ["oneOf", "anyOf", "allOf"].iter().filter_map(|kind| node[kind].as_array()).flatten();
        for inner in reference.and_then(|pointer| schema.pointer(pointer)).into_iter().chain(alternatives) {
            if !all.iter().any(|seen| std::ptr::eq(*seen, inner)) {
                all.push(inner);
            }
        }
        next += 1;
    }
    all
}

fn names<'a>(nodes: &[&'a Value]) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for name in nodes.iter().filter_map(|node| node["properties"].as_object()).flat_map(|properties| properties.keys())
    {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names
}

fn collect_names<'a>(schema: &'a Value, names: &mut Vec<&'a str>) {
    match schema {
        Value::Object(map) => {
            if let Some(properties) = map.get("properties").and_then(Value::as_object) {
                names.extend(properties.keys().map(String::as_str));
            }
            map.values().for_each(|inner| collect_names(inner, names));
        }
        Value::Array(items) => items.iter().for_each(|inner| collect_names(inner, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::schema;

    fn fits(at: &[&str], text: &str) -> bool {
        let at = Pointer(at.iter().map(|key| Step::from(*key)).collect());
        Keys::at(schema::campaign(), &at).fit(&serde_yaml::from_str(text).unwrap())
    }

    #[test]
    fn a_block_is_known_by_its_keys_and_other_files_are_not_taken_for_one() {
        for (at, text) in [
            (&[][..], "apiVersion: sendform/v1\nkind: Campaign\nname: x\n"),
            (&[], "apiVersion: sendform/v1\na: 1\nb: 2\nc: 3\n"),
            (&["gateway"], "kaleyra: { domain: in }"),
            (&["coupons"], "pool: { csv: a.csv }"),
            (&["coupons"], "code: A"),
            (&["audience"], "sources: []\nphone: mobile\ndefualt_region: IN\n"),
            (&["vars"], "brand: { default: x }\npercent: { default: 3, description: y }"),
            (&["templates"], "en: { name: a, body: {} }"),
            (&["templates"], "en: { use: en.yaml }"),
            (&["templates", "en"], "name: a\noffer: {}\nfooter: x\n"),
            (&["delivery"], "{}"),
        ] {
            assert!(fits(at, text), "{at:?}: {text}");
        }
        for (at, text) in [
            (&[][..], "apiVersion: v1\nkind: Secret\nmetadata: {}\ndata: { password: aHVudGVyMg== }\n"),
            (&[], "[a, b]"),
            (&["gateway"], "db_password: hunter2"),
            (&["vars"], "db_password: hunter2"),
            (&["templates", "en"], "name: x\ntoken: hunter2"),
            (&["coupons"], "hunter2"),
        ] {
            assert!(!fits(at, text), "{at:?}: {text}");
        }
    }

    #[test]
    fn a_broken_text_is_known_by_the_keys_at_its_lines() {
        let schema = schema::campaign();
        assert!(fits_text(schema, "name: x\n\tkind: Campaign\n"));
        assert!(fits_text(schema, "audience:\n  - sources: [\n  phone: mobile\n  strange: 1\n"));
        assert!(!fits_text(schema, "PASSWORD=hunter2\n"));
        assert!(!fits_text(schema, "db_password: 'hunter2\nname: x\nhost: y\n"));
        assert!(!fits_text(schema, ""));
    }
}
