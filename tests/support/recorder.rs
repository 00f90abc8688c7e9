//! A server that keeps each request as it was on the wire.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// A request as it was on the wire.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub head: String,
    pub body: Vec<u8>,
    /// Whether a request to the same recipient came before.
    pub seen_before: bool,
}

impl Recorded {
    /// A success with an id of its own.
    pub fn success(&self) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = format!("r{}", NEXT.fetch_add(1, Ordering::Relaxed));
        format!(r#"{{"id":"{id}","data":[{{"message_id":"{id}:0"}}],"error":{{}}}}"#)
    }
}

/// A server that keeps each request as it was on the wire.
pub struct Recorder {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Recorded>>>,
}

impl Recorder {
    pub fn start(answer: impl Fn(&Recorded) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<Recorded>>> = Arc::default();
        let (kept, answer) = (Arc::clone(&requests), Arc::new(answer));
        let seen: Arc<Mutex<HashSet<String>>> = Arc::default();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, answer, seen) = (Arc::clone(&kept), Arc::clone(&answer), Arc::clone(&seen));
                std::thread::spawn(move || serve(stream, &kept, &*answer, &seen));
            }
        });
        Self { address, requests }
    }

    /// One that accepts everything.
    pub fn accepting() -> Self {
        Self::start(|request| (200, request.success()))
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    pub fn requests(&self) -> Vec<Recorded> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    kept: &Mutex<Vec<Recorded>>,
    answer: &dyn Fn(&Recorded) -> (u16, String),
    seen: &Mutex<HashSet<String>>,
) {
    let mut buffer = Vec::new();
    loop {
        let head_end = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            let mut chunk = [0; 65_536];
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(read) => buffer.extend_from_slice(&chunk[..read]),
            }
        };
        let head = String::from_utf8(buffer[..head_end].to_vec()).unwrap();
        if head.to_lowercase().contains("expect: 100-continue") {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        }
        let length: usize = header(&head, "content-length").expect("no content-length").parse().unwrap();
        while buffer.len() < head_end + length {
            let mut chunk = [0; 65_536];
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(read) => buffer.extend_from_slice(&chunk[..read]),
            }
        }
        let body: Vec<u8> = buffer[head_end..head_end + length].to_vec();
        buffer.drain(..head_end + length);
        let to = String::from_utf8_lossy(&body)
            .split("name=\"to\"\r\n\r\n")
            .nth(1)
            .and_then(|rest| rest.lines().next().map(str::to_owned));
        let seen_before = !seen.lock().unwrap().insert(to.unwrap_or_default());
        let recorded = Recorded { head, body, seen_before };
        let (status, text) = answer(&recorded);
        kept.lock().unwrap().push(recorded);
        let response = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        );
        if stream.write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}

pub fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}
