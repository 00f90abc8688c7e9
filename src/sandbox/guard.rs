//! The check that keeps other people's web pages away from the sandbox.
//!
//! The sandbox listens on loopback, but a browser on this machine also opens other people's pages. Such
//! a page can resolve its own host name to 127.0.0.1 (DNS rebinding) and could then read the numbers and
//! codes of all messages. The browser sends that name in `Host`, so the sandbox answers only requests
//! for a loopback name. It accepts any port, because the port may be forwarded, and a page cannot choose
//! the host name by it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The address of a sandbox, as clients write it in `Host`.
#[derive(Clone)]
pub(super) struct Host(Arc<str>);

impl Host {
    pub(super) fn of(address: SocketAddr) -> Self {
        Self(address.to_string().into())
    }
}

/// Refuses requests for any host name that is not loopback.
pub(super) async fn check_host(State(Host(address)): State<Host>, request: Request, next: Next) -> Response {
    if !is_for_loopback(&request, &address) {
        let message = format!("The sandbox only answers requests to http://{address}, not to the name in `Host`.\n");
        return (StatusCode::MISDIRECTED_REQUEST, message).into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Pages of other origins may not load this content as a script or an image either.
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// Whether the host name in `Host`, and the one in the request line if there is one, is loopback. `own` is the
/// sandbox's own address, which nearly all requests name.
fn is_for_loopback(request: &Request, own: &str) -> bool {
    let header = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let line = request.uri().authority().map(Authority::as_str);
    if header == Some(own) && line.is_none() {
        return true;
    }
    (header.is_some() || line.is_some()) && header.into_iter().chain(line).all(is_loopback)
}

/// Whether the host name of a `Host` header is loopback.
fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let loopback =
        name.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    loopback && !host.contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_answered() {
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
}
