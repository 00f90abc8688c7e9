//! Which ledger a campaign is sent with: the same one from everywhere, never a new one by accident, and
//! never one that has forgotten somebody.

use std::io::Write;
use std::os::fd::FromRawFd;
use std::process::Stdio;

use crate::support::{Output, Project, Sandbox, apply_in, once_each, output, two_directories, wait};

#[test]
fn a_campaign_named_from_another_directory_is_sent_once() {
    let sandbox = Sandbox::start(&[]);
    let project = two_directories(&sandbox);
    apply_in(&project, "a", "../b/campaign.yaml", &["--new-ledger"]).expect(0);
    for (directory, path) in [("", "b/campaign.yaml"), ("b", "campaign.yaml"), ("", "a/../b/campaign.yaml")] {
        let again = apply_in(&project, directory, path, &[]).expect(0);
        assert!(again.stderr.contains("Nothing to send"), "{}", again.stderr);
    }
    assert!(!project.path().join(".sendform").exists() && !project.path().join("a/.sendform").exists());
    once_each(&sandbox, 3);
}

#[test]
fn a_link_into_another_project_is_refused_and_both_are_named() {
    let sandbox = Sandbox::start(&[]);
    let project = two_directories(&sandbox);
    apply_in(&project, "b", "campaign.yaml", &["--new-ledger"]).expect(0);
    std::os::unix::fs::symlink(project.path().join("b/campaign.yaml"), project.path().join("a/campaign.yaml")).unwrap();
    std::fs::copy(project.path().join("b/people.csv"), project.path().join("a/people.csv")).unwrap();
    let refused = apply_in(&project, "a", "campaign.yaml", &["--new-ledger"]).expect(3);
    let root = project.path().canonicalize().unwrap();
    for named in ["a", "b"] {
        assert!(refused.stderr.contains(root.join(named).to_str().unwrap()), "{}", refused.stderr);
    }
    // The whole project through a link is the same project.
    std::os::unix::fs::symlink(project.path().join("b"), project.path().join("link")).unwrap();
    apply_in(&project, "", "link/campaign.yaml", &[]).expect(0);
    once_each(&sandbox, 3);
}

#[test]
fn a_mark_that_is_added_nearer_to_the_campaign_makes_no_second_ledger() {
    let sandbox = Sandbox::start(&[]);
    let project = two_directories(&sandbox);
    project.write("sendform.yaml", "");
    apply_in(&project, "", "b/campaign.yaml", &["--new-ledger"]).expect(0);
    project.write("b/sendform.yaml", "");
    for more in [&[][..], &["--new-ledger"]] {
        let refused = apply_in(&project, "", "b/campaign.yaml", more).expect(1);
        let ledger = project.path().canonicalize().unwrap().join(".sendform/ledger.db");
        assert!(refused.stderr.contains(ledger.to_str().unwrap()), "{}", refused.stderr);
    }
    output(project.command(&["ledger", "create"]).current_dir(project.path().join("b"))).expect(1);
    once_each(&sandbox, 3);
}

#[test]
fn a_stray_ledger_beyond_the_git_repository_is_neither_used_nor_passed_over_silently() {
    let sandbox = Sandbox::start(&[]);
    let project = two_directories(&sandbox);
    std::fs::create_dir(project.path().join("b/.git")).unwrap();
    output(&mut project.command(&["ledger", "create"])).expect(0);
    let refused = apply_in(&project, "", "b/campaign.yaml", &["--new-ledger"]).expect(1);
    assert!(refused.stderr.contains("there is a ledger further up"), "{}", refused.stderr);
    once_each(&sandbox, 0);
    // Named, it is made; and it is the project's from then on.
    apply_in(&project, "", "b/campaign.yaml", &["--new-ledger", "--ledger", "sqlite:.sendform/ledger.db"]).expect(0);
    assert!(project.path().join("b/.sendform/ledger.db").exists());
    apply_in(&project, "a", "../b/campaign.yaml", &[]).expect(0);
    once_each(&sandbox, 3);
}

/// Runs `apply` at a terminal and types an answer for each question.
fn at_a_terminal(project: &Project, answers: &str) -> Output {
    let (mut main, mut other) = (0, 0);
    use std::ptr::{null, null_mut};
    // SAFETY: both descriptors are written before the call returns; no name and no settings are asked for.
    assert_eq!(unsafe { libc::openpty(&raw mut main, &raw mut other, null_mut(), null(), null()) }, 0);
    // SAFETY: the descriptors were just opened and belong to nobody else.
    let (mut main, other) = unsafe { (std::fs::File::from_raw_fd(main), std::fs::File::from_raw_fd(other)) };
    let mut command = project.command(&["apply", "campaign.yaml"]);
    let child = command.stdin(Stdio::from(other)).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    main.write_all(answers.as_bytes()).unwrap();
    wait(child)
}

