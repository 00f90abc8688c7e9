//! Whose record it is: campaigns that are renamed, named alike, moved to another host, changed after they were sent, or
//! planned without their record; and rows that get no message.

use serde_json::Value;

use crate::support::{Project, Sandbox, output};

#[test]
fn another_parameter_of_the_url_does_not_hide_a_renamed_campaign() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    let with_parameter = |name: &str, parameter: &str| {
        project.campaign(&[
            ("name: test-offer", name),
            (
                "url: \"https://shop.example.com/offer\"",
                &format!("url: \"https://shop.example.com/{{{{1}}}}\", param: \"{parameter}\""),
            ),
        ]);
    };
    with_parameter("name: test-offer", "?utm=november");
    project.apply(&[]).expect(0);
    with_parameter("name: other-offer", "?utm=december");
    let refused = project.apply(&[]).expect(1);
    assert!(refused.stderr.contains("3 of 3 recipients had the same message"), "{}", refused.stderr);
    assert_eq!(sandbox.messages().len(), 3);
    project.apply(&["--allow-repeat"]).expect(0);
    assert_eq!(sandbox.messages().len(), 6);
}

#[test]
fn a_few_people_who_had_the_same_words_are_shown_and_written_to() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.numbered(0..20);
    project.apply(&[]).expect(0);
    project.campaign(&[("name: test-offer", "name: second-offer")]);
    project.numbered(0..100);
    let plan = project.run(&["plan", "campaign.yaml"]).expect(0).stdout;
    assert!(plan.contains("20 of 100 recipients had the same message from the campaign `test-offer`"), "{plan}");
    assert!(!plan.contains("--allow-repeat"), "{plan}");
    project.apply(&[]).expect(0);
    assert_eq!(sandbox.messages().len(), 120);
    // Other words are no repeat, and neither is another edition of the same campaign.
    project.campaign(&[
        ("name: test-offer", "name: third-offer"),
        ("Hi {{1}}.", "Hi {{1}}, {{2}}."),
        ("default('there') }}\"", "default('there') }}\", \"welcome back\""),
    ]);
    assert_eq!(project.plan_json()["repeats"], Value::Null);
    project.campaign(&[("name: test-offer", "name: test-offer\nedition: 2")]);
    project.numbered(0..10);
    // The second offer's people count, and not those of the first edition.
    assert_eq!(project.plan_json()["repeats"]["campaign"], "second-offer");
}

#[test]
fn messages_that_provably_did_not_arrive_are_no_repeat() {
    let server = crate::support::recorder::Recorder::start(|_| {
        (400, r#"{"code":"E13001","message":"x","data":[],"error":{"to":"invalid number"}}"#.to_owned())
    });
    let mut project = Project::new();
    project.base_url = server.url();
    project.campaign(&[]);
    project.apply(&[]).expect(5);
    project.campaign(&[("name: test-offer", "name: other-offer")]);
    assert_eq!(project.plan_json()["repeats"], Value::Null);
}

#[test]
fn two_campaigns_of_one_name_are_found_before_the_second_reaches_nobody() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.write("sendform.yaml", "");
    let text = std::fs::read_to_string(project.path().join("campaign.yaml")).unwrap();
    std::fs::remove_file(project.path().join("campaign.yaml")).unwrap();
    let people = std::fs::read(project.path().join("people.csv")).unwrap();
    for directory in ["diwali", "winter"] {
        project.write(&format!("{directory}/campaign.yaml"), &text);
        project.write(&format!("{directory}/people.csv"), &people);
    }
    // Within the project each of them is enough to find both.
    for paths in [&["."][..], &["diwali/campaign.yaml"], &["diwali/campaign.yaml", "winter/campaign.yaml"]] {
        let found = project.run(&[&["validate"], paths].concat()).expect(3);
        assert!(
            found.stderr.contains("`diwali/campaign.yaml` and `winter/campaign.yaml` are both called `test-offer`"),
            "{}",
            found.stderr
        );
    }
    project.run(&["apply", "diwali/campaign.yaml", "--auto-approve"]).expect(0);
    for arguments in [&["plan", "winter/campaign.yaml"][..], &["apply", "winter/campaign.yaml", "--auto-approve"]] {
        let refused = project.run(arguments).expect(1);
        assert!(
            refused.stderr.contains("sent before from `diwali/campaign.yaml`, and this is `winter/campaign.yaml`"),
            "{}",
            refused.stderr
        );
        assert!(!refused.stderr.contains("Nothing to send"), "{}", refused.stderr);
    }
    // The same file through another path is the same campaign.
    std::os::unix::fs::symlink("diwali", project.path().join("link")).unwrap();
    project.run(&["plan", "link/campaign.yaml"]).expect(0);
    project.run(&["plan", "./diwali/../diwali/campaign.yaml"]).expect(0);
    project.run(&["plan", "winter/campaign.yaml", "--allow-same-name"]).expect(0);
    project.write("winter/campaign.yaml", text.replace("name: test-offer", "name: winter"));
    project.run(&["validate", "."]).expect(0);
    project.run(&["plan", "winter/campaign.yaml"]).expect(0);
    let nothing = project.run(&["validate", "sendform.yaml/.."]);
    assert_eq!(nothing.code, 3, "{}", nothing.stderr);
}

