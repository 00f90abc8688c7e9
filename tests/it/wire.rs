//! Connections that close, answers that come too early or not at all.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::recorder::Recorder;
use crate::support::wire::{DELIVERY, Requests, Server, small_buffers, videos};
use crate::support::{Output, Project};

#[test]
fn a_redirect_is_not_followed() {
    let server = Recorder::start(|_| (307, String::new()));
    let mut project = Project::new();
    project.base_url = server.url();
    project.campaign(&[]);
    project.apply(&[]).expect(7);
    assert_eq!(server.count(), 3);
}

/// What a run says that has left the pool.
const OWN_CONNECTIONS: &str = "each request uses a new connection";

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
    assert!(output.stderr.contains("before it had received the whole request"), "{}", output.stderr);
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
        let reason = if reads_all { "no response within 1s" } else { "the upload made no progress for 1s" };
        assert!(output.stderr.contains(reason), "{}", output.stderr);
        assert_eq!((server.nobody_twice(), project.counts().unknown), (1, 1));
    }
}
