//! What the provider's answers mean, from the wire to the record. The oracle is a server of the
//! test that answers what it is told and counts requests per recipient.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::{Counts, Output, Project};

/// A request, as far as an answer depends on it.
#[derive(Debug, Clone)]
struct Asked {
    /// Which connection it came on.
    connection: usize,
    to: Vec<String>,
    reference: String,
}

/// A server that answers what it is told.
struct Server {
    address: SocketAddr,
    /// Requests per recipient.
    requests: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Server {
    fn start(answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
        let (counted, answer) = (Arc::clone(&requests), Arc::new(answer));
        std::thread::spawn(move || {
            for (connection, stream) in listener.incoming().flatten().enumerate() {
                let (counted, answer) = (Arc::clone(&counted), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, connection, &counted, &*answer));
            }
        });
        Self { address, requests }
    }

    /// One that answers with a status and a body.
    fn saying(answer: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static) -> Self {
        Self::start(move |asked| {
            let (status, body) = answer(asked);
            response(status, &body)
        })
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A campaign that goes to this server.
    fn project(&self, replacements: &[(&str, &str)]) -> Project {
        let mut project = Project::new();
        project.base_url = self.url();
        project.campaign(replacements);
        project
    }

    fn requests(&self) -> BTreeMap<String, usize> {
        self.requests.lock().unwrap().clone()
    }

    /// Holds that no recipient was asked for more often than once.
    #[track_caller]
    fn nobody_twice(&self, what: &str) {
        for (recipient, requests) in self.requests() {
            assert_eq!(requests, 1, "{what}: {recipient}");
        }
    }
}

fn serve(
    mut stream: TcpStream,
    connection: usize,
    counted: &Mutex<BTreeMap<String, usize>>,
    answer: &dyn Fn(&Asked) -> Vec<u8>,
) {
    let mut buffer = Vec::new();
    let mut chunk = [0; 16_384];
    loop {
        let complete = |buffer: &[u8]| {
            let head = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
            let text = String::from_utf8_lossy(&buffer[..head]).to_lowercase();
            let length =
                text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
            let end = head + length?;
            (buffer.len() >= end).then_some((head, end))
        };
        let (head, end) = loop {
            match complete(&buffer) {
                Some(found) => break found,
                None => match stream.read(&mut chunk) {
                    Ok(0) | Err(_) => return,
                    Ok(read) => buffer.extend_from_slice(&chunk[..read]),
                },
            }
        };
        let body = String::from_utf8_lossy(&buffer[head..end]).into_owned();
        buffer.drain(..end);
        let field = |name: &str| {
            let value = body.split(&format!("name=\"{name}\"\r\n\r\n")).nth(1);
            value.and_then(|value| value.split("\r\n").next()).unwrap_or_default().to_owned()
        };
        let to: Vec<String> = field("to").split(',').map(str::to_owned).collect();
        for recipient in &to {
            *counted.lock().unwrap().entry(recipient.clone()).or_default() += 1;
        }
        if stream.write_all(&answer(&Asked { connection, to, reference: field("ref") })).is_err() {
            return;
        }
    }
}

fn response(status: u16, body: &str) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} X\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n", body.len());
    (head + body).into_bytes()
}

