//! The v1 send-LTO request: `POST {base}/v1/{SID}/messages`, multipart, header `api-key`.
//!
//! [`form`] is the one place that decides what is on the wire; the request, the preview and the
//! test against `curl` all use it. The order of the fields is the vendor page's.
//!
//! Two quirks, measured with the page's own `curl` commands: the outer quotes of `--form 'x="…"'`
//! are curl's and never sent, and the inner ones of `coupon_code` and `params` are: the code is a
//! JSON string, the parameters are JSON strings joined by commas. `limited_time_offer` is an array
//! of one element. `params`, `lang_code`, `callback_url` and `ref` are documented on sibling pages
//! of the same endpoint, not on the send-LTO page.

use std::borrow::Cow;

use async_trait::async_trait;
use jiff::Timestamp;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::client::{Answer, Client, NoAnswer};
use super::multipart::{Boundary, Value};
use super::{Callback, KaleyraSpec, reply};
use crate::domain::expiry::Expired;
use crate::domain::message::Media;
use crate::gateway::redact::Private;
use crate::gateway::{Gateway, NotSent, Outcome, Reply, Request};

/// The fields of a request, in order, for a message that leaves at `now`.
pub fn form<'a>(
    spec: &'a KaleyraSpec,
    request: &Request<'a>,
    now: Timestamp,
) -> Result<Vec<(&'static str, Value<'a>)>, Expired> {
    let message = request.message;
    let json = |text: &str| serde_json::to_string(text).expect("a text can be JSON");
    let to: Vec<String> = request.to.iter().map(ToString::to_string).collect();
    let mut fields = Vec::with_capacity(14);
    let mut text = |name: &'static str, value: Cow<'a, str>| fields.push((name, Value::Text(value)));
    text("to", to.join(",").into());
    text("type", "mediatemplate".into());
    text("template_name", message.template.name.as_str().into());
    text("channel", "whatsapp".into());
    text("from", spec.from.to_string().into());
    text("coupon_code", json(message.coupon.expose()).into());
    if let Some(expires) = request.expires {
        let milliseconds = expires.to_wire(now, spec.encoding)?;
        text(
            "limited_time_offer",
            format!(
                r#"[{{"type":"limited_time_offer","limited_time_offer":{{"expiration_time_ms":{milliseconds}}}}}]"#
            )
            .into(),
        );
    }
    if let Some((_, Media::File(file))) = &message.media {
        fields.push(("media", Value::File { name: &file.name, mime: file.mime, content: file.content.clone() }));
    }
    let mut text = |name: &'static str, value: Cow<'a, str>| fields.push((name, Value::Text(value)));
    match &spec.callback {
        Some(Callback::ProfileId(id)) => text("callback_profile_id", id.into()),
        Some(Callback::Url(url)) => text("callback_url", url.into()),
        None => {}
    }
    if let Some(param) = &message.url_param {
        text("param_url", param.into());
    }
    if let Some((_, Media::Url(url))) = &message.media {
        text("media_url", url.into());
    }
    if !message.params.is_empty() {
        text("params", message.params.iter().map(|param| json(param)).collect::<Vec<_>>().join(",").into());
    }
    if let Some(language) = &message.template.language {
        text("lang_code", language.into());
    }
    if spec.send_ref
        && let Some(reference) = &request.reference
    {
        text("ref", reference.clone().into());
    }
    Ok(fields)
}

/// The v1 API, with open connections.
pub struct KaleyraV1 {
    spec: KaleyraSpec,
    url: Url,
    client: Client,
    secrets: [SecretString; 2],
    boundary: Boundary,
}

/// Why the client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The SID or key cannot be in a request.
    #[error("the {0} holds characters that cannot be in a request")]
    Unusable(&'static str),
    /// The address cannot be built.
    #[error("the API's address cannot be extended: {0}")]
    Address(String),
    /// The HTTP client cannot be built, for example for want of certificates.
    #[error("the HTTP client cannot be set up: {0}")]
    Client(String),
}

impl KaleyraV1 {
    /// A client for one account, for up to `connections` requests at once.
    pub fn new(
        spec: KaleyraSpec,
        sid: SecretString,
        api_key: SecretString,
        connections: usize,
    ) -> Result<Self, SetupError> {
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
        Ok(Self { spec, url, client, secrets: [sid, api_key], boundary })
    }

    async fn post(&self, fields: Vec<(&'static str, Value<'_>)>, request: &Request<'_>) -> Reply {
        let recipients = request.to.len();
        let unknown =
            |reason: String| Reply::Settled(vec![Outcome::Unknown { reason: self.clean(&reason) }; recipients]);
        let started = std::time::Instant::now();
        let form = self.boundary.form(fields);
        let posted = self.client.post(self.url.clone(), self.boundary.content_type(), form, request.lease.clone());
        let Answer { status, retry_after, body, early } = match posted.await {
            Ok(answer) => answer,
            Err(NoAnswer::NotSent(reason)) => {
                return Reply::NotSent(NotSent::Unreachable { reason: self.clean(&reason) });
            }
            Err(NoAnswer::Unknown(reason)) => return unknown(reason),
        };
        tracing::debug!(status, recipients, milliseconds = started.elapsed().as_millis(), "answered");
        match reply::read(status, retry_after, &body, &self.private(request)) {
            // A refusal, and a request without its end: nobody can have acted on it.
            Reply::NotSent(not_sent) => Reply::NotSent(not_sent),
            Reply::Settled(_) if early => {
                unknown(format!("the provider answered (status {status}) before it had the whole request"))
            }
            reply => reply,
        }
    }

    /// What the answer to a request may not bring to the screen or into the ledger.
    fn private<'a>(&'a self, request: &'a Request<'_>) -> Private<'a> {
        let message = request.message;
        let callback = match &self.spec.callback {
            // Its query may hold a token.
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

    /// A provider that echoes a secret does not bring it to the screen or into the ledger.
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
        match form(&self.spec, &request, Timestamp::now()) {
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
