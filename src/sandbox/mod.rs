//! The sandbox: a stand-in for Kaleyra on loopback, over real HTTP.
//!
//! * [`form`] takes or refuses a request as the documentation says Kaleyra does.
//! * [`fault`] makes it fail in the ways that a real provider does.
//! * [`guard`] keeps other people's web pages out.
//! * This module serves both, keeps what was accepted, reports to callbacks on loopback, and shows
//!   an inbox page.
//!
//! It never contacts anything but loopback.

pub mod fault;
pub mod form;
mod guard;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequest, Multipart, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware;
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use fault::{Abort, Listener};
pub use fault::{Fault, Faults};
use form::Accepted;

/// The SID that the sandbox knows unless it is told another.
pub const SID: &str = "HXSANDBOX";

/// The key that the sandbox knows unless it is told another.
pub const API_KEY: &str = "sandbox-key";

/// The largest request: a video of 16 MB and its form.
const MAX_REQUEST: usize = 20 << 20;

/// The inbox page.
const PAGE: &str = include_str!("inbox.html");

/// How a sandbox behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens; loopback only.
    pub listen: SocketAddr,
    /// The SID that it knows.
    pub sid: String,
    /// The key that it knows.
    pub api_key: String,
    /// How long each answer takes.
    pub latency: Duration,
    /// How it fails.
    pub faults: Faults,
    /// What templates look like, for the inbox page.
    pub previews: Vec<Preview>,
}

/// What a template looks like. Its name and language together tell it from others.
#[derive(Debug, Clone, Serialize)]
pub struct Preview {
    /// The name at the provider.
    pub name: String,
    /// The language code that requests carry, if they carry one.
    pub language: Option<String>,
    /// The offer's headline.
    pub offer: String,
    /// The text with placeholders.
    pub body: String,
    /// The button's label.
    pub button: String,
    /// The button's URL with its placeholder.
    pub url: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            sid: SID.to_owned(),
            api_key: API_KEY.to_owned(),
            latency: Duration::ZERO,
            faults: Faults::default(),
            previews: Vec::new(),
        }
    }
}

/// A sandbox that is running. It stops when this is dropped.
pub struct Sandbox {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

struct Shared {
    config: Config,
    accepted: Mutex<Vec<Accepted>>,
    http: reqwest::Client,
    nonces: guard::Nonces,
}

impl Sandbox {
    /// Starts a sandbox.
    pub async fn start(config: Config) -> std::io::Result<Self> {
        if !config.listen.ip().is_loopback() {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                "the sandbox listens on loopback only, since it knows no real keys",
            ));
        }
        let listener = tokio::net::TcpListener::bind(config.listen).await?;
        let address = listener.local_addr()?;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(Duration::from_secs(5))
            .build()
            .map_err(std::io::Error::other)?;
        let shared = Arc::new(Shared { config, accepted: Mutex::default(), http, nonces: guard::Nonces::new()? });
        let router = Router::new()
            .route("/", get(inbox))
            .route("/sandbox/messages", get(messages))
            .route("/sandbox/templates", get(templates))
            .route("/v1/{sid}/messages", post(send))
            .layer(DefaultBodyLimit::max(MAX_REQUEST))
            .layer(middleware::from_fn_with_state(guard::Host::of(address), guard::check_host))
            .with_state(Arc::clone(&shared));
        let service = router.into_make_service_with_connect_info::<Abort>();
        let server = tokio::spawn(async move {
            let _ = axum::serve(Listener(listener), service).await;
        });
        Ok(Self { address, shared, server })
    }

    /// Its address, such as `http://127.0.0.1:4010`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The inbox page with everything that was accepted, as one file that needs no server.
    pub fn page(&self) -> String {
        #[derive(Serialize)]
        struct Inbox<'a> {
            messages: &'a [Accepted],
            templates: &'a [Preview],
        }
        let inbox = Inbox { messages: &self.messages(), templates: &self.shared.config.previews };
        let data = serde_json::to_string(&inbox).expect("texts and numbers can be JSON");
        // In a script element only `<` could end it.
        let data = if data.contains('<') { data.replace('<', "\\u003c") } else { data };
        let (page, _) = self.shared.nonces.page(PAGE);
        let (before, after) = page.split_once("/*DATA*/null").unwrap_or((&page, ""));
        [before, &data, after].concat()
    }

    fn messages(&self) -> std::sync::MutexGuard<'_, Vec<Accepted>> {
        self.shared.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Connected<IncomingStream<'_, Listener>> for Abort {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        stream.io().abort()
    }
}

