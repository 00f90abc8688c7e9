//! Which ledger a campaign is sent with: the same one from everywhere, never a new one by accident, and
//! never one that has forgotten somebody.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{Output, Project, Sandbox, nothing_twice, output, postgres, signal, until, wait};

/// How many messages each recipient got.
fn per_recipient(sandbox: &Sandbox) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for to in sandbox.accepted("to") {
        *counts.entry(to).or_default() += 1;
    }
    counts
}

/// Holds that these many people got one message each.
#[track_caller]
fn once_each(sandbox: &Sandbox, people: usize) {
    let counts = per_recipient(sandbox);
    assert_eq!(
        (counts.len(), counts.values().max().copied().unwrap_or(0)),
        (people, usize::from(people > 0)),
        "{counts:?}"
    );
}

/// A campaign for three people in the directory `b`, with an empty directory `a` beside it.
fn two_directories(sandbox: &Sandbox) -> Project {
    let project = Project::with_sandbox(sandbox).without_ledger();
    std::fs::create_dir(project.path().join("a")).unwrap();
    std::fs::create_dir(project.path().join("b")).unwrap();
    for file in ["campaign.yaml", "people.csv"] {
        std::fs::rename(project.path().join(file), project.path().join("b").join(file)).unwrap();
    }
    project
}

/// `apply PATH --auto-approve` and more, in a directory of the project.
fn apply_in(project: &Project, directory: &str, path: &str, more: &[&str]) -> Output {
    let arguments = [&["apply", path, "--auto-approve"], more].concat();
    output(project.command(&arguments).current_dir(project.path().join(directory)))
}

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

#[test]
fn a_mark_of_a_stranger_does_not_choose_the_ledger() {
    // SAFETY: the call has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("skipped: only root can give files away");
        return;
    }
    let sandbox = Sandbox::start(&[]);
    let project = two_directories(&sandbox);
    let mark = project.write("sendform.yaml", "ledger: sqlite:theirs/ledger.db\n");
    std::os::unix::fs::chown(&mark, Some(54_321), None).unwrap();
    let refused = apply_in(&project, "", "b/campaign.yaml", &[]).expect(1);
    assert!(refused.stderr.contains("it belongs to somebody else"), "{}", refused.stderr);
    apply_in(&project, "", "b/campaign.yaml", &["--new-ledger", "--ledger", "sqlite:.sendform/ledger.db"]).expect(0);
    assert!(project.path().join("b/.sendform/ledger.db").exists() && !project.path().join("theirs").exists());
    // The owner of the campaign's file may mark the project that it belongs to.
    let sandbox = Sandbox::start(&[]);
    let project = two_directories(&sandbox);
    let mark = project.write("sendform.yaml", "ledger: sqlite:ours/ledger.db\n");
    for file in [mark, project.path().join("b/campaign.yaml")] {
        std::os::unix::fs::chown(&file, Some(54_321), None).unwrap();
    }
    apply_in(&project, "", "b/campaign.yaml", &["--new-ledger"]).expect(0);
    assert!(project.path().join("ours/ledger.db").exists());
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
    assert!(unwilling.stderr.contains("no ledger was made"), "{}", unwilling.stderr);
    assert!(!would_be.exists());
    once_each(&sandbox, 0);
    let asked = at_a_terminal(&project, "yes\nyes\n").expect(0);
    assert!(asked.stderr.contains("Nobody is recorded in it"), "{}", asked.stderr);
    once_each(&sandbox, 3);
    // The sandbox has a ledger of its own, about which nobody is asked.
    project.apply(&["--sandbox"]).expect(0);
}

