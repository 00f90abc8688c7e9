//! The people behind unknown sends.

use super::project;
use crate::support::{Output, Project, Sandbox};

/// A campaign whose second and third person end unknown.
pub fn two_unknown() -> (Sandbox, Project) {
    let faults = ["--fault", "500-after=+919876543211", "--fault", "500-after=+919876543212"];
    let sandbox = Sandbox::start(&faults);
    let project = project(&sandbox);
    project.apply(&[]).expect(7);
    (sandbox, project)
}

fn list(project: &Project, more: &[&str]) -> Output {
    project.run(&[&["sends", "list", "campaign.yaml", "--state", "unknown"], more].concat()).expect(0)
}

#[test]
fn unknown_sends_are_found_in_the_audience() {
    let (_sandbox, project) = two_unknown();
    let text = list(&project, &[]);
    let lines: Vec<&str> = text.stdout.lines().collect();
    assert!(lines.len() == 2 && text.stderr.is_empty(), "{text:?}");
    for (end, row) in [("11", "people.csv:3"), ("12", "people.csv:4")] {
        let line = lines.iter().find(|line| line.contains(&format!("••{end} "))).unwrap();
        assert!(line.contains(&format!(" test-offer  {row}  ")), "{line}");
    }
    // Rows move, other files come first, numbers are written otherwise; one person is gone.
    project.write("more.csv", "mobile,first_name\n+91 98765-43219,Dev\n098765 43212,Meera\n");
    project.people("mobile,first_name\n9876543212,Meera again\n9876543210,Asha\n");
    project.campaign(&[
        ("{ csv: people.csv }", "{ csv: more.csv }, { csv: people.csv }"),
        // The offer is over, and what an expression reads is gone: what was sent can be looked up.
        ("2099-12-31T23:59:59", "2020-12-31T23:59:59"),
        ("recipient.first_name", "recipient.nickname"),
    ]);
    project.run(&["validate", "campaign.yaml"]).expect(3);
    let sends = list(&project, &["--format", "json"]).json()["sends"].clone();
    let row = |end: &str| {
        let send = sends.as_array().unwrap().iter().find(|send| send["to"].as_str().unwrap().ends_with(end));
        send.unwrap().as_object().unwrap().get("row").cloned()
    };
    assert_eq!((row("12"), row("11")), (Some("more.csv:3".into()), Some(serde_json::Value::Null)), "{sends}");
    assert!(list(&project, &[]).stdout.contains("test-offer  no longer in the audience  "));
    let decisions = list(&project, &["--format", "decisions"]).stdout;
    assert!(decisions.contains("12 of test-offer, more.csv:3, 20"), "{decisions}");
    assert!(decisions.contains("11 of test-offer, no longer in the audience, 20"), "{decisions}");
    // Renamed, and not sent since.
    project.campaign(&[("name: test-offer", "name: new-name\nmoved: { from: test-offer }")]);
    assert_eq!(list(&project, &["--format", "json"]).json()["found"], 2);
    let filled = decisions.replace("as: #", "as: rejected #").replace("reason: \"\"", "reason: the report");
    project.write("decisions.yaml", filled);
    project.run(&["resolve", "--file", "decisions.yaml", "--force"]).expect(0);
}

#[test]
fn nobody_is_called_gone_while_a_part_of_the_audience_cannot_be_read() {
    let (_sandbox, project) = two_unknown();
    let mut broken = b"mobile,first_name\n9876543210,Asha\n98765\xff43219,X\n9876543212,Meera\n".to_vec();
    broken.extend(b"1,2,3,4\n");
    project.write("people.csv", broken);
    let text = list(&project, &[]);
    assert!(text.stdout.contains("people.csv:4") && text.stdout.contains("row not found"), "{text:?}");
    assert!(text.stderr.contains("not all of the audience could be read"), "{}", text.stderr);
    assert!(!text.stdout.contains("no longer in the audience"), "{}", text.stdout);
    std::fs::remove_file(project.path().join("people.csv")).unwrap();
    let text = list(&project, &[]);
    assert!(text.stderr.contains("there is no file `people.csv`"), "{}", text.stderr);
    assert_eq!(text.stdout.matches("row not found").count(), 2, "{}", text.stdout);
}
