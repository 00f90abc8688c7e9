//! Variables: the values from the command line, or the defaults.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Lowering, at, types, unevaluated};
use crate::domain::diagnostic::{Code, Diagnostic, did_you_mean, is_full};

impl Lowering<'_> {
    pub(super) fn vars(
        &mut self,
        manifest: &types::Campaign,
        given: &BTreeMap<String, Value>,
    ) -> BTreeMap<String, Value> {
        let is_scalar = |value: &Value| value.is_string() || value.is_number() || value.is_boolean();
        for (name, value) in given.iter().filter(|(_, value)| !is_scalar(value)) {
            let kind = if value.is_null() { "nothing" } else { "a list or a mapping" };
            self.found.push(
                Diagnostic::error(Code::WrongVarType, format!("the value of variable `{name}` is {kind}"))
                    .hint("a variable is a text, a number, or true or false"),
            );
            if is_full(&self.found) {
                break;
            }
        }
        let mut vars = BTreeMap::new();
        for (name, var) in &manifest.vars {
            let default = var.default.as_ref().map(|scalar| &scalar.0);
            match (given.get(name), default) {
                (Some(value), default) => match converted(value, default) {
                    Some(value) => drop(vars.insert(name.clone(), value)),
                    None => self.error(
                        &at(&["vars", name]),
                        Code::WrongVarType,
                        format!("the value given for variable `{name}` has another type than its default"),
                        "give a value of the same type: a number, `true` or `false`, or text",
                    ),
                },
                (None, Some(value)) => drop(vars.insert(name.clone(), value.clone())),
                (None, None) => {
                    self.error(
                        &at(&["vars", name]),
                        Code::MissingVar,
                        format!("variable `{name}` has no default, and no value was given"),
                        format!("pass `--var {name}=…`"),
                    );
                }
            }
        }
        for (name, value) in given {
            if let Some(opener) = value.as_str().and_then(unevaluated::opener) {
                self.found.push(unevaluated::problem(&format!("--var {name}"), opener));
            }
        }
        for name in given.keys().filter(|name| !manifest.vars.contains_key(*name)) {
            if is_full(&self.found) {
                break;
            }
            let near = did_you_mean(name, manifest.vars.keys().map(String::as_str));
            self.found.push(
                Diagnostic::error(Code::UnknownVar, format!("the campaign has no variable `{name}`"))
                    .maybe_hint(near.map(|near| format!("did you mean `{near}`?"))),
            );
        }
        vars
    }
}

/// A value from the command line in the type of the default.
fn converted(value: &Value, default: Option<&Value>) -> Option<Value> {
    match (value, default) {
        (Value::String(text), Some(Value::Number(_))) => text
            .parse::<i64>()
            .map(Value::from)
            .ok()
            .or_else(|| text.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Value::Number)),
        (Value::String(text), Some(Value::Bool(_))) => text.parse::<bool>().map(Value::from).ok(),
        (value, Some(Value::String(_))) if !value.is_string() => Some(Value::String(value.to_string())),
        (value, _) => Some(value.clone()),
    }
}
