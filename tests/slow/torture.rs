//! Kills, pauses, full and failing disks, and a provider that fails in every way it can.
//!
//! After each: nothing was accepted twice, everybody is accounted for, and at most as many sends are
//! in doubt as were under way when a process died. A few minutes' worth runs with all tests;
//! `SENDFORM_TORTURE=5000` makes it that many kills (see `benches/README.md`).

use std::time::Duration;

use crate::support::{Counts, Project, Sandbox, nothing_twice, postgres, signal, until, wait};

pub const CONCURRENCY: u64 = 20;

/// How many kills one campaign sees, before another begins.
const KILLS_OF_ONE: u64 = 25;

/// How many kills there are on each ledger.
fn kills() -> u64 {
    std::env::var("SENDFORM_TORTURE").ok().map_or(200, |kills| kills.parse().expect("a number")) / 2
}

/// Small random numbers, the same for the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(salt: u64) -> Self {
        let seed = std::env::var("SENDFORM_TORTURE_SEED")
            .ok()
            .map_or_else(|| u64::from(std::process::id()), |seed| seed.parse().expect("a number"));
        Self(seed ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn pause(&mut self, from: u64, to: u64) {
        std::thread::sleep(Duration::from_millis(from + self.below(to - from)));
    }
}

/// What holds at any time: everybody is accounted for.
#[track_caller]
pub fn accounted(project: &Project, people: u64) -> Counts {
    let counts = project.counts();
    if counts.total() > 0 {
        assert_eq!(counts.total(), people, "somebody is lost: {counts:?}");
    }
    counts
}

/// What holds at the end: nobody is left, nobody got it twice, and the record says what the provider says.
#[track_caller]
pub fn complete(project: &Project, sandbox: &Sandbox, people: u64) -> Counts {
    let counts = accounted(project, people);
    assert_eq!(counts.pending, 0, "{counts:?}");
    let got = nothing_twice(sandbox);
    assert!(got >= counts.accepted, "{got} arrived, {counts:?}");
    assert!(got <= counts.accepted + counts.unknown, "{got} arrived, {counts:?}");
    project.run(&["ledger", "check"]).expect(0);
    counts
}

