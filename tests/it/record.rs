//! The record: single sends, decisions, figures of runs, integrity, rollback, renames.

use serde_json::Value;

use crate::support::{Project, Sandbox};

#[test]
fn what_was_decided_not_sent_is_sent_under_a_new_attempt() {
    // This one was really not accepted: the connection broke before.
    let sandbox = Sandbox::start(&["--fault", "500-before=+919876543211"]);
    let project = Project::with_sandbox(&sandbox);
    project.apply(&[]).expect(7);
    let list = project.run(&["sends", "list", "test-offer", "--state", "unknown"]).expect(0).stdout;
    let send = list.split_whitespace().next().unwrap().to_owned();
    assert_eq!(project.plan_json()["counts"]["send"], 0);
    // The request may have arrived just now, and its answer may still come.
    let decide = ["resolve", &send, "--as", "not-sent", "--reason", "missing in the report"];
    let early = project.run(&decide).expect(1);
    assert!(early.stderr.contains("may still come: run 1 gave its last sign"), "{}", early.stderr);
    assert_eq!(project.plan_json()["counts"]["unknown"], 1);
    project.run(&[&decide[..], &["--force"]].concat()).expect(0);
    let plan = project.plan_json();
    assert_eq!((&plan["counts"]["send"], &plan["counts"]["unknown"]), (&Value::from(1), &Value::from(0)));
    let healthy = Sandbox::start(&[]);
    project.campaign(&[(sandbox.url.as_str(), healthy.url.as_str())]);
    project.apply(&[]).expect(0);
    assert_eq!(healthy.accepted("to"), ["+919876543211"]);
    assert_eq!(healthy.accepted("ref"), [send.as_str()]);
    let shown = project.run(&["sends", "show", &send, "--format", "json"]).expect(0).json();
    let told: Vec<_> = shown["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["state"].as_str().unwrap(), entry["attempt"].as_u64().unwrap()))
        .collect();
    assert_eq!(told, [("intent", 1), ("unknown", 1), ("not-sent", 1), ("intent", 2), ("accepted", 2)]);
    project.run(&["ledger", "check"]).expect(0);
}

#[test]
fn what_one_person_got_is_found_by_their_number() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.apply(&[]).expect(0);
    project.campaign(
        &[("name: test-offer", "name: other-offer"), ("HELLO25", "HELLO30"), ("template: ", "template: ")][..2],
    );
    project.apply(&["--allow-repeat"]).expect(0);
    let list = project.run(&["sends", "list", "--to", "+919876543211", "--format", "json"]).expect(0).json();
    let campaigns: Vec<_> =
        list["sends"].as_array().unwrap().iter().map(|send| send["campaign"].as_str().unwrap()).collect();
    assert_eq!(campaigns, ["test-offer", "other-offer"]);
    let of_run = project.run(&["sends", "list", "--run", "2", "--format", "json"]).expect(0).json();
    assert_eq!(of_run["found"], 3);
    let none = project.run(&["sends", "list", "--to", "+919876543299"]).expect(0);
    assert!(none.stderr.contains("No sends match"), "{}", none.stderr);
    project.run(&["sends", "list", "--to", "9876543211"]).expect(64);
}

#[test]
fn a_bound_of_the_manifest_stops_the_run() {
    let faults: Vec<String> = (10..40).map(|row| format!("500-after=+9198{:08}", row * 3)).collect();
    let arguments: Vec<&str> = faults.iter().flat_map(|fault| ["--fault", fault.as_str()]).collect();
    let sandbox = Sandbox::start(&arguments);
    let project = Project::with_sandbox(&sandbox);
    project.crowd(600, &[("concurrency: 20 }", "concurrency: 5, stop_when: { unknown: 10%, within: 40 } }")]);
    let output = project.apply(&[]).expect(6);
    assert!(
        output.stderr.contains("of the last 40 sends ended unknown, and `delivery.stop_when` stops at 10%"),
        "{}",
        output.stderr
    );
    let counts = project.counts();
    assert!((4..=12).contains(&counts.unknown) && counts.pending > 400, "{counts:?}");
    project.crowd(600, &[("concurrency: 20 }", "concurrency: 5, stop_when: { unknown: 3, rejected: 500 } }")]);
    let output = project.run(&["validate", "campaign.yaml"]).expect(3);
    assert!(
        output.stderr.contains("`500` can never be reached: only the last 200 sends are counted"),
        "{}",
        output.stderr
    );
    for wrong in ["{ unknown: many }", "{ unknown: 0 }", "{ unknown: 120% }", "{}", "{ unknown: 5, within: 2 }"] {
        project.crowd(600, &[("concurrency: 20 }", &format!("concurrency: 5, stop_when: {wrong} }}"))]);
        project.run(&["validate", "campaign.yaml"]).expect(3);
    }
}

