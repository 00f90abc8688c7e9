//! Requests on their way: pauses, uploads over slow lines, connections that close, answers that come
//! too early. Each server here is a plain socket, and counts requests per recipient.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{Output, Project, postgres, signal, until, wait};

const HEADER: &str = "header: { image: { url: \"https://cdn.example.com/offer.png\" } }";
const FROM: &str = "    from: \"+919900112233\"";
const DELIVERY: &str = "delivery: { rate: 2000/s, concurrency: 20 }";

/// How many requests for a recipient began, and how many of them were complete.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Requests {
    begun: usize,
    complete: usize,
}

/// A server, and what it saw.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<HashMap<String, Requests>>>,
}

impl Server {
    /// One that handles each connection as said.
    fn start(handle: impl Fn(Connection) + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), handle)
    }

    fn on(listener: TcpListener, handle: impl Fn(Connection) + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<HashMap<String, Requests>>> = Arc::default();
        let (kept, handle) = (Arc::clone(&seen), Arc::new(handle));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                stream.set_nodelay(true).unwrap();
                let (kept, handle) = (Arc::clone(&kept), Arc::clone(&handle));
                std::thread::spawn(move || handle(Connection { stream, buffer: Vec::new(), seen: kept }));
            }
        });
        Self { address, seen }
    }

    /// A campaign that sends to it.
    fn project(&self) -> Project {
        let mut project = Project::new();
        project.base_url = format!("http://{}", self.address);
        project
    }

    fn requests(&self) -> HashMap<String, Requests> {
        self.seen.lock().unwrap().clone()
    }

    #[track_caller]
    fn nobody_twice(&self) -> usize {
        let requests = self.requests();
        let twice = requests.iter().find(|(_, requests)| requests.begun > 1);
        assert!(twice.is_none(), "a second request: {twice:?}");
        requests.len()
    }
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    seen: Arc<Mutex<HashMap<String, Requests>>>,
}

impl Connection {
    /// Reads a request's head and the field that says whom it is for. The length of the whole request.
    fn begin(&mut self) -> Option<(String, usize)> {
        loop {
            if let Some((to, length)) = self.begun() {
                self.seen.lock().unwrap().entry(to.clone()).or_default().begun += 1;
                return Some((to, length));
            }
            self.more(4_096)?;
        }
    }

    fn begun(&self) -> Option<(String, usize)> {
        let text = String::from_utf8_lossy(&self.buffer[..self.buffer.len().min(4_096)]);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse::<usize>().unwrap();
        let (to, _) = body.split_once("name=\"to\"\r\n\r\n")?.1.split_once("\r\n")?;
        Some((to.to_owned(), head.len() + 4 + length))
    }

    /// Reads up to `most` bytes. Nothing at the end.
    fn more(&mut self, most: usize) -> Option<usize> {
        let mut chunk = [0; 65_536];
        match self.stream.read(&mut chunk[..most.min(65_536)]) {
            Ok(0) | Err(_) => None,
            Ok(read) => {
                self.buffer.extend_from_slice(&chunk[..read]);
                Some(read)
            }
        }
    }

    /// Reads the rest of a request, asking for leave before each read.
    fn finish(&mut self, to: &str, length: usize, leave: impl Fn(usize)) -> Option<()> {
        while self.buffer.len() < length {
            let read = self.more(length - self.buffer.len())?;
            leave(read);
        }
        self.buffer.drain(..length);
        self.seen.lock().unwrap().entry(to.to_owned()).or_default().complete += 1;
        Some(())
    }

    fn request(&mut self) -> Option<String> {
        let (to, length) = self.begin()?;
        self.finish(&to, length, |_| {})?;
        Some(to)
    }