#[test]
fn sqlite_through_kills() {
    let mut random = Random::new(1);
    let (mut landed, mut doubt, mut done) = (0, 0, 0);
    while done < kills() {
        let sandbox = Sandbox::start(&["--latency", "40ms"]);
        let project = Project::with_sandbox(&sandbox);
        let people = 2_500;
        project.crowd(people, &[("rate: 2000/s", "rate: 400/s")]);
        let mut unknown = 0;
        for _ in 0..KILLS_OF_ONE.min(kills() - done) {
            done += 1;
            let mut child = project.start(&[]);
            random.pause(40, 400);
            landed += u64::from(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
            let counts = accounted(&project, people);
            assert!(
                counts.unknown <= unknown + CONCURRENCY,
                "{} more in doubt after one kill",
                counts.unknown - unknown
            );
            unknown = counts.unknown;
        }
        let last = project.apply(&[]);
        assert!([0, 7].contains(&last.code), "{}", last.stderr);
        doubt += complete(&project, &sandbox, people).unknown;
    }
    eprintln!("SQLite: {done} kills, {landed} of a running apply, {doubt} sends in doubt, none twice, nobody lost");
    assert!(landed * 2 > done, "only {landed} of {done} kills hit a running process");
}

#[test]
fn postgres_through_kills_of_two_to_four_appliers() {
    let mut random = Random::new(2);
    let (mut landed, mut doubt, mut done) = (0, 0, 0);
    while done < kills() {
        let sandbox = Sandbox::start(&["--latency", "40ms"]);
        let mut project = Project::with_sandbox(&sandbox);
        project.on_postgres(&postgres::shared().database());
        let people = 3_000;
        project.crowd(people, &[("rate: 2000/s", "rate: 400/s")]);
        let many = 2 + random.below(3);
        let mut running: Vec<_> = (0..many).map(|_| project.start(&["--lease", "2s"])).collect();
        let mut killed = 0;
        for _ in 0..KILLS_OF_ONE.min(kills() - done) {
            done += 1;
            random.pause(60, 300);
            let mut victim = running.swap_remove(usize::try_from(random.below(many)).unwrap());
            landed += u64::from(victim.try_wait().unwrap().is_none());
            victim.kill().unwrap();
            victim.wait().unwrap();
            killed += 1;
            running.push(project.start(&["--lease", "2s"]));
            let counts = accounted(&project, people);
            assert!(counts.unknown <= killed * CONCURRENCY, "{} in doubt after {killed} kills", counts.unknown);
        }
        for child in running {
            let output = wait(child);
            assert!([0, 7].contains(&output.code), "{}: {}", output.code, output.stderr);
        }
        let last = project.apply(&["--lease", "2s"]);
        assert!([0, 7].contains(&last.code), "{}", last.stderr);
        doubt += complete(&project, &sandbox, people).unknown;
    }
    eprintln!("PostgreSQL: {done} kills, {landed} of a running apply, {doubt} sends in doubt, none twice, nobody lost");
    assert!(landed * 2 > done, "only {landed} of {done} kills hit a running process");
}

#[test]
fn every_fault_of_the_provider_at_once() {
    let faults = ["reset-before", "reset-after", "429", "500-before", "500-after", "garbled"];
    let shares: Vec<String> = faults.iter().map(|fault| format!("{fault}=0.1")).collect();
    let arguments: Vec<&str> = shares.iter().flat_map(|share| ["--fault", share.as_str()]).collect();
    for database in [false, true] {
        let sandbox = Sandbox::start(&[&["--latency", "5ms"], arguments.as_slice()].concat());
        let mut project = Project::with_sandbox(&sandbox);
        if database {
            project.on_postgres(&postgres::shared().database());
        }
        // Four of ten end unknown; that many would stop a run.
        project.crowd(250, &[("concurrency: 20 }", "concurrency: 20, stop_when: { unknown: 100% } }")]);
        let mut code = 5;
        for _ in 0..20 {
            // Many sends in a row that fail end a run; the next goes on.
            let output = project.apply(&[]);
            assert!([0, 5, 6, 7].contains(&output.code), "{}: {}", output.code, output.stderr);
            code = output.code;
            if accounted(&project, 250).pending == 0 {
                break;
            }
        }
        let counts = complete(&project, &sandbox, 250);
        assert!(counts.accepted > 80 && counts.unknown > 50, "{counts:?}");
        assert_eq!(code, 7);
    }
}

#[test]
fn a_paused_process_keeps_its_lock_and_goes_on() {
    let sandbox = Sandbox::start(&["--latency", "40ms"]);
    let project = Project::with_sandbox(&sandbox);
    project.crowd(600, &[("rate: 2000/s", "rate: 300/s")]);
    let paused = project.start(&[]);
    until("something is sent", || sandbox.messages().len() > 50);
    signal(&paused, libc::SIGSTOP);
    std::thread::sleep(Duration::from_millis(1_500));
    let refused = project.apply(&[]).expect(8);
    assert!(refused.stderr.contains("is held by process"), "{}", refused.stderr);
    signal(&paused, libc::SIGCONT);
    wait(paused).expect(0);
    complete(&project, &sandbox, 600);
}

#[test]
fn a_lock_that_is_lost_does_not_let_anybody_send_twice() {
    let sandbox = Sandbox::start(&["--latency", "40ms"]);
    let project = Project::with_sandbox(&sandbox);
    // Slow, so that the second run begins between two commits of the first.
    project.crowd(12, &[("rate: 2000/s", "rate: 2/s")]);
    let first = project.start(&[]);
    until("something is sent", || sandbox.messages().len() > 2);
    // Somebody tidies up, or a file system loses its locks: both now believe that they hold the lease.
    std::fs::remove_file(project.path().join(".sendform/ledger.db.lock")).unwrap();
    let second = project.start(&[]);
    let told = wait(first).stderr + &wait(second).stderr;
    assert!(told.contains("another process wrote to the ledger"), "{told}");
    project.apply(&[]);
    let counts = complete(&project, &sandbox, 12);
    assert!(counts.unknown <= 2 * CONCURRENCY, "{counts:?}");
}

#[test]
fn a_ledger_that_is_removed_or_replaced_under_a_run_stops_it() {
    for replaced in [false, true] {
        let sandbox = Sandbox::start(&["--latency", "40ms"]);
        let project = Project::with_sandbox(&sandbox);
        project.crowd(600, &[("rate: 2000/s", "rate: 300/s")]);
        let running = project.start(&[]);
        until("something is sent", || sandbox.messages().len() > 50);
        let ledger = project.path().join(".sendform/ledger.db");
        if replaced {
            // A backup is put back, or a synchronisation brings an older file.
            std::fs::hard_link(&ledger, project.path().join("moved.db")).unwrap();
            std::fs::rename(project.write("other.db", "something else"), &ledger).unwrap();
        } else {
            std::fs::rename(&ledger, project.path().join("moved.db")).unwrap();
        }
        let stopped = wait(running).expect(8);
        assert!(stopped.stderr.contains("file was removed or replaced"), "{}", stopped.stderr);
        // The run's end stands in the file that is gone; nobody may take it for the ledger's head.
        assert!(!stopped.stderr.contains("Ledger head 2"), "{}", stopped.stderr);
        nothing_twice(&sandbox);
    }
}

#[test]
fn several_at_once_on_one_file() {
    let sandbox = Sandbox::start(&["--latency", "40ms"]);
    let project = Project::with_sandbox(&sandbox);
    project.crowd(400, &[("rate: 2000/s", "rate: 400/s")]);
    let all: Vec<_> = (0..4).map(|_| project.start(&[])).collect();
    let mut codes: Vec<i32> = all.into_iter().map(|child| wait(child).code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 8, 8, 8]);
    assert_eq!(complete(&project, &sandbox, 400).accepted, 400);
}

