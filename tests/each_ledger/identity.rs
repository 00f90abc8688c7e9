//! Whose record it is: campaigns that are renamed, moved to another host, or changed after they were sent.

use std::collections::HashMap;

use serde_json::Value;

use super::project;
use crate::support::{CAMPAIGN, Sandbox, output};

/// How many messages each number got, at most.
fn most_for_one(sandbox: &Sandbox) -> usize {
    let mut by_number: HashMap<String, usize> = HashMap::new();
    for message in sandbox.messages() {
        *by_number.entry(message["to"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    by_number.into_values().max().unwrap_or(0)
}

#[test]
fn a_renamed_campaign_that_one_test_person_got_is_not_sent_to_everybody_again() {
    let sandbox = Sandbox::start(&[]);
    let project = project(&sandbox);
    project.numbered(0..60);
    project.apply(&[]).expect(0);
    let renamed = ("name: test-offer", "name: new-name");
    project.campaign(&[renamed]);
    // One new person under the new name, which gives it a record.
    project.numbered(1_000..1_001);
    project.apply(&[]).expect(0);
    // The same audience, twice the audience, and another parameter of the URL.
    project.numbered(0..60);
    let refused = project.apply(&[]).expect(1);
    assert!(
        refused.stderr.contains("60 of 60 recipients had the same message from the campaign `test-offer`"),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains("moved: { from: test-offer }"), "{}", refused.stderr);
    project.numbered(0..1_000);
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
    project.numbered(0..60);
    project.apply(&[]).expect(0);
    assert_eq!((sandbox.messages().len(), most_for_one(&sandbox)), (61, 1));
}

#[test]
fn a_trial_through_a_server_on_this_machine_does_not_count_for_the_real_campaign() {
    let sandbox = Sandbox::start(&[]);
    let project = project(&sandbox);
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
}

#[test]
fn another_sender_or_account_under_the_same_name_is_refused() {
    let sandbox = Sandbox::start(&[]);
    let project = project(&sandbox);
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
}

#[test]
fn nothing_to_send_says_so_if_people_have_other_content() {
    let sandbox = Sandbox::start(&[]);
    let project = project(&sandbox);
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
}
