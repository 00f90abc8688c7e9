//! SIGKILL at random moments: nobody gets it twice, nobody is lost, and doubt is bounded.

use std::collections::HashSet;
use std::process::Stdio;
use std::time::Duration;

use crate::support::{Project, Sandbox};

const PEOPLE: u64 = 2_000;
const KILLS: u64 = 20;
const CONCURRENCY: u64 = 20;

#[test]
fn a_run_that_is_killed_again_and_again_sends_each_offer_once() {
    let sandbox = Sandbox::start(&["--latency", "60ms"]);
    let project = Project::with_sandbox(&sandbox);
    project.campaign(&[("coupons: { code: HELLO25 }", "coupons: { pool: { csv: codes.csv } }")]);
    let rows: String = (0..PEOPLE).map(|row| format!("98{row:08},Person {row}\n")).collect();
    project.people(&format!("mobile,first_name\n{rows}"));
    let codes: String = (0..PEOPLE).map(|row| format!("CODE{row}\n")).collect();
    project.write("codes.csv", format!("code\n{codes}"));

    let mut seed = u64::from(std::process::id()) ^ 0x5eed;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut unknown = 0;
    let mut landed = 0;
    for kill in 0..KILLS {
        let mut child = project
            .command(&["apply", "campaign.yaml", "--auto-approve"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(120 + random(400)));
        landed += u64::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        let counts = project.counts();
        if counts.total() > 0 {
            assert_eq!(counts.total(), PEOPLE, "somebody is lost after kill {kill}: {counts:?}");
        }
        assert!(counts.unknown <= unknown + CONCURRENCY, "kill {kill}: {} more in doubt", counts.unknown - unknown);
        unknown = counts.unknown;
    }
    assert!(landed > KILLS / 2, "only {landed} kills hit a running process");

    let last = project.apply(&[]);
    assert!([0, 7].contains(&last.code), "{}", last.stderr);
    let counts = project.counts();
    assert_eq!((counts.pending, counts.rejected), (0, 0));
    assert_eq!(counts.accepted + counts.unknown, PEOPLE);

    let messages = sandbox.messages();
    for field in ["to", "ref", "coupon_code"] {
        let different: HashSet<_> = messages.iter().map(|message| message[field].as_str().unwrap()).collect();
        assert_eq!(different.len(), messages.len(), "`{field}` was accepted twice");
    }
    // Everybody either got it, or is one of those whose outcome is not known.
    assert!(messages.len() as u64 >= counts.accepted);
    assert!(PEOPLE - messages.len() as u64 <= counts.unknown);
    eprintln!("{landed} kills of a running apply, {} sends in doubt of {PEOPLE}", counts.unknown);
}

#[test]
fn a_lock_that_is_lost_does_not_let_anybody_send_twice() {
    let sandbox = Sandbox::start(&["--latency", "40ms"]);
    let project = Project::with_sandbox(&sandbox);
    let rows: String = (0..600).map(|row| format!("98{row:08},A\n")).collect();
    project.people(&format!("mobile,first_name\n{rows}"));
    let apply = || {
        let mut command = project.command(&["apply", "campaign.yaml", "--auto-approve"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let first = apply();
    while sandbox.messages().len() < 50 {
        std::thread::sleep(Duration::from_millis(10));
    }
    // Somebody tidies up, or a file system loses its locks: both now believe that they hold the lease.
    std::fs::remove_file(project.path().join(".sendform/ledger.db.lock")).unwrap();
    let second = apply();
    let (first, second) = (first.wait_with_output().unwrap(), second.wait_with_output().unwrap());
    let told = String::from_utf8_lossy(&first.stderr).into_owned() + &String::from_utf8_lossy(&second.stderr);
    assert!(told.contains("another process wrote to the ledger"), "{told}");
    project.apply(&[]);
    let counts = project.counts();
    assert_eq!((counts.pending, counts.accepted + counts.unknown), (0, 600));
    assert!(counts.unknown <= 2 * CONCURRENCY, "{counts:?}");
    let messages = sandbox.messages();
    let different: HashSet<_> = messages.iter().map(|message| message["to"].as_str().unwrap()).collect();
    assert_eq!(different.len(), messages.len(), "somebody got it twice");
}
