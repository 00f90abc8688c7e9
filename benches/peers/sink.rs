//! The least that a provider could cost: reads a request whole, answers as Kaleyra documents, keeps
//! connections open. `GET /count` tells how many messages came.
//!
//! ```sh
//! target/release/examples/sink 4011 [LATENCY_MS]
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().expect("a port").parse().expect("a port");
    let latency = Duration::from_millis(arguments.next().map_or(0, |text| text.parse().expect("milliseconds")));
    let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port");
    let count = Arc::new(AtomicU64::new(0));
    println!("ready");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let count = Arc::clone(&count);
        tokio::spawn(async move {
            let _ = serve(stream, latency, &count).await;
        });
    }
}

async fn serve(mut stream: TcpStream, latency: Duration, count: &AtomicU64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        let (head, length) = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break (end + 4, length_of(&buffer[..end]));
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        match length {
            Some(length) => {
                while buffer.len() < head + length {
                    if stream.read_buf(&mut buffer).await? == 0 {
                        return Ok(());
                    }
                }
                buffer.drain(..head + length);
            }
            // Chunked: the last chunk ends it.
            None if buffer.starts_with(b"POST") => {
                while !buffer.ends_with(b"0\r\n\r\n") {
                    if stream.read_buf(&mut buffer).await? == 0 {
                        return Ok(());
                    }
                }
                buffer.clear();
            }
            None => {
                let body = count.load(Ordering::SeqCst).to_string();
                buffer.drain(..head);
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await?;
                continue;
            }
        }
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let number = count.fetch_add(1, Ordering::Relaxed);
        let body = format!(
            r#"{{"id":"{number:036}","type":"template","createdDateTime":"2026-11-23 10:00:00+00:00","totalCount":1,"data":[{{"message_id":"{number:036}:1","recipient":"919876543210"}}],"error":{{}}}}"#
        );
        let answer = format!(
            "HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await?;
    }
}

fn length_of(head: &[u8]) -> Option<usize> {
    let head = std::str::from_utf8(head).ok()?;
    head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    })
}
