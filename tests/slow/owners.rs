//! Files that belong to another user.

use crate::support::{Sandbox, apply_in, two_directories};

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
    assert!(refused.stderr.contains("another user owns it"), "{}", refused.stderr);
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