    fn answer(&mut self, status: u16, body: &str) -> Option<()> {
        let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}", body.len());
        self.stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).ok()
    }

    fn accept(&mut self, to: &str) -> Option<()> {
        let id = to.trim_start_matches('+');
        self.answer(200, &format!(r#"{{"id":"{id}","data":[{{"message_id":"{id}:0"}}],"error":{{}}}}"#))
    }
}

/// A video of so many bytes.
fn video(bytes: usize) -> Vec<u8> {
    let mut content = b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom".to_vec();
    content.resize(bytes, 7);
    content
}

/// So many people, who get a video of so many bytes.
fn videos(project: &Project, people: usize, bytes: usize, timeout: &str, delivery: &str) {
    project.write("offer.mp4", video(bytes));
    let rows: String = (0..people).map(|row| format!("98{row:08},Person {row}\n")).collect();
    project.people(&format!("mobile,first_name\n{rows}"));
    project.campaign(&[
        (HEADER, "header: { video: { file: offer.mp4 } }"),
        (FROM, &format!("{FROM}\n    timeout: {timeout}")),
        (DELIVERY, delivery),
    ]);
}

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

/// A listener whose connections take little at once: what a kernel takes ahead would hide the line.
fn small_buffers() -> TcpListener {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let _guard = runtime.enter();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(128 * 1024).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1_024).unwrap().into_std().unwrap();
    listener.set_nonblocking(false).unwrap();
    listener
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
fn an_upload_without_progress_and_a_request_without_an_answer_end_at_the_timeout() {
    for reads_all in [false, true] {
        let server = Server::on(small_buffers(), move |mut connection| {
            let (to, length) = connection.begin().unwrap();
            if reads_all {
                connection.finish(&to, length, |_| {});
            }
            std::thread::sleep(Duration::from_secs(20));
        });
        let project = server.project();
        videos(&project, 1, 15_000_000, "1s", DELIVERY);
        let started = Instant::now();
        let output = project.apply(&[]).expect(7);
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        let reason = if reads_all { "no answer within 1s" } else { "the upload made no progress for 1s" };
        assert!(output.stderr.contains(reason), "{}", output.stderr);
        assert_eq!((server.nobody_twice(), project.counts().unknown), (1, 1));
    }
}

#[test]
fn a_server_that_closes_behind_its_answers_puts_at_most_the_concurrency_in_doubt() {
    const CLOSES: usize = 300;
    let answered = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |mut connection| {
        while let Some(to) = connection.request() {
            if connection.accept(&to).is_none() {
                return;
            }
            if answered.fetch_add(1, Ordering::SeqCst) < CLOSES {
                std::thread::sleep(Duration::from_millis(2));
                return;
            }
        }
    });
    let project = server.project();
    let people = 600;
    let rows: String = (0..people).map(|row| format!("98{row:08},Person {row}\n")).collect();
    project.people(&format!("mobile,first_name\n{rows}"));
    project.campaign(&[]);
    let output = project.apply(&[]);
    server.nobody_twice();
    let counts = project.counts();
    assert!(counts.unknown <= 20, "{counts:?}\n{}", output.stderr);
    assert_eq!((counts.accepted + counts.unknown, counts.pending), (people, 0), "{}", output.stderr);
    let told = output.stderr.contains(OWN_CONNECTIONS);
    assert_eq!(told, counts.unknown > 0, "{counts:?}\n{}", output.stderr);
}

/// What a run says that has left the pool.
const OWN_CONNECTIONS: &str = "each request has a connection of its own";

#[test]
fn after_a_used_connection_broke_each_request_has_its_own() {
    // The first connection closes on its third request; any other would serve for ever.
    let (connections, served) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (counted, requests) = (Arc::clone(&connections), Arc::clone(&served));
    let server = Server::start(move |mut connection| {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        requests.lock().unwrap().push(0);
        while let Some(to) = connection.request() {
            requests.lock().unwrap()[number] += 1;
            if number == 0 && requests.lock().unwrap()[0] == 3 {
                return;
            }
            connection.accept(&to);
        }
    });
    let project = server.project();
    let rows: String = (0..10).map(|row| format!("98{row:08},Person {row}\n")).collect();
    project.people(&format!("mobile,first_name\n{rows}"));
    project.campaign(&[(DELIVERY, "delivery: { rate: 2000/s, concurrency: 1 }")]);
    let output = project.apply(&[]).expect(7);
    assert!(output.stderr.contains(OWN_CONNECTIONS), "{}", output.stderr);
    assert_eq!(server.nobody_twice(), 10);
    assert_eq!((project.counts().accepted, project.counts().unknown), (9, 1));
    assert_eq!(*served.lock().unwrap(), [3, 1, 1, 1, 1, 1, 1, 1]);
}

