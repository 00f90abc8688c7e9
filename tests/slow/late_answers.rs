//! Answers that come when the record has moved on, and records that have lost what was sent.

use std::os::unix::fs::PermissionsExt;
use std::process::Child;

use serde_json::Value;

use crate::support::postgres::{self, Postgres};
use crate::support::{Project, Sandbox, nothing_twice, until, wait};

fn project(sandbox: &Sandbox, url: &str) -> Project {
    let mut project = Project::with_sandbox(sandbox);
    project.on_postgres(url);
    project.people("mobile,first_name\n9876543210,Asha\n");
    project
}

/// The only send, once it is under way.
fn under_way(project: &Project) -> String {
    until("the request is under way", || {
        project.run(&["status", "campaign.yaml", "--format", "json"]).json()["counts"]["in_flight"] == 1
    });
    let sends = project.run(&["sends", "list", "--format", "json"]).expect(0).json();
    sends["sends"][0]["send"].as_str().unwrap().to_owned()
}

/// Somebody calls the run dead and its send not sent, while the answer is under way.
fn given_up_too_early(project: &Project) -> (Child, String) {
    let running = project.start(&[]);
    let send = under_way(project);
    let early = project.run(&["ledger", "unlock", "--run", "1"]).expect(8);
    assert!(early.stderr.contains("run 1 may still be under way"), "{}", early.stderr);
    project.run(&["ledger", "unlock", "--run", "1", "--force"]).expect(0);
    for verdict in ["not-sent", "rejected"] {
        let early = project.run(&["resolve", &send, "--as", verdict, "--reason", "not in the console"]).expect(1);
        assert!(early.stderr.contains("may still come"), "{}", early.stderr);
    }
    project.run(&["resolve", &send, "--as", "not-sent", "--reason", "not in the console", "--force"]).expect(0);
    (running, send)
}

#[test]
fn an_acceptance_after_a_decision_that_it_was_not_sent_prevents_a_second_send() {
    let sandbox = Sandbox::start(&["--latency", "4s"]);
    let project = project(&sandbox, &postgres::shared().database());
    let (running, send) = given_up_too_early(&project);
    assert_eq!(project.plan_json()["counts"]["send"], 1);
    wait(running).expect(0);
    assert_eq!(project.plan_json()["counts"]["sent"], 1);
    project.apply(&[]).expect(0);
    assert_eq!(nothing_twice(&sandbox), 1);
    let shown = project.run(&["sends", "show", &send]).expect(0).stdout;
    assert!(shown.contains("not sent") && shown.contains("accepted\n    message id"), "{shown}");
    project.run(&["ledger", "check"]).expect(0);
}

#[test]
fn an_acceptance_after_a_second_send_is_shown_as_a_contradiction() {
    let slow = Sandbox::start(&["--latency", "6s"]);
    let quick = Sandbox::start(&[]);
    let mut project = project(&slow, &postgres::shared().database());
    let (running, send) = given_up_too_early(&project);
    project.base_url = quick.url.clone();
    project.campaign(&[]);
    project.apply(&[]).expect(0);
    // Its acceptance is not thrown away, and the run is not called complete.
    let late = wait(running).expect(8);
    assert!(late.stderr.contains("1 outcome of this run could not be recorded"), "{}", late.stderr);
    assert!(!late.stderr.contains("complete"), "{}", late.stderr);
    let status = project.run(&["status", "campaign.yaml", "--format", "json"]).expect(0).json();
    let found = &status["contradictions"];
    assert_eq!(found.as_array().map(Vec::len), Some(1), "{status}");
    let id = slow.messages()[0]["message_id"].clone();
    assert_eq!(
        (&found[0]["run"], &found[0]["attempt"], &found[0]["message_id"], &found[0]["send"]),
        (&Value::from(1), &Value::from(1), &id, &Value::from(send.as_str()))
    );
    for command in [&["status", "campaign.yaml"][..], &["sends", "show", &send], &["ledger", "check"]] {
        let shown = project.run(command).expect(0).stdout;
        assert!(shown.contains("run 1 reported attempt 1 as accepted"), "{shown}");
        assert!(shown.contains("may have got the message twice"), "{shown}");
    }
    project.apply(&[]).expect(0);
    assert_eq!((slow.messages().len(), quick.messages().len()), (1, 1));
}

/// Lets commits that are under way end first: a failover loses whole commits.
const LOCK: &str = "LOCK TABLE sendform.run IN ACCESS EXCLUSIVE MODE";