#[test]
fn new_ledger_is_for_one_run_and_refused_in_a_pipeline_that_keeps_it() {
    let sandbox = Sandbox::start(&[]);
    for database in [false, true] {
        let mut project = Project::with_sandbox(&sandbox).without_ledger();
        project.campaign(&[("name: test-offer", if database { "name: two" } else { "name: one" })]);
        if database {
            project.on_postgres(&postgres::shared().database());
            project.apply(&[]).expect(1);
        }
        project.apply(&["--new-ledger"]).expect(0);
        let kept = project.apply(&["--new-ledger"]).expect(64);
        assert!(kept.stderr.contains("holds a run that has ended"), "{}", kept.stderr);
        project.apply(&[]).expect(0);
    }
    assert!(per_recipient(&sandbox).values().all(|messages| *messages == 2), "{:?}", per_recipient(&sandbox));
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
fn a_campaign_that_was_sent_with_one_ledger_is_not_sent_with_another() {
    let sandbox = Sandbox::start(&[]);
    for database in [false, true] {
        let sent_before = sandbox.messages().len();
        let mut project = Project::with_sandbox(&sandbox).without_ledger();
        if database {
            let url = postgres::shared().database();
            project.on_postgres(&url.replace("sendform@", "sendform:hunter2@"));
        } else {
            project.environment = vec![("SENDFORM_LEDGER", "sqlite:record/offers.db".to_owned())];
        }
        project.apply(&["--new-ledger"]).expect(0);
        let id =
            project.run(&["ledger", "check", "--format", "json"]).expect(0).json()["id"].as_str().unwrap().to_owned();
        // Another shell, or cron: the variable is not set.
        project.environment.clear();
        for more in [&[][..], &["--new-ledger"], &["--new-ledger", "--ledger", "sqlite:other.db"]] {
            let refused = project.apply(more).expect(1);
            for told in [
                id.as_str(),
                if database { "postgres://127.0.0.1" } else { "record/offers.db" },
                if more.len() < 3 { ".sendform/ledger.db" } else { "other.db" },
            ] {
                assert!(refused.stderr.contains(told), "{told}: {}", refused.stderr);
            }
        }
        let refused = project.run(&["plan", "campaign.yaml"]).expect(1);
        assert!(refused.stderr.contains("was sent with the ledger"), "{}", refused.stderr);
        assert!(!project.path().join(".sendform/ledger.db").exists());
        let kept = std::fs::read_to_string(project.path().join(".sendform/campaigns/test-offer.json")).unwrap();
        assert!(!kept.contains("hunter2"), "{kept}");
        // A ledger that exists and holds other sends is refused just so, until somebody says that it is right.
        project.run(&["ledger", "create", "--ledger", "sqlite:other.db"]).expect(0);
        let refused = project.apply(&["--ledger", "sqlite:other.db"]).expect(1);
        assert!(refused.stderr.contains("this is another ledger"), "{}", refused.stderr);
        assert_eq!(sandbox.messages().len(), sent_before + 3);
        project.run(&["ledger", "adopt", "campaign.yaml", "--ledger", "sqlite:other.db"]).expect(0);
        assert_eq!(
            project.run(&["plan", "campaign.yaml", "--ledger", "sqlite:other.db", "--format", "json"]).expect(0).json()
                ["counts"]["send"],
            3
        );
    }
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

/// Copies a directory with everything in it.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success());
}

#[test]
fn a_copied_project_does_not_go_on_beside_the_original() {
    let sandbox = Sandbox::start(&[]);
    let project = two_directories(&sandbox);
    apply_in(&project, "b", "campaign.yaml", &["--new-ledger"]).expect(0);
    let more = "mobile,first_name\n9876543210,Asha\n9876543211,Ravi\n9876543212,Meera\n9876543213,Dev\n";
    copy(&project.path().join("b"), &project.path().join("c"));
    for directory in ["b", "c"] {
        project.write(&format!("{directory}/people.csv"), more);
    }
    apply_in(&project, "b", "campaign.yaml", &[]).expect(0);
    let original = project.path().canonicalize().unwrap().join("b/.sendform/ledger.db");
    for command in [
        &["apply", "campaign.yaml", "--auto-approve"][..],
        &["plan", "campaign.yaml"],
        &["status"],
        &["ledger", "check"],
    ] {
        let refused = output(project.command(command).current_dir(project.path().join("c"))).expect(1);
        assert!(refused.stderr.contains(&format!("is a copy of `{}`", original.display())), "{}", refused.stderr);
    }
    once_each(&sandbox, 4);
    // A trial in the copy goes on by itself.
    apply_in(&project, "c", "campaign.yaml", &["--sandbox"]).expect(0);
    // A project that was moved is the same one; a copy goes on once somebody says so.
    std::fs::rename(project.path().join("b"), project.path().join("moved")).unwrap();
    apply_in(&project, "moved", "campaign.yaml", &[]).expect(0);
    output(project.command(&["ledger", "adopt"]).current_dir(project.path().join("c"))).expect(0);
    output(project.command(&["status"]).current_dir(project.path().join("c"))).expect(0);
    once_each(&sandbox, 4);
}

/// Every command that opens a ledger.
const COMMANDS: [&[&str]; 6] = [
    &["apply", "campaign.yaml", "--auto-approve", "--new-ledger"],
    &["plan", "campaign.yaml"],
    &["preview", "campaign.yaml"],
    &["status"],
    &["sends", "list"],
    &["ledger", "check"],
];

#[track_caller]
fn each_refuses(project: &Project, told: &str) {
    for command in COMMANDS {
        let refused = project.run(command);
        assert_eq!(refused.code, 1, "{command:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(told), "{command:?}: {}", refused.stderr);
    }
}

#[test]
fn a_deleted_ledger_is_missed_and_not_made_again() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.apply(&[]).expect(0);
    std::fs::remove_file(project.path().join(".sendform/ledger.db")).unwrap();
    each_refuses(&project, "is missing");
    project.run(&["ledger", "create"]).expect(1);
    once_each(&sandbox, 3);
}

/// Kills a run in which each answer takes some time, after these many messages.
fn kill_after(project: &Project, sandbox: &Sandbox, messages: usize) {
    let mut child: Child = project.start(&[]);
    until("some are sent", || sandbox.messages().len() >= messages);
    signal(&child, libc::SIGKILL);
    child.wait().unwrap();
}

#[test]
fn a_ledger_that_has_lost_its_log_or_is_an_older_copy_is_refused() {
    let sandbox = Sandbox::start(&["--latency", "20ms"]);
    let project = Project::with_sandbox(&sandbox);
    project.crowd(400, &[("rate: 2000/s", "rate: 400/s")]);
    kill_after(&project, &sandbox, 40);
    // Everything stands in the log: the file alone is what a naive backup holds.
    let own = project.path().join(".sendform");
    copy(&own, &project.path().join("whole"));
    for file in ["ledger.db-wal", "ledger.db-shm"] {
        std::fs::remove_file(own.join(file)).unwrap();
    }
    each_refuses(&project, "is behind");
    // With its log it is whole, and the run is resumed: ahead of its head is fine.
    for file in ["ledger.db-wal", "ledger.db-shm"] {
        std::fs::copy(project.path().join("whole").join(file), own.join(file)).unwrap();
    }
    let resumed = project.apply(&[]);
    assert!([0, 7].contains(&resumed.code), "{}", resumed.stderr);
    assert!(per_recipient(&sandbox).values().all(|messages| *messages == 1));
    project.run(&["ledger", "check"]).expect(0);
}

#[test]
fn a_ledger_without_a_head_is_of_an_older_version_and_gets_one() {
    let sandbox = Sandbox::start(&["--fault", "reset-after=+919876543211"]);
    let project = Project::with_sandbox(&sandbox);
    project.apply(&[]).expect(7);
    let head = project.path().join(".sendform/ledger.head");
    std::fs::remove_file(&head).unwrap();
    project.apply(&[]).expect(7);
    project.people("mobile,first_name\n9876543210,Asha\n9876543213,Dev\n");
    project.apply(&[]).expect(0);
    assert!(head.exists());
    // Evidence beside a run leaves the head behind the ledger, which is fine.
    let list = project.run(&["sends", "list", "--state", "unknown", "--format", "json"]).expect(0).json();
    let send = list["sends"][0]["send"].as_str().unwrap();
    project.run(&["resolve", send, "--as", "accepted", "--reason", "in the console"]).expect(0);
    project.apply(&[]).expect(0);
    once_each(&sandbox, 4);
}

#[test]
fn a_head_that_cannot_be_written_ends_the_run() {
    let sandbox = Sandbox::start(&["--latency", "20ms"]);
    let project = Project::with_sandbox(&sandbox);
    project.crowd(500, &[("rate: 2000/s", "rate: 300/s")]);
    let library = project.write(
        "head.c",
        r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
static int fails(int fd) {
  static long calls;
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n <= 0) return 0;
  path[n] = 0;
  return strstr(path, "ledger.head") && ++calls > 10;
}
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) {
  if (fails(fd)) { errno = EIO; return -1; }
  return ((ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64"))(fd, b, n, o);
}
"#,
    );
    let shared = project.path().join("head.so");
    let compiled =
        output(Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shared).arg(&library).arg("-ldl"));
    assert_eq!(compiled.code, 0, "{}", compiled.stderr);
    let mut command = project.command(&["apply", "campaign.yaml", "--auto-approve"]);
    let failed = output(command.env("LD_PRELOAD", &shared));
    assert!([5, 7].contains(&failed.code), "{}: {}", failed.code, failed.stderr);
    assert!(failed.stderr.contains("ledger.head` cannot be written"), "{}", failed.stderr);
    assert!(sandbox.messages().len() < 400);
    let resumed = project.apply(&[]);
    assert!([0, 7].contains(&resumed.code), "{}", resumed.stderr);
    assert!(per_recipient(&sandbox).values().all(|messages| *messages == 1));
}