async fn inbox(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let (page, policy) = shared.nonces.page(PAGE);
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(page))
}

async fn messages(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let accepted = shared.accepted.lock().unwrap_or_else(PoisonError::into_inner);
    Json(json!(*accepted))
}

async fn templates(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!(shared.config.previews))
}

async fn send(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(abort): ConnectInfo<Abort>,
    Path(sid): Path<String>,
    headers: HeaderMap,
    request: axum::extract::Request,
) -> Response {
    let faults = &shared.config.faults;
    let drawn = faults.draw();
    if drawn == Some(Fault::ResetBefore) {
        abort.now();
        return StatusCode::NO_CONTENT.into_response();
    }
    // Whoever has no key gets nothing read: a body may be a video.
    let key = headers.get("api-key").map(|key| key.as_bytes());
    if sid != shared.config.sid || key != Some(shared.config.api_key.as_bytes()) {
        // The page shows this body and no status.
        return refuse(StatusCode::UNAUTHORIZED, "RBC201", "error", "Incorrect SID or API key.");
    }
    let fields = match Multipart::from_request(request, &()).await {
        Ok(multipart) => match form::read(multipart).await {
            Ok(fields) => fields,
            Err(problem) => return refuse(StatusCode::BAD_REQUEST, form::CODE_INVALID, "body", &problem),
        },
        Err(_) => {
            return refuse(
                StatusCode::BAD_REQUEST,
                form::CODE_INVALID,
                "body",
                "The request is not multipart/form-data.",
            );
        }
    };
    let fault = faults.for_recipient(fields.text("to")).or(drawn);
    if fault == Some(Fault::ResetBefore) {
        abort.now();
        return StatusCode::NO_CONTENT.into_response();
    }
    if fault == Some(Fault::TooMany) {
        tokio::time::sleep(shared.config.latency).await;
        let response = refuse(StatusCode::TOO_MANY_REQUESTS, "WA429", "error", "Too many requests.");
        return ([(header::RETRY_AFTER, "1")], response).into_response();
    }
    if fault == Some(Fault::ErrorBefore) {
        tokio::time::sleep(shared.config.latency).await;
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, "WA500", "error", "Internal server error.");
    }
    let accepted = match form::check(&fields, Timestamp::now()) {
        Ok(accepted) => accepted,
        Err(problem) => return refuse(StatusCode::BAD_REQUEST, form::CODE_INVALID, problem.field, &problem.message),
    };
    let answer = form::answer(&accepted);
    report(&shared, &accepted);
    shared.accepted.lock().unwrap_or_else(PoisonError::into_inner).extend(accepted);
    // It is accepted from here on, whatever becomes of the answer.
    tokio::time::sleep(shared.config.latency).await;
    match fault {
        Some(Fault::ResetAfter) => {
            abort.now();
            StatusCode::NO_CONTENT.into_response()
        }
        Some(Fault::ErrorAfter) => {
            refuse(StatusCode::INTERNAL_SERVER_ERROR, "WA500", "error", "Internal server error.")
        }
        Some(Fault::Garbled) => (StatusCode::OK, answer[..answer.len() / 2].to_owned()).into_response(),
        _ => ([(header::CONTENT_TYPE, "application/json")], answer).into_response(),
    }
}

/// An error body as the vendor's page documents it.
fn refuse(status: StatusCode, code: &str, field: &str, message: &str) -> Response {
    let mut error = serde_json::Map::new();
    error.insert(field.to_owned(), Value::from(message));
    (status, Json(json!({ "code": code, "message": message, "data": [], "error": error }))).into_response()
}

/// Reports `sent`, `delivered` and `read` to a callback URL on loopback, by GET with `id` and
/// `status`, as Kaleyra does.
fn report(shared: &Arc<Shared>, accepted: &[Accepted]) {
    for message in accepted {
        let Some(url) = message.callback_url.as_deref().and_then(|url| url::Url::parse(url).ok()) else { continue };
        let loopback = match url.host() {
            Some(url::Host::Domain(host)) => host == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        if !loopback {
            continue;
        }
        let (http, id) = (shared.http.clone(), message.message_id.clone());
        let reference = message.reference.clone();
        tokio::spawn(async move {
            for status in ["sent", "delivered", "read"] {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let mut url = url.clone();
                url.query_pairs_mut().append_pair("id", &id).append_pair("status", status);
                if let Some(reference) = &reference {
                    url.query_pairs_mut().append_pair("ref", reference);
                }
                let _ = http.get(url).send().await;
            }
        });
    }
}
