//! The HTTP client alone: posts the same body again and again and reads the responses. This is the most that a
//! program that uses reqwest can reach.
//!
//! ```sh
//! target/dist/examples/posts http://127.0.0.1:4011/v1/HXBENCH/messages 50 200000
//! ```

#![allow(clippy::print_stdout, reason = "a program of its own for benches/compare.py, which reads this")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::header::CONTENT_TYPE;

/// The same as in `apply`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FIELDS: [(&str, &str); 11] = [
    ("to", "+919876543210"),
    ("type", "mediatemplate"),
    ("template_name", "diwali_gold"),
    ("channel", "whatsapp"),
    ("from", "+919900112233"),
    ("coupon_code", "\"GOLD1234567\""),
    (
        "limited_time_offer",
        r#"[{"type":"limited_time_offer","limited_time_offer":{"expiration_time_ms":4102444799000}}]"#,
    ),
    ("media_url", "https://cdn.example.com/offer.png"),
    ("params", "\"Asha\",\"Mumbai\""),
    ("lang_code", "en"),
    ("ref", "5f0c0d8f6a3b4c2e9d1f00112233aabb"),
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let url: reqwest::Url = arguments.next().and_then(|url| url.parse().ok()).expect("a URL");
    let [connections, total] = [(); 2].map(|()| arguments.next().expect("a number").parse::<u64>().expect("a number"));
    let mut body = String::new();
    for (name, value) in FIELDS {
        body += &format!("--sendform\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    }
    body += "--sendform--\r\n";
    let body = bytes::Bytes::from(body);
    let _ = rustls::crypto::ring::default_provider().install_default();
    // The same as in `apply`: one thread, no retries, no redirects.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let client = reqwest::Client::builder()
        .retry(reqwest::retry::never())
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .tcp_nodelay(true)
        .build()
        .expect("a client");
    let left = Arc::new(AtomicU64::new(total));
    let started = std::time::Instant::now();
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            let (client, url, body, left) = (client.clone(), url.clone(), body.clone(), Arc::clone(&left));
            runtime.spawn(async move {
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                    let request = client
                        .post(url.clone())
                        .header("api-key", "k")
                        .header(CONTENT_TYPE, "multipart/form-data; boundary=sendform")
                        .body(body.clone());
                    let answer = request.send().await.expect("an answer");
                    assert!(answer.status().is_success(), "{}", answer.status());
                    answer.bytes().await.expect("a body");
                }
            })
        })
        .collect();
    for task in tasks {
        runtime.block_on(task).expect("a task");
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{:.0}", total as f64 / seconds);
}