/// What a failover to a standby that is behind does: the last commits are gone.
fn lose(database: &str, run_as_well: bool) {
    let run = "DELETE FROM sendform.link WHERE number > 0; DELETE FROM sendform.run; DELETE FROM sendform.campaign;";
    let sql = format!(
        "BEGIN; {LOCK}; DELETE FROM sendform.send; DELETE FROM sendform.journal; DELETE FROM sendform.code; {} COMMIT",
        if run_as_well { run } else { "" }
    );
    postgres::shared().query(database, &sql);
}

#[test]
fn a_run_whose_commits_are_lost_stops_and_its_outcomes_can_be_recorded() {
    for run_as_well in [false, true] {
        let sandbox = Sandbox::start(&["--latency", "300ms"]);
        let url = postgres::shared().database();
        let project = project(&sandbox, &url);
        project
            .crowd(60, &[("delivery: { rate: 2000/s, concurrency: 20 }", "delivery: { rate: 20/s, concurrency: 6 }")]);
        let running = project.start(&[]);
        until("some are accepted", || project.counts().accepted >= 8);
        lose(url.rsplit_once('/').unwrap().1, run_as_well);
        let stopped = wait(running).expect(7);
        let reached = nothing_twice(&sandbox);
        assert!((8..40).contains(&reached), "{reached}");
        let told = "Outcomes that the ledger has lost: ";
        let path = stopped.stderr.lines().find_map(|line| line.strip_prefix(told)).expect("no file is named");
        assert!(!stopped.stderr.contains("Run the same command again"), "{}", stopped.stderr);
        let path = project.path().join(path);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // The record alone would send to them again.
        assert!(project.plan_json()["counts"]["sent"].as_u64().unwrap() < reached);
        let file = path.to_str().unwrap();
        let resolved = project.run(&["resolve", "--file", file, "--format", "json"]).expect(0).json();
        assert_eq!(resolved["refused"], 0, "{resolved}");
        let counts = &project.plan_json()["counts"];
        assert_eq!(counts["sent"].as_u64().unwrap() + counts["unknown"].as_u64().unwrap(), reached, "{counts}");
        // Once more changes nothing.
        project.run(&["resolve", "--file", file]).expect(0);
        let output = project.apply(&[]);
        assert!([0, 7].contains(&output.code), "{}", output.stderr);
        assert_eq!(nothing_twice(&sandbox), 60);
        project.run(&["ledger", "check"]).expect(0);
    }
}

#[test]
fn outcomes_that_a_failover_lost_are_written_again() {
    let sandbox = Sandbox::start(&["--latency", "100ms"]);
    let server = postgres::shared();
    let url = server.database();
    let database = url.rsplit_once('/').unwrap().1;
    let project = project(&sandbox, &url);
    project.crowd(60, &[("delivery: { rate: 2000/s, concurrency: 20 }", "delivery: { rate: 20/s, concurrency: 4 }")]);
    let running = project.start(&[]);
    until("some are accepted", || project.counts().accepted >= 8);
    // The intents have reached the standby, and the outcomes have not. The connection goes with the
    // old primary.
    let lost = server.query(
        database,
        &format!(
            "BEGIN; {LOCK}; DELETE FROM sendform.journal WHERE kind = 2;
             WITH lost AS (UPDATE sendform.send SET state = 1 WHERE state = 2 RETURNING 1) SELECT count(*) FROM lost;
             SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'sendform'; COMMIT"
        ),
    );
    let lost: u64 = lost.lines().next().unwrap().parse().unwrap();
    assert!(lost >= 8, "{lost} outcomes were lost");
    wait(running).expect(0);
    let counts = project.counts();
    assert_eq!((counts.accepted, counts.unknown), (60, 0));
    assert_eq!(nothing_twice(&sandbox), 60);
    project.run(&["ledger", "check"]).expect(0);
}

#[test]
fn a_database_that_does_not_keep_its_commits_is_refused_or_warned_of() {
    let sandbox = Sandbox::start(&[]);
    let careless = Postgres::start("-c fsync=off");
    let refused = project(&sandbox, &careless.database()).apply(&[]).expect(1);
    assert!(refused.stderr.contains("`fsync` is off"), "{}", refused.stderr);
    assert!(sandbox.messages().is_empty());
    let torn = Postgres::start("-c full_page_writes=off");
    let directory = tempfile::tempdir().unwrap();
    let mut standby = torn.standby(directory.path());
    until("the standby follows", || torn.query("postgres", "SELECT count(*) FROM pg_stat_replication") == "1");
    let warned = project(&sandbox, &torn.database()).apply(&[]);
    standby.kill().unwrap();
    standby.wait().unwrap();
    let warned = warned.expect(0);
    assert!(warned.stderr.contains("warning: the database has `full_page_writes` off"), "{}", warned.stderr);
    assert!(warned.stderr.contains("none of them is synchronous"), "{}", warned.stderr);
}
