//! Kaleyra's v1 API: which requests it accepts, as the page "Send a Limited Time Offer (LTO) Code Template
//! Message" documents it.
//!
//! A request that fails one of these checks is refused with 400, `E13001` and `error.<field>`:
//!
//! * `to`, `type`, `template_name`, `channel`, `from` and `coupon_code` are present;
//! * numbers are digits with or without `+`, several in `to` (the page's own samples contain `X`, which is
//!   accepted);
//! * `coupon_code` is a JSON string, with its quotes, of 1 to 15 characters;
//! * `limited_time_offer` is a JSON array of one object with a number, and the instant is not past (a value
//!   below 10^12, as in the page's own example, is accepted and marked);
//! * `media_url` has a file extension.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRequest, Multipart, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::Fault;
use super::connection::Abort;
use super::server::Shared;

/// The code that Kaleyra uses for most validation failures. Source: Kaleyra, "WhatsApp error codes".
const CODE_INVALID: &str = "E13001";

/// A smaller value is a duration or a number of seconds rather than epoch milliseconds.
const MIN_INSTANT: i64 = 1_000_000_000_000;

/// `POST /v1/{sid}/messages`
pub(super) async fn send(
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
    // The key comes first: the sandbox does not read a body, which may be a video, without it.
    let key = headers.get("api-key").map(|key| key.as_bytes());
    if sid != shared.config.sid || key != Some(shared.config.api_key.as_bytes()) {
        // The page shows this body without its status.
        return refuse(StatusCode::UNAUTHORIZED, "RBC201", "error", "Incorrect SID or API key.");
    }
    let fields = match Multipart::from_request(request, &()).await {
        Ok(multipart) => match Fields::read(multipart).await {
            Ok(fields) => fields,
            Err(problem) => return refuse(StatusCode::BAD_REQUEST, CODE_INVALID, "body", &problem),
        },
        Err(_) => {
            return refuse(StatusCode::BAD_REQUEST, CODE_INVALID, "body", "The request is not multipart/form-data.");
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
    let accepted = match check(&fields, shared.config.clock.now()) {
        Ok(accepted) => accepted,
        Err(refusal) => return refuse(StatusCode::BAD_REQUEST, CODE_INVALID, refusal.field, &refusal.message),
    };
    let body = success(&accepted);
    send_reports(&shared, &accepted);
    shared.accepted().extend(accepted);
    // From here on the message is accepted, whether or not the response arrives.
    tokio::time::sleep(shared.config.latency).await;
    match fault {
        Some(Fault::ResetAfter) => {
            abort.now();
            StatusCode::NO_CONTENT.into_response()
        }
        Some(Fault::ErrorAfter) => {
            refuse(StatusCode::INTERNAL_SERVER_ERROR, "WA500", "error", "Internal server error.")
        }
        Some(Fault::Garbled) => (StatusCode::OK, body[..body.len() / 2].to_owned()).into_response(),
        _ => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
    }
}

/// An error body as the vendor's page documents it.
fn refuse(status: StatusCode, code: &str, field: &str, message: &str) -> Response {
    let mut error = serde_json::Map::new();
    error.insert(field.to_owned(), Value::from(message));
    (status, Json(json!({ "code": code, "message": message, "data": [], "error": error }))).into_response()
}

/// Sends the reports `sent`, `delivered` and `read` to a callback URL on loopback, by GET with `id` and
/// `status`, as Kaleyra does.
fn send_reports(shared: &Arc<Shared>, accepted: &[AcceptedMessage]) {
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

/// The fields of a request.
#[derive(Debug, Default)]
struct Fields {
    texts: Vec<(String, String)>,
    media: Option<MediaPart>,
}

/// An uploaded file.
#[derive(Debug, Clone, Serialize)]
pub struct MediaPart {
    name: String,
    mime: String,
    bytes: usize,
}

/// A message that the sandbox accepted.
#[derive(Debug, Clone, Serialize)]
pub struct AcceptedMessage {
    /// `<request>:<index>`.
    pub message_id: String,
    /// The number as the request has it.
    pub to: String,
    /// The client's reference.
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    /// The template's name.
    pub template_name: String,
    /// The coupon code, without quotes.
    pub coupon_code: String,
    /// The expiry as the request has it.
    pub expiration_time_ms: Option<i64>,
    /// When the sandbox accepted it.
    pub received_at: Timestamp,
    /// The sender's number.
    pub from: String,
    /// The values of the body's placeholders.
    pub params: Vec<String>,
    /// The value of the URL's placeholder.
    pub param_url: Option<String>,
    /// The URL of the header's file.
    pub media_url: Option<String>,
    /// The uploaded file of the header. `media_url` takes precedence.
    pub media: Option<MediaPart>,
    /// The language code.
    pub lang_code: Option<String>,
    /// The callback, as a profile at the provider.
    pub callback_profile_id: Option<String>,
    /// The callback, as a URL.
    pub callback_url: Option<String>,
    /// Whether the expiry looks like a duration.
    pub expiry_ambiguous: bool,
}

/// Why a request is refused.
#[derive(Debug)]
struct Refusal {
    field: &'static str,
    message: String,
}

impl Fields {
    /// Reads a multipart body.
    async fn read(mut multipart: Multipart) -> Result<Self, String> {
        let mut fields = Self::default();
        loop {
            let field = match multipart.next_field().await {
                Ok(Some(field)) => field,
                Ok(None) => return Ok(fields),
                Err(error) => return Err(error.body_text()),
            };
            let name = field.name().unwrap_or_default().to_owned();
            let file = field.file_name().map(str::to_owned);
            let mime = field.content_type().unwrap_or("application/octet-stream").to_owned();
            if let Some(file) = file {
                let content = field.bytes().await.map_err(|error| error.body_text())?;
                fields.media = Some(MediaPart { name: file, mime, bytes: content.len() });
            } else {
                let text = field.text().await.map_err(|error| error.body_text())?;
                fields.texts.push((name, text));
            }
        }
    }

    /// The value of a text field.
    fn text(&self, name: &str) -> Option<&str> {
        self.texts.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }
}

/// Checks a request. Returns a message for each recipient.
fn check(fields: &Fields, now: Timestamp) -> Result<Vec<AcceptedMessage>, Refusal> {
    let refusal = |field, message: &str| Refusal { field, message: message.to_owned() };
    let required = |field: &'static str| match fields.text(field) {
        Some(value) if !value.trim().is_empty() => Ok(value),
        _ => Err(refusal(field, &format!("{field} is missing"))),
    };
    let to = required("to")?;
    let kind = required("type")?;
    let template_name = required("template_name")?;
    let channel = required("channel")?;
    let from = required("from")?;
    let code = required("coupon_code")?;
    if !channel.eq_ignore_ascii_case("whatsapp") {
        return Err(refusal("channel", "invalid channel"));
    }
    if kind != "mediatemplate" {
        return Err(refusal("type", "invalid type"));
    }
    if !is_number(from) {
        return Err(refusal("from", "invalid number"));
    }
    let numbers: Vec<&str> = to.split(',').map(str::trim).collect();
    if numbers.iter().any(|number| !is_number(number)) {
        return Err(refusal("to", "invalid number"));
    }
    let code: String = serde_json::from_str(code)
        .map_err(|_| refusal("coupon_code", "coupon_code must be a string in double quotes"))?;
    if !(1..=15).contains(&code.chars().count()) {
        return Err(refusal("coupon_code", "coupon_code must have 1 to 15 characters"));
    }
    let expiration = fields
        .text("limited_time_offer")
        .map(expiration)
        .transpose()
        .map_err(|message| refusal("limited_time_offer", &message))?;
    let expiry_ambiguous = expiration.is_some_and(|milliseconds| milliseconds < MIN_INSTANT);
    if !expiry_ambiguous && expiration.is_some_and(|milliseconds| milliseconds <= now.as_millisecond()) {
        return Err(refusal("limited_time_offer", "expiration_time_ms is in the past"));
    }
    let params: Vec<String> = match fields.text("params") {
        None => Vec::new(),
        Some(text) => serde_json::from_str(&format!("[{text}]"))
            .map_err(|_| refusal("params", "params must be strings in double quotes, separated by commas"))?,
    };
    if let Some(url) = fields.text("media_url") {
        let name = url.rsplit('/').next().unwrap_or_default();
        if !name.contains('.') {
            return Err(refusal("media_url", "media_url has no file extension"));
        }
    }
    let request = request_id(now);
    Ok(numbers
        .iter()
        .enumerate()
        .map(|(index, number)| AcceptedMessage {
            message_id: format!("{request}:{index}"),
            to: (*number).to_owned(),
            reference: fields.owned("ref"),
            template_name: template_name.to_owned(),
            coupon_code: code.clone(),
            expiration_time_ms: expiration,
            received_at: now,
            from: from.to_owned(),
            params: params.clone(),
            param_url: fields.owned("param_url"),
            media_url: fields.owned("media_url"),
            media: fields.media.clone(),
            lang_code: fields.owned("lang_code"),
            callback_profile_id: fields.owned("callback_profile_id"),
            callback_url: fields.owned("callback_url"),
            expiry_ambiguous,
        })
        .collect())
}

/// The success body that the page shows, as JSON.
fn success(accepted: &[AcceptedMessage]) -> String {
    let first = accepted.first();
    let created = first.map(|first| format!("{:.0}", first.received_at).replace('T', " ").replace('Z', "+00:00"));
    let body = SuccessBody {
        id: first.and_then(|first| first.message_id.split(':').next()).unwrap_or_default(),
        kind: "mediatemplate",
        body: None,
        created: created.unwrap_or_default(),
        total: accepted.len(),
        data: accepted
            .iter()
            .map(|message| SuccessEntry { message_id: &message.message_id, recipient: masked(&message.to) })
            .collect(),
        error: NoError {},
    };
    serde_json::to_string(&body).expect("strings and a number can be written as JSON")
}

#[derive(Serialize)]
struct SuccessBody<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    body: Option<()>,
    #[serde(rename = "createdDateTime")]
    created: String,
    #[serde(rename = "totalCount")]
    total: usize,
    data: Vec<SuccessEntry<'a>>,
    error: NoError,
}

#[derive(Serialize)]
struct SuccessEntry<'a> {
    message_id: &'a str,
    recipient: String,
}

