//! Who is written to, and why others are not.

use crate::support::{Project, Sandbox};

#[test]
fn every_row_left_out_is_counted_and_listed_with_its_line() {
    let project = Project::new();
    project.write("out.csv", "number\n+91 98765 43219\n\n");
    project.campaign(&[(
        "default_region: IN",
        "default_region: IN\n  where: recipient.consent != 'no'\n  suppress: [{ csv: out.csv }]",
    )]);
    project.people(
        "mobile,first_name,consent\n9876543210,A,yes\n098765 43210,B,yes\n,C,yes\nn/a,D,yes\n9876543219,E,yes\n9876543211,F,no\n9.87654E+09,G,yes\n+541123456789,H,yes\n+5491123456789,I,yes\n",
    );
    let plan = project.run(&["plan", "campaign.yaml", "--format", "json", "--list-blocked"]).expect(0).json();
    assert_eq!(
        plan["counts"],
        serde_json::json!({ "send": 2, "sent": 0, "drifted": 0, "deferred": 0, "blocked": 7, "unknown": 0 })
    );
    assert_eq!(
        plan["blocked_reasons"],
        serde_json::json!({ "duplicate": 1, "filtered": 1, "invalid_number": 2, "missing_number": 1, "possible_duplicate": 1, "suppressed": 1 })
    );
    assert_eq!(plan["rows"], 9);
    let lines: Vec<(u64, &str)> = plan["blocked"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["line"].as_u64().unwrap(), row["reason"].as_str().unwrap()))
        .collect();
    assert_eq!(
        lines,
        [
            (3, "duplicate"),
            (4, "missing_number"),
            (5, "invalid_number"),
            (6, "suppressed"),
            (7, "filtered"),
            (8, "invalid_number"),
            (10, "possible_duplicate")
        ]
    );
    assert!(plan["warnings"][0].as_str().unwrap().contains("Argentine"));
}

#[test]
fn files_come_with_a_mark_with_crlf_quotes_and_any_delimiter() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.campaign(&[
        ("csv: people.csv", "csv: people.csv, delimiter: \";\""),
        ("phone: mobile", "phone: Mobile No."),
        ("recipient.first_name", "recipient['First name']"),
    ]);
    project.people("\u{feff}Mobile No.;First name\r\n\"98765 43210\";\"Lakshmi; \"\"Dr.\"\"\"\r\n9876543211; Ravi \r\n9876543212;\r\n");
    project.apply(&[]).expect(0);
    let names: Vec<_> =
        sandbox.messages().iter().map(|message| message["params"][0].as_str().unwrap().to_owned()).collect();
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(sorted, ["Lakshmi; \"Dr.\"", "Ravi", "there"]);
}

#[test]
fn an_empty_cell_without_a_default_blocks_its_row_alone() {
    let project = Project::new();
    project.campaign(&[(" | default('there')", "")]);
    project.people("mobile,first_name\n9876543210,Asha\n9876543211,\n9876543212,Meera Five     spaces\n");
    let plan = project.run(&["plan", "campaign.yaml", "--list-blocked"]).expect(0).stdout;
    assert!(plan.contains("uses `first_name`, which is empty in this row"), "{plan}");
    assert!(plan.contains("more than four consecutive spaces"), "{plan}");
    assert!(!plan.contains("Meera"), "a name is in the plan");
}

#[test]
fn a_suppression_list_that_cannot_be_read_stops_everything() {
    let project = Project::new();
    project.campaign(&[("default_region: IN", "default_region: IN\n  suppress: [{ csv: out.csv }]")]);
    let output = project.run(&["plan", "campaign.yaml"]).expect(3);
    assert!(output.stderr.contains("there is no file"), "{}", output.stderr);
    project.write("out.csv", "number\n9876543210\nAsha\n");
    let output = project.run(&["plan", "campaign.yaml"]).expect(3);
    assert!(output.stderr.contains("out.csv:3") && output.stderr.contains("invalid: skip"), "{}", output.stderr);
    project.campaign(&[("default_region: IN", "default_region: IN\n  suppress: [{ csv: out.csv, invalid: skip }]")]);
    assert_eq!(project.plan_json()["counts"]["send"], 2);
}

#[test]
fn templates_are_chosen_by_row_and_an_unknown_choice_blocks_it() {
    let project = Project::new();
    project.campaign(&[("default_region: IN", "default_region: IN\n  template: \"{{ recipient.lang }}\"")]);
    project.people("mobile,first_name,lang\n9876543210,Asha,en\n9876543211,Ravi,hi\n");
    let plan = project.plan_json();
    assert_eq!(plan["templates"], serde_json::json!({ "en": 1 }));
    assert_eq!(plan["blocked_reasons"]["unknown_template"], 1);
}
