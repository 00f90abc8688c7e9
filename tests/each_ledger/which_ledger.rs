//! Which ledger a campaign is sent with.

use super::project;
use crate::support::{Kind, Sandbox, once_each, postgres};

#[test]
fn new_ledger_is_for_one_run_and_refused_in_a_pipeline_that_keeps_it() {
    let sandbox = Sandbox::start(&[]);
    let project = project(&sandbox).without_ledger();
    project.apply(&[]).expect(1);
    project.apply(&["--new-ledger"]).expect(0);
    let kept = project.apply(&["--new-ledger"]).expect(64);
    assert!(kept.stderr.contains("holds a run that has ended"), "{}", kept.stderr);
    project.apply(&[]).expect(0);
    once_each(&sandbox, 3);
}

#[test]
fn a_campaign_that_was_sent_with_one_ledger_is_not_sent_with_another() {
    let sandbox = Sandbox::start(&[]);
    let database = crate::LEDGER == Kind::Postgres;
    let mut project = project(&sandbox).without_ledger();
    if crate::LEDGER == Kind::Postgres {
        project.environment[0].1 = project.environment[0].1.replace("sendform@", "sendform:hunter2@");
    } else {
        project.environment = vec![("SENDFORM_LEDGER", "sqlite:record/offers.db".to_owned())];
    }
    project.apply(&["--new-ledger"]).expect(0);
    let id = project.run(&["ledger", "check", "--format", "json"]).expect(0).json()["id"].as_str().unwrap().to_owned();
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
    assert_eq!(sandbox.messages().len(), 3);
    project.run(&["ledger", "adopt", "campaign.yaml", "--ledger", "sqlite:other.db"]).expect(0);
    assert_eq!(
        project.run(&["plan", "campaign.yaml", "--ledger", "sqlite:other.db", "--format", "json"]).expect(0).json()["counts"]
            ["send"],
        3
    );
}

#[test]
fn the_head_that_a_pipeline_kept_refuses_a_fresh_or_older_ledger() {
    let sandbox = Sandbox::start(&[]);
    let mut project = project(&sandbox);
    let first = project.apply(&[]).expect(0).stderr;
    let head = first.lines().rev().find_map(|line| line.strip_prefix("Ledger head ")).unwrap().to_owned();
    project.environment.push(("SENDFORM_LEDGER_HEAD", head));
    project.apply(&[]).expect(0);
    // `git clean -fdx`, or another database: nothing is left that could tell.
    std::fs::remove_dir_all(project.path().join(".sendform")).unwrap();
    if crate::LEDGER == Kind::Postgres {
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
    assert_eq!(sandbox.messages().len(), 3);
}