#[test]
fn a_record_that_was_changed_by_hand_is_not_sound() {
    for (what, sql) in [
        ("differs from what the run sealed", "UPDATE journal SET coupon = 'FREE99' WHERE seq = 1"),
        ("differs from what the run sealed", "DELETE FROM journal WHERE seq = (SELECT max(seq) FROM journal)"),
        ("does not follow from the one before", "UPDATE run SET actor = 'nobody', plan_hash = 'v1:00'"),
        ("after nothing", "DELETE FROM journal WHERE kind = 1"),
        ("4 entries lie before the start of their run", "UPDATE run SET first_seq = 5"),
    ] {
        let sandbox = Sandbox::start(&[]);
        let project = Project::with_sandbox(&sandbox);
        project.apply(&[]).expect(0);
        let sound = project.run(&["ledger", "check", "--format", "json"]).expect(0).json();
        assert_eq!((&sound["check"]["sends"], &sound["check"]["entries"]), (&Value::from(3), &Value::from(6)));
        let ledger = rusqlite::Connection::open(project.path().join(".sendform/ledger.db")).unwrap();
        ledger.execute_batch(sql).unwrap();
        // Whoever can change the record can remove its head and the note that there is one.
        ledger.execute("DELETE FROM property WHERE name = 'head_required'", []).unwrap();
        std::fs::remove_file(project.path().join(".sendform/ledger.head")).unwrap();
        let output = project.run(&["ledger", "check"]).expect(1);
        assert!(output.stdout.contains(what), "{what}: {}", output.stdout);
        if sql.contains("first_seq") {
            assert_eq!(project.plan_json()["counts"]["sent"], 3, "the plan has lost somebody");
        }
    }
}

#[test]
fn a_ledger_restored_from_an_old_copy_is_refused() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.people("mobile,first_name\n9876543210,Asha\n");
    let head_of =
        |text: &str| text.lines().rev().find_map(|line| line.strip_prefix("Ledger head ")).unwrap().to_owned();
    let first = head_of(&project.apply(&[]).expect(0).stderr);
    let copy = |from: &str, to: &str| {
        for file in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
            let _ = std::fs::remove_file(project.path().join(to).join(file));
            let _ = std::fs::create_dir_all(project.path().join(to));
            let _ = std::fs::copy(project.path().join(from).join(file), project.path().join(to).join(file));
        }
    };
    copy(".sendform", "backup");
    project.people("mobile,first_name\n9876543210,Asha\n9876543211,Ravi\n");
    let second = head_of(&project.apply(&["--ledger-head", &first]).expect(0).stderr);
    assert_ne!(first, second);
    project.people("mobile,first_name\n9876543210,Asha\n9876543211,Ravi\n9876543212,Meera\n");
    project.run(&["plan", "campaign.yaml", "--out", "plan.json"]).expect(0);
    copy("backup", ".sendform");
    let refused = project.run(&["plan", "campaign.yaml"]).expect(1);
    assert!(refused.stderr.contains("is behind"), "{}", refused.stderr);
    // Without the head beside it, too, until somebody says that it is the right one.
    std::fs::remove_file(project.path().join(".sendform/ledger.head")).unwrap();
    let refused = project.run(&["plan", "campaign.yaml"]).expect(1);
    assert!(refused.stderr.contains("ledger.head` beside it"), "{}", refused.stderr);
    project.run(&["ledger", "adopt"]).expect(0);
    // Then the head that was printed still shows what is missing.
    // The copy has forgotten Ravi.
    assert_eq!(project.plan_json()["counts"]["send"], 2);
    let refused = project.apply(&["--ledger-head", &second]).expect(1);
    assert!(
        refused.stderr.contains("the ledger is behind") && refused.stderr.contains("nothing was sent"),
        "{}",
        refused.stderr
    );
    project.run(&["apply", "--plan", "plan.json"]).expect(1);
    project.run(&["ledger", "check", "--head", &second]).expect(1);
    project.run(&["ledger", "check", "--head", &first]).expect(0);
    project.apply(&["--ledger-head", "7:zz"]).expect(64);
    assert_eq!(sandbox.messages().len(), 2);
    // Another ledger altogether is refused as well.
    let other = project
        .run(&[
            "apply",
            "campaign.yaml",
            "--auto-approve",
            "--ledger",
            "sqlite:other/ledger.db",
            "--ledger-head",
            &first,
        ])
        .expect(1);
    assert!(
        other.stderr.contains("was sent with the ledger") && other.stderr.contains("other/ledger.db"),
        "{}",
        other.stderr
    );
}

