//! Requests on their way: pauses, uploads over slow lines, connections that close, answers that come
//! too early. Each server here is a plain socket, and counts requests per recipient.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::wire::{DELIVERY, Requests, Server, small_buffers, videos};
use crate::support::{Project, postgres, signal, until, wait};

/// A line that all connections share.
struct Line {
    bytes_per_second: f64,
    free_at: Mutex<Instant>,
}

impl Line {
    fn pass(&self, bytes: usize) {
        let free_at = {
            let mut free_at = self.free_at.lock().unwrap();
            *free_at = (*free_at).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
            *free_at
        };
        std::thread::sleep(free_at.saturating_duration_since(Instant::now()));
    }
}

/// Sends videos over a line of `mbit` in sum, ten times as fast as it says, with a tenth of the default
/// timeout. Nobody may be left in doubt.
fn over_a_line(mbit: f64, megabytes: usize, people: usize) {
    let line = Line { bytes_per_second: mbit * 10.0 * 1e6 / 8.0, free_at: Mutex::new(Instant::now()) };
    let server = Server::on(small_buffers(), move |mut connection| {
        while let Some((to, length)) = connection.begin() {
            let done = connection.finish(&to, length, |read| line.pass(read)).and_then(|()| connection.accept(&to));
            if done.is_none() {
                return;
            }
        }
    });
    let project = server.project();
    videos(&project, people, megabytes * 1_000_000, "3s", "delivery: { rate: 2000/s, concurrency: 50 }");
    let output = project.apply(&[]).expect(0);
    assert_eq!(server.nobody_twice(), people, "{}", output.stderr);
    assert!(server.requests().values().all(|requests| requests.complete == 1));
    assert_eq!(project.counts().accepted, people as u64);
}

#[test]
fn videos_of_15_mb_over_5_mbit_leave_nobody_in_doubt() {
    over_a_line(5.0, 15, 5);
}

#[test]
fn videos_of_4_mb_over_5_mbit_leave_nobody_in_doubt() {
    over_a_line(5.0, 4, 16);
}

#[test]
fn videos_of_15_mb_over_20_mbit_leave_nobody_in_doubt() {
    over_a_line(20.0, 15, 16);
}

#[test]
fn videos_of_4_mb_over_20_mbit_leave_nobody_in_doubt() {
    over_a_line(20.0, 4, 50);
}

#[test]
fn videos_of_15_mb_over_100_mbit_leave_nobody_in_doubt() {
    over_a_line(100.0, 15, 60);
}

#[test]
fn videos_of_4_mb_over_100_mbit_leave_nobody_in_doubt() {
    over_a_line(100.0, 4, 150);
}

#[test]
fn an_upload_may_take_longer_than_the_timeout_while_it_makes_progress() {
    let line = Line { bytes_per_second: 3e6, free_at: Mutex::new(Instant::now()) };
    let server = Server::on(small_buffers(), move |mut connection| {
        let (to, length) = connection.begin().unwrap();
        connection.finish(&to, length, |read| line.pass(read)).unwrap();
        connection.accept(&to);
    });
    let project = server.project();
    // Longer than what the kernels hold.
    videos(&project, 1, 12_000_000, "2s", DELIVERY);
    let started = Instant::now();
    project.apply(&[]).expect(0);
    assert!(started.elapsed() > Duration::from_secs(3), "{:?}", started.elapsed());
}

#[test]
fn a_connection_that_was_idle_for_more_than_four_seconds_is_not_used_again() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let server = Server::start(move |mut connection| {
        counted.fetch_add(1, Ordering::SeqCst);
        while let Some(to) = connection.request() {
            connection.accept(&to).unwrap();
        }
    });
    let project = server.project();
    project.people("mobile,first_name\n9876543210,Asha\n9876543211,Ravi\n9876543212,Meera\n");
    // Five seconds between two.
    project.campaign(&[(DELIVERY, "delivery: { rate: 12/m, concurrency: 20 }")]);
    project.apply(&[]).expect(0);
    assert_eq!(server.nobody_twice(), 3);
    assert_eq!(connections.load(Ordering::SeqCst), 3);
}

