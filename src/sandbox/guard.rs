//! Who may ask the sandbox, and what a browser may do with its page.
//!
//! The sandbox listens on loopback, but a browser on this machine also opens other people's pages. Such
//! a page can have a name of its own lead to 127.0.0.1 (DNS rebinding) and would then be allowed to
//! read the numbers and codes of all messages. The browser sends that name in `Host`, so the sandbox
//! answers only names of loopback. The port may be any: it may be forwarded, and a page cannot choose
//! the name by it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// What stands in the page for the nonce of its policy.
const NONCE: &str = "{{nonce}}";

/// What the inbox page may do: run its own script, use its own style, ask this server.
const POLICY: &str = "default-src 'none'; script-src 'nonce-{{nonce}}'; style-src 'nonce-{{nonce}}'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The address of a sandbox, as its clients write it in `Host`.
#[derive(Clone)]
pub(super) struct Host(Arc<str>);

impl Host {
    pub(super) fn of(address: SocketAddr) -> Self {
        Self(address.to_string().into())
    }
}

/// Answers only requests to a loopback name.
pub(super) async fn check_host(State(Host(address)): State<Host>, request: Request, next: Next) -> Response {
    if !asks_for_loopback(&request, &address) {
        let message = format!("The sandbox answers requests to http://{address} only, not to the name in `Host`.\n");
        return (StatusCode::MISDIRECTED_REQUEST, message).into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Pages of other origins may not load what is here as a script or an image either.
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// Whether a request names loopback, in its `Host` and in its first line if that has a name too. `own` is the
/// loopback address of this sandbox, which nearly all requests name.
fn asks_for_loopback(request: &Request, own: &str) -> bool {
    let header = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let line = request.uri().authority().map(Authority::as_str);
    if header == Some(own) && line.is_none() {
        return true;
    }
    (header.is_some() || line.is_some()) && header.into_iter().chain(line).all(is_loopback)
}

/// Whether a `Host` header names loopback.
fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let loopback =
        name.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    loopback && !host.contains('@')
}

/// Makes nonces that nobody can guess.
pub(super) struct Nonces {
    key: [u8; 32],
    count: AtomicU64,
}

impl Nonces {
    pub(super) fn new() -> std::io::Result<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(Self { key, count: AtomicU64::new(0) })
    }

    /// A page with a nonce in it, and the policy to serve it with.
    pub(super) fn page(&self, page: &str) -> (String, String) {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let nonce = blake3::keyed_hash(&self.key, &count.to_le_bytes()).to_hex();
        (page.replace(NONCE, &nonce), POLICY.replace(NONCE, &nonce))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_loopback_are_answered() {
        for host in ["127.0.0.1:4010", "localhost:4010", "LOCALHOST", "[::1]:4010", "127.0.0.2:80", "127.0.0.1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "evil.example:4010",
            "127.0.0.1.evil.example:4010",
            "localhost.evil.example:4010",
            "127.0.0.1@evil.example:4010",
            "evil.example@127.0.0.1:4010",
            "10.0.0.1:4010",
            "",
            ":4010",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn every_page_has_a_nonce_of_its_own() {
        let nonces = Nonces::new().unwrap();
        let pages = [0, 1].map(|_| nonces.page("<script nonce=\"{{nonce}}\">"));
        assert_ne!(pages[0].0, pages[1].0);
        let nonce = pages[0].0.split('"').nth(1).unwrap();
        assert!(nonce.len() == 64 && pages[0].1.contains(&format!("script-src 'nonce-{nonce}'")), "{pages:?}");
    }
}