#[test]
fn a_cancelled_pipeline_ends_in_time_and_knows_what_is_in_doubt() {
    let sandbox = Sandbox::start(&["--latency", "25s", "--fault", "429=0"]);
    let quick = Sandbox::start(&[]);
    let mut project = Project::with_sandbox(&quick);
    project.crowd(100, &[("rate: 2000/s", "rate: 50/s")]);
    // One is accepted at once, so that the run widens; then the provider hangs.
    project.people("mobile,first_name\n9800000000,A\n");
    project.apply(&[]).expect(0);
    project.base_url = sandbox.url.clone();
    project.crowd(100, &[("rate: 2000/s", "rate: 50/s")]);
    let child = project.start(&[]);
    until("the run is under way", || {
        project.run(&["status", "campaign.yaml", "--format", "json"]).json()["counts"]["in_flight"] == 1
    });
    let started = std::time::Instant::now();
    signal(&child, libc::SIGINT);
    std::thread::sleep(Duration::from_millis(7_500));
    signal(&child, libc::SIGTERM);
    let ended = wait(child).expect(130);
    assert!(started.elapsed() < Duration::from_millis(9_500), "it would have been killed: {:?}", started.elapsed());
    for told in ["interrupted", "unknown", "Run the same command again"] {
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
    }
    let counts = accounted(&project, 100);
    assert!((1..=CONCURRENCY).contains(&counts.unknown), "{counts:?}");
    // Nothing is left open: the record itself says that they are unknown.
    let listed = project.run(&["sends", "list", "--state", "unknown"]).expect(0);
    assert!(listed.stdout.contains("stopped before its answer came"), "{}", listed.stdout);
}
