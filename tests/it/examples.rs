//! Every example runs as it stands, and so does what `init` writes.

use std::path::Path;

use crate::support::{Project, copy_directory};

#[test]
fn examples_are_validated_planned_and_applied() {
    let project = Project::empty();
    copy_directory(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"), &project.path().join("examples"));
    let mut seen = 0;
    for entry in std::fs::read_dir(project.path().join("examples")).unwrap() {
        let manifest = entry.unwrap().path().join("campaign.yaml");
        if !manifest.exists() {
            continue;
        }
        seen += 1;
        let manifest = manifest.to_str().unwrap();
        project.run(&["validate", manifest]).expect(0);
        let plan = project.run(&["plan", manifest, "--sandbox", "--format", "json"]).expect(0).json();
        let send = plan["counts"]["send"].as_u64().unwrap();
        assert!(send >= 3, "{manifest}");
        project.run(&["preview", manifest, "--sandbox"]).expect(0);
        project.run(&["apply", manifest, "--sandbox", "--auto-approve"]).expect(0);
        let status = project.run(&["status", manifest, "--sandbox", "--format", "json"]).expect(0).json();
        assert_eq!(status["counts"]["accepted"], send, "{manifest}");
        let again = project.run(&["apply", manifest, "--sandbox", "--auto-approve"]).expect(0);
        assert!(again.stderr.contains("Nothing to send"));
    }
    assert!(seen >= 3, "only {seen} examples");
    let inbox = std::fs::read_to_string(project.path().join("examples/.sendform/sandbox/inbox.html"));
    assert!(inbox.unwrap().contains("\"coupon_code\":\""), "the last run's messages are not on the inbox page");
}

#[test]
fn what_init_writes_runs_and_is_not_overwritten() {
    let project = Project::empty();
    project.run(&["init", "offer"]).expect(0);
    project.run(&["validate", "offer/campaign.yaml"]).expect(0);
    project.run(&["apply", "offer/campaign.yaml", "--sandbox", "--auto-approve"]).expect(0);
    let output = project.run(&["init", "offer"]).expect(1);
    assert!(output.stderr.contains("would be overwritten"));
}
