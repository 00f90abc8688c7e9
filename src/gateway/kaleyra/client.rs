//! The HTTP exchange: one request, at most one response, within limits.
//!
//! The client never repeats a request and follows no redirect. A request without a response counts by how much of it the
//! connection has taken: nothing (*not sent*), or a part or all (*unknown*).
//!
//! # Connections
//!
//! A connection is used again if it was idle for less than [`IDLE_TIMEOUT`]. The other side may close an idle connection
//! while a request is on its way, and then the outcome of that request is unknown. So after the first used connection
//! that breaks before its response, the client opens a new connection for each request.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpInfo;
use reqwest::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use url::Url;

use super::multipart::Form;
use super::transfer::{GiveUp, Limits, Overdue, Taken, Transfer};
use super::uploads::{Moved, Uploads};
use crate::domain::lease::Lease;

/// The maximum size of a response, in bytes. Kaleyra's are much smaller.
const MAX_RESPONSE_BYTES: usize = 1 << 20;

/// How long an idle connection is kept. Servers and proxies keep theirs for five seconds and more.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// The maximum time for connecting, whatever `timeout` is.
const MAX_CONNECT: Duration = Duration::from_secs(10);

/// The maximum time of an upload that makes progress, in multiples of `timeout`.
const UPLOAD_TIMEOUTS: u32 = 10;

/// The reason of a request that was not sent because its lease was over.
const LEASE_OVER: &str = "this process was paused for too long between the intent and the request";

/// The time limit of each step of a request. `timeout` limits the time without progress.
pub(super) fn limits(timeout: Duration, uploads: bool) -> Limits {
    Limits {
        connect: (timeout / 2).min(MAX_CONNECT),
        progress: timeout,
        upload: if uploads { timeout.saturating_mul(UPLOAD_TIMEOUTS) } else { timeout },
    }
}

/// A response of the provider.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
    /// Whether it began before the connection had taken the whole request. Then the rest of the request has not left.
    pub(super) early: bool,
}

/// Why there is no response.
#[derive(Debug)]
pub(super) enum NoResponse {
    /// No byte of the request left.
    NotSent(String),
    /// The provider may have received it.
    Unknown(String),
}

/// The connections to one account.
pub(super) struct Client {
    timeout: Duration,
    api_key: HeaderValue,
    pooled: reqwest::Client,
    /// Opens a connection for each request; used after a pooled connection broke.
    unpooled: OnceLock<reqwest::Client>,
    /// The local ports of connections that have received a response.
    used: Ports,
    /// Whether the user must be notified that the pool is no longer used.
    notice: AtomicBool,
    pub(super) uploads: Arc<Uploads>,
}

impl Client {
    /// A client that keeps up to `connections` idle connections.
    pub(super) fn new(timeout: Duration, api_key: HeaderValue, connections: usize) -> Result<Self, reqwest::Error> {
        Ok(Self {
            timeout,
            pooled: build(timeout, &api_key, connections)?,
            api_key,
            unpooled: OnceLock::new(),
            used: Ports::default(),
            notice: AtomicBool::new(false),
            uploads: Arc::new(Uploads::new(timeout)),
        })
    }

    /// Posts a form and reads the response. Nothing leaves unless the run holds `lease`.
    pub(super) async fn post(
        &self,
        url: Url,
        content_type: HeaderValue,
        form: Form,
        lease: Option<Lease>,
    ) -> Result<Response, NoResponse> {
        let limits = limits(self.timeout, form.file_bytes > 0);
        let transfer = Transfer::new(limits, lease, &form, &self.uploads);
        let _given_up_at_the_end = GiveUp(Arc::clone(&transfer));
        let mut request = match self.unpooled.get() {
            Some(client) => client.post(url).header(CONNECTION, "close"),
            None => self.pooled.post(url),
        };
        request = request.header(CONTENT_TYPE, content_type).body(transfer.body(form));
        tokio::select! {
            biased;
            answer = self.exchange(request, &transfer) => answer,
            overdue = transfer.overdue() => Err(self.too_late(overdue, limits, &transfer)),
        }
    }

