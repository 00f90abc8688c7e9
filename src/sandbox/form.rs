//! What Kaleyra takes and refuses, as its send-LTO page documents it.
//!
//! | checked | refused with |
//! |---|---|
//! | `to`, `type`, `template_name`, `channel`, `from`, `coupon_code` are there | 400, `E13001`, `error.<field>` |
//! | numbers: digits with or without `+`, several in `to` | the same (the page's own samples hold `X`, which is let pass) |
//! | `coupon_code` is a JSON string, with its quotes, of 1 to 15 characters | the same |
//! | `limited_time_offer` is a JSON array of one such object, with a number | the same |
//! | the instant is not past; a value under 10^12, as in the page's own example, is taken and marked | the same |
//! | `media_url` has a file extension | the same |

use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::Multipart;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

/// The one code for dozens of validation failures. Source: `docs/whatsapp-error-codes`.
pub const CODE_INVALID: &str = "E13001";

/// Below this, a value is a duration or a number of seconds rather than epoch milliseconds.
const LEAST_INSTANT: i64 = 1_000_000_000_000;

/// The fields of a request.
#[derive(Debug, Default)]
pub struct Fields {
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
pub struct Accepted {
    /// `<request>:<index>`.
    pub message_id: String,
    /// As it was given.
    pub to: String,
    /// The client's reference.
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    /// The template.
    pub template_name: String,
    /// The code, without quotes.
    pub coupon_code: String,
    /// As it was given.
    pub expiration_time_ms: Option<i64>,
    /// When it was accepted.
    pub received_at: Timestamp,
    /// The sender.
    pub from: String,
    /// What fills the body.
    pub params: Vec<String>,
    /// What fills the URL.
    pub param_url: Option<String>,
    /// The header.
    pub media_url: Option<String>,
    /// The uploaded header; `media_url` wins where both are given.
    pub media: Option<MediaPart>,
    /// The language.
    pub lang_code: Option<String>,
    /// Where reports go.
    pub callback_profile_id: Option<String>,
    /// Where reports go.
    pub callback_url: Option<String>,
    /// Whether the expiry could be meant as a duration.
    pub expiry_ambiguous: bool,
}

/// Why a request is refused.
#[derive(Debug)]
pub struct Problem {
    /// The field.
    pub field: &'static str,
    /// What is wrong with it.
    pub message: String,
}

impl Fields {
    /// A text field.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.texts.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }
}

/// Reads a multipart body.
pub async fn read(mut multipart: Multipart) -> Result<Fields, String> {
    let mut fields = Fields::default();
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

/// Takes or refuses a request.
pub fn check(fields: &Fields, now: Timestamp) -> Result<Vec<Accepted>, Problem> {
    let problem = |field, message: &str| Problem { field, message: message.to_owned() };
    let need = |field: &'static str| match fields.text(field) {
        Some(value) if !value.trim().is_empty() => Ok(value),
        _ => Err(problem(field, &format!("{field} is missing"))),
    };
    let to = need("to")?;
    let kind = need("type")?;
    let template_name = need("template_name")?;
    let channel = need("channel")?;
    let from = need("from")?;
    let code = need("coupon_code")?;
    if !channel.eq_ignore_ascii_case("whatsapp") {
        return Err(problem("channel", "invalid channel"));
    }
    if kind != "mediatemplate" {
        return Err(problem("type", "invalid type"));
    }
    if !is_number(from) {
        return Err(problem("from", "invalid number"));
    }
    let numbers: Vec<&str> = to.split(',').map(str::trim).collect();
    if numbers.iter().any(|number| !is_number(number)) {
        return Err(problem("to", "invalid number"));
    }
    let code: String = serde_json::from_str(code)
        .map_err(|_| problem("coupon_code", "coupon_code must be a string in double quotes"))?;
    if !(1..=15).contains(&code.chars().count()) {
        return Err(problem("coupon_code", "coupon_code must have 1 to 15 characters"));
    }
    let expiration = fields
        .text("limited_time_offer")
        .map(expiration)
        .transpose()
        .map_err(|message| problem("limited_time_offer", &message))?;
    let expiry_ambiguous = expiration.is_some_and(|milliseconds| milliseconds < LEAST_INSTANT);
    if !expiry_ambiguous && expiration.is_some_and(|milliseconds| milliseconds <= now.as_millisecond()) {
        return Err(problem("limited_time_offer", "expiration_time_ms is in the past"));
    }
    let params: Vec<String> = match fields.text("params") {
        None => Vec::new(),
        Some(text) => serde_json::from_str(&format!("[{text}]"))
            .map_err(|_| problem("params", "params must be strings in double quotes, separated by commas"))?,
    };
    if let Some(url) = fields.text("media_url") {
        let name = url.rsplit('/').next().unwrap_or_default();
        if !name.contains('.') {
            return Err(problem("media_url", "media_url has no file extension"));
        }
    }
    let request = request_id(now);
    Ok(numbers
        .iter()
        .enumerate()
        .map(|(index, number)| Accepted {
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

/// The success body of the page, as JSON.
pub fn answer(accepted: &[Accepted]) -> String {
    let first = accepted.first();
    let created = first.map(|first| format!("{:.0}", first.received_at).replace('T', " ").replace('Z', "+00:00"));
    let answer = Answer {
        id: first.and_then(|first| first.message_id.split(':').next()).unwrap_or_default(),
        kind: "mediatemplate",
        body: None,
        created: created.unwrap_or_default(),
        total: accepted.len(),
        data: accepted
            .iter()
            .map(|message| Entry { message_id: &message.message_id, recipient: masked(&message.to) })
            .collect(),
        error: NoError {},
    };
    serde_json::to_string(&answer).expect("texts and a number can be JSON")
}

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    body: Option<()>,
    #[serde(rename = "createdDateTime")]
    created: String,
    #[serde(rename = "totalCount")]
    total: usize,
    data: Vec<Entry<'a>>,
    error: NoError,
}

#[derive(Serialize)]
struct Entry<'a> {
    message_id: &'a str,
    recipient: String,
}

#[derive(Serialize)]
struct NoError {}

/// The one number in `limited_time_offer`.
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

/// The page's own samples are `1202XXXXXXX`.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('+').unwrap_or(text);
    (7..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'X')
}

/// As in the page's success body: `xx9986xx70xx`.
fn masked(number: &str) -> String {
    number
        .trim_start_matches('+')
        .char_indices()
        .map(|(position, character)| if matches!(position, 0 | 1 | 6 | 7 | 10 | 11) { 'x' } else { character })
        .collect()
}

/// An id of the form of the page's, different for every request of every sandbox.
fn request_id(now: Timestamp) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let seed = format!("{}/{}/{count}", std::process::id(), now.as_nanosecond());
    let hex = blake3::hash(seed.as_bytes()).to_hex();
    let hex = hex.as_str();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32])
}