#[derive(Serialize)]
struct NoError {}

/// The expiry in `limited_time_offer`.
fn expiration(text: &str) -> Result<i64, String> {
    let value: Value = serde_json::from_str(text).map_err(|_| "limited_time_offer is not valid JSON".to_owned())?;
    let one = match value.as_array().map(Vec::as_slice) {
        Some([one]) => one,
        _ => return Err("limited_time_offer must be an array of one object".to_owned()),
    };
    if one["type"] != "limited_time_offer" {
        return Err("the type in limited_time_offer must be limited_time_offer".to_owned());
    }
    one["limited_time_offer"]["expiration_time_ms"]
        .as_i64()
        .ok_or_else(|| "expiration_time_ms must be a number".to_owned())
}

/// Whether this is a phone number. The page's own samples are `1202XXXXXXX`.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('+').unwrap_or(text);
    (7..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'X')
}

/// Masks a number as the page's success body does: `xx9986xx70xx`.
fn masked(number: &str) -> String {
    number
        .trim_start_matches('+')
        .char_indices()
        .map(|(position, character)| if matches!(position, 0 | 1 | 6 | 7 | 10 | 11) { 'x' } else { character })
        .collect()
}

/// An id in the page's form, different for every request of every sandbox.
fn request_id(now: Timestamp) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let seed = format!("{}/{}/{count}", std::process::id(), now.as_nanosecond());
    let hex = blake3::hash(seed.as_bytes()).to_hex();
    let hex = hex.as_str();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32])
}
