//! Sending: once, resumably, with the exit codes that pipelines rely on.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{Counts, Project, Sandbox, nothing_twice, output};

#[test]
fn running_again_sends_nothing_and_a_new_row_is_sent_alone() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.apply(&[]).expect(0);
    assert_eq!(sandbox.accepted("to"), ["+919876543210", "+919876543211", "+919876543212"]);
    let again = project.apply(&[]).expect(0);
    assert!(again.stderr.contains("Nothing to send"));
    assert_eq!(sandbox.messages().len(), 3);
    project.people("mobile,first_name\n9876543213,Dev\n9876543210,Asha\n9876543211,Ravi\n9876543212,Meera\n");
    project.apply(&[]).expect(0);
    assert_eq!(sandbox.messages().len(), 4);
    assert_eq!(sandbox.messages()[3]["to"], "+919876543213");
    assert_eq!(project.counts(), Counts { accepted: 4, rejected: 0, unknown: 0, pending: 0 });
}

#[test]
fn a_raised_edition_sends_again_on_purpose() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.apply(&[]).expect(0);
    project.campaign(&[("name: test-offer", "name: test-offer\nedition: 2")]);
    project.apply(&[]).expect(0);
    assert_eq!(sandbox.messages().len(), 6);
}

#[test]
fn the_other_form_of_a_number_is_the_same_person() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.people("mobile,first_name\n+5521987654321,Ana\n+5215512345678,Luis\n");
    project.apply(&[]).expect(0);
    project.people("mobile,first_name\n+552187654321,Ana\n+525512345678,Luis\n");
    project.apply(&[]).expect(0);
    assert_eq!(sandbox.accepted("to"), ["+5215512345678", "+5521987654321"]);
}

#[test]
fn without_approval_nothing_is_sent() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    let output = project.run(&["apply", "campaign.yaml"]).expect(1);
    assert!(output.stderr.contains("cannot ask for confirmation"));
    assert!(sandbox.messages().is_empty());
}

#[test]
fn a_reviewed_plan_is_sent_and_a_changed_one_refused() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.run(&["plan", "campaign.yaml", "--out", "plan.json"]).expect(0);
    project.people("mobile,first_name\n9876543210,Asha\n9876543211,Ravi\n9876543212,Meera\n9876543213,Dev\n");
    let output = project.run(&["apply", "--plan", "plan.json"]).expect(9);
    assert!(output.stderr.contains("recipients: 3 then, 4 now"), "{}", output.stderr);
    assert!(sandbox.messages().is_empty());
    project.people("mobile,first_name\n9876543212,Meera\n9876543211,Ravi\n9876543210,Asha\n");
    // Rows in another order change nothing for anybody.
    project.run(&["apply", "--plan", "plan.json"]).expect(0);
    assert_eq!(sandbox.messages().len(), 3);
}

#[test]
fn the_hash_alone_is_an_approval_also_where_the_expiry_counts_from_the_plan() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    let after = [("at: \"2099-12-31T23:59:59\", timezone: Asia/Kolkata", "after: 14d")];
    project.campaign(&after);
    let hash = project.plan_json()["hash"].as_str().unwrap().to_owned();
    std::thread::sleep(Duration::from_millis(1_100));
    let mut other = after.to_vec();
    other.push(("Hi {{1}}.", "Hi {{1}}!"));
    other.push(("HELLO25", "HELLO26"));
    project.campaign(&other);
    project.run(&["apply", "campaign.yaml", "--plan-hash", &hash]).expect(9);
    project.campaign(&after);
    project.run(&["apply", "campaign.yaml", "--plan-hash", &hash]).expect(0);
    project.run(&["apply", "campaign.yaml", "--plan-hash", "v1:nonsense"]).expect(64);
    // The end is the same for everybody, also for those who come later.
    std::thread::sleep(Duration::from_millis(1_100));
    project.people("mobile,first_name\n9876543210,Asha\n9876543213,Dev\n");
    project.apply(&[]).expect(0);
    let ends: Vec<_> =
        sandbox.messages().iter().map(|message| message["expiration_time_ms"].as_i64().unwrap()).collect();
    assert_eq!(ends.len(), 4);
    assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
}

