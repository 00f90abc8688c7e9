//! Expressions in fields that nobody evaluates.
//!
//! An expression in such a field would reach customers as it stands: `{{ vars.code }}` as a coupon code.
//! So every text of the manifest is checked, by a walk over the whole document: a field that is added
//! later is covered unless it is listed here.

use serde_json::Value;

use crate::domain::diagnostic::{Code, Diagnostic};
use crate::manifest::read::Document;
use crate::manifest::source::{Pointer, Step};

/// What starts an expression, a statement or a comment of a template.
const OPENERS: [&str; 3] = ["{{", "{%", "{#"];

/// What stands for any key or position in the lists below.
const ANY: &str = "*";

/// The fields whose expressions are evaluated.
const EVALUATED: [&[&str]; 6] = [
    &["templates", ANY, "header", "image", "url"],
    &["templates", ANY, "header", "video", "url"],
    &["templates", ANY, "body", "params", ANY],
    &["templates", ANY, "url_button", "param"],
    &["audience", "where"],
    &["audience", "template"],
];

/// The fields that hold a text as WhatsApp approved it, with `{{1}}`, `{{2}}`… in it. The checks of
/// templates refuse anything else in double braces.
const APPROVED: [&[&str]; 2] = [&["templates", ANY, "body", "text"], &["templates", ANY, "url_button", "url"]];

/// The fields that hold the words of a command. The command may have a template language of its own,
/// such as `kubectl --output go-template={{.data.key}}`.
const COMMANDS: [&[&str]; 2] =
    [&["gateway", "kaleyra", "sid", "exec", ANY], &["gateway", "kaleyra", "api_key", "exec", ANY]];

/// Which openers a field may not hold.
fn refused(pointer: &Pointer) -> &'static [&'static str] {
    let listed = |list: &[&[&str]]| list.iter().any(|pattern| matches(pattern, pointer));
    if listed(&EVALUATED) || listed(&COMMANDS) {
        &[]
    } else if listed(&APPROVED) {
        // What is approved may hold `{#`, and `{{1}}` is what it is for.
        &OPENERS[1..2]
    } else {
        &OPENERS
    }
}

fn matches(pattern: &[&str], pointer: &Pointer) -> bool {
    pattern.len() == pointer.0.len()
        && pattern.iter().zip(&pointer.0).all(|(pattern, step)| match step {
            Step::Key(key) => *pattern == ANY || pattern == key,
            Step::Index(_) => *pattern == ANY,
        })
}

/// The opener of an expression in a text that is not evaluated.
pub(crate) fn opener(text: &str) -> Option<&'static str> {
    OPENERS.into_iter().find(|opener| text.contains(opener))
}

/// What is said of an expression in `name`, where nothing evaluates it.
pub(crate) fn problem(name: &str, opener: &str) -> Diagnostic {
    Diagnostic::error(
        Code::NotEvaluated,
        format!(
            "`{name}` holds `{opener}`, but expressions are not evaluated there: customers would see it as it stands"
        ),
    )
    .hint(
        "write the value itself; expressions are evaluated in a header's `url`, `body.params`, `url_button.param`, \
         `audience.where` and `audience.template`",
    )
}

/// Finds the expressions in fields that are not evaluated, at most `most` of them.
pub(crate) fn find(document: &Document, most: usize) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    walk(&document.value, &mut Pointer::root(), &mut |pointer, text| {
        if found.len() < most
            && let Some(opener) = refused(pointer).iter().find(|opener| text.contains(**opener))
        {
            let problem = problem(&pointer.to_string(), opener);
            found.push(Diagnostic { location: document.sources.value(pointer), ..problem });
        }
    });
    found
}

/// Visits every text of a document with its pointer.
fn walk(value: &Value, pointer: &mut Pointer, visit: &mut dyn FnMut(&Pointer, &str)) {
    let mut inside = |step: Step, value: &Value| {
        pointer.0.push(step);
        walk(value, pointer, visit);
        pointer.0.pop();
    };
    match value {
        Value::String(text) => visit(pointer, text),
        Value::Array(items) => items.iter().enumerate().for_each(|(index, item)| inside(Step::Index(index), item)),
        Value::Object(map) => map.iter().for_each(|(key, value)| inside(Step::Key(key.clone()), value)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::manifest::source::SourceMap;

    fn found_in(value: Value) -> Vec<String> {
        let document = Document { value, sources: SourceMap::default() };
        find(&document, 100).into_iter().map(|finding| finding.message).collect()
    }

    /// The pointers of every text field of a schema, `*` for any key or position.
    fn texts(schema: &Value, node: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
        if let Some(reference) = node["$ref"].as_str() {
            return texts(schema, schema.pointer(reference.trim_start_matches('#')).unwrap(), path, found);
        }
        let kinds = match &node["type"] {
            Value::String(one) => vec![one.as_str()],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        // Where only fixed words are allowed, nothing else gets through.
        if kinds.contains(&"string") && node.get("enum").is_none() && node.get("const").is_none() {
            found.push(path.clone());
        }
        for alternative in ["oneOf", "anyOf", "allOf"] {
            for branch in node[alternative].as_array().into_iter().flatten() {
                texts(schema, branch, path, found);
            }
        }
        let mut inside = |step: &str, node: &Value| {
            path.push(step.to_owned());
            texts(schema, node, path, found);
            path.pop();
        };
        for (key, node) in node["properties"].as_object().into_iter().flatten() {
            inside(key, node);
        }
        for any in ["items", "additionalProperties"] {
            if node[any].is_object() {
                inside(ANY, &node[any]);
            }
        }
    }

    /// A document that holds one text, at a pointer.
    fn with_text(path: &[String], text: &str) -> Value {
        path.iter().rev().fold(Value::from(text), |inner, step| match step.as_str() {
            // A list or a mapping: the walk treats both alike.
            ANY => json!([inner]),
            key => json!({ key: inner }),
        })
    }

    #[test]
    fn every_text_field_of_the_schema_is_evaluated_or_refuses_an_expression() {
        let schema = crate::manifest::schema::for_editors("campaign").unwrap();
        let mut fields = Vec::new();
        texts(&schema, &schema, &mut Vec::new(), &mut fields);
        fields.retain(|field| field.last().is_some_and(|last| last != "use"));
        fields.sort();
        fields.dedup();
        assert!(fields.len() > 40, "{fields:?}");
        let lists: [&[&[&str]]; 3] = [&EVALUATED, &APPROVED, &COMMANDS];
        let mut listed = 0;
        for field in &fields {
            let is_in = |list: &[&[&str]]| list.iter().any(|pattern| field.iter().eq(pattern.iter()));
            let excepted = lists.iter().any(|list| is_in(list));
            listed += usize::from(excepted);
            for opener in OPENERS {
                let found = found_in(with_text(field, &format!("a {opener} x")));
                let refused = !excepted || (opener == "{%" && is_in(&APPROVED));
                assert_eq!(found.len(), usize::from(refused), "{field:?} with {opener}: {found:?}");
            }
        }
        assert_eq!(listed, lists.iter().map(|list| list.len()).sum::<usize>(), "a listed field is not in the schema");
    }

    #[test]
    fn the_field_is_named() {
        let found = found_in(json!({ "coupons": { "code": "{{vars.c}}" } }));
        assert!(found[0].starts_with("`coupons.code` holds `{{`"), "{found:?}");
    }
}