    async fn exchange(&self, request: reqwest::RequestBuilder, transfer: &Transfer) -> Result<Response, NoResponse> {
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(self.broken(error, transfer)),
        };
        // From here on, the closing boundary cannot leave after a response that came before it.
        let early = transfer.stop() != Taken::All;
        transfer.ended(if early { Moved::Unmeasured } else { Moved::All });
        if let Some(info) = response.extensions().get::<HttpInfo>() {
            self.used.add(info.local_addr().port());
        }
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        match body(response).await {
            Ok(body) => Ok(Response { status, retry_after, body, early }),
            Err(reason) => Err(NoResponse::Unknown(format!("the response (status {status}) is incomplete: {reason}"))),
        }
    }

    /// The request failed before a response began.
    fn broken(&self, error: reqwest::Error, transfer: &Transfer) -> NoResponse {
        let taken = transfer.stop();
        if transfer.lease_is_over() {
            return match taken {
                Taken::Nothing => NoResponse::NotSent(LEASE_OVER.to_owned()),
                _ => NoResponse::Unknown("this process was paused while it sent the request".to_owned()),
            };
        }
        // This alone proves it. It holds for failures of DNS, TCP and TLS as well.
        if taken == Taken::Nothing {
            return NoResponse::NotSent(root_cause(error));
        }
        if local_port(&error).is_none_or(|port| self.used.holds(port)) {
            self.leave_the_pool();
        }
        NoResponse::Unknown(format!("the connection broke: {}", root_cause(error)))
    }

    fn too_late(&self, overdue: Overdue, limits: Limits, transfer: &Transfer) -> NoResponse {
        let taken = transfer.stop();
        transfer.ended(Moved::TooLittle);
        let reason = match overdue {
            Overdue::Connection => format!("no connection within {:?}", limits.connect),
            Overdue::Progress => format!("the upload made no progress for {:?}", limits.progress),
            Overdue::Upload => format!("the upload took longer than {:?}", limits.upload),
            Overdue::Response => format!("no response within {:?}", limits.progress),
        };
        if taken == Taken::Nothing { NoResponse::NotSent(reason) } else { NoResponse::Unknown(reason) }
    }

    /// From now on, each request has a new connection.
    fn leave_the_pool(&self) {
        if self.unpooled.get().is_some() {
            return;
        }
        // The same settings worked before. If they fail now, the next broken connection tries again.
        if let Ok(client) = build(self.timeout, &self.api_key, 0)
            && self.unpooled.set(client).is_ok()
        {
            self.notice.store(true, Ordering::SeqCst);
        }
    }

    /// The notice for the user, once.
    pub(super) fn take_notice(&self) -> Option<String> {
        self.notice.swap(false, Ordering::SeqCst).then(|| {
            "the provider closed an idle connection while a request was being sent on it, so the outcome of that send is unknown; \
             from now on, each request uses a new connection"
                .to_owned()
        })
    }
}

fn build(timeout: Duration, api_key: &HeaderValue, connections: usize) -> Result<reqwest::Client, reqwest::Error> {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("sendform/", env!("CARGO_PKG_VERSION")))
        .default_headers(HeaderMap::from_iter([(HeaderName::from_static("api-key"), api_key.clone())]))
        .retry(reqwest::retry::never())
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        // There is no `timeout` here: `Transfer` has a limit for each step.
        .connect_timeout(limits(timeout, false).connect)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(connections)
        .tcp_nodelay(true);
    // Bytes that the kernel has taken and cannot deliver end the connection as well.
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let builder = builder.tcp_user_timeout(timeout);
    builder.build()
}

/// A set of ports. A port that an earlier connection had counts as used; that is rare, and only makes the client stop
/// using the pool.
struct Ports(Box<[AtomicU64]>);

impl Default for Ports {
    fn default() -> Self {
        Self((0..(1 << 16) / 64).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Ports {
    fn add(&self, port: u16) {
        let (word, bit) = Self::place(port);
        // It is nearly always set already, and a read does not take the cache line from other processors.
        if self.0[word].load(Ordering::Relaxed) & bit == 0 {
            self.0[word].fetch_or(bit, Ordering::Relaxed);
        }
    }

    fn holds(&self, port: u16) -> bool {
        let (word, bit) = Self::place(port);
        self.0[word].load(Ordering::Relaxed) & bit != 0
    }

    fn place(port: u16) -> (usize, u64) {
        (usize::from(port) / 64, 1 << (port % 64))
    }
}

/// The local port of the connection that failed, if the error names its connection.
fn local_port(error: &reqwest::Error) -> Option<u16> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<legacy::Error>() {
            let mut extras = Default::default();
            error.connect_info()?.get_extras(&mut extras);
            return extras.get::<HttpInfo>().map(|info| info.local_addr().port());
        }
        cause = error.source();
    }
    None
}

async fn body(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(root_cause)? {
        if body.len() + chunk.len() > MAX_RESPONSE_BYTES {
            return Err("it is too large".to_owned());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The innermost cause, without the URL, which contains the SID.
fn root_cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connecting_takes_at_most_half_of_the_timeout() {
        let seconds = |timeout: u64, uploads: bool| {
            let limits = limits(Duration::from_secs(timeout), uploads);
            (limits.connect.as_secs(), limits.progress.as_secs(), limits.upload.as_secs())
        };
        assert_eq!(seconds(30, false), (10, 30, 30));
        assert_eq!(seconds(4, false), (2, 4, 4));
        assert_eq!(seconds(60, true), (10, 60, 600));
    }

    #[test]
    fn ports_are_told_apart() {
        let ports = Ports::default();
        for port in [0, 63, 64, 40_000, u16::MAX] {
            assert!(!ports.holds(port));
            ports.add(port);
            assert!(ports.holds(port));
        }
        assert!(!ports.holds(40_001) && !ports.holds(1));
    }
}