#[test]
fn wrong_credentials_cost_one_request() {
    let sandbox = Sandbox::start(&["--latency", "5ms"]);
    let project = Project::with_sandbox(&sandbox);
    let rows: String = (0..200).map(|row| format!("98{row:08},A\n")).collect();
    project.people(&format!("mobile,first_name\n{rows}"));
    let mut command = project.command(&["apply", "campaign.yaml", "--auto-approve", "-vv"]);
    let output = output(command.env("KALEYRA_API_KEY", "a-wrong-key-1234567")).expect(4);
    assert!(output.stderr.contains("RBC201: Incorrect SID or API key."), "{}", output.stderr);
    for secret in ["a-wrong-key-1234567", "HXSANDBOX"] {
        assert!(!output.stderr.contains(secret) && !output.stdout.contains(secret), "a secret is on the screen");
    }
    let counts = project.counts();
    assert_eq!((counts.accepted, counts.rejected, counts.unknown, counts.pending), (0, 0, 0, 200));
    // With the right key everybody gets it, the first one as well.
    project.apply(&[]).expect(0);
    assert_eq!(sandbox.messages().len(), 200);
}

#[test]
fn a_missing_secret_stops_before_anything_is_sent() {
    let project = Project::new();
    let output =
        output(project.command(&["apply", "campaign.yaml", "--auto-approve"]).env_remove("KALEYRA_API_KEY")).expect(1);
    assert!(output.stderr.contains("cannot read the API key: environment variable `KALEYRA_API_KEY` is not set"));
}

#[test]
fn what_cannot_be_told_is_never_sent_again() {
    let sandbox = Sandbox::start(&["--fault", "500-after=+919876543211", "--fault", "garbled=+919876543212"]);
    let project = Project::with_sandbox(&sandbox);
    project.apply(&[]).expect(7);
    assert_eq!(project.counts(), Counts { accepted: 1, rejected: 0, unknown: 2, pending: 0 });
    project.apply(&[]).expect(7);
    assert_eq!(sandbox.messages().len(), 3);
    assert_eq!(project.plan_json()["counts"]["unknown"], 2);
}

#[test]
fn a_dropped_connection_cannot_be_told_either_way() {
    for (fault, sent) in [("reset-before", 0), ("reset-after", 1), ("500-before", 0)] {
        let rule = format!("{fault}=+919876543211");
        let sandbox = Sandbox::start(&["--fault", &rule]);
        let project = Project::with_sandbox(&sandbox);
        project.apply(&[]).expect(7);
        assert_eq!(project.counts(), Counts { accepted: 2, rejected: 0, unknown: 1, pending: 0 }, "{fault}");
        assert_eq!(sandbox.messages().len(), 2 + sent, "{fault}");
    }
}

#[test]
fn a_429_is_tried_again_and_everybody_gets_it_once() {
    let sandbox = Sandbox::start(&["--fault", "429=20%"]);
    let project = Project::with_sandbox(&sandbox);
    let output = project.apply(&[]).expect(0);
    assert_eq!(sandbox.messages().len(), 3, "{}", output.stderr);
    let mut to = sandbox.accepted("to");
    to.dedup();
    assert_eq!(to.len(), 3);
}

