//! A provider on a plain socket, which counts requests per recipient.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::Project;

pub const HEADER: &str = "header: { image: { url: \"https://cdn.example.com/offer.png\" } }";

pub const FROM: &str = "    from: \"+919900112233\"";

pub const DELIVERY: &str = "delivery: { rate: 2000/s, concurrency: 20 }";

/// How many requests for a recipient began, and how many of them were complete.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    pub begun: usize,
    pub complete: usize,
}

/// A server, and what it saw.
pub struct Server {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<HashMap<String, Requests>>>,
}

impl Server {
    /// One that handles each connection as said.
    pub fn start(handle: impl Fn(Connection) + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), handle)
    }

    pub fn on(listener: TcpListener, handle: impl Fn(Connection) + Send + Sync + 'static) -> Self {
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
    pub fn project(&self) -> Project {
        let mut project = Project::new();
        project.base_url = format!("http://{}", self.address);
        project
    }

    pub fn requests(&self) -> HashMap<String, Requests> {
        self.seen.lock().unwrap().clone()
    }

    #[track_caller]
    pub fn nobody_twice(&self) -> usize {
        let requests = self.requests();
        let twice = requests.iter().find(|(_, requests)| requests.begun > 1);
        assert!(twice.is_none(), "a second request: {twice:?}");
        requests.len()
    }
}

pub struct Connection {
    pub stream: TcpStream,
    pub buffer: Vec<u8>,
    pub seen: Arc<Mutex<HashMap<String, Requests>>>,
}

impl Connection {
    /// Reads a request's head and the field that says whom it is for. The length of the whole request.
    pub fn begin(&mut self) -> Option<(String, usize)> {
        loop {
            if let Some((to, length)) = self.begun() {
                self.seen.lock().unwrap().entry(to.clone()).or_default().begun += 1;
                return Some((to, length));
            }
            self.more(4_096)?;
        }
    }

    pub fn begun(&self) -> Option<(String, usize)> {
        let text = String::from_utf8_lossy(&self.buffer[..self.buffer.len().min(4_096)]);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse::<usize>().unwrap();
        let (to, _) = body.split_once("name=\"to\"\r\n\r\n")?.1.split_once("\r\n")?;
        Some((to.to_owned(), head.len() + 4 + length))
    }

    /// Reads up to `most` bytes. Nothing at the end.
    pub fn more(&mut self, most: usize) -> Option<usize> {
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
    pub fn finish(&mut self, to: &str, length: usize, leave: impl Fn(usize)) -> Option<()> {
        while self.buffer.len() < length {
            let read = self.more(length - self.buffer.len())?;
            leave(read);
        }
        self.buffer.drain(..length);
        self.seen.lock().unwrap().entry(to.to_owned()).or_default().complete += 1;
        Some(())
    }

    pub fn request(&mut self) -> Option<String> {
        let (to, length) = self.begin()?;
        self.finish(&to, length, |_| {})?;
        Some(to)
    }

    pub fn answer(&mut self, status: u16, body: &str) -> Option<()> {
        let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}", body.len());
        self.stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).ok()
    }

    pub fn accept(&mut self, to: &str) -> Option<()> {
        let id = to.trim_start_matches('+');
        self.answer(200, &format!(r#"{{"id":"{id}","data":[{{"message_id":"{id}:0"}}],"error":{{}}}}"#))
    }
}

/// A video of so many bytes.
pub fn video(bytes: usize) -> Vec<u8> {
    let mut content = b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom".to_vec();
    content.resize(bytes, 7);
    content
}

/// So many people, who get a video of so many bytes.
pub fn videos(project: &Project, people: usize, bytes: usize, timeout: &str, delivery: &str) {
    project.write("offer.mp4", video(bytes));
    let rows: String = (0..people).map(|row| format!("98{row:08},Person {row}\n")).collect();
    project.people(&format!("mobile,first_name\n{rows}"));
    project.campaign(&[
        (HEADER, "header: { video: { file: offer.mp4 } }"),
        (FROM, &format!("{FROM}\n    timeout: {timeout}")),
        (DELIVERY, delivery),
    ]);
}

/// A listener whose connections take little at once: what a kernel takes ahead would hide the line.
pub fn small_buffers() -> TcpListener {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let _guard = runtime.enter();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(128 * 1024).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1_024).unwrap().into_std().unwrap();
    listener.set_nonblocking(false).unwrap();
    listener
}