#[test]
fn a_backup_of_a_killed_run_is_whole_and_is_no_ledger_itself() {
    let sandbox = Sandbox::start(&["--latency", "20ms"]);
    let project = Project::with_sandbox(&sandbox);
    project.crowd(300, &[("rate: 2000/s", "rate: 400/s")]);
    kill_after(&project, &sandbox, 40);
    let counts = project.counts();
    project.run(&["ledger", "backup", "kept/backup.db"]).expect(1);
    std::fs::create_dir(project.path().join("kept")).unwrap();
    project.run(&["ledger", "backup", "kept/backup.db"]).expect(0);
    project.run(&["ledger", "backup", "kept/backup.db"]).expect(1);
    for file in ["kept/backup.db", "kept/backup.key"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(project.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let refused = project.apply(&["--ledger", "sqlite:kept/backup.db"]).expect(1);
    assert!(refused.stderr.contains("is a backup of a ledger"), "{}", refused.stderr);
    // The machine is lost, and the backup is all that is left.
    std::fs::rename(project.path().join(".sendform"), project.path().join("lost")).unwrap();
    let blind = project.run(&["ledger", "restore", "kept/backup.db"]).expect(1);
    assert!(blind.stdout.contains("Nothing tells what was sent"), "{}", blind.stdout);
    project.run(&["ledger", "restore", "kept/backup.db", "--forget-sends", "0"]).expect(0);
    assert_eq!(project.counts(), counts);
    let resumed = project.apply(&[]);
    assert!([0, 7].contains(&resumed.code), "{}", resumed.stderr);
    assert!(per_recipient(&sandbox).values().all(|messages| *messages == 1));
    project.run(&["ledger", "check"]).expect(0);
}

#[test]
fn a_restored_copy_says_what_it_has_forgotten_and_its_campaigns_wait_until_told() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.people("mobile,first_name\n9876543210,Asha\n");
    project.apply(&[]).expect(0);
    project.run(&["ledger", "backup", "backup.db"]).expect(0);
    project.people("mobile,first_name\n9876543210,Asha\n9876543211,Ravi\n9876543212,Meera\n");
    project.apply(&[]).expect(0);
    // The copy alone in the place of the ledger is refused.
    let told = project.run(&["ledger", "restore", "backup.db"]).expect(1);
    for word in ["does not know run 2 of `test-offer`", "forgotten 2 sends"] {
        assert!(told.stdout.contains(word), "{word}: {}", told.stdout);
    }
    assert!(told.stderr.contains("--forget-sends 2"), "{}", told.stderr);
    project.run(&["ledger", "restore", "backup.db", "--forget-sends", "1"]).expect(1);
    project.apply(&[]).expect(0);
    once_each(&sandbox, 3);
    let done = project.run(&["ledger", "restore", "backup.db", "--forget-sends", "2"]).expect(0);
    assert!(done.stderr.contains("is kept as `"), "{}", done.stderr);
    project.run(&["ledger", "check"]).expect(0);
    assert!(project.run(&["ledger", "export"]).expect(0).stdout.contains("\"kind\":\"restored\""));
    for more in [&[][..], &["--forget-sends", "1"]] {
        let refused = project.apply(more).expect(1);
        assert!(refused.stderr.contains("forgotten up to 2 sends of `test-offer`"), "{}", refused.stderr);
    }
    once_each(&sandbox, 3);
    // Another campaign is not concerned.
    project.campaign(&[("name: test-offer", "name: other-offer"), ("HELLO25", "HELLO30"), ("Hi {{1}}.", "Bye {{1}}.")]);
    project.apply(&["--allow-repeat"]).expect(0);
    // The two are left out, and the rest goes on.
    project.campaign(&[]);
    project.people("mobile,first_name\n9876543210,Asha\n9876543219,Dev\n");
    project.apply(&["--forget-sends", "2", "--allow-repeat"]).expect(0);
    project.people("mobile,first_name\n9876543210,Asha\n9876543219,Dev\n9876543218,Usha\n");
    project.apply(&["--allow-repeat"]).expect(0);
    project.run(&["ledger", "check"]).expect(0);
    let of_offer: Vec<_> =
        sandbox.messages().into_iter().filter(|message| message["coupon_code"] == "HELLO25").collect();
    assert_eq!(of_offer.len(), 5);
}

#[test]
fn a_lost_ledger_is_restored_with_what_its_head_knows_is_missing() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.people("mobile,first_name\n9876543210,Asha\n");
    project.apply(&[]).expect(0);
    project.run(&["ledger", "backup", "backup.db"]).expect(0);
    project.people("mobile,first_name\n9876543210,Asha\n9876543211,Ravi\n9876543212,Meera\n");
    project.apply(&[]).expect(0);
    std::fs::remove_file(project.path().join(".sendform/ledger.db")).unwrap();
    // Two sends have four entries; without the ledger nobody can tell which.
    let told = project.run(&["ledger", "restore", "backup.db"]).expect(1);
    assert!(told.stdout.contains("forgotten at most 4 sends"), "{}", told.stdout);
    project.run(&["ledger", "restore", "backup.db", "--forget-sends", "4"]).expect(0);
    project.apply(&[]).expect(1);
    // Also a campaign that the copy has never heard of.
    project.campaign(&[("name: test-offer", "name: new-offer")]);
    project.apply(&["--allow-repeat"]).expect(1);
    once_each(&sandbox, 3);
    // A copy of another ledger is not put in its place.
    let other = Project::with_sandbox(&sandbox);
    other.run(&["ledger", "create"]).expect(0);
    other.run(&["ledger", "backup", "backup.db"]).expect(0);
    std::fs::copy(other.path().join("backup.db"), project.path().join("strange.db")).unwrap();
    std::fs::copy(other.path().join("backup.key"), project.path().join("strange.key")).unwrap();
    project.run(&["ledger", "restore", "strange.db", "--forget-sends", "0"]).expect(1);
}