#[test]
fn a_new_connection_that_breaks_is_no_reason_to_leave_the_pool() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let server = Server::start(move |mut connection| {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        while let Some(to) = connection.request() {
            if number == 0 {
                return;
            }
            connection.accept(&to);
        }
    });
    let project = server.project();
    let rows: String = (0..10).map(|row| format!("98{row:08},Person {row}\n")).collect();
    project.people(&format!("mobile,first_name\n{rows}"));
    project.campaign(&[(DELIVERY, "delivery: { rate: 2000/s, concurrency: 1 }")]);
    let output = project.apply(&[]).expect(7);
    assert!(!output.stderr.contains(OWN_CONNECTIONS), "{}", output.stderr);
    assert_eq!((server.nobody_twice(), project.counts().unknown), (10, 1));
    assert_eq!(connections.load(Ordering::SeqCst), 2);
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

#[test]
fn a_plan_says_how_much_its_uploads_are() {
    let project = Project::new();
    videos(&project, 100, 15_000_000, "30s", DELIVERY);
    let plan = project.run(&["plan", "campaign.yaml"]).expect(0).stdout;
    assert!(plan.contains("Upload    1,500 MB of files: 2 minutes at 100 Mbit/s, 40 minutes at 5 Mbit/s"), "{plan}");
    assert_eq!(project.plan_json()["upload_bytes"], 1_500_000_000_u64);
    let without = Project::new();
    assert!(without.plan_json()["upload_bytes"].is_null());
}

/// One send to a server that answers while the upload is under way.
fn answered_early(status: u16, body: &'static str) -> (Server, Project, Output) {
    let server = Server::start(move |mut connection| {
        let (to, length) = connection.begin().unwrap();
        // Not before the request: while its file is on its way.
        while connection.buffer.len() < 300_000 {
            connection.more(65_536).unwrap();
        }
        if status == 200 {
            connection.accept(&to);
        } else {
            connection.answer(status, body);
        }
        // What still comes is read, so that the answer is not lost to a reset.
        std::thread::sleep(Duration::from_millis(300));
        connection.finish(&to, length, |_| {});
    });
    let project = server.project();
    videos(&project, 1, 15_000_000, "3s", DELIVERY);
    let output = project.apply(&[]);
    (server, project, output)
}

#[test]
fn an_answer_that_begins_before_the_request_is_complete_is_none() {
    let (server, project, output) = answered_early(200, "");
    let output = output.expect(7);
    assert!(output.stderr.contains("before it had the whole request"), "{}", output.stderr);
    assert_eq!(server.requests().values().copied().collect::<Vec<_>>(), [Requests { begun: 1, complete: 0 }]);
    assert_eq!((project.counts().unknown, project.counts().accepted), (1, 0));
}

#[test]
fn an_upload_that_is_refused_before_its_end_is_not_sent_and_does_not_end() {
    let refusal = r#"{"code":"RBC201","message":"Incorrect SID or API key.","data":[],"error":{"error":"Incorrect SID or API key."}}"#;
    let (server, project, output) = answered_early(401, refusal);
    output.expect(4);
    assert_eq!(server.requests().values().copied().collect::<Vec<_>>(), [Requests { begun: 1, complete: 0 }]);
    assert_eq!((project.counts().unknown, project.counts().pending), (0, 1));
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
