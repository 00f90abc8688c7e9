//! The server: what it listens to, what it keeps, and the pages and lists that it serves.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header;
use axum::middleware;
use axum::response::{Html, IntoResponse, Json};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::connection::{Abort, Listener};
use super::inbox::{Inbox, Preview};
use super::kaleyra_v1::{self, AcceptedMessage};
use super::{Faults, guard};
use crate::domain::clock::{Clock, SystemClock};

/// The SID that the sandbox accepts by default.
pub const SID: &str = "HXSANDBOX";

/// The API key that the sandbox accepts by default.
pub const API_KEY: &str = "sandbox-key";

/// The largest request: a video of 16 MB and its form.
const MAX_REQUEST: usize = 20 << 20;

/// How a sandbox behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address to listen on; loopback only. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The SID that requests must have in their path.
    pub sid: String,
    /// The key that requests must have in `api-key`.
    pub api_key: String,
    /// How long each response takes.
    pub latency: Duration,
    /// When it fails, and how.
    pub faults: Faults,
    /// How templates look, for the inbox page.
    pub previews: Vec<Preview>,
    /// The time at which messages arrive.
    pub clock: Arc<dyn Clock>,
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
            clock: Arc::new(SystemClock),
        }
    }
}

/// A running sandbox. It stops when it is dropped.
pub struct Sandbox {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

/// What all requests share.
pub(super) struct Shared {
    pub(super) config: Config,
    /// For reports to callbacks.
    pub(super) http: reqwest::Client,
    accepted: Mutex<Vec<AcceptedMessage>>,
    inbox: Inbox,
}

impl Shared {
    /// The accepted messages, in order.
    pub(super) fn accepted(&self) -> MutexGuard<'_, Vec<AcceptedMessage>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sandbox {
    /// Starts a sandbox. Needs a tokio runtime.
    pub async fn start(config: Config) -> std::io::Result<Self> {
        if !config.listen.ip().is_loopback() {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                "the sandbox listens on loopback only, because its key is public",
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
        let shared = Arc::new(Shared { config, http, accepted: Mutex::default(), inbox: Inbox::new()? });
        let router = Router::new()
            .route("/", get(inbox))
            .route("/sandbox/messages", get(messages))
            .route("/sandbox/templates", get(templates))
            .route("/v1/{sid}/messages", post(kaleyra_v1::send))
            .layer(DefaultBodyLimit::max(MAX_REQUEST))
            .layer(middleware::from_fn_with_state(guard::Host::of(address), guard::check_host))
            .with_state(Arc::clone(&shared));
        let service = router.into_make_service_with_connect_info::<Abort>();
        let server = tokio::spawn(async move {
            let _ = axum::serve(Listener(listener), service).await;
        });
        Ok(Self { address, shared, server })
    }

    /// The base URL, such as `http://127.0.0.1:4010`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The inbox page with all accepted messages, as one file that needs no server.
    pub fn page(&self) -> String {
        self.shared.inbox.standalone_page(&self.shared.accepted(), &self.shared.config.previews)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn inbox(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let (page, policy) = shared.inbox.page();
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(page))
}

async fn messages(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!(*shared.accepted()))
}

async fn templates(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!(shared.config.previews))
}
