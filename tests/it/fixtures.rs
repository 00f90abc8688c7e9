//! Manifests in `tests/fixtures`: each in `invalid` shows the diagnostic that it is named after, each in
//! `valid` is planned; both are held against the JSON Schema that editors use.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sendform::domain::diagnostic::Code;

use crate::support::snapshot::{check, stable};
use crate::support::{Project, copy_directory};

/// Codes that no single manifest with small files brings about: what does, and which test holds it.
const ELSEWHERE: &[(&str, &[&str])] = &[
    (
        "commands, ledgers and runs: outputs.rs, ledger_files.rs, record.rs and others",
        &[
            "account-refused",
            "answer-may-come",
            "campaign-mismatch",
            "cannot-confirm",
            "cannot-write",
            "code-taken",
            "decision-refused",
            "expiry-too-close",
            "failure-limit",
            "inputs-changed",
            "internal",
            "invalid-ledger-head",
            "invalid-ledger-key",
            "invalid-ledger-url",
            "invalid-lost-send",
            "invalid-plan-file",
            "invalid-plan-hash",
            "invalid-send-key",
            "is-a-database",
            "ledger-another",
            "ledger-changed",
            "ledger-damaged",
            "ledger-exists",
            "ledger-fenced",
            "ledger-forgot-sends",
            "ledger-held",
            "ledger-key-missing",
            "ledger-missing",
            "ledger-moved",
            "ledger-not-durable",
            "ledger-on-ephemeral-disk",
            "ledger-refused",
            "ledger-storage",
            "ledger-too-new",
            "ledger-unreachable",
            "mixed-answers",
            "moved-campaign-recorded",
            "no-such-send",
            "not-a-ledger",
            "not-confirmed",
            "nothing-recorded",
            "outcomes-lost",
            "outcomes-not-recorded",
            "plan-mismatch",
            "provider-unreachable",
            "recipient-blocked",
            "recipient-not-found",
            "repeated-message",
            "sandbox-failed",
            "secret-unavailable",
            "too-many-failures",
            "too-many-unknown",
            "undecided-outcomes",
            "usage",
            "would-overwrite",
            "wrong-ledger-key",
        ],
    ),
    (
        "other files than a manifest: manifest.rs, data_files.rs, record.rs, which_ledger.rs",
        &[
            "ambiguous-file",
            "duplicate-campaign-name",
            "duplicate-decision",
            "invalid-project-file",
            "invalid-var-file",
            "missing-attempt",
            "missing-reason",
            "no-campaign-found",
            "no-decision",
            "schema-mismatch",
            "two-projects",
            "unreadable-data-dir",
            "wrong-var-type",
        ],
    ),
    (
        "large files: hardening.rs, slow/hostile_files.rs, unit tests",
        &["csv-row-too-long", "csv-too-many-columns", "csv-unreadable", "file-too-large", "too-many-files"],
    ),
    // A plan prints it as a warning without its code; the fixture shows it.
    ("the plan's warnings", &["suppression-matches-nobody"]),
];

fn fixtures(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(kind)
}

/// The manifests of a directory, by name without `.yaml`. A `NAME.block.yaml` belongs to another manifest.
fn manifests(kind: &str) -> BTreeSet<String> {
    std::fs::read_dir(fixtures(kind))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().unwrap().strip_suffix(".yaml").map(str::to_owned))
        .filter(|name| !name.ends_with(".block"))
        .collect()
}

/// A project with the files of a directory.
fn project(kind: &str) -> Project {
    let mut project = Project::empty();
    copy_directory(&fixtures(kind), project.path());
    project.write("sendform.yaml", "");
    project.environment = vec![("SENDFORM_KEY", "5a".repeat(32))];
    project
}

/// What `validate` says of each, and `plan` where that finds nothing.
#[test]
fn each_invalid_manifest_shows_its_diagnostic() {
    let project = project("invalid");
    for name in manifests("invalid") {
        let file = format!("{name}.yaml");
        let validated = project.run(&["validate", &file]);
        let (told, code) = if validated.stderr.contains("error[") || validated.stderr.contains("warning[") {
            (validated.stderr, validated.code)
        } else {
            let planned = project.run(&["plan", &file]);
            (planned.stdout + &planned.stderr, planned.code)
        };
        let in_plan = name == "suppression-matches-nobody" && told.contains("warning: nobody in the audience");
        let found = ["error", "warning"].iter().any(|severity| told.contains(&format!("{severity}[{name}]")));
        assert!(found || in_plan, "{file} does not show `{name}`:\n{told}");
        check(&format!("invalid_{name}"), &format!("[exit code {code}]\n{}", stable(&project, &told)));
    }
}

#[test]
fn each_code_has_a_fixture_or_is_told_elsewhere() {
    let fixtures = manifests("invalid");
    let elsewhere: BTreeSet<&str> = ELSEWHERE.iter().flat_map(|(_, codes)| codes.iter().copied()).collect();
    let codes: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    for code in &codes {
        assert!(
            fixtures.contains(*code) || elsewhere.contains(code),
            "`{code}` needs `tests/fixtures/invalid/{code}.yaml`"
        );
    }
    let stale: Vec<_> = elsewhere.iter().filter(|code| !codes.contains(*code)).collect();
    assert!(stale.is_empty(), "there are no such codes: {stale:?}");
    let both: Vec<_> =
        elsewhere.iter().filter(|code| fixtures.contains(**code) && **code != "suppression-matches-nobody").collect();
    assert!(both.is_empty(), "these have a fixture now: {both:?}");
}

#[test]
fn each_valid_manifest_is_validated_and_planned() {
    let project = project("valid");
    let all = manifests("valid");
    assert!(all.len() >= 5, "{all:?}");
    for name in all {
        let file = format!("{name}.yaml");
        project.run(&["validate", &file]).expect(0);
        let plan = project.run(&["plan", &file, "--list-blocked"]).expect(0);
        check(&format!("valid_{name}"), &stable(&project, &(plan.stdout + &plan.stderr)));
    }
}

/// The schema by itself knows no other files, no expressions and no dates, so it refuses some of the invalid ones.
#[test]
fn the_schema_accepts_what_is_valid_and_refuses_what_it_can() {
    let schema: serde_json::Value = serde_json::from_str(include_str!("../../schema/campaign.schema.json")).unwrap();
    let validator = jsonschema::options().offline().build(&schema).unwrap();
    let accepts = |kind: &str, name: &str| -> Option<bool> {
        let text = std::fs::read(fixtures(kind).join(format!("{name}.yaml"))).unwrap();
        let value: serde_json::Value = serde_yaml::from_slice(&text).ok()?;
        Some(validator.is_valid(&value))
    };
    for name in manifests("valid") {
        assert_eq!(accepts("valid", &name), Some(true), "{name}");
    }
    let mut told = String::new();
    for (heading, wanted) in
        [("refused by the schema", Some(false)), ("accepted by the schema", Some(true)), ("no JSON value", None)]
    {
        told += &format!("{heading}:\n");
        for name in manifests("invalid").iter().filter(|name| accepts("invalid", name) == wanted) {
            told += &format!("  {name}\n");
        }
    }
    check("schema_against_invalid_manifests", &told);
}
