//! A ledger's files: copied, moved, deleted, restored, and a file with two names.

use crate::support::{
    Project, Sandbox, apply_in, copy_directory, kill_after, once_each, output, per_recipient, two_directories,
};

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
fn a_copied_project_does_not_go_on_beside_the_original() {
    let sandbox = Sandbox::start(&[]);
    let project = two_directories(&sandbox);
    apply_in(&project, "b", "campaign.yaml", &["--new-ledger"]).expect(0);
    let more = "mobile,first_name\n9876543210,Asha\n9876543211,Ravi\n9876543212,Meera\n9876543213,Dev\n";
    copy_directory(&project.path().join("b"), &project.path().join("c"));
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

#[test]
fn a_ledger_that_has_lost_its_log_or_is_an_older_copy_is_refused() {
    let sandbox = Sandbox::start(&["--latency", "20ms"]);
    let project = Project::with_sandbox(&sandbox);
    project.crowd(400, &[("rate: 2000/s", "rate: 400/s")]);
    kill_after(&project, &sandbox, 40);
    // Everything stands in the log: the file alone is what a naive backup holds.
    let own = project.path().join(".sendform");
    copy_directory(&own, &project.path().join("whole"));
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
    // Older versions wrote neither a head nor that there must be one.
    let ledger = rusqlite::Connection::open(project.path().join(".sendform/ledger.db")).unwrap();
    ledger.execute("DELETE FROM property WHERE name = 'head_required'", []).unwrap();
    drop(ledger);
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
fn a_ledger_that_was_copied_with_its_key_and_without_its_head_is_refused_until_it_is_adopted() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.people("mobile,first_name\n9876543210,Asha\n");
    project.apply(&[]).expect(0);
    // To a machine that knows nothing of the first one.
    let machine = Project::with_sandbox(&sandbox);
    machine.people("mobile,first_name\n9876543210,Asha\n9876543211,Ravi\n");
    std::fs::create_dir_all(machine.path().join(".sendform")).unwrap();
    for file in ["ledger.db", "ledger.db-wal", "ledger.key"] {
        let from = project.path().join(".sendform").join(file);
        if from.exists() {
            std::fs::copy(from, machine.path().join(".sendform").join(file)).unwrap();
        }
    }
    // Meanwhile the original goes on.
    project.people("mobile,first_name\n9876543210,Asha\n9876543211,Ravi\n");
    project.apply(&[]).expect(0);
    for command in [&["plan", "campaign.yaml"][..], &["apply", "campaign.yaml", "--auto-approve"], &["status"]] {
        let refused = machine.run(command).expect(1);
        assert!(refused.stderr.contains("ledger.head` beside it"), "{}", refused.stderr);
        assert!(refused.stderr.contains("`sendform ledger adopt`"), "{}", refused.stderr);
    }
    assert_eq!(sandbox.messages().len(), 2);
    // Whoever knows that it is the only one may go on with it.
    machine.people("mobile,first_name\n9876543210,Asha\n9876543212,Meera\n");
    machine.run(&["ledger", "adopt"]).expect(0);
    machine.apply(&[]).expect(0);
    once_each(&sandbox, 3);
    // Moved together with its head it needs no permission, because a rename keeps the file.
    std::fs::rename(machine.path().join(".sendform"), machine.path().join("elsewhere")).unwrap();
    machine.run(&["status", "--ledger", "sqlite:elsewhere/ledger.db"]).expect(0);
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
    assert!(blind.stdout.contains("nothing shows what was sent"), "{}", blind.stdout);
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
    for word in ["lacks run 2 of `test-offer`", "lacks 2 sends"] {
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
        assert!(refused.stderr.contains("lacks up to 2 sends of `test-offer`"), "{}", refused.stderr);
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
    assert!(told.stdout.contains("lacks at most 4 sends"), "{}", told.stdout);
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
fn a_ledger_with_a_second_name_is_refused_and_one_behind_a_link_is_not() {
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