#[test]
fn a_real_apply_makes_a_ledger_only_on_request_and_says_why_it_found_none() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox).without_ledger();
    let refused = project.apply(&[]).expect(1);
    let would_be = project.path().canonicalize().unwrap().join(".sendform/ledger.db");
    for told in [would_be.to_str().unwrap(), "Neither `--ledger`, `SENDFORM_LEDGER`", "--new-ledger", "ledger create"] {
        assert!(refused.stderr.contains(told), "{told}: {}", refused.stderr);
    }
    let hash = project.plan_json()["hash"].as_str().unwrap().to_owned();
    project.run(&["apply", "campaign.yaml", "--plan-hash", &hash]).expect(1);
    let unwilling = at_a_terminal(&project, "yes\nno\n").expect(1);
    assert!(unwilling.stderr.contains("no ledger was created"), "{}", unwilling.stderr);
    assert!(!would_be.exists());
    once_each(&sandbox, 0);
    let asked = at_a_terminal(&project, "yes\nyes\n").expect(0);
    assert!(asked.stderr.contains("It records no sends yet"), "{}", asked.stderr);
    once_each(&sandbox, 3);
    // The sandbox has a ledger of its own, about which nobody is asked.
    project.apply(&["--sandbox"]).expect(0);
}

#[test]
fn a_pinned_ledger_is_the_only_one_that_is_used() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.apply(&[]).expect(0);
    let id = project.run(&["ledger", "check", "--format", "json"]).expect(0).json()["id"].as_str().unwrap().to_owned();
    let pin =
        |id: &str| project.write("sendform.yaml", format!("ledger: {{ url: sqlite:.sendform/ledger.db, id: {id} }}\n"));
    pin(&id);
    project.apply(&[]).expect(0);
    let other = "0123456789abcdef".repeat(2);
    pin(&other);
    for command in
        [&["plan", "campaign.yaml"][..], &["preview", "campaign.yaml"], &["apply", "campaign.yaml", "--auto-approve"]]
    {
        let refused = project.run(command).expect(1);
        assert!(refused.stderr.contains(&other) && refused.stderr.contains(&id), "{}", refused.stderr);
    }
    // Where it is gone no other is made in its place.
    let project = Project::with_sandbox(&sandbox).without_ledger();
    project.write("sendform.yaml", format!("ledger: {{ url: sqlite:.sendform/ledger.db, id: {other} }}\n"));
    let refused = project.apply(&["--new-ledger"]).expect(1);
    assert!(refused.stderr.contains(&format!("pins the ledger {other}")), "{}", refused.stderr);
    project.run(&["ledger", "create"]).expect(1);
    once_each(&sandbox, 3);
}

#[test]
fn a_renamed_campaign_goes_on_with_the_ledger_that_it_was_given() {
    let project = Project::new();
    project.campaign(&[("name: test-offer", "name: second-offer\nmoved: { from: test-offer }")]);
    project.run(&["ledger", "create"]).expect(0);
    // One file for each name that it may have been sent under.
    for (sent_as, left) in [("second-offer", "test-offer"), ("test-offer", "second-offer")] {
        let file = |name: &str| format!(".sendform/campaigns/{name}.json");
        let _ = std::fs::remove_file(project.path().join(file(left)));
        let other = serde_json::json!({ "format": 1, "ledger": "another", "at": "sqlite:/a/ledger.db" });
        project.write(&file(sent_as), other.to_string());
        let refused = project.run(&["plan", "campaign.yaml"]).expect(1);
        assert!(refused.stderr.contains("sendform ledger adopt campaign.yaml"), "{}", refused.stderr);
        project.run(&["ledger", "adopt", "campaign.yaml"]).expect(0);
        project.run(&["plan", "campaign.yaml"]).expect(0);
    }
}

#[test]
fn a_relative_ledger_is_relative_to_the_project_and_not_to_the_current_directory() {
    let sandbox = Sandbox::start(&[]);
    let project = two_directories(&sandbox);
    let ledger = ["--ledger", "sqlite:record/offers.db"];
    apply_in(&project, "a", "../b/campaign.yaml", &[&ledger[..], &["--new-ledger"]].concat()).expect(0);
    assert!(project.path().join("b/record/offers.db").exists());
    apply_in(&project, "b", "campaign.yaml", &ledger).expect(0);
    apply_in(&project, "", "b/campaign.yaml", &ledger).expect(0);
    once_each(&sandbox, 3);
}