/// An id that no other answer has.
fn new_id() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("r{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn success(asked: &Asked) -> (u16, String) {
    let id = new_id();
    let data: Vec<String> = (0..asked.to.len()).map(|at| format!(r#"{{"message_id":"{id}:{at}"}}"#)).collect();
    (200, format!(r#"{{"id":"{id}","totalCount":{},"data":[{}],"error":{{}}}}"#, data.len(), data.join(",")))
}

const RAVI: &str = "+919876543211";

fn counts(accepted: u64, rejected: u64, unknown: u64, pending: u64) -> Counts {
    Counts { accepted, rejected, unknown, pending }
}

/// Everything that the record and the screen hold.
fn everything(project: &Project, outputs: &[&Output]) -> String {
    let mut all: String = outputs.iter().map(|output| format!("{}{}", output.stdout, output.stderr)).collect();
    for arguments in [&["sends", "list"][..], &["sends", "list", "--format", "json"], &["ledger", "export"]] {
        all.push_str(&project.run(arguments).expect(0).stdout);
    }
    all
}

#[test]
fn an_id_in_a_refused_answer_is_never_sent_again() {
    for (status, body) in [
        (429, r#"{"data":[{"message_id":"ID:0"}],"error":{}}"#),
        (429, r#"{"id":"ID:0"}"#),
        (429, r#"{"message_id":"ID:0"}"#),
        (429, r#"{"messages":[{"id":"ID"}]}"#),
        (400, r#"{"data":{"message_id":"ID:0"},"error":{"to":"slow"}}"#),
        (400, r#"{"code":"E13001","data":["ID:0"],"error":{"to":"slow"}}"#),
        (403, r#"{"data":[{"message_id":"ID:0"}],"error":{"error":"forbidden"}}"#),
    ] {
        let server = Server::saying(move |asked| match asked.to[0].as_str() {
            RAVI => (status, body.replace("ID", &new_id())),
            _ => success(asked),
        });
        let project = server.project(&[]);
        project.apply(&[]).expect(7);
        project.apply(&[]).expect(7);
        project.apply(&["--retry-rejected"]).expect(7);
        server.nobody_twice(body);
        assert_eq!(project.counts(), counts(2, 0, 1, 0), "{status} {body}");
    }
}

#[test]
fn a_batch_that_is_refused_in_part_reaches_nobody_twice() {
    // The first request of each batch is refused, with ids for two of its five.
    let first = AtomicBool::new(true);
    let server = Server::saying(move |asked| {
        if asked.to.len() < 5 || !first.swap(false, Ordering::SeqCst) {
            return success(asked);
        }
        let id = new_id();
        (
            429,
            format!(r#"{{"data":[{{"message_id":"{id}:0"}},{{"message_id":"{id}:3"}}],"error":{{"to":"too many"}}}}"#),
        )
    });
    let project = server.project(&[]);
    let rows: String = (0..30).map(|row| format!("98{row:08},Asha\n")).collect();
    project.people(&format!("mobile,first_name\n{rows}"));
    project.campaign(&[("rate: 2000/s, concurrency: 20", "rate: 2000/s, concurrency: 20, batch: 5")]);
    project.apply(&[]).expect(7);
    project.apply(&["--retry-rejected"]).expect(7);
    server.nobody_twice("a batch");
    assert_eq!(server.requests().len(), 30);
    assert_eq!(project.counts(), counts(25, 0, 5, 0));
}

#[test]
fn an_id_beside_a_denial_is_no_acceptance() {
    for body in [
        r#"{"data":[{"message_id":"ID:0"}],"error":true}"#,
        r#"{"data":[{"message_id":"ID:0"}],"code":"E13001"}"#,
        r#"{"data":[{"message_id":"ID:0"}],"code":400}"#,
        r#"{"data":[{"message_id":"ID:0","error":"invalid number"}],"error":{}}"#,
        r#"{"data":[{"message_id":"ID:0"}],"error":{"to":"bad"},"error":{}}"#,
        r#"{"totalCount":0,"data":[{"message_id":"ID:0"}],"error":{}}"#,
        r#"{"totalCount":2,"data":[{"message_id":"ID:0"}],"error":{}}"#,
        r#"{"data":[{"message_id":"ID:0","recipient":"xx9876xx33xx"}],"error":{}}"#,
        r#"{"id":"ID:0","data":[]}"#,
    ] {
        let server = Server::saying(move |asked| match asked.to[0].as_str() {
            RAVI => (200, body.replace("ID", &new_id())),
            _ => success(asked),
        });
        let project = server.project(&[]);
        project.apply(&[]).expect(7);
        project.apply(&["--retry-rejected"]).expect(7);
        server.nobody_twice(body);
        assert_eq!(project.counts(), counts(2, 0, 1, 0), "{body}");
    }
}

#[test]
fn an_id_at_the_top_alone_is_a_success() {
    let server = Server::saying(|_| (200, format!(r#"{{"id":"{}:0"}}"#, new_id())));
    let project = server.project(&[]);
    project.apply(&[]).expect(0);
    project.apply(&[]).expect(0);
    server.nobody_twice("an id at the top");
    assert_eq!(project.counts(), counts(3, 0, 0, 0));
    let sends = project.run(&["sends", "list", "--format", "json"]).expect(0).json();
    assert!(sends["sends"].as_array().unwrap().iter().all(|send| send["message_id"].as_str().unwrap().ends_with(":0")));
}

#[test]
fn a_refusal_of_every_request_costs_one_and_puts_nobody_in_doubt() {
    let printed = "{\n\"code\": \"RBC201\",\n\"message\": \"Incorrect SID or API key.\",\n\"data\": \\[],\n\"error\": {\n\"error\": \"Incorrect SID or API key.\"\n}\n}";
    let html = "<html><head><title>403 Forbidden</title></head><body id=\"x\">nginx</body></html>";
    let forbidden = r#"{"message":"Forbidden"}"#;
    let mut cases = vec![(200, printed), (400, printed), (401, printed)];
    // Each status with one of the bodies; all pairs are tried where answers are read.
    for (status, body) in [401, 403, 404, 405, 411, 413, 415].into_iter().zip([html, forbidden, ""].into_iter().cycle())
    {
        cases.push((status, body));
    }
    for (status, body) in cases {
        let refusing = Arc::new(AtomicBool::new(true));
        let refuses = Arc::clone(&refusing);
        let server =
            Server::saying(
                move |asked| {
                    if refuses.load(Ordering::SeqCst) { (status, body.to_owned()) } else { success(asked) }
                },
            );
        let project = server.project(&[]);
        project.apply(&[]).expect(4);
        assert_eq!(server.requests().values().sum::<usize>(), 1, "{status} {body}");
        assert_eq!(project.counts(), counts(0, 0, 0, 3), "{status} {body}");
        // Once the cause is gone, everybody is reached.
        refusing.store(false, Ordering::SeqCst);
        project.apply(&[]).expect(0);
        assert_eq!(project.counts(), counts(3, 0, 0, 0), "{status} {body}");
        assert_eq!(server.requests().values().sum::<usize>(), 4, "{status} {body}");
    }
}

#[test]
fn a_message_alone_refuses_the_message() {
    for status in [400, 422] {
        let server = Server::saying(move |asked| match asked.to[0].as_str() {
            RAVI => (status, r#"{"message":"Template params not matching."}"#.to_owned()),
            _ => success(asked),
        });
        let project = server.project(&[]);
        let output = project.apply(&[]).expect(5);
        assert!(output.stderr.contains("Template params not matching."), "{}", output.stderr);
        project.apply(&[]).expect(0);
        server.nobody_twice("a refusal");
        assert_eq!(project.counts(), counts(2, 1, 0, 0));
    }
}

#[test]
fn what_the_provider_repeats_of_a_person_reaches_neither_screen_nor_record() {
    let echoes = [
        "number +91 98765-43211 refused",
        "number (98765) 43211 refused",
        "numéro ９８７６５４３２１１",
        "संख्या ९८७६५ ४३२११",
        "9:8:7:6:5:4:3:2:1:1",
        "98765 is the area, 43211 the rest",
        "9\u{200b}8\u{200b}7\u{200b}6\u{200b}5\u{200b}4\u{200b}3\u{200b}2\u{200b}1\u{200b}1",
        "code hello25 or HELLO25 for RAVI, key Sandbox-Key",
        "a\u{2028}  - send: \u{2029}\u{85}\u{1b}[2J\u{202e}b",
    ];
    let text = serde_json::to_string(&echoes.join(" / ")).unwrap();
    for (status, body, exit) in [
        (400, format!(r#"{{"error":{{"to":{text}}}}}"#), 5),
        (200, format!(r#"{{"data":[{{"message_id":"x:0"}}],"error":{{"to":{text}}}}}"#), 7),
        (400, format!(r#"{{"message":{text}}}"#), 5),
        (403, format!(r#"{{"message":{text}}}"#), 4),
    ] {
        let server =
            Server::saying(move |asked| if asked.to[0] == RAVI { (status, body.clone()) } else { success(asked) });
        let project = server.project(&[]);
        let output = project.apply(&["-vv"]).expect(exit);
        let all = everything(&project, &[&output]).to_lowercase();
        assert!(all.contains("•••"), "{all}");
        // The mask `+91••••••••11` is ours.
        for private in ["98765", "43211", "９", "९", "9:8", "9\u{200b}8", "hello25", "ravi", "sandbox-key"] {
            let shown = all.lines().find(|line| line.contains(private));
            assert!(shown.is_none(), "`{private}` is told: {shown:?}");
        }
        for unseen in ['\u{2028}', '\u{2029}', '\u{85}', '\u{1b}', '\u{202e}', '\u{200b}'] {
            assert!(!all.contains(unseen), "{unseen:?} is told");
        }
        if exit == 7 {
            let decisions = project.run(&["sends", "list", "--state", "unknown", "--format", "decisions"]).expect(0);
            assert_eq!(decisions.stdout.matches("- send:").count(), 2, "{}", decisions.stdout);
            assert_eq!(decisions.stdout.lines().filter(|line| line.trim_start().starts_with("- send:")).count(), 1);
        }
    }
}

#[test]
fn an_endless_id_is_kept_short_and_the_send_is_accepted() {
    let server =
        Server::saying(|_| (200, format!(r#"{{"data":[{{"message_id":"{}{}:0"}}]}}"#, "i".repeat(5_000), new_id())));
    let project = server.project(&[]);
    project.apply(&[]).expect(0);
    let sends = project.run(&["sends", "list", "--format", "json"]).expect(0).json();
    let ids: Vec<&str> =
        sends["sends"].as_array().unwrap().iter().map(|send| send["message_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 3);
    assert!(
        ids.iter().all(|id| id.chars().count() == 177 && id.starts_with(&format!("{}…", "i".repeat(160)))),
        "{ids:?}"
    );
    assert!(ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
}

/// What the server decided for a send: its id, or that it was refused.
type Truth = Arc<Mutex<HashMap<String, Option<String>>>>;

/// A server that sends some answers twice, so that every later request on the connection gets the
/// answer of the one before it.
fn shifting(twice: impl Fn(usize) -> bool + Send + Sync + 'static) -> (Server, Truth) {
    let truth: Truth = Arc::default();
    let decided = Arc::clone(&truth);
    let queues: Mutex<HashMap<usize, VecDeque<Vec<u8>>>> = Mutex::default();
    let number = AtomicUsize::new(0);
    let server = Server::start(move |asked| {
        let number = number.fetch_add(1, Ordering::SeqCst);
        let refused = number % 17 == 5;
        let (status, body, id) = if refused {
            (400, r#"{"code":"E13001","data":[],"error":{"to":"not on WhatsApp"}}"#.to_owned(), None)
        } else {
            let (status, body) = success(asked);
            let id = body.split("message_id\":\"").nth(1).and_then(|rest| rest.split('"').next()).map(str::to_owned);
            (status, body, id)
        };
        decided.lock().unwrap().insert(asked.reference.clone(), id);
        let mut queues = queues.lock().unwrap();
        let queue = queues.entry(asked.connection).or_default();
        let answer = response(status, &body);
        if twice(number) && !refused {
            queue.push_back(answer.clone());
        }
        queue.push_back(answer);
        queue.pop_front().unwrap()
    });
    (server, truth)
}

#[test]
fn answers_of_other_requests_are_not_believed_after_the_first_id_that_repeats() {
    for concurrency in [1, 20] {
        let (server, truth) = shifting(|number| number > 0 && number.is_multiple_of(50));
        let mut project = Project::new();
        project.base_url = server.url();
        project.crowd(600, &[("rate: 2000/s, concurrency: 20", &format!("rate: 2000/s, concurrency: {concurrency}"))]);
        let output = project.apply(&[]).expect(7);
        assert!(output.stderr.contains("answers may have reached the wrong requests"), "{}", output.stderr);
        server.nobody_twice("a shift");
        let sends = project.run(&["sends", "list", "--format", "json"]).expect(0).json();
        let truth = truth.lock().unwrap();
        let mut unknown = 0;
        for send in sends["sends"].as_array().unwrap() {
            let theirs = truth.get(send["send"].as_str().unwrap()).cloned().flatten();
            match send["state"].as_str().unwrap() {
                "accepted" => assert_eq!(send["message_id"].as_str(), theirs.as_deref(), "{send}"),
                "rejected" => assert_eq!(theirs, None, "{send}"),
                "unknown" => unknown += 1,
                other => panic!("{other}: {send}"),
            }
        }
        assert!((2..=2 * concurrency + 2).contains(&unknown), "{unknown} unknown at concurrency {concurrency}");
        assert!(server.requests().len() < 150, "the run went on: {} requests", server.requests().len());
        drop(truth);
        project.run(&["ledger", "check"]).expect(0);
        let run = &project.run(&["status", "campaign.yaml", "--format", "json"]).expect(0).json()["runs"][0];
        let by_state = |state: &str| {
            sends["sends"].as_array().unwrap().iter().filter(|send| send["state"] == state).count() as u64
        };
        for state in ["accepted", "rejected", "unknown"] {
            assert_eq!(run["counts"][state], by_state(state), "{run}");
        }
    }
}

#[test]
fn an_answer_that_comes_twice_at_once_is_nobodys_outcome() {
    // Both copies leave together: the second waits on the connection before the next request does.
    let truth: Truth = Arc::default();
    let decided = Arc::clone(&truth);
    let number = AtomicUsize::new(0);
    let server = Server::start(move |asked| {
        let (status, body) = success(asked);
        let id = body.split("message_id\":\"").nth(1).and_then(|rest| rest.split('"').next()).map(str::to_owned);
        decided.lock().unwrap().insert(asked.reference.clone(), id);
        let answer = response(status, &body);
        if number.fetch_add(1, Ordering::SeqCst).is_multiple_of(50) { answer.repeat(2) } else { answer }
    });
    let mut project = Project::new();
    project.base_url = server.url();
    project.crowd(600, &[]);
    project.apply(&[]);
    server.nobody_twice("a shift");
    let sends = project.run(&["sends", "list", "--format", "json"]).expect(0).json();
    let truth = truth.lock().unwrap();
    for send in sends["sends"].as_array().unwrap() {
        if send["state"] == "accepted" {
            let theirs = truth.get(send["send"].as_str().unwrap()).cloned().flatten();
            assert_eq!(send["message_id"].as_str(), theirs.as_deref(), "{send}");
        }
    }
}
