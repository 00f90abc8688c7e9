//! The v1 send-LTO request: `POST {base}/v1/{SID}/messages`, multipart, header `api-key`.
//!
//! [`form`](form::form) writes the request, [`reply`] reads the response.

pub mod form;
pub mod reply;

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::account::Account;
use super::client::{Client, NoResponse, Response};
use super::multipart::{Boundary, Value};
use super::{Callback, KaleyraSpec};
use crate::domain::clock::Clock;
use crate::domain::send::{NotSent, Outcome};
use crate::gateway::redact::Private;
use crate::gateway::{Gateway, Reply, Request};
use form::form;

/// The v1 API, with open connections.
pub struct KaleyraV1 {
    spec: KaleyraSpec,
    url: Url,
    client: Client,
    clock: Arc<dyn Clock>,
    secrets: [SecretString; 2],
    boundary: Boundary,
}

/// Why the client cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The SID or key cannot be in a request.
    #[error("the {0} contains characters that are not allowed in a request")]
    Unusable(&'static str),
    /// The address cannot be built.
    #[error("no path can be appended to the API's address: {0}")]
    Address(String),
    /// The HTTP client cannot be built, for example without certificates.
    #[error("cannot set up the HTTP client: {0}")]
    Client(String),
}

impl KaleyraV1 {
    /// A client for one account, for up to `connections` requests at once.
    pub fn new(
        spec: KaleyraSpec,
        account: Account,
        clock: Arc<dyn Clock>,
        connections: usize,
    ) -> Result<Self, SetupError> {
        let Account { sid, api_key } = account;
        super::check_base_url(&spec.base_url).map_err(SetupError::Address)?;
        let mut url = spec.base_url.clone();
        url.path_segments_mut().map_err(|()| SetupError::Address(spec.base_url.to_string()))?.pop_if_empty().extend([
            "v1",
            sid.expose_secret(),
            "messages",
        ]);
        let mut key = HeaderValue::from_str(api_key.expose_secret()).map_err(|_| SetupError::Unusable("API key"))?;
        key.set_sensitive(true);
        // A second call finds the provider installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::new(spec.timeout, key, connections)
            .map_err(|error| SetupError::Client(error.without_url().to_string()))?;
        let boundary = Boundary::draw().map_err(|error| SetupError::Client(error.to_string()))?;
        Ok(Self { spec, url, client, clock, secrets: [sid, api_key], boundary })
    }

    async fn post(&self, fields: Vec<(&'static str, Value<'_>)>, request: &Request<'_>) -> Reply {
        let recipients = request.to.len();
        let unknown =
            |reason: String| Reply::Settled(vec![Outcome::Unknown { reason: self.clean(&reason) }; recipients]);
        let started = self.clock.instant();
        let form = self.boundary.form(fields);
        let posted = self.client.post(self.url.clone(), self.boundary.content_type(), form, request.lease.clone());
        let Response { status, retry_after, body, early } = match posted.await {
            Ok(answer) => answer,
            Err(NoResponse::NotSent(reason)) => {
                return Reply::NotSent(NotSent::Unreachable { reason: self.clean(&reason) });
            }
            Err(NoResponse::Unknown(reason)) => return unknown(reason),
        };
        tracing::debug!(
            status,
            recipients,
            milliseconds = self.clock.instant().duration_since(started).as_millis(),
            "answered"
        );
        match reply::read(status, retry_after, &body, &self.private(request)) {
            // A refusal of a request without its end: the provider cannot have acted on it.
            Reply::NotSent(not_sent) => Reply::NotSent(not_sent),
            Reply::Settled(_) if early => {
                unknown(format!("the provider responded (status {status}) before it had received the whole request"))
            }
            reply => reply,
        }
    }

    /// The data that must not reach the screen or the ledger from the response to a request.
    fn private<'a>(&'a self, request: &'a Request<'_>) -> Private<'a> {
        let message = request.message;
        let callback = match &self.spec.callback {
            // Its query may contain a token.
            Some(Callback::Url(url)) => Some(url.as_str()),
            Some(Callback::ProfileId(_)) | None => None,
        };
        Private {
            numbers: &request.to,
            secrets: self.secrets.iter().map(|secret| secret.expose_secret()).chain(callback).collect(),
            code: message.coupon.expose(),
            values: message.params.iter().chain(&message.url_param).map(String::as_str).collect(),
        }
    }

    /// Removes the secrets from a text.
    fn clean(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            text = text.replace(secret.expose_secret(), "•••");
        }
        text
    }
}

#[async_trait]
impl Gateway for KaleyraV1 {
    async fn send(&self, request: Request<'_>) -> Reply {
        match form(&self.spec, &request, self.clock.now()) {
            Ok(fields) => self.post(fields, &request).await,
            Err(expired) => Reply::NotSent(NotSent::Expired { reason: expired.to_string() }),
        }
    }

    fn upload_budget(&self) -> u64 {
        self.client.uploads.budget()
    }

    fn take_notice(&self) -> Option<String> {
        self.client.take_notice()
    }
}