/// Whether a process is connecting to this port.
fn connects_to(port: u16) -> bool {
    let wanted = format!(":{port:04X} 02");
    std::fs::read_to_string("/proc/net/tcp").unwrap().lines().any(|line| line.contains(&wanted))
}

#[test]
fn a_pause_while_connecting_and_a_truthful_not_sent_send_once() {
    // A queue for one connection, which is taken: whoever connects now waits.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let guard = runtime.enter();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap().into_std().unwrap();
    drop(guard);
    listener.set_nonblocking(false).unwrap();
    let address = listener.local_addr().unwrap();
    let in_the_way = TcpStream::connect(address).unwrap();

    let mut project = Project::empty();
    project.base_url = format!("http://{address}");
    project.on_postgres(&postgres::shared().database());
    project.people("mobile,first_name\n9876543210,Asha\n");
    project.campaign(&[]);
    let paused = project.start(&["--lease", "2s"]);
    until("it connects", || connects_to(address.port()));
    signal(&paused, libc::SIGSTOP);

    // Its lease ends, and somebody says what is true: nothing was sent.
    std::thread::sleep(Duration::from_millis(2_300));
    let server = Server::on(listener, |mut connection| {
        while let Some(to) = connection.request() {
            if connection.accept(&to).is_none() {
                return;
            }
        }
    });
    drop(in_the_way);
    project.apply(&["--lease", "2s"]).expect(7);
    assert_eq!(server.nobody_twice(), 0);
    let sends = project.run(&["sends", "list", "--state", "unknown", "--format", "json"]).expect(0).json();
    let send = sends["sends"][0]["send"].as_str().unwrap();
    project
        .run(&["resolve", send, "--as", "not-sent", "--force", "--reason", "nothing in the provider's log"])
        .expect(0);
    project.apply(&["--lease", "2s"]).expect(0);
    assert_eq!(server.nobody_twice(), 1);

    // The paused one finds its connection made.
    signal(&paused, libc::SIGCONT);
    let ended = wait(paused);
    assert_ne!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(server.nobody_twice(), 1);
    assert_eq!(project.counts().accepted, 1);
}

#[test]
fn a_pause_in_an_upload_past_the_lease_leaves_it_without_its_end() {
    let goes_on = Arc::new(AtomicBool::new(false));
    let waits = Arc::clone(&goes_on);
    let server = Server::on(small_buffers(), move |mut connection| {
        let (to, length) = connection.begin().unwrap();
        while !waits.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
        connection.finish(&to, length, |_| {});
        connection.accept(&to);
    });
    let mut project = server.project();
    project.on_postgres(&postgres::shared().database());
    videos(&project, 1, 15_000_000, "30s", DELIVERY);
    let paused = project.start(&["--lease", "2s"]);
    until("the upload begins", || !server.requests().is_empty());
    signal(&paused, libc::SIGSTOP);
    std::thread::sleep(Duration::from_millis(2_300));
    // Somebody takes it for dead.
    project.run(&["ledger", "unlock", "--run", "1", "--force"]).expect(0);
    signal(&paused, libc::SIGCONT);
    goes_on.store(true, Ordering::SeqCst);
    let ended = wait(paused);
    assert_ne!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(server.requests().values().copied().collect::<Vec<_>>(), [Requests { begun: 1, complete: 0 }]);
    assert_eq!(project.counts().unknown, 1);
}

#[test]
fn an_upload_that_outlasts_the_lease_is_completed_while_the_heart_beats() {
    let line = Line { bytes_per_second: 2.5e6, free_at: Mutex::new(Instant::now()) };
    let server = Server::on(small_buffers(), move |mut connection| {
        let (to, length) = connection.begin().unwrap();
        connection.finish(&to, length, |read| line.pass(read)).unwrap();
        connection.accept(&to);
    });
    let mut project = server.project();
    project.on_postgres(&postgres::shared().database());
    videos(&project, 1, 15_000_000, "5s", DELIVERY);
    let started = Instant::now();
    wait(project.start(&["--lease", "2s"])).expect(0);
    assert!(started.elapsed() > Duration::from_secs(4), "{:?}", started.elapsed());
    assert_eq!((server.nobody_twice(), project.counts().accepted), (1, 1));
}
