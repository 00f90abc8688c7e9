//! What is PostgreSQL's alone: several appliers, a database that goes and comes, poolers, TLS.

use std::process::Child;
use std::time::Duration;

use jiff::Timestamp;

use crate::each_ledger::unknown::two_unknown;
use crate::support::postgres::{self, Postgres};
use crate::support::{Project, Sandbox, nothing_twice, output, signal, until, wait};

const POOL: &str = "delivery: { rate: 2000/s, concurrency: 20 }";

fn project(sandbox: &Sandbox, url: &str) -> Project {
    let mut project = Project::with_sandbox(sandbox);
    project.on_postgres(url);
    project
}

#[test]
fn several_appliers_share_one_plan() {
    let sandbox = Sandbox::start(&["--latency", "30ms"]);
    let project = project(&sandbox, &postgres::shared().database());
    project.crowd(1_500, &[(POOL, "delivery: { rate: 2000/s, concurrency: 10 }")]);
    let appliers: Vec<Child> = (0..3).map(|_| project.start(&[])).collect();
    let ended: Vec<_> = appliers.into_iter().map(|applier| wait(applier).expect(0)).collect();
    assert_eq!(nothing_twice(&sandbox), 1_500);
    let counts = project.counts();
    assert_eq!((counts.accepted, counts.pending, counts.unknown), (1_500, 0, 0));
    let status = project.run(&["status", "campaign.yaml", "--format", "json"]).expect(0).json();
    let runs = status["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 3);
    for run in runs {
        assert!(run["counts"]["accepted"].as_u64().unwrap() > 200, "one of them did hardly anything: {run}");
    }
    assert!(ended.iter().all(|output| output.stderr.contains("by others")), "{}", ended[0].stderr);
    project.run(&["ledger", "check"]).expect(0);
}

#[test]
fn appliers_hold_the_rate_of_the_number_together() {
    let sandbox = Sandbox::start(&["--latency", "20ms"]);
    let project = project(&sandbox, &postgres::shared().database());
    project.crowd(2_200, &[(POOL, "delivery: { rate: 200/s, concurrency: 50 }")]);
    let appliers: Vec<Child> = (0..2).map(|_| project.start(&[])).collect();
    appliers.into_iter().for_each(|applier| drop(wait(applier).expect(0)));
    assert_eq!(nothing_twice(&sandbox), 2_200);
    let mut times: Vec<i64> = sandbox
        .messages()
        .iter()
        .map(|message| message["received_at"].as_str().unwrap().parse::<Timestamp>().unwrap().as_millisecond())
        .collect();
    times.sort_unstable();
    let seconds = (times[times.len() - 1] - times[0]) as f64 / 1_000.0;
    assert!((10.7..=13.0).contains(&seconds), "2,200 at 200/s took {seconds} s");
    // Time that a busy machine takes away is lost, but there is never more than the rate.
    let most = |span: i64| {
        let within = |from: usize| times[from..].partition_point(|time| *time < times[from] + span);
        (0..times.len()).map(within).max().unwrap()
    };
    assert!(most(10_000) <= 2_040, "{} within ten seconds", most(10_000));
    assert!(most(1_000) <= 230, "{} within one second", most(1_000));
}

#[test]
fn an_apply_of_another_plan_is_refused_while_one_runs() {
    let sandbox = Sandbox::start(&["--latency", "50ms"]);
    let url = postgres::shared().database();
    let first = project(&sandbox, &url);
    first.crowd(600, &[(POOL, "delivery: { rate: 100/s, concurrency: 5 }")]);
    let running = first.start(&[]);
    until("something is sent", || !sandbox.messages().is_empty());
    let second = project(&sandbox, &url);
    second.crowd(600, &[("Hi {{1}}.", "Hello {{1}}.")]);
    // The text is for previews; what the provider is told must differ.
    second.crowd(601, &[]);
    let refused = second.apply(&[]).expect(8);
    for told in ["is held by run 1 of another plan", "since 20", "last heartbeat"] {
        assert!(refused.stderr.contains(told), "{}", refused.stderr);
    }
    let unlock = second.run(&["ledger", "unlock"]).expect(0);
    assert!(unlock.stdout.contains("run 1 of test-offer"), "{}", unlock.stdout);
    signal(&running, libc::SIGINT);
    wait(running).expect(130);
    second.apply(&[]).expect(0);
    assert_eq!(nothing_twice(&sandbox), 601);
}

/// Waits until two runs have had sends accepted.
#[track_caller]
fn both_have_sent(project: &Project) {
    until("both have sent", || {
        let status = project.run(&["status", "campaign.yaml", "--format", "json"]).json();
        let runs = status["runs"].as_array().cloned().unwrap_or_default();
        runs.iter().filter(|run| run["counts"]["accepted"].as_u64() > Some(10)).count() == 2
    });
}

#[test]
fn one_that_dies_is_noticed_and_its_claims_are_unknown() {
    let sandbox = Sandbox::start(&["--latency", "300ms"]);
    let project = project(&sandbox, &postgres::shared().database());
    project.crowd(1_500, &[(POOL, "delivery: { rate: 200/s, concurrency: 20 }")]);
    let mut dies = project.start(&["--lease", "2s"]);
    let lives = project.start(&["--lease", "2s"]);
    both_have_sent(&project);
    dies.kill().unwrap();
    dies.wait().unwrap();
    let lived = wait(lives);
    let counts = project.counts();
    assert_eq!((counts.pending, counts.total()), (0, 1_500));
    assert!((1..=20).contains(&counts.unknown), "{counts:?}");
    assert_eq!(counts.accepted + counts.unknown, 1_500);
    assert_eq!(lived.code, 7, "{}", lived.stderr);
    nothing_twice(&sandbox);
    project.run(&["ledger", "check"]).expect(0);
    project.apply(&[]).expect(7);
}

#[test]
fn one_that_is_paused_past_its_lease_is_fenced_off() {
    let sandbox = Sandbox::start(&["--latency", "100ms"]);
    let project = project(&sandbox, &postgres::shared().database());
    project.crowd(2_400, &[(POOL, "delivery: { rate: 300/s, concurrency: 20 }")]);
    let paused = project.start(&["--lease", "2s"]);
    let other = project.start(&["--lease", "2s"]);
    both_have_sent(&project);
    signal(&paused, libc::SIGSTOP);
    // The other one goes on, and ends once the paused one's lease is over.
    let ended = wait(other);
    assert!([0, 7].contains(&ended.code), "{}", ended.stderr);
    let before = project.counts();
    assert_eq!((before.pending, before.total()), (0, 2_400));
    signal(&paused, libc::SIGCONT);
    let fenced = wait(paused).expect(8);
    assert!(fenced.stderr.contains("fenced off"), "{}", fenced.stderr);
    let after = project.counts();
    // What the paused one saw before its pause is heard.
    assert!(after.unknown <= before.unknown, "{before:?} {after:?}");
    assert_eq!(after.total(), 2_400);
    let got = nothing_twice(&sandbox);
    assert!(got >= after.accepted && got <= after.accepted + after.unknown, "{got} {after:?}");
    project.run(&["ledger", "check"]).expect(0);
}

#[test]
fn a_database_that_goes_and_comes_costs_nothing() {
    let mut server = Postgres::start("");
    let sandbox = Sandbox::start(&["--latency", "20ms"]);
    let project = project(&sandbox, &server.database());
    project.crowd(1_200, &[(POOL, "delivery: { rate: 400/s, concurrency: 20 }")]);
    let appliers = [project.start(&[]), project.start(&[])];
    for _ in 0..2 {
        let sent = sandbox.messages().len();
        until("more is sent", || sandbox.messages().len() > sent + 150);
        server.kill();
        std::thread::sleep(Duration::from_millis(300));
        let sent = sandbox.messages().len();
        std::thread::sleep(Duration::from_millis(700));
        let later = sandbox.messages().len();
        assert!(later == sent, "{} were sent without a ledger", later - sent);
        server.restart();
    }
    for applier in appliers {
        let output = wait(applier).expect(0);
        assert!(output.stderr.contains("does not answer"), "{}", output.stderr);
    }
    assert_eq!(nothing_twice(&sandbox), 1_200);
    let counts = project.counts();
    assert_eq!((counts.accepted, counts.unknown, counts.pending), (1_200, 0, 0));
    project.run(&["ledger", "check"]).expect(0);
}

#[test]
fn a_database_that_stays_away_leaves_what_was_under_way_in_doubt() {
    let mut server = Postgres::start("");
    let sandbox = Sandbox::start(&["--latency", "300ms"]);
    let project = project(&sandbox, &server.database());
    project.crowd(500, &[(POOL, "delivery: { rate: 200/s, concurrency: 20 }")]);
    let running = project.start(&["--lease", "2s"]);
    until("something is sent", || sandbox.messages().len() > 50);
    server.kill();
    std::thread::sleep(Duration::from_millis(500));
    signal(&running, libc::SIGINT);
    let stopped = wait(running);
    assert!([5, 7, 130].contains(&stopped.code), "{} {}", stopped.code, stopped.stderr);
    server.restart();
    std::thread::sleep(Duration::from_millis(2_500));
    let output = project.apply(&[]);
    assert!([0, 7].contains(&output.code), "{}", output.stderr);
    let counts = project.counts();
    assert_eq!((counts.pending, counts.total()), (0, 500));
    assert!(counts.unknown <= 20, "{counts:?}");
    nothing_twice(&sandbox);
    project.run(&["ledger", "check"]).expect(0);
}

#[test]
fn a_pooler_in_transaction_mode_may_stand_between() {
    let sandbox = Sandbox::start(&["--latency", "20ms"]);
    let server = postgres::shared();
    let database = server.database().rsplit_once('/').unwrap().1.to_owned();
    let pooler = Pooler::start(server.port, &database);
    let project = project(&sandbox, &format!("postgres://sendform@127.0.0.1:{}/{database}", pooler.port));
    project.crowd(600, &[(POOL, "delivery: { rate: 1000/s, concurrency: 10 }")]);
    let appliers: Vec<Child> = (0..3).map(|_| project.start(&[])).collect();
    appliers.into_iter().for_each(|applier| drop(wait(applier).expect(0)));
    assert_eq!(nothing_twice(&sandbox), 600);
    project.run(&["ledger", "check"]).expect(0);
    let sends = project.run(&["sends", "list", "--limit", "1", "--format", "json"]).expect(0).json();
    assert_eq!(sends["found"], 600);
}

/// PgBouncer, with fewer connections to the database than appliers hold.
struct Pooler {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Pooler {
    fn start(server: u16, database: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let port = postgres::free_port();
        let file = directory.path().join("pgbouncer.ini");
        let settings = format!(
            "[databases]\n{database} = host=127.0.0.1 port={server}\n[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port={port}\n\
             auth_type=any\nunix_socket_dir=\npool_mode=transaction\ndefault_pool_size=3\n{database}_user=\n"
        )
        .replace(&format!("{database}_user=\n"), "")
        .replace(&format!("port={server}"), &format!("port={server} user=sendform"));
        std::fs::write(&file, settings).unwrap();
        let mut command = std::process::Command::new("bash");
        let script = r#"[ "$(id -u)" = 0 ] && exec setpriv --reuid=postgres --regid=postgres --clear-groups pgbouncer "$1"; exec pgbouncer "$1""#;
        let child = command
            .args(["-c", script, "pooler"])
            .arg(&file)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        until("the pooler answers", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { child, port, _directory: directory }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn tls_is_used_when_asked_for_and_certificates_are_verified() {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap().keep();
    let (certificate, key) = (directory.join("server.crt"), directory.join("server.key"));
    std::fs::write(&certificate, certified.cert.pem()).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    // The server wants its key to be its own.
    let owner = std::process::Command::new("bash")
        .args(["-c", r#"chmod 600 "$1"; [ "$(id -u)" != 0 ] || chown postgres "$1" "$2""#, "own"])
        .args([&key, &certificate])
        .status();
    assert!(owner.unwrap().success());
    let settings = format!("-c ssl=on -c ssl_cert_file={} -c ssl_key_file={}", certificate.display(), key.display());
    let trusted = directory.join("trusted.crt");
    std::fs::copy(&certificate, &trusted).unwrap();
    let server = Postgres::start_in(directory, &settings);
    let database = server.database();
    let sandbox = Sandbox::start(&[]);
    let url = database.replace("127.0.0.1", "localhost");
    let good = project(&sandbox, &format!("{url}?sslmode=verify-full&sslrootcert={}", trusted.display()));
    good.apply(&[]).expect(0);
    let name = database.rsplit_once('/').unwrap().1;
    assert_eq!(server.query(name, "SELECT count(*) FROM sendform.send"), "3");
    // The certificate is nobody's that is trusted here, or another host's.
    for url in
        [format!("{url}?sslmode=require"), format!("{database}?sslmode=require&sslrootcert={}", trusted.display())]
    {
        let refused = project(&sandbox, &url).apply(&[]).expect(1);
        assert!(refused.stderr.contains("certificate"), "{}", refused.stderr);
        assert!(!refused.stderr.contains("sslrootcert"), "{}", refused.stderr);
    }
}

#[test]
fn a_database_without_a_key_or_out_of_reach_is_told_as_such() {
    let sandbox = Sandbox::start(&[]);
    let mut project = project(&sandbox, &postgres::shared().database());
    project.environment.retain(|(name, _)| *name != "SENDFORM_KEY");
    let output = project.apply(&[]).expect(1);
    assert!(output.stderr.contains("needs its key in `SENDFORM_KEY`"), "{}", output.stderr);
    // A first plan needs no key: nobody is recorded.
    project.run(&["plan", "campaign.yaml"]).expect(0);
    let port = postgres::free_port();
    project.on_postgres(&format!("postgres://me:secret@127.0.0.1:{port}/offers"));
    let output = project.apply(&[]).expect(1);
    assert!(
        output.stderr.contains(&format!("the ledger `postgres://127.0.0.1:{port}/offers` does not answer")),
        "{}",
        output.stderr
    );
    assert!(!output.stderr.contains("secret"), "{}", output.stderr);
    assert!(sandbox.messages().is_empty());
}

#[test]
fn tables_of_a_newer_version_are_refused() {
    let sandbox = Sandbox::start(&[]);
    let url = postgres::shared().database();
    let project = project(&sandbox, &url);
    project.apply(&[]).expect(0);
    let name = url.rsplit_once('/').unwrap().1;
    postgres::shared().query(name, "UPDATE sendform.property SET value = '99' WHERE name = 'format'");
    for command in [&["plan", "campaign.yaml"][..], &["status"], &["apply", "campaign.yaml", "--auto-approve"]] {
        let output = project.run(command).expect(1);
        assert!(output.stderr.contains("the ledger has format 99"), "{}", output.stderr);
    }
}

#[test]
fn an_applier_that_waits_for_others_can_be_interrupted() {
    let sandbox = Sandbox::start(&["--latency", "4s"]);
    let quick = Sandbox::start(&[]);
    let url = postgres::shared().database();
    let slow = project(&quick, &url);
    slow.people("mobile,first_name\n9800000000,A\n");
    slow.apply(&[]).expect(0);
    // One has everything that is left under way, slowly; the other finds nothing to do and waits.
    let mut slow = slow;
    slow.base_url = sandbox.url.clone();
    slow.crowd(5, &[]);
    let first = slow.start(&[]);
    until("something is under way", || {
        slow.run(&["status", "campaign.yaml", "--format", "json"]).json()["counts"]["in_flight"] == 1
    });
    let second = slow.start(&[]);
    std::thread::sleep(Duration::from_millis(1_500));
    signal(&second, libc::SIGINT);
    let output = wait(second).expect(130);
    assert!(output.stderr.contains("interrupted"), "{}", output.stderr);
    signal(&first, libc::SIGINT);
    wait(first).expect(130);
    let counts = slow.counts();
    assert_eq!(counts.total(), 5);
}

#[test]
fn campaigns_that_share_a_pool_never_give_one_code_to_two() {
    let sandbox = Sandbox::start(&["--latency", "40ms"]);
    let url = postgres::shared().database();
    let diwali = project(&sandbox, &url);
    diwali.crowd(300, &[(POOL, "delivery: { rate: 200/s, concurrency: 5 }")]);
    let running = diwali.start(&[]);
    until("something is sent", || !sandbox.messages().is_empty());
    // It plans with the codes that are free now, while the other one is giving them away.
    let pongal = project(&sandbox, &url);
    let rows: String = (0..50).map(|row| format!("97{row:08},Person {row}\n")).collect();
    pongal.crowd(300, &[("name: test-offer", "name: pongal")]);
    pongal.people(&format!("mobile,first_name\n{rows}"));
    let output = pongal.apply(&[]);
    assert!([5, 9].contains(&output.code), "{}", output.stderr);
    assert!(output.stderr.contains("went to somebody else since the plan was made"), "{}", output.stderr);
    wait(running);
    nothing_twice(&sandbox);
}

#[test]
fn the_record_holds_no_number_in_the_clear() {
    let sandbox = Sandbox::start(&["--fault", "garbled=+919876543212", "--fault", "500-after=+919876543211"]);
    let mut project = Project::with_sandbox(&sandbox);
    let url = postgres::shared().database();
    project.on_postgres(&url);
    let _ = project.apply(&[]);
    let dump = ["send", "journal", "run", "code", "campaign"].map(|table| {
        postgres::shared().query(url.rsplit_once('/').unwrap().1, &format!("SELECT t::text FROM sendform.{table} t"))
    });
    let dump = dump.join("\n");
    assert!(dump.contains("+91••••••••11"), "{dump}");
    for number in ["9876543210", "9876543211", "9876543212"] {
        assert!(!dump.contains(number), "{number} is in {dump}");
    }
    project.environment[1].1 = "6b".repeat(32);
    let output = project.apply(&[]).expect(1);
    assert!(output.stderr.contains("created with another key"), "{}", output.stderr);
    project.run(&["plan", "campaign.yaml"]).expect(1);
}

#[test]
fn without_the_key_sends_are_listed_without_their_rows() {
    let (_sandbox, project) = two_unknown();
    let mut command = project.command(&["sends", "list", "campaign.yaml", "--format", "json"]);
    for (key, why) in [(None, "needs its key in `SENDFORM_KEY`"), (Some("6b".repeat(32)), "created with another key")] {
        let command = match key {
            None => command.env_remove("SENDFORM_KEY"),
            Some(key) => command.env("SENDFORM_KEY", key),
        };
        let listed = output(command).expect(0);
        assert_eq!(listed.stderr.matches("rows of these sends are not shown").count(), 1, "{}", listed.stderr);
        assert!(listed.stderr.contains(why), "{}", listed.stderr);
        let sends = listed.json()["sends"].as_array().unwrap().clone();
        assert!(sends.len() == 3 && sends.iter().all(|send| send.get("row").is_none()), "{sends:?}");
    }
    // By its name a campaign has no audience.
    let named = output(project.command(&["sends", "list", "test-offer"]).env_remove("SENDFORM_KEY")).expect(0);
    assert!(named.stderr.is_empty() && !named.stdout.contains("people.csv"), "{named:?}");
}

#[test]
fn a_database_that_answers_is_a_ledger_for_a_plan_in_a_pipeline_before_its_first_run() {
    let mut project = Project::new();
    project.on_postgres(&postgres::shared().database());
    let empty = output(project.command(&["plan", "campaign.yaml"]).env("CI", "true")).expect(0);
    assert!(empty.stderr.contains("holds no ledger yet"), "{}", empty.stderr);
}