#[test]
fn secrets_are_read_before_the_lease_and_a_ledger_that_moved_is_planned_again() {
    let sandbox = Sandbox::start(&["--fault", "500-before=+919876543211"]);
    let project = Project::with_sandbox(&sandbox);
    project.apply(&[]).expect(7);
    let list = project.run(&["sends", "list", "--state", "unknown", "--format", "json"]).expect(0).json();
    let send = list["sends"][0]["send"].as_str().unwrap().to_owned();
    let healthy = Sandbox::start(&[]);
    // While the key is fetched, nobody holds the ledger, and somebody settles a doubt.
    let program = env!("CARGO_BIN_EXE_sendform");
    let script = format!(
        "#!/bin/sh\n{program} ledger unlock >>holder.txt\n{program} resolve {send} --as not-sent --force --reason report >/dev/null 2>&1\necho sandbox-key\n"
    );
    project.write("key.sh", script);
    project.campaign(&[
        (sandbox.url.as_str(), healthy.url.as_str()),
        ("api_key: { env: KALEYRA_API_KEY }", "api_key: { exec: [/bin/sh, key.sh] }"),
    ]);
    project.people("mobile,first_name\n9876543211,Ravi\n9876543213,Dev\n");
    let applied = project.apply(&[]).expect(0);
    assert!(applied.stderr.contains("planning again"), "{}", applied.stderr);
    assert_eq!(healthy.accepted("to"), ["+919876543211", "+919876543213"]);
    let holders = std::fs::read_to_string(project.path().join("holder.txt")).unwrap();
    assert_eq!(holders, "nobody holds the ledger\n");
    project.run(&["ledger", "check"]).expect(0);
}

#[test]
fn a_plan_that_is_not_approved_reads_no_secret_and_leaves_nothing_behind() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox).without_ledger();
    project.write("key.sh", ": >asked\necho sandbox-key\n");
    project.campaign(&[("api_key: { env: KALEYRA_API_KEY }", "api_key: { exec: [/bin/sh, key.sh] }")]);
    project.run(&["apply", "campaign.yaml"]).expect(1);
    at_a_terminal(&project, "no\n").expect(1);
    project.run(&["apply", "campaign.yaml", "--plan-hash", &format!("v1:{}", "0".repeat(64))]);
    assert!(!project.path().join("asked").exists() && !project.path().join(".sendform").exists());
}

#[test]
fn no_message_holds_the_password_of_a_ledger() {
    let project = Project::new().without_ledger();
    let urls = [
        "postgres://me:hun?ter2@db/offers",
        "postgres://me:hunter2@x@db/offers",
        "postgres://me:hun/ter2@db/offers",
        "postgres://me:hunter2@db/offers?hostaddr=127.0.0.1",
        "postgres://me:hunter2@127.0.0.1:1/offers",
        "host=db user=me password=hunter2:1",
        "password=hunter2",
        "hunter2",
    ];
    let apply = ["apply", "campaign.yaml", "--auto-approve"];
    let holds = |output: &Output| {
        ["hunter2", "hun?", "hun/", "ter2"]
            .iter()
            .any(|part| output.stderr.contains(part) || output.stdout.contains(part))
    };
    for url in urls {
        for told in [
            output(project.command(&apply).args(["--ledger", url])),
            output(project.command(&apply).env("SENDFORM_LEDGER", url).env("SENDFORM_KEY", "5a".repeat(32))),
            output(project.command(&["ledger", "check", "-vv"]).env("SENDFORM_LEDGER", url)),
            output(&mut project.command(&["status", "--ledger", url])),
        ] {
            assert_ne!(told.code, 0, "{url}");
            assert!(!holds(&told), "{url}: {}{}", told.stdout, told.stderr);
        }
    }
    // As an argument in the wrong place.
    let told = output(project.command(&apply).arg("postgres://me:hunter2@db/offers")).expect(64);
    assert!(!holds(&told), "{}", told.stderr);
    for (url, told) in [(urls[3], "`hostaddr` is not supported"), (urls[5], "`key=value`"), (urls[0], "`%3F`")] {
        let output = output(project.command(&apply).args(["--ledger", url])).expect(64);
        assert!(output.stderr.contains(told), "{}", output.stderr);
    }
}

#[test]
fn a_callback_in_the_clear_stays_on_this_machine() {
    let project = Project::new();
    let from = "    from: \"+919900112233\"";
    for (url, code) in [
        ("http://hooks.example.com/status", 3),
        ("ftp://hooks.example.com/status", 3),
        ("https://hooks.example.com/status", 0),
        ("http://127.0.0.1:4010/status", 0),
    ] {
        project.campaign(&[(from, &format!("{from}\n    callback: {{ url: \"{url}\" }}"))]);
        project.run(&["validate", "campaign.yaml"]).expect(code);
    }
}
