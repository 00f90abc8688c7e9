//! Whose record it is: campaigns that are renamed, named alike, moved to another host, changed after they were sent, or
//! planned without their record; and rows that get no message.

use std::collections::HashMap;

use serde_json::Value;

use crate::support::{CAMPAIGN, Project, Sandbox, output, postgres};

/// A project that sends to a sandbox process, on each kind of ledger.
fn on_each_ledger(check: impl Fn(Project, Sandbox)) {
    for database in [false, true] {
        let sandbox = Sandbox::start(&[]);
        let mut project = Project::with_sandbox(&sandbox);
        if database {
            project.on_postgres(&postgres::shared().database());
        }
        check(project, sandbox);
    }
}

/// How many messages each number got, at most.
fn most_for_one(sandbox: &Sandbox) -> usize {
    let mut by_number: HashMap<String, usize> = HashMap::new();
    for message in sandbox.messages() {
        *by_number.entry(message["to"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    by_number.into_values().max().unwrap_or(0)
}

fn people(project: &Project, numbers: std::ops::Range<u64>) {
    let rows: String = numbers.map(|number| format!("98{number:08},Person {number}\n")).collect();
    project.people(&format!("mobile,first_name\n{rows}"));
}

#[test]
fn a_renamed_campaign_that_one_test_person_got_is_not_sent_to_everybody_again() {
    on_each_ledger(|project, sandbox| {
        people(&project, 0..60);
        project.apply(&[]).expect(0);
        let renamed = ("name: test-offer", "name: new-name");
        project.campaign(&[renamed]);
        // One new person under the new name, which gives it a record.
        people(&project, 1_000..1_001);
        project.apply(&[]).expect(0);
        // The same audience, twice the audience, and another parameter of the URL.
        people(&project, 0..60);
        let refused = project.apply(&[]).expect(1);
        assert!(
            refused.stderr.contains("60 of 60 recipients had the same message from the campaign `test-offer`"),
            "{}",
            refused.stderr
        );
        assert!(refused.stderr.contains("moved: { from: test-offer }"), "{}", refused.stderr);
        people(&project, 0..1_000);
        let plan = project.plan_json();
        assert_eq!(
            (&plan["repeats"]["people"], &plan["repeats"]["of"], &plan["repeats"]["need_permission"]),
            (&Value::from(60), &Value::from(1_000), &Value::from(true))
        );
        project.apply(&[]).expect(1);
        // `moved` comes too late now, so the way out is the old name, and not `--allow-repeat`.
        project.campaign(&[("name: test-offer", "name: new-name\nmoved: { from: test-offer }")]);
        let refused = project.apply(&[]).expect(3);
        assert!(refused.stderr.contains("call this one `test-offer` again"), "{}", refused.stderr);
        project.campaign(&[]);
        people(&project, 0..60);
        project.apply(&[]).expect(0);
        assert_eq!((sandbox.messages().len(), most_for_one(&sandbox)), (61, 1));
    });
}

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
    people(&project, 0..20);
    project.apply(&[]).expect(0);
    project.campaign(&[("name: test-offer", "name: second-offer")]);
    people(&project, 0..100);
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
    people(&project, 0..10);
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
fn a_trial_through_a_server_on_this_machine_does_not_count_for_the_real_campaign() {
    on_each_ledger(|project, sandbox| {
        project.apply(&[]).expect(0);
        let real = CAMPAIGN.replace("base_url: BASE_URL", "domain: in");
        project.write("campaign.yaml", &real);
        for arguments in [&["plan", "campaign.yaml"][..], &["apply", "campaign.yaml", "--auto-approve"]] {
            let refused = project.run(arguments).expect(1);
            assert!(
                refused.stderr.contains(
                    "belongs to a server on this machine (loopback), and this plan sends through `api.in.kaleyra.io`"
                ),
                "{}",
                refused.stderr
            );
            assert!(!refused.stdout.contains("nobody gets it twice"), "{}", refused.stdout);
        }
        // A person may say that the provider moved; another edition is another record.
        let moved = project.run(&["plan", "campaign.yaml", "--gateway-moved"]).expect(0).stdout;
        assert!(moved.contains("sent                3"), "{moved}");
        project.write("campaign.yaml", real.replace("name: test-offer", "name: test-offer\nedition: 2"));
        assert_eq!(project.plan_json()["counts"]["send"], 3);
        // Back at the first host nothing has changed.
        project.campaign(&[]);
        project.apply(&[]).expect(0);
        assert_eq!(sandbox.messages().len(), 3);
    });
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
fn another_sender_or_account_under_the_same_name_is_refused() {
    on_each_ledger(|project, sandbox| {
        project.apply(&[]).expect(0);
        project.people("mobile,first_name\n9876543213,Dev\n");
        project.campaign(&[("+919900112233", "+919900114455")]);
        for command in ["plan", "apply"] {
            let refused = project.run(&[command, "campaign.yaml"]).expect(1);
            assert!(
                refused.stderr.contains("from the number ending 2233, and this is from the number ending 4455"),
                "{}",
                refused.stderr
            );
        }
        // The account is known once its SID is read: not in the plan, but before anything is sent.
        project.campaign(&[]);
        let apply = ["apply", "campaign.yaml", "--auto-approve"];
        let refused = output(project.command(&apply).env("KALEYRA_SID", "HXOTHER")).expect(1);
        assert!(refused.stderr.contains("sent before from the account "), "{}", refused.stderr);
        assert!(!refused.stderr.contains("HX"), "{}", refused.stderr);
        assert_eq!(sandbox.messages().len(), 3);
        project.apply(&[]).expect(0);
        assert_eq!(sandbox.messages().len(), 4);
    });
}

#[test]
fn nothing_to_send_says_so_if_people_have_other_content() {
    on_each_ledger(|project, sandbox| {
        project.apply(&[]).expect(0);
        let same = project.apply(&[]).expect(0);
        assert!(same.stderr.contains("Nothing to send\n"), "{}", same.stderr);
        project.campaign(&[("HELLO25", "HELLO26")]);
        project.people("mobile,first_name\n9876543210,Asha\n9876543211,Ravi\n");
        let plan = project.plan_json();
        assert_eq!((&plan["counts"]["sent"], &plan["counts"]["drifted"]), (&Value::from(0), &Value::from(2)));
        let drifted = project.apply(&[]).expect(0);
        assert!(
            drifted.stderr.contains("Nothing to send: 2 people already have this campaign with other content"),
            "{}",
            drifted.stderr
        );
        assert!(drifted.stdout.contains("drifted             2  sent with other content"), "{}", drifted.stdout);
        // Who is not affected by a change is not counted.
        project.campaign(&[("default('there')", "default('there') | replace('Asha', 'A')")]);
        let plan = project.plan_json();
        assert_eq!((&plan["counts"]["sent"], &plan["counts"]["drifted"]), (&Value::from(1), &Value::from(1)));
        assert_eq!(sandbox.messages().len(), 3);
    });
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
    // A database that answers is a ledger, even before its first run.
    let mut project = Project::new();
    project.on_postgres(&postgres::shared().database());
    let empty = output(project.command(&plan).env("CI", "true")).expect(0);
    assert!(empty.stderr.contains("holds no record yet"), "{}", empty.stderr);
    project.environment[0].1 = "postgres://sendform@127.0.0.1:9/none".to_owned();
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
