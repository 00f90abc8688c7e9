//! The record: single sends, decisions, export.

use serde_json::Value;

use super::project;
use crate::support::{Project, Sandbox};

/// A project with three people, one of whom ends unknown, and that one's send key.
fn one_unknown() -> (Project, Sandbox, String) {
    // The answer for the second one is lost after it was accepted.
    let sandbox = Sandbox::start(&["--fault", "reset-after=+919876543211"]);
    let project = project(&sandbox);
    project.apply(&[]).expect(7);
    let list = project.run(&["sends", "list", "--state", "unknown", "--format", "json"]).expect(0).json();
    assert_eq!(list["found"], 1, "{list}");
    let send = list["sends"][0]["send"].as_str().unwrap().to_owned();
    assert_eq!(list["sends"][0]["to"], "+91••••••••11");
    (project, sandbox, send)
}

#[test]
fn a_decision_settles_a_doubt_and_is_recorded() {
    let (project, sandbox, send) = one_unknown();
    let output =
        project.run(&["resolve", &send, "--as", "accepted", "--reason", "in the console", "--actor", "asha"]).expect(0);
    assert!(output.stdout.contains("settled: accepted"), "{}", output.stdout);
    let counts = project.counts();
    assert_eq!((counts.accepted, counts.unknown), (3, 0));
    project.apply(&[]).expect(0);
    assert_eq!(sandbox.messages().len(), 3);
    let shown = project.run(&["sends", "show", &send]).expect(0).stdout;
    for told in
        ["attempt 1  intent", "unknown", "decision of asha", "in the console", "run 1 of test-offer", "plan v2:"]
    {
        assert!(shown.contains(told), "{told}: {shown}");
    }
    // It overrules nothing.
    let output = project.run(&["resolve", &send, "--as", "not-sent", "--reason", "changed my mind"]).expect(1);
    assert!(output.stdout.contains("refused: the outcome is known: accepted"), "{}", output.stdout);
    project.run(&["resolve", &"0".repeat(32), "--as", "accepted", "--reason", "x"]).expect(1);
    project.run(&["resolve", "nonsense", "--as", "accepted", "--reason", "x"]).expect(64);
    project.run(&["resolve", &send, "--as", "accepted", "--reason", " "]).expect(64);
    project.run(&["ledger", "check"]).expect(0);
}

#[test]
fn decisions_come_from_a_reviewed_file() {
    let (project, _sandbox, send) = one_unknown();
    let file = project.run(&["sends", "list", "--state", "unknown", "--format", "decisions"]).expect(0).stdout;
    assert!(file.contains(&send) && file.contains("kind: Decisions"), "{file}");
    // As it is printed nothing is decided yet.
    project.write("decisions.yaml", &file);
    let output = project.run(&["resolve", "--file", "decisions.yaml"]).expect(3);
    assert!(output.stderr.contains("decisions.yaml:"), "{}", output.stderr);
    let filled = file.replace("as: #", "as: rejected #").replace("reason: \"\"", "reason: the report of 23 November");
    project.write("decisions.yaml", &filled);
    let early = project.run(&["resolve", "--file", "decisions.yaml"]).expect(1);
    assert!(early.stderr.contains("may still come"), "{}", early.stderr);
    let output = project.run(&["resolve", "--file", "decisions.yaml", "--force", "--format", "json"]).expect(0).json();
    assert_eq!((&output["settled"], &output["refused"]), (&Value::from(1), &Value::from(0)));
    // Again: it says the same already. Twice the same send, a wrong word, no reason: refused whole.
    project.run(&["resolve", "--file", "decisions.yaml"]).expect(0);
    let counts = project.counts();
    assert_eq!((counts.accepted, counts.rejected, counts.unknown), (2, 1, 0));
    for (old, new) in [
        ("as: rejected", "as: lost"),
        ("reason: the report of 23 November", "reason: \" \""),
        ("attempt: 1", "attmept: 1"),
    ] {
        project.write("decisions.yaml", filled.replace(old, new));
        project.run(&["resolve", "--file", "decisions.yaml"]).expect(3);
    }
    project.write("decisions.yaml", filled.replace("attempt: 1", "attempt: 2"));
    let output = project.run(&["resolve", "--file", "decisions.yaml"]).expect(1);
    assert!(output.stdout.contains("the last attempt is 1"), "{}", output.stdout);
}

#[test]
fn the_record_is_exported_as_lines_without_numbers_or_codes() {
    let (project, _sandbox, _send) = one_unknown();
    let export = project.run(&["ledger", "export"]).expect(0).stdout;
    let lines: Vec<Value> = export.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| lines.iter().filter(|line| line["type"] == kind).count();
    assert_eq!((of("ledger"), of("run"), of("entry")), (1, 1, 6));
    assert!(!export.contains("9876543") && !export.contains("HELLO25"), "{export}");
    let full = project.run(&["ledger", "export", "--full"]).expect(0).stdout;
    assert!(full.contains("HELLO25") && !full.contains("9876543"));
}

#[test]
fn nobody_holds_a_ledger_that_is_not_in_use() {
    let (project, _sandbox, _send) = one_unknown();
    let output = project.run(&["ledger", "unlock"]).expect(0);
    assert!(output.stdout.contains("nobody holds the ledger"), "{}", output.stdout);
    project.run(&["ledger", "unlock", "--run", "1"]).expect(0);
    let nothing = Project::new();
    for command in [
        &["ledger", "check"][..],
        &["sends", "list"],
        &["resolve", &"0".repeat(32), "--as", "accepted", "--reason", "x"],
    ] {
        let output = nothing.run(command).expect(1);
        assert!(output.stderr.contains("there is no ledger at"), "{}", output.stderr);
    }
}