#[test]
fn a_ledger_with_a_second_name_or_mounted_by_itself_is_refused() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.apply(&[]).expect(0);
    let ledger = project.path().join(".sendform/ledger.db");
    let second = project.path().join("second.db");
    std::fs::hard_link(&ledger, &second).unwrap();
    project.people("mobile,first_name\n9876543210,Asha\n9876543213,Dev\n");
    each_refuses(&project, "hard links to one file");
    std::fs::remove_file(second).unwrap();
    // The rest of its own killed creation is fine.
    std::fs::hard_link(&ledger, project.path().join(".sendform/ledger.db.new")).unwrap();
    project.run(&["status"]).expect(0);
    project.apply(&[]).expect(0);
    assert!(!project.path().join(".sendform/ledger.db.new").exists());
    // A link leads to the file itself, beside which lock, key and head lie.
    std::fs::create_dir(project.path().join("elsewhere")).unwrap();
    for file in ["ledger.db", "ledger.key", "ledger.head"] {
        std::fs::rename(project.path().join(".sendform").join(file), project.path().join("elsewhere").join(file))
            .unwrap();
    }
    std::os::unix::fs::symlink(project.path().join("elsewhere/ledger.db"), &ledger).unwrap();
    project.people("mobile,first_name\n9876543210,Asha\n9876543213,Dev\n9876543214,Usha\n");
    project.apply(&[]).expect(0);
    project.apply(&["--ledger", "sqlite:elsewhere/ledger.db"]).expect(0);
    once_each(&sandbox, 5);
    // A file that is mounted by itself leaves its log behind.
    std::fs::create_dir(project.path().join("mounted")).unwrap();
    std::fs::write(project.path().join("mounted/ledger.db"), "").unwrap();
    // SAFETY: the call has no preconditions.
    let flags = if unsafe { libc::geteuid() } == 0 { "-m" } else { "-rm" };
    let script = format!(
        "mount --bind elsewhere/ledger.db mounted/ledger.db && exec {} status --ledger sqlite:mounted/ledger.db",
        env!("CARGO_BIN_EXE_sendform")
    );
    let mut command = Command::new("unshare");
    command.args([flags, "sh", "-c", &script]).current_dir(project.path()).env_clear();
    let refused = output(command.env("PATH", std::env::var_os("PATH").unwrap())).expect(1);
    assert!(refused.stderr.contains("is a mount point itself"), "{}", refused.stderr);
}

