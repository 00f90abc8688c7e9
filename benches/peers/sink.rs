//! The least that a provider can do: reads each field of the form, answers as Kaleyra documents, and keeps
//! connections open. `GET /count` returns the number of messages.
//!
//! ```sh
//! target/dist/examples/sink 4011 [LATENCY_MS]
//! ```

#![allow(clippy::print_stdout, reason = "a program of its own for benches/compare.py, which reads this")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Multipart, State};
use axum::http::StatusCode;
use axum::routing::{get, post};

struct Sink {
    count: AtomicU64,
    latency: Duration,
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().expect("a port").parse().expect("a port");
    let latency = Duration::from_millis(arguments.next().map_or(0, |text| text.parse().expect("milliseconds")));
    let sink = Arc::new(Sink { count: AtomicU64::new(0), latency });
    let routes = Router::new()
        .route("/v1/{sid}/messages", post(message))
        .route(
            "/count",
            get(|State(sink): State<Arc<Sink>>| async move { sink.count.load(Ordering::SeqCst).to_string() }),
        )
        .with_state(sink);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("the port");
    println!("ready");
    axum::serve(listener, routes).await.expect("to serve");
}

async fn message(
    State(sink): State<Arc<Sink>>,
    mut form: Multipart,
) -> (StatusCode, [(&'static str, &'static str); 1], String) {
    let mut to = None;
    while let Ok(Some(field)) = form.next_field().await {
        let is_to = field.name() == Some("to");
        let value = field.bytes().await.unwrap_or_default();
        if is_to {
            to = Some(value);
        }
    }
    if !sink.latency.is_zero() {
        // Accurate to the microsecond: tokio's timers are up to two milliseconds late, a twentieth of the
        // latency.
        async_io::Timer::after(sink.latency).await;
    }
    let json = [("content-type", "application/json")];
    let Some(to) = to else {
        return (StatusCode::BAD_REQUEST, json, r#"{"error":{"code":"E1","message":"no to"}}"#.to_owned());
    };
    let number = sink.count.fetch_add(1, Ordering::Relaxed);
    let to = String::from_utf8_lossy(&to);
    let body = format!(
        r#"{{"id":"{number:036}","type":"template","createdDateTime":"2026-11-23 10:00:00+00:00","totalCount":1,"data":[{{"message_id":"{number:036}:1","recipient":"{}"}}],"error":{{}}}}"#,
        to.trim_start_matches('+')
    );
    (StatusCode::ACCEPTED, json, body)
}
