//! The JSON Schemas of the files that people and pipelines write and read. `sendform schema KIND` prints them, and
//! `schema/` holds a copy of each.

use serde_json::Value;

use crate::manifest::schema::{self, of};
use crate::plan::PlanFile;
use crate::project::ProjectFile;

/// The kinds of files that have a schema.
pub const KINDS: [&str; 10] =
    ["campaign", "project", "gateway", "template", "audience", "coupons", "expiry", "delivery", "plan", "decisions"];

/// The schema of one kind of file; `None` for an unknown kind.
pub fn get(kind: &str) -> Option<Value> {
    match kind {
        "project" => Some(of::<ProjectFile>()),
        "plan" => Some(of::<PlanFile>()),
        kind => schema::for_editors(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_schema() {
        assert!(KINDS.iter().all(|kind| get(kind).is_some()));
        assert_eq!(get("letter"), None);
    }
}