#[test]
fn a_moved_ledger_goes_on_at_its_new_place_alone_and_holds_everything() {
    let sandbox = Sandbox::start(&["--fault", "reset-after=+919800000001", "--latency", "5ms"]);
    let mut project = Project::with_sandbox(&sandbox);
    let key = ("SENDFORM_KEY", "5a".repeat(32));
    project.environment = vec![key.clone()];
    project.crowd(40, &[]);
    project.apply(&[]).expect(7);
    kill_after_growing(&project, &sandbox);
    let database = postgres::shared().database();
    let told = |project: &Project| {
        let status = project.run(&["status", "--format", "json"]).expect(0).json();
        let export = project.run(&["ledger", "export", "--full"]).expect(0).stdout;
        let entries: Vec<String> =
            export.lines().filter(|line| line.contains("\"type\":\"entry\"")).map(str::to_owned).collect();
        let check = project.run(&["ledger", "check", "--format", "json"]).expect(0).json();
        (status["campaigns"][0]["counts"].clone(), entries, check["id"].clone(), check["head"].clone())
    };
    let before = told(&project);
    // To the database, and by way of it to another file.
    for (from, to) in [("sqlite:.sendform/ledger.db", database.as_str()), (database.as_str(), "sqlite:new/ledger.db")] {
        project.environment = vec![key.clone()];
        project.run(&["ledger", "copy", from, to]).expect(0);
        // The same command again changes nothing.
        project.run(&["ledger", "copy", from, to]).expect(0);
        project.environment = vec![key.clone(), ("SENDFORM_LEDGER", to.to_owned())];
        let now = told(&project);
        assert_eq!(before.1, now.1);
        assert_eq!((&before.0, &before.2, &before.3), (&now.0, &now.2, &now.3));
        // The old one is for reading alone.
        project.environment = vec![key.clone(), ("SENDFORM_LEDGER", from.to_owned())];
        for command in [
            &["apply", "campaign.yaml", "--auto-approve"][..],
            &["plan", "campaign.yaml"],
            &["resolve", &"0".repeat(32), "--as", "accepted", "--reason", "x"],
        ] {
            let refused = project.run(command).expect(1);
            assert!(refused.stderr.contains("was moved to"), "{command:?}: {}", refused.stderr);
        }
        project.run(&["ledger", "check"]).expect(0);
        project.run(&["ledger", "copy", from, "sqlite:third/ledger.db"]).expect(1);
        project.environment = vec![key.clone(), ("SENDFORM_LEDGER", to.to_owned())];
        // Where something stands already nothing is moved to.
        project.run(&["ledger", "copy", to, to]).expect(1);
    }
    // In the new place the rest is sent, and nobody gets it twice; codes stay with whom they were given to.
    let resumed = project.apply(&[]);
    assert_eq!(resumed.code, 7, "{}", resumed.stderr);
    // What was under way at the kill is in doubt, whether it arrived or not.
    let counts = project.counts();
    assert_eq!((counts.pending, counts.total()), (0, 80));
    let got = nothing_twice(&sandbox);
    assert!((counts.accepted..=80).contains(&got), "{got} arrived, {counts:?}");
    project.run(&["ledger", "check"]).expect(0);
    // And on the database likewise.
    let second = postgres::shared().database();
    project.run(&["ledger", "copy", "sqlite:new/ledger.db", &second]).expect(0);
    project.environment = vec![key, ("SENDFORM_LEDGER", second)];
    project.crowd(100, &[]);
    project.apply(&[]).expect(7);
    assert_eq!(nothing_twice(&sandbox), got + 20);
    project.run(&["ledger", "check"]).expect(0);
}

