//! The plan: what it shows, what it hides, what it hashes.

use crate::support::{Project, Sandbox};

#[test]
fn a_plan_holds_no_number_no_code_no_name_and_no_key() {
    let project = Project::new();
    project.run(&["plan", "campaign.yaml", "--out", "plan.json"]).expect(0);
    let text = project.run(&["plan", "campaign.yaml", "--list-blocked"]).expect(0).stdout;
    let file = std::fs::read_to_string(project.path().join("plan.json")).unwrap();
    for plan in [text, file] {
        for secret in ["9876543210", "HELLO25", "Asha", "sandbox-key", "HXSANDBOX"] {
            assert!(!plan.contains(secret), "`{secret}` is in the plan");
        }
        assert!(plan.contains("+91••••••••10"));
    }
    // Planning records nothing.
    assert!(!project.path().join(".sendform").exists());
}

#[test]
fn the_hash_is_the_same_before_during_and_after() {
    let sandbox = Sandbox::start(&["--fault", "500-after=+919876543211"]);
    let project = Project::with_sandbox(&sandbox);
    project.campaign(&[("coupons: { code: HELLO25 }", "coupons: { pool: { csv: codes.csv } }")]);
    project.write("codes.csv", "code\nA1\nA2\nA3\nA4\n");
    let hash = project.plan_json()["hash"].clone();
    project.run(&["apply", "campaign.yaml", "--plan-hash", hash.as_str().unwrap()]).expect(7);
    assert_eq!(project.plan_json()["hash"], hash);
    project.run(&["apply", "campaign.yaml", "--plan-hash", hash.as_str().unwrap()]).expect(7);
}

#[test]
fn the_hash_changes_with_what_is_sent_and_how_and_only_then() {
    let project = Project::new();
    let base = project.plan_json()["hash"].clone();
    let cases = [
        ("HELLO25", "HELLO26", true),
        ("default('there')", "default('you')", true),
        ("{{ recipient.first_name | default('there') }}", "{{ recipient.first_name }}!", true),
        ("2099-12-31T23:59:59", "2099-12-31T23:59:58", true),
        ("+919900112233", "+919900112234", true),
        ("offer.png", "offer2.png", true),
        ("name: test_offer", "name: other_offer", true),
        ("rate: 2000/s", "rate: 20/s", true),
        ("rate: 2000/s", "rate: 120000/m", false),
        ("csv: people.csv", "csv: ./people.csv", false),
        ("kind: Campaign", "kind: Campaign\n# a comment", false),
        ("kind: Campaign", "kind: Campaign\ndescription: a note", false),
        ("name: test-offer", "name: other-offer", true),
        ("name: test-offer", "name: test-offer\nedition: 2", true),
    ];
    for (old, new, changes) in cases {
        project.campaign(&[(old, new)]);
        assert_eq!(project.plan_json()["hash"] != base, changes, "{old} -> {new}");
    }
}

#[test]
fn exit_codes_and_limits() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.run(&["plan", "campaign.yaml", "--detailed-exitcode"]).expect(2);
    project.apply(&[]).expect(0);
    project.run(&["plan", "campaign.yaml", "--detailed-exitcode"]).expect(0);
    project.campaign(&[("delivery:", "limits: { recipients: 2 }\ndelivery:")]);
    let output = project.run(&["plan", "campaign.yaml"]).expect(6);
    assert!(output.stderr.contains("for 3 recipients, and `limits.recipients` allows 2"), "{}", output.stderr);
    project.apply(&[]).expect(6);
    project.run(&["plan"]).expect(64);
    project.run(&["apply", "campaign.yaml", "--plan", "plan.json"]).expect(64);
}

#[test]
fn json_has_what_is_promised() {
    let plan = Project::new().plan_json();
    assert_eq!(plan["format_version"], "2.0");
    assert_eq!((plan["campaign"].as_str(), plan["edition"].as_u64()), (Some("test-offer"), Some(1)));
    assert!(plan["hash"].as_str().unwrap().starts_with("v2:"));
    for count in ["send", "sent", "deferred", "blocked", "unknown"] {
        assert!(plan["counts"][count].is_u64(), "{count}");
    }
    assert_eq!(plan["samples"].as_array().unwrap().len(), 3);
    let schema: serde_json::Value = serde_json::from_str(include_str!("../../schema/plan.schema.json")).unwrap();
    assert!(jsonschema::options().offline().build(&schema).unwrap().is_valid(&plan));
}

#[test]
fn nothing_needs_colour_and_80_columns_are_enough() {
    let text = Project::new().run(&["plan", "campaign.yaml"]).expect(0).stdout;
    assert!(!text.contains('\u{1b}'));
    for line in text.lines().filter(|line| !line.starts_with("Plan hash")) {
        assert!(line.chars().count() <= 80, "{line}");
        assert_eq!(line, line.trim_end(), "white space at the end");
    }
}

#[test]
fn a_number_in_the_united_states_is_warned_of_and_one_in_canada_is_not() {
    let project = Project::new();
    project.people("mobile,first_name\n+12025550142,A\n+14165550142,B\n");
    let warnings = project.plan_json()["warnings"].clone();
    assert!(
        warnings[0].as_str().unwrap().starts_with("1 numbers are in the United States")
            || warnings[0].as_str().unwrap().starts_with("1 number is"),
        "{warnings}"
    );
}