#[test]
fn a_plan_in_a_pipeline_that_reaches_no_ledger_is_refused() {
    let project = Project::new();
    let plan = ["plan", "campaign.yaml"];
    for (name, value) in [
        ("CI", "true"),
        ("TF_BUILD", "True"),
        ("JENKINS_URL", "https://jenkins.example.com"),
        ("CODEBUILD_BUILD_ID", "a:1"),
        ("TEAMCITY_VERSION", "2026.1"),
    ] {
        let refused = output(project.command(&plan).env(name, value)).expect(3);
        assert!(refused.stderr.contains("there is no ledger at `.sendform/ledger.db`"), "{}", refused.stderr);
        assert!(refused.stderr.contains(&format!("`{name}` is set")), "{}", refused.stderr);
        assert!(refused.stderr.contains("SENDFORM_LEDGER"), "{}", refused.stderr);
    }
    for (name, value) in [("CI", "false"), ("CI", "0"), ("CI", "")] {
        let shown = output(project.command(&plan).env(name, value)).expect(0);
        assert!(shown.stdout.contains("Record    none yet"), "{}", shown.stdout);
    }
    let meant = output(project.command(&plan).arg("--no-ledger").env("CI", "true")).expect(0);
    assert!(meant.stdout.contains("Record    none yet"), "{}", meant.stdout);
    output(project.command(&plan).arg("--sandbox").env("CI", "true")).expect(0);
    let mut project = Project::new();
    project.on_postgres("postgres://sendform@127.0.0.1:9/none");
    let unreachable = output(project.command(&plan).env("CI", "true"));
    assert_eq!(unreachable.code, 1, "{}", unreachable.stderr);
}

#[test]
fn a_plan_without_a_ledger_knows_nobody_and_makes_nothing() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.apply(&[]).expect(0);
    let plan = project.run(&["plan", "campaign.yaml", "--no-ledger", "--format", "json"]).expect(0).json();
    assert_eq!((&plan["counts"]["send"], &plan["compared_with_ledger"]), (&Value::from(3), &Value::from(false)));
    let project = Project::new();
    project.campaign(&[("coupons: { code: HELLO25 }", "coupons: { generate: { length: 8 } }")]);
    let refused = project.run(&["plan", "campaign.yaml", "--no-ledger"]).expect(3);
    assert!(refused.stderr.contains("SENDFORM_KEY"), "{}", refused.stderr);
    assert!(!project.path().join(".sendform").exists());
}

#[test]
fn nobody_left_is_said_first_and_is_no_error() {
    let project = Project::new();
    project.campaign(&[("default_region: IN", "default_region: IN\n  where: recipient.first_name == 'Nobody'")]);
    let plan = project.run(&["plan", "campaign.yaml"]).expect(0).stdout;
    assert!(plan.starts_with("Nobody is left to write to: all 3 rows are blocked\n"), "{plan}");
    project.run(&["plan", "campaign.yaml", "--detailed-exitcode"]).expect(0);
    let apply = project.apply(&["--sandbox"]).expect(0);
    assert!(apply.stdout.starts_with("Nobody is left"), "{}", apply.stdout);
    let some = Project::new().run(&["plan", "campaign.yaml"]).expect(0).stdout;
    assert!(!some.contains("Nobody is left"), "{some}");
}

#[test]
fn preview_says_that_a_row_is_blocked_and_why_or_that_there_is_none() {
    let project = Project::new();
    project.people("mobile,first_name,id\n9876543210,Asha,a1\n9876543211,Ravi,a2\n12,Meera,a3\n9876543210,Asha,a4\n");
    project.write("stop.csv", "mobile\n9876543211\n");
    project.campaign(&[("default_region: IN", "default_region: IN\n  id: id\n  suppress: [{ csv: stop.csv }]")]);
    for (wanted, words) in [
        ("a2", "`people.csv:3` is blocked: suppressed"),
        ("people.csv:3", "`people.csv:3` is blocked: suppressed"),
        ("a3", "`people.csv:4` is blocked: invalid_number"),
        ("a4", "`people.csv:5` is blocked: duplicate"),
        ("a9", "no row has `a9` in the column `id`"),
        ("people.csv:99", "there is no row at `people.csv:99`"),
    ] {
        let refused = project.run(&["preview", "campaign.yaml", "--recipient", wanted]).expect(3);
        assert!(refused.stderr.contains(words), "{wanted}: {}", refused.stderr);
    }
    for wanted in ["a1", "people.csv:2"] {
        let shown = project.run(&["preview", "campaign.yaml", "--recipient", wanted]).expect(0).stdout;
        assert!(shown.starts_with("+91••••••••10, people.csv:2"), "{shown}");
    }
    project.campaign(&[]);
    let refused = project.run(&["preview", "campaign.yaml", "--recipient", "a1"]).expect(3);
    assert!(refused.stderr.contains("set `audience.id`"), "{}", refused.stderr);
}

#[test]
fn an_id_that_stands_at_two_numbers_is_warned_of() {
    let project = Project::new();
    let id = ("default_region: IN", "default_region: IN\n  id: id");
    project.campaign(&[id]);
    project.people("mobile,first_name,id\n9876543210,A,1\n9876543211,B,1\n9876543212,C,2\n9876543213,D,2\n9876543214,E,3\n9876543215,F,\n9876543216,G,\n");
    let warnings = project.plan_json()["warnings"].clone();
    assert!(
        warnings[0].as_str().unwrap().starts_with("2 values of the column `id` stand at more than one number"),
        "{warnings}"
    );
    // Two rows of one number are a duplicate, and no second number.
    project.people("mobile,first_name,id\n9876543210,A,1\n09876543210,A,1\n9876543212,C,2\n");
    assert_eq!(project.plan_json()["warnings"], serde_json::json!([]));
}