/// Enlarges the audience to 80 and kills the run that sends to the new people.
fn kill_after_growing(project: &Project, sandbox: &Sandbox) {
    project.crowd(80, &[("rate: 2000/s", "rate: 100/s")]);
    let before = sandbox.messages().len();
    kill_after(project, sandbox, before + 10);
    project.crowd(80, &[]);
}

#[test]
fn an_unfinished_copy_cannot_be_used_and_is_finished_by_the_same_command() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.apply(&[]).expect(0);
    project.run(&["ledger", "copy", "sqlite:.sendform/ledger.db", "sqlite:new/ledger.db"]).expect(0);
    let root = project.path().canonicalize().unwrap();
    let sql = |ledger: &str, sql: &str| {
        rusqlite::Connection::open(root.join(ledger)).unwrap().execute_batch(sql).unwrap();
    };
    // As it was when the process died before the old one was marked.
    let from = format!("sqlite:{}", root.join(".sendform/ledger.db").display());
    sql(".sendform/ledger.db", "DELETE FROM property WHERE name = 'moved_to'");
    sql("new/ledger.db", &format!("INSERT INTO property VALUES ('unfinished_copy_of', '{from}')"));
    let refused = project.apply(&["--ledger", "sqlite:new/ledger.db"]).expect(1);
    assert!(refused.stderr.contains("an unfinished copy"), "{}", refused.stderr);
    project.people("mobile,first_name\n9876543210,Asha\n9876543213,Dev\n");
    project.apply(&[]).expect(0);
    project.run(&["ledger", "copy", "sqlite:.sendform/ledger.db", "sqlite:new/ledger.db"]).expect(0);
    project.apply(&["--ledger", "sqlite:new/ledger.db"]).expect(0);
    // And when it died right after.
    sql("new/ledger.db", &format!("INSERT INTO property VALUES ('unfinished_copy_of', '{from}')"));
    project.apply(&["--ledger", "sqlite:new/ledger.db"]).expect(1);
    project.run(&["ledger", "copy", "sqlite:.sendform/ledger.db", "sqlite:new/ledger.db"]).expect(0);
    project.people("mobile,first_name\n9876543210,Asha\n9876543213,Dev\n9876543214,Usha\n");
    project.apply(&["--ledger", "sqlite:new/ledger.db"]).expect(0);
    once_each(&sandbox, 5);
}

