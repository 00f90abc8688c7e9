//! What stops a run, what it goes on through, what it says while it waits, and how the people behind
//! unknown sends are found.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sendform::ledger::RunStart;

use crate::each_ledger::stage;
use crate::support::{Counts, Project, Sandbox, nothing_twice, postgres, signal, until, wait};

const APPLY: [&str; 3] = ["apply", "campaign.yaml", "--auto-approve"];

const DELIVERY: &str = "delivery: { rate: 2000/s, concurrency: 20 }";

/// A run of 400 that takes about four seconds.
fn long_run() -> (Sandbox, Project) {
    let sandbox = Sandbox::start(&["--latency", "300ms"]);
    let project = Project::with_sandbox(&sandbox);
    project.crowd(400, &[(DELIVERY, "delivery: { rate: 100/s, concurrency: 40 }")]);
    (sandbox, project)
}

/// `apply`, under way as from a terminal: it hears SIGHUP although whoever runs the tests may ignore it.
fn start_at_a_terminal(project: &Project) -> Child {
    let mut command = through(&["env", "--default-signal=HUP"], &project.command(&APPLY));
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[track_caller]
fn until_under_way(sandbox: &Sandbox) {
    until("some are accepted", || sandbox.messages().len() > 20);
}

#[test]
fn a_closed_terminal_stops_a_run_after_what_is_under_way() {
    let (sandbox, project) = long_run();
    let child = start_at_a_terminal(&project);
    until_under_way(&sandbox);
    signal(&child, libc::SIGHUP);
    let stopped = wait(child).expect(130);
    assert!(stopped.stderr.contains("Stopping: no further messages"), "{}", stopped.stderr);
    let counts = project.counts();
    assert_eq!((counts.unknown, counts.accepted), (0, nothing_twice(&sandbox)), "{counts:?}");
    assert!(counts.pending > 0, "{counts:?}");
    project.apply(&[]).expect(0);
    assert_eq!(nothing_twice(&sandbox), 400);
}

#[test]
fn the_signals_of_one_closed_terminal_count_once() {
    // The kernel and the shell send one each, and a session manager a third; two would not wait.
    let (sandbox, project) = long_run();
    let child = start_at_a_terminal(&project);
    until_under_way(&sandbox);
    for one in [libc::SIGHUP, libc::SIGHUP, libc::SIGTERM] {
        signal(&child, one);
        std::thread::sleep(Duration::from_millis(20));
    }
    wait(child).expect(130);
    let counts = project.counts();
    assert_eq!((counts.unknown, counts.accepted), (0, nothing_twice(&sandbox)), "{counts:?}");
}

/// The same command, started by another program.
fn through(starter: &[&str], command: &Command) -> Command {
    let mut through = Command::new(starter[0]);
    through.args(&starter[1..]).arg(command.get_program()).args(command.get_args()).env_clear();
    through.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    through.current_dir(command.get_current_dir().unwrap()).stdin(Stdio::null());
    through
}

#[test]
fn a_run_under_nohup_outlives_its_terminal() {
    let (sandbox, project) = long_run();
    let mut nohup = through(&["nohup"], &project.command(&APPLY));
    let child = nohup.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    until_under_way(&sandbox);
    signal(&child, libc::SIGHUP);
    signal(&child, libc::SIGHUP);
    let ended = wait(child).expect(0);
    assert!(!ended.stderr.contains("Stopping"), "{}", ended.stderr);
    assert_eq!(nothing_twice(&sandbox), 400);
}

#[test]
fn a_log_that_nobody_can_read_any_more_puts_nobody_in_doubt() {
    // The terminal is gone, and every request would write a line to it.
    let (sandbox, project) = long_run();
    let mut child = project.start(&["-vv"]);
    until_under_way(&sandbox);
    drop(child.stderr.take());
    wait(child).expect(0);
    assert_eq!(project.counts(), Counts { accepted: 400, rejected: 0, unknown: 0, pending: 0 });
    assert_eq!(nothing_twice(&sandbox), 400);
}

/// A cable between the program and a sandbox, which can be cut.
struct Cable {
    port: u16,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Cable {
    fn to(sandbox: &Sandbox) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let streams = Arc::new(Mutex::new(Vec::new()));
        let (host, kept) = (sandbox.host().to_owned(), Arc::clone(&streams));
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let far = TcpStream::connect(&host).unwrap();
                kept.lock().unwrap().extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
                for (mut from, mut to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Both);
                    });
                }
            }
        });
        Self { port, streams }
    }

    /// Cuts everything that is under way; what comes later gets through.
    fn cut(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

#[test]
fn one_cut_of_everything_under_way_is_survived() {
    for concurrency in [1_u64, 8, 50] {
        let sandbox = Sandbox::start(&["--latency", "100ms"]);
        let cable = Cable::to(&sandbox);
        let mut project = Project::empty();
        project.base_url = format!("http://127.0.0.1:{}", cable.port);
        let people = 20 + 10 * concurrency;
        project.crowd(people, &[(DELIVERY, &format!("delivery: {{ rate: 2000/s, concurrency: {concurrency} }}"))]);
        let child = project.start(&[]);
        until("some are accepted", || sandbox.messages().len() as u64 > 3 + 2 * concurrency);
        cable.cut();
        let ended = wait(child).expect(7);
        let counts = project.counts();
        assert!((1..=concurrency).contains(&counts.unknown), "{counts:?} at {concurrency}: {}", ended.stderr);
        assert_eq!((counts.accepted + counts.unknown, counts.pending), (people, 0), "{}", ended.stderr);
        nothing_twice(&sandbox);
    }
}

#[test]
fn a_sender_number_that_is_reserved_for_years_is_waited_for_five_minutes_and_the_run_says_so() {
    let sandbox = Sandbox::start(&[]);
    let mut project = Project::with_sandbox(&sandbox);
    let url = postgres::shared().database();
    project.on_postgres(&url);
    let database = url.rsplit_once('/').unwrap().1;
    project.apply(&[]).expect(0);
    // As a clock that was wrong for a moment leaves it.
    postgres::shared().query(database, "UPDATE sendform.number SET next_at = now() + interval '5 years'");
    project.people("mobile,first_name\n9876543213,Dev\n");
    let mut child = project.start(&[]);
    let told = first_line_with(&mut child, "for the sender number's rate: reserved until ");
    assert!(told.trim().starts_with("waiting 4 min") || told.trim().starts_with("waiting 5 min"), "{told}");
    let ahead: f64 = postgres::shared()
        .query(database, "SELECT extract(epoch FROM next_at - now())::float8 FROM sendform.number")
        .parse()
        .unwrap();
    assert!((280.0..=301.0).contains(&ahead), "{ahead} s ahead");
    // It can be stopped while it waits, and has sent nothing.
    signal(&child, libc::SIGTERM);
    wait(child).expect(130);
    assert_eq!(sandbox.messages().len(), 3);
    // Five minutes later.
    postgres::shared().query(database, "UPDATE sendform.number SET next_at = now()");
    project.apply(&[]).expect(0);
    assert_eq!(sandbox.accepted("to"), ["+919876543210", "+919876543211", "+919876543212", "+919876543213"]);
}

/// Reads what a process says until a line holds something, and goes on reading.
#[track_caller]
fn first_line_with(child: &mut Child, wanted: &str) -> String {
    let mut stderr = child.stderr.take().unwrap();
    let said = Arc::new(Mutex::new(String::new()));
    let heard = Arc::clone(&said);
    std::thread::spawn(move || {
        let mut piece = [0; 1_024];
        while let Ok(read @ 1..) = stderr.read(&mut piece) {
            heard.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..read]));
        }
    });
    let line = || said.lock().unwrap().lines().find(|line| line.contains(wanted)).map(ToOwned::to_owned);
    until(wanted, || line().is_some());
    line().unwrap()
}