#[test]
fn a_renamed_campaign_is_sent_to_nobody_again() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.apply(&[]).expect(0);
    // Without `moved` it says so loudly, and does not send.
    project.campaign(&[("name: test-offer", "name: new-name"), ("HELLO25", "HELLO26")]);
    let plan = project.run(&["plan", "campaign.yaml"]).expect(0);
    assert!(
        plan.stdout.contains("3 of 3 recipients had the same message from the campaign `test-offer`"),
        "{}",
        plan.stdout
    );
    assert_eq!(project.plan_json()["repeats"]["campaign"], "test-offer");
    let refused = project.apply(&[]).expect(1);
    assert!(refused.stderr.contains("moved: { from: test-offer }"), "{}", refused.stderr);
    // With it the record goes on.
    project.campaign(&[("name: test-offer", "name: new-name\nmoved: { from: test-offer }")]);
    let plan = project.plan_json();
    assert_eq!(plan["counts"]["sent"], 3);
    project.people("mobile,first_name\n9876543210,Asha\n9876543211,Ravi\n9876543212,Meera\n9876543213,New\n");
    project.apply(&[]).expect(0);
    assert_eq!(sandbox.messages().len(), 4);
    // Renamed once more from the name of today, and even without `moved`, since the ledger remembers.
    project.campaign(&[("name: test-offer", "name: third-name\nmoved: { from: new-name }")]);
    assert_eq!(project.plan_json()["counts"]["sent"], 4);
    project.campaign(&[("name: test-offer", "name: new-name")]);
    assert_eq!(project.plan_json()["counts"]["sent"], 4);
    let status = project.run(&["status", "new-name"]).expect(0).stdout;
    assert!(status.starts_with("new-name, edition 1") && status.contains("accepted            4"), "{status}");
    // A move onto a name that has a record of its own would lose one of the two.
    project.campaign(&[
        ("name: test-offer", "name: other"),
        ("Ends soon!", "Ends now!"),
        ("name: test_offer", "name: other_template"),
    ]);
    project.apply(&[]).expect(0);
    project.campaign(&[("name: test-offer", "name: other\nmoved: { from: new-name }")]);
    let output = project.run(&["plan", "campaign.yaml"]).expect(3);
    assert!(output.stderr.contains("recorded under `other` as well as under `new-name`"), "{}", output.stderr);
}

#[test]
fn a_ledger_of_the_first_format_is_brought_up_to_date() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.apply(&[]).expect(0);
    let path = project.path().join(".sendform/ledger.db");
    let ledger = rusqlite::Connection::open(&path).unwrap();
    // As version 0.1 wrote it.
    ledger
        .execute_batch(
            "ALTER TABLE run DROP COLUMN name; ALTER TABLE run DROP COLUMN accepted; ALTER TABLE run DROP COLUMN rejected;
             ALTER TABLE run DROP COLUMN unknown; ALTER TABLE run DROP COLUMN not_sent; ALTER TABLE run DROP COLUMN digest;
             ALTER TABLE journal DROP COLUMN likeness; ALTER TABLE journal DROP COLUMN source; ALTER TABLE journal DROP COLUMN actor;
             ALTER TABLE run RENAME COLUMN unique_codes TO pool; ALTER TABLE run DROP COLUMN manifest;
             ALTER TABLE run DROP COLUMN destination; ALTER TABLE run DROP COLUMN account; ALTER TABLE run DROP COLUMN sender;
             ALTER TABLE run DROP COLUMN environment; ALTER TABLE run DROP COLUMN longest_request_ms;
             ALTER TABLE run DROP COLUMN effective; ALTER TABLE run DROP COLUMN summary;
             ALTER TABLE journal DROP COLUMN template; ALTER TABLE journal DROP COLUMN language;
             ALTER TABLE journal DROP COLUMN country; ALTER TABLE journal DROP COLUMN variant; ALTER TABLE journal DROP COLUMN parts;
             DROP TABLE contradiction; DROP TABLE link; DELETE FROM property WHERE name IN ('ledger_id', 'head_required'); PRAGMA user_version = 1;",
        )
        .unwrap();
    drop(ledger);
    std::fs::remove_file(project.path().join(".sendform/ledger.head")).unwrap();
    std::fs::remove_dir_all(project.path().join(".sendform/campaigns")).unwrap();
    assert_eq!(project.plan_json()["counts"]["sent"], 3);
    project.run(&["ledger", "check"]).expect(0);
    project.people("mobile,first_name\n9876543210,Asha\n9876543213,New\n");
    project.apply(&[]).expect(0);
    assert_eq!(sandbox.messages().len(), 4);
    let check = project.run(&["ledger", "check", "--format", "json"]).expect(0).json();
    assert_eq!((&check["check"]["runs"], &check["check"]["unsealed"]), (&Value::from(2), &Value::from(1)));
    rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    for command in [["plan", "campaign.yaml"], ["status", "campaign.yaml"], ["ledger", "check"]] {
        let output = project.run(&command).expect(1);
        assert!(output.stderr.contains("the ledger has format 99"), "{}", output.stderr);
    }
}