#[test]
fn the_head_that_a_pipeline_kept_refuses_a_fresh_or_older_ledger() {
    let sandbox = Sandbox::start(&[]);
    for database in [false, true] {
        let before = sandbox.messages().len();
        let mut project = Project::with_sandbox(&sandbox);
        if database {
            project.on_postgres(&postgres::shared().database());
        }
        let first = project.apply(&[]).expect(0).stderr;
        let head = first.lines().rev().find_map(|line| line.strip_prefix("Ledger head ")).unwrap().to_owned();
        project.environment.push(("SENDFORM_LEDGER_HEAD", head));
        project.apply(&[]).expect(0);
        // `git clean -fdx`, or another database: nothing is left that could tell.
        std::fs::remove_dir_all(project.path().join(".sendform")).unwrap();
        if database {
            project.environment[0].1 = postgres::shared().database();
        }
        let mut project = project.without_ledger();
        for more in [&["--new-ledger"][..], &[]] {
            let refused = project.apply(more).expect(1);
            assert!(refused.stderr.contains("nothing was sent"), "{}", refused.stderr);
        }
        project.environment.retain(|(name, _)| *name != "SENDFORM_LEDGER_HEAD");
        project.run(&["ledger", "create"]).expect(0);
        project.environment.push(("SENDFORM_LEDGER_HEAD", "2:00112233445566778899aabbccddeeff".to_owned()));
        let refused = project.apply(&[]).expect(1);
        assert!(refused.stderr.contains("the ledger is behind"), "{}", refused.stderr);
        // A trial has nothing to do with it.
        project.apply(&["--sandbox"]).expect(0);
        assert_eq!(sandbox.messages().len(), before + 3);
    }
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
        ("api_key: { env: KALEYRA_API_KEY }", "api_key: { exec: [sh, key.sh] }"),
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
    project.write("key.sh", "touch asked\necho sandbox-key\n");
    project.campaign(&[("api_key: { env: KALEYRA_API_KEY }", "api_key: { exec: [sh, key.sh] }")]);
    project.run(&["apply", "campaign.yaml"]).expect(1);
    at_a_terminal(&project, "no\n").expect(1);
    project.run(&["apply", "campaign.yaml", "--plan-hash", &format!("v1:{}", "0".repeat(64))]);
    assert!(!project.path().join("asked").exists() && !project.path().join(".sendform").exists());
}

#[test]
fn new_directories_are_flushed_with_their_parents() {
    let project = Project::new().without_ledger();
    let source = project.write(
        "sync.c",
        r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int fsync(int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  FILE *log = fopen(getenv("SYNC_LOG"), "a");
  if (log && n > 0) { path[n] = 0; fprintf(log, "%s\n", path); }
  if (log) fclose(log);
  return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
"#,
    );
    let library = project.path().join("sync.so");
    let compiled =
        output(Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl"));
    assert_eq!(compiled.code, 0, "{}", compiled.stderr);
    let log = project.path().join("synced");
    let mut command = project.command(&["ledger", "create", "--ledger", "sqlite:record/deep/ledger.db"]);
    output(command.env("LD_PRELOAD", &library).env("SYNC_LOG", &log)).expect(0);
    let synced = std::fs::read_to_string(log).unwrap();
    let root = project.path().canonicalize().unwrap();
    for directory in [root.clone(), root.join("record"), root.join("record/deep")] {
        assert!(synced.lines().any(|line| Path::new(line) == directory), "{}: {synced}", directory.display());
    }
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