#[test]
fn what_live_appliers_have_reserved_is_waited_for_and_nobody_gets_the_same_time_twice() {
    let url = postgres::shared().database();
    let database = url.rsplit_once('/').unwrap().1.to_owned();
    stage::runtime().block_on(async {
        let start = RunStart { interval: Duration::from_secs(200), ..stage::start("v1:1") };
        let mut runs = Vec::new();
        for _ in 0..2 {
            runs.push(stage::Stage::Postgres(url.clone()).begin(&start).await);
        }
        let peers: Vec<_> = runs.iter().map(|run| run.coordinator().unwrap()).collect();
        let ask = async |applier: usize| peers[applier].reserve(1, 1).await.unwrap().as_secs_f64();
        // Two slots each, as far ahead as appliers reserve.
        for (applier, seconds) in [(0, 0.0), (1, 200.0), (0, 400.0), (1, 600.0)] {
            let delay = ask(applier).await;
            assert!((delay - seconds).abs() < 5.0, "{delay} instead of {seconds}");
        }
        // Nobody can have reserved this, but the number may be held.
        postgres::shared().query(&database, "UPDATE sendform.number SET next_at = 'infinity'");
        for (applier, seconds) in [(0, 300.0), (1, 500.0), (1, 700.0)] {
            let delay = ask(applier).await;
            assert!((delay - seconds).abs() < 5.0, "{delay} instead of {seconds}");
        }
    });
}
