//! What pipelines read: each JSON output fits its published schema, and what cannot be written is an error.

use std::fs::OpenOptions;

use serde_json::Value;

use crate::support::{Project, Sandbox, output};

/// Checks a document against `schema/KIND.schema.json`.
fn fits(kind: &str, document: &Value) {
    let path = format!("{}/schema/{kind}.schema.json", env!("CARGO_MANIFEST_DIR"));
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let validator = jsonschema::options().offline().should_validate_formats(true).build(&schema).unwrap();
    let wrong: Vec<_> = validator.iter_errors(document).map(|error| error.to_string()).collect();
    assert!(wrong.is_empty(), "{kind}: {wrong:?}\n{document:#}");
}

#[test]
fn each_json_output_fits_its_published_schema() {
    // One recipient is accepted, one unknown.
    let sandbox = Sandbox::start(&["--fault", "500-after=+919876543211"]);
    let project = Project::with_sandbox(&sandbox);
    let json = |arguments: &[&str]| output(&mut project.command(&[arguments, &["--format", "json"]].concat()));
    fits("validate", &json(&["validate", "campaign.yaml"]).expect(0).json());
    fits("plan", &json(&["plan", "campaign.yaml", "--list-blocked"]).expect(0).json());
    fits("status", &json(&["status", "campaign.yaml"]).expect(0).json());
    project.apply(&[]).expect(7);
    fits("status", &json(&["status", "campaign.yaml"]).expect(0).json());
    fits("status", &json(&["status", "nothing-of-this-name"]).expect(0).json());
    fits("status", &json(&["status"]).expect(0).json());
    fits("sends-list", &json(&["sends", "list", "test-offer"]).expect(0).json());
    let unknown = json(&["sends", "list", "campaign.yaml", "--state", "unknown"]).expect(0).json();
    assert!(unknown["sends"][0]["row"].is_string(), "{unknown:#}");
    fits("sends-list", &unknown);
    let send = unknown["sends"][0]["send"].as_str().unwrap();
    let decide = ["resolve", send, "--as", "accepted", "--reason", "in the report"];
    fits("resolve", &json(&decide).expect(0).json());
    fits("resolve", &json(&["resolve", send, "--as", "rejected", "--reason", "x", "--force"]).expect(1).json());
    fits("sends-show", &json(&["sends", "show", send]).expect(0).json());
    fits("ledger-check", &json(&["ledger", "check"]).expect(0).json());
    let export = project.run(&["ledger", "export"]).expect(0).stdout;
    let lines: Vec<Value> = export.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.iter().for_each(|line| fits("ledger-export", line));
    assert_eq!(
        (&lines[0]["type"], &lines[1]["type"], &lines[2]["type"]),
        (&"ledger".into(), &"run".into(), &"entry".into())
    );
    // A document that does not fit is noticed.
    let schema: Value = serde_json::from_str(&project.run(&["schema", "status"]).expect(0).stdout).unwrap();
    assert!(!jsonschema::options().offline().build(&schema).unwrap().is_valid(&serde_json::json!({ "campaigns": [] })));
}

#[test]
fn an_invalid_manifest_fits_the_schema_of_findings() {
    let project = Project::new();
    project.campaign(&[("phone: mobile", "phon: mobile")]);
    let found = project.run(&["validate", "campaign.yaml", "--format", "json"]).expect(3).json();
    fits("validate", &found);
    assert_eq!(found["valid"], false);
}

/// A full disk: `plan --format json > plan.json` used to exit with 0.
#[test]
fn data_that_cannot_be_written_is_an_error() {
    let project = Project::new();
    project.run(&["apply", "campaign.yaml", "--sandbox", "--auto-approve"]).expect(0);
    for arguments in [
        &["plan", "campaign.yaml", "--format", "json"][..],
        &["plan", "campaign.yaml"],
        &["plan", "campaign.yaml", "--detailed-exitcode"],
        &["preview", "campaign.yaml"],
        &["validate", "campaign.yaml", "--format", "json"],
        &["validate", "campaign.yaml", "--format", "sarif"],
        &["status", "--sandbox"],
        &["status", "--sandbox", "--format", "json"],
        &["sends", "list", "--sandbox"],
        &["sends", "list", "--sandbox", "--format", "json"],
        &["ledger", "check", "--sandbox"],
        &["ledger", "export", "--sandbox"],
        &["ledger", "unlock", "--sandbox"],
        &["schema"],
        &["completions", "bash"],
        &["--help"],
        &["--version"],
    ] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let refused = output(project.command(arguments).stdout(full));
        assert_eq!(refused.code, 1, "{arguments:?}: {}", refused.stderr);
        assert!(refused.stderr.contains("error[cannot-write]: cannot write to standard output"), "{}", refused.stderr);
    }
}

/// `plan | head -1` has seen enough; what the plan found still decides how it exits, and `--out` is written.
#[test]
fn a_reader_that_closes_the_pipe_is_no_error() {
    let project = Project::new();
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    let plan = ["plan", "campaign.yaml", "--detailed-exitcode", "--out", "plan.json"];
    let planned = output(project.command(&plan).stdout(closed()));
    assert!(!planned.stderr.contains("error"), "{}", planned.stderr);
    assert_eq!(planned.code, 2, "{}", planned.stderr);
    assert!(project.path().join("plan.json").exists());
    project.run(&["apply", "campaign.yaml", "--sandbox", "--auto-approve"]).expect(0);
    let exported = output(project.command(&["ledger", "export", "--sandbox"]).stdout(closed()));
    assert_eq!((exported.code, exported.stderr.as_str()), (0, ""));
}

/// `apply --plan FIFO` used to wait for a writer, and a huge file used to be read whole.
#[test]
fn a_plan_that_is_a_pipe_or_a_device_is_refused() {
    let project = Project::new();
    crate::support::pipe(&project.path().join("plan.pipe"));
    for plan in ["plan.pipe", "/dev/zero", "."] {
        let refused = project.run(&["apply", "--plan", plan]).expect(3);
        assert!(refused.stderr.contains("error[invalid-plan-file]"), "{plan}: {}", refused.stderr);
    }
}

#[test]
fn the_causes_of_an_error_are_shown_with_v() {
    let project = Project::new();
    let arguments = ["plan", "campaign.yaml", "--format", "json", "-v"];
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let refused = output(project.command(&arguments).stdout(full));
    assert!(refused.stderr.contains("caused by: No space left on device"), "{}", refused.stderr);
}