#[test]
fn a_refusal_is_final_until_it_is_asked_for_again() {
    // A provider that refuses one number, and takes it when asked the second time.
    let server = crate::support::recorder::Recorder::start(|request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let first = !request.seen_before;
        if body.contains("+919876543211") && first {
            (
                400,
                r#"{"code":"E13001","message":"x","data":[],"error":{"to":"invalid number 919876543211"}}"#.to_owned(),
            )
        } else {
            (200, request.success())
        }
    });
    let mut project = Project::new();
    project.base_url = server.url();
    project.campaign(&[]);
    let output = project.apply(&[]).expect(5);
    assert!(output.stderr.contains("E13001: to: invalid number"), "{}", output.stderr);
    assert!(!output.stderr.contains("919876543211"), "a number is on the screen");
    assert_eq!(project.counts(), Counts { accepted: 2, rejected: 1, unknown: 0, pending: 0 });
    project.apply(&[]).expect(0);
    assert_eq!(project.plan_json()["blocked_reasons"]["rejected"], 1);
    assert_eq!(server.count(), 3);
    project.apply(&["--retry-rejected"]).expect(0);
    assert_eq!(project.counts(), Counts { accepted: 3, rejected: 0, unknown: 0, pending: 0 });
    assert_eq!(server.count(), 4);
}

#[test]
fn in_a_pipeline_a_ledger_that_goes_with_the_job_is_refused() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    let apply = ["apply", "campaign.yaml", "--auto-approve"];
    let refused = output(project.command(&apply).env("CI", "true")).expect(1);
    assert!(refused.stderr.contains("--ledger-is-durable"));
    assert!(sandbox.messages().is_empty());
    output(project.command(&apply).env("CI", "true").arg("--ledger-is-durable")).expect(0);
    assert_eq!(sandbox.messages().len(), 3);
}

#[test]
fn a_second_apply_is_told_who_holds_the_ledger() {
    let sandbox = Sandbox::start(&["--latency", "2s"]);
    let project = Project::with_sandbox(&sandbox);
    let mut first =
        project.command(&["apply", "campaign.yaml", "--auto-approve"]).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while sandbox.messages().is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    let second = project.apply(&[]).expect(8);
    assert!(second.stderr.contains(&format!("process {}", first.id())), "{}", second.stderr);
    // Plans and status are there while it runs.
    project.run(&["plan", "campaign.yaml"]).expect(0);
    project.run(&["status"]).expect(0);
    assert_eq!(first.wait().unwrap().code(), Some(0));
    assert_eq!(sandbox.messages().len(), 3);
}

#[test]
fn ctrl_c_waits_for_what_is_under_way_and_the_rest_is_resumed() {
    let sandbox = Sandbox::start(&["--latency", "100ms"]);
    let project = Project::with_sandbox(&sandbox);
    let rows: String = (0..500).map(|row| format!("98{row:08},A\n")).collect();
    project.people(&format!("mobile,first_name\n{rows}"));
    let mut child = project
        .command(&["apply", "campaign.yaml", "--auto-approve"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(900));
    // SAFETY: a signal to a process that this test started and has not waited for.
    unsafe { libc::kill(i32::try_from(child.id()).unwrap(), libc::SIGINT) };
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{stderr}");
    assert!(stderr.contains("Run the same command again"), "{stderr}");
    let counts = project.counts();
    assert_eq!(counts.unknown, 0);
    assert!(counts.accepted > 0 && counts.pending > 0, "{counts:?}");
    assert_eq!(counts.accepted, sandbox.messages().len() as u64);
    project.apply(&[]).expect(0);
    let mut to = sandbox.accepted("to");
    assert_eq!(to.len(), 500);
    to.dedup();
    assert_eq!(to.len(), 500);
}

#[test]
fn a_batch_shares_a_request_and_bounds_what_is_in_doubt() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.campaign(&[
        ("concurrency: 20", "concurrency: 20, batch: 5"),
        ("\"{{ recipient.first_name | default('there') }}\"", "friend"),
    ]);
    let rows: String = (0..41).map(|row| format!("98{row:08},A\n")).collect();
    project.people(&format!("mobile,first_name\n{rows}"));
    project.apply(&[]).expect(0);
    let messages = sandbox.messages();
    assert_eq!(messages.len(), 41);
    let shared = messages.iter().filter(|message| message["message_id"].as_str().unwrap().ends_with(":4")).count();
    assert!(shared >= 4, "only {shared} requests carried five");
    let request = |id: &str| id.split(':').next().unwrap().to_owned();
    let alone: Vec<_> = messages
        .iter()
        .filter(|message| message["ref"].is_string())
        .map(|message| request(message["message_id"].as_str().unwrap()))
        .collect();
    for id in &alone {
        assert_eq!(
            messages.iter().filter(|message| request(message["message_id"].as_str().unwrap()) == *id).count(),
            1
        );
    }
    assert_eq!(project.counts(), Counts { accepted: 41, rejected: 0, unknown: 0, pending: 0 });
}

