//! A ledger that moves between a file and a database.

use crate::support::{Project, Sandbox, kill_after, nothing_twice, postgres};

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
