//! Coupons and expiry.

use std::collections::{HashMap, HashSet};

use crate::support::{Project, Sandbox};

const CODE: &str = "coupons: { code: HELLO25 }";
const AT: &str = "at: \"2099-12-31T23:59:59\", timezone: Asia/Kolkata";

fn codes(sandbox: &Sandbox) -> HashMap<String, String> {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    sandbox.messages().iter().map(|message| (text(&message["to"]), text(&message["coupon_code"]))).collect()
}

#[test]
fn a_pool_gives_each_recipient_one_code_for_ever() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.campaign(&[(CODE, "coupons: { pool: { csv: codes.csv, column: code } }")]);
    project.write("codes.csv", "id,code\n1,A1\n2,A2\n3,A3\n4,A4\n");
    project.apply(&[]).expect(0);
    let first = codes(&sandbox);
    assert_eq!(first["+919876543210"], "A1");
    assert_eq!(first["+919876543212"], "A3");
    // Another campaign gets what is left, and is told by how much it is too little.
    project.campaign(&[
        (CODE, "coupons: { pool: { csv: codes.csv, column: code } }"),
        ("name: test-offer", "name: second-offer"),
    ]);
    let output = project.run(&["plan", "campaign.yaml"]).expect(3);
    assert!(output.stderr.contains("the pool lacks 2 codes: it has 1 free, and 3 are needed"), "{}", output.stderr);
    project.write("codes.csv", "id,code\n1,A1\n2,A2\n3,A3\n4,A4\n5,A5\n6,A6\n");
    project.apply(&["--allow-repeat"]).expect(0);
    let all: HashSet<_> = sandbox.accepted("coupon_code").into_iter().collect();
    assert_eq!(all.len(), 6);
}

#[test]
fn who_has_the_offer_already_takes_no_code_from_those_who_have_not() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.people("mobile,first_name\n9800000002,B\n");
    project.apply(&[]).expect(0);
    project.crowd(5, &[]);
    project.apply(&[]).expect(0);
    let codes = codes(&sandbox);
    let of = |person: u32| codes[&format!("+9198{person:08}")].as_str();
    assert_eq!([0, 1, 2, 3, 4].map(of), ["CODE0", "CODE1", "HELLO25", "CODE2", "CODE3"]);
}

#[test]
fn generated_codes_stay_the_recipients_own() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.campaign(&[(CODE, "coupons: { generate: { prefix: DI, length: 8 } }")]);
    let before = project.plan_json()["hash"].clone();
    assert_eq!(before, project.plan_json()["hash"]);
    project.people("mobile,first_name\n9876543212,Meera\n9876543210,Asha\n9876543211,Ravi\n");
    assert_eq!(before, project.plan_json()["hash"], "the order of rows changed somebody's code");
    project.apply(&[]).expect(0);
    assert_eq!(before, project.plan_json()["hash"], "sending changed the plan");
    let codes = codes(&sandbox);
    assert_eq!(codes.values().collect::<HashSet<_>>().len(), 3);
    assert!(codes.values().all(|code| code.starts_with("DI") && code.len() == 10));
}

#[test]
fn generated_codes_do_not_collide_and_too_few_are_told() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    // 3^4 = 81 codes for 60 people: many first candidates collide.
    project.campaign(&[(CODE, "coupons: { generate: { alphabet: ABC, length: 4 } }")]);
    let rows = |people: u32| (0..people).map(|row| format!("98{row:08},A\n")).collect::<String>();
    project.people(&format!("mobile,first_name\n{}", rows(60)));
    project.apply(&[]).expect(0);
    assert_eq!(sandbox.accepted("coupon_code").into_iter().collect::<HashSet<_>>().len(), 60);
    project.people(&format!("mobile,first_name\n{}", rows(100)));
    let output = project.run(&["plan", "campaign.yaml"]).expect(3);
    assert!(output.stderr.contains("different codes"), "{}", output.stderr);
}

#[test]
fn the_end_is_an_absolute_instant_on_the_wire() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.apply(&[]).expect(0);
    // 2099-12-31T23:59:59 in Kolkata is 18:29:59 in UTC.
    assert!(sandbox.messages().iter().all(|message| message["expiration_time_ms"] == 4_102_424_999_000_i64));
    assert!(sandbox.messages().iter().all(|message| message["expiry_ambiguous"] == false));
}

#[test]
fn a_setting_sends_the_duration_instead() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.campaign(&[
        (AT, "after: 14d"),
        ("    from: \"+919900112233\"", "    from: \"+919900112233\"\n    expiry_encoding: duration"),
    ]);
    project.apply(&[]).expect(0);
    for message in sandbox.messages() {
        let milliseconds = message["expiration_time_ms"].as_i64().unwrap();
        assert!((1_209_500_000..=1_209_600_000).contains(&milliseconds), "{milliseconds}");
    }
}

#[test]
fn an_offer_must_still_run_when_the_last_message_leaves() {
    let project = Project::new();
    project.campaign(&[(AT, "after: 2h, at_least: 90m"), ("rate: 2000/s", "rate: 3/h")]);
    let output = project.run(&["plan", "campaign.yaml"]).expect(3);
    assert!(output.stderr.contains("when the last message leaves"), "{}", output.stderr);
    project.campaign(&[(AT, "after: 30m")]);
    let output = project.run(&["plan", "campaign.yaml"]).expect(3);
    assert!(output.stderr.contains("cannot run for another 1 hour"), "{}", output.stderr);
    project.campaign(&[(AT, "after: 30m, at_least: 5m")]);
    project.run(&["plan", "campaign.yaml"]).expect(0);
}

#[test]
fn a_template_without_timer_sends_none() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.campaign(&[
        ("has_expiration: true", "has_expiration: false"),
        ("expiry: { at: \"2099-12-31T23:59:59\", timezone: Asia/Kolkata }\n", ""),
    ]);
    project.apply(&[]).expect(0);
    assert!(sandbox.messages().iter().all(|message| message["expiration_time_ms"].is_null()));
}