#[test]
fn files_that_change_during_a_run_send_nothing_that_was_not_approved() {
    let sandbox = Sandbox::start(&["--latency", "20ms"]);
    let project = Project::with_sandbox(&sandbox);
    // More rows than the engine reads ahead, so that the end of the file is read late.
    let rows =
        |name: &str| (0..12_000).map(|row| format!("98{row:08},{name},{}\n", "x".repeat(200))).collect::<String>();
    project.people(&format!("mobile,first_name,notes\n{}", rows("Asha")));
    let child = project
        .command(&["apply", "campaign.yaml", "--auto-approve"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while sandbox.messages().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    // In place, as an editor or an export that starts over would.
    let mut file = std::fs::OpenOptions::new().write(true).open(project.path().join("people.csv")).unwrap();
    file.write_all(format!("mobile,first_name,notes\n{}", rows("Evil")).as_bytes()).unwrap();
    drop(file);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    assert!(stderr.contains("files changed while it was sent"), "{stderr}");
    assert!(sandbox.messages().iter().all(|message| message["params"][0] == "Asha"));
}

#[test]
fn a_trial_ignores_the_ledger_that_real_runs_are_given() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    let apply = ["apply", "campaign.yaml", "--auto-approve"];
    let named = "sqlite:real.db";
    output(project.command(&apply).arg("--sandbox").env("SENDFORM_LEDGER", named)).expect(0);
    assert!(!project.path().join("real.db").exists());
    project.apply(&["--sandbox", "--ledger", named]).expect(64);
    output(project.command(&apply).arg("--new-ledger").env("SENDFORM_LEDGER", named)).expect(0);
    assert_eq!(sandbox.messages().len(), 3);
}

#[test]
fn a_link_that_leads_nowhere_is_no_missing_ledger() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    std::os::unix::fs::symlink("/nowhere/at/all/real.db", project.path().join("link.db")).unwrap();
    let output = project.apply(&["--ledger", "sqlite:link.db"]).expect(1);
    assert!(output.stderr.contains("cannot be found"), "{}", output.stderr);
    assert!(sandbox.messages().is_empty());
}

#[test]
fn a_provider_that_loses_three_of_ten_answers_stops_a_run_early() {
    let sandbox = Sandbox::start(&["--latency", "5ms", "--fault", "500-after=30%"]);
    let project = Project::with_sandbox(&sandbox);
    project.crowd(2_000, &[]);
    let stopped = project.apply(&[]).expect(6);
    for told in [
        "sends ended unknown, and a run stops when more than 40 did",
        "`sendform sends list campaign.yaml --state unknown` shows the reason of each",
        "`delivery.stop_when.unknown` sets another bound; `100%` sets none",
    ] {
        assert!(stopped.stderr.contains(told), "{told}: {}", stopped.stderr);
    }
    let counts = project.counts();
    assert!((41..=61).contains(&counts.unknown) && counts.pending > 1_500, "{counts:?}");
    nothing_twice(&sandbox);
    // Whoever knows better switches it off.
    let sandbox = Sandbox::start(&["--latency", "5ms", "--fault", "500-after=30%"]);
    let project = Project::with_sandbox(&sandbox);
    project.crowd(300, &[("concurrency: 20 }", "concurrency: 20, stop_when: { unknown: 100% } }")]);
    let ended = project.apply(&[]).expect(7);
    let counts = project.counts();
    assert!(counts.pending == 0 && counts.unknown > 60, "{counts:?}: {}", ended.stderr);
    nothing_twice(&sandbox);
}
