//! Kaleyra's settings, read from the common form in which a campaign holds them.

use std::time::Duration;

use serde::Deserialize;

use super::{KaleyraSpec, check_base_url, check_callback_url};
use crate::domain::campaign::{Callback, GatewaySpec};
use crate::domain::diagnostic::Code;
use crate::domain::expiry::{self, Encoding};
use crate::domain::secret::SecretRef;

/// The timeout unless the manifest says otherwise. Other clients of this API use 8 to 50 seconds.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest timeout.
const MAX_TIMEOUT: Duration = Duration::from_secs(3_600);

/// The options that Kaleyra alone has, as the manifest writes them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    #[serde(default = "yes")]
    send_ref: bool,
    #[serde(default)]
    expiry_encoding: ExpiryEncoding,
    timeout: Option<String>,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ExpiryEncoding {
    #[default]
    Absolute,
    Duration,
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SpecError {
    /// The JSON pointer of the setting, below the provider's block: `/timeout`.
    pub pointer: String,
    /// The diagnostic's code.
    pub code: Code,
    /// The problem.
    pub message: String,
    /// The way out.
    pub hint: String,
}

impl KaleyraSpec {
    /// Reads the settings of an account at Kaleyra, and finds every problem in them.
    pub fn read(spec: &GatewaySpec) -> Result<Self, Vec<SpecError>> {
        let mut problems = Vec::new();
        let mut problem = |pointer: &str, code, message: String, hint: &str| {
            problems.push(SpecError { pointer: pointer.to_owned(), code, message, hint: hint.to_owned() });
        };
        if let Err(message) = check_base_url(&spec.base_url) {
            problem(
                "/base_url",
                Code::UnsafeBaseUrl,
                message,
                "use `https://`; plain http is for a sandbox on this machine",
            );
        }
        if let Some(Callback::Url(url)) = &spec.callback {
            let checked = url::Url::parse(url)
                .map_err(|_| "this is not a web address".to_owned())
                .and_then(|url| check_callback_url(&url));
            if let Err(message) = checked {
                let hint = "such as `https://hooks.example.com/whatsapp`; plain http is for tests on this machine";
                problem("/callback/url", Code::InvalidUrl, message, hint);
            }
        }
        let mut secret = |name: &str| {
            let secret = spec.secrets.get(name).cloned();
            if secret.is_none() {
                problem(&format!("/{name}"), Code::MissingKey, format!("`{name}` is missing"), "");
            }
            secret
        };
        let (sid, api_key): (Option<SecretRef>, Option<SecretRef>) = (secret("sid"), secret("api_key"));
        let options: Options = match serde_json::from_value(spec.options.clone().into()) {
            Ok(options) => options,
            Err(error) => {
                problem("", Code::SchemaMismatch, format!("these options do not fit: {error}"), "");
                Options::default()
            }
        };
        let timeout = match options.timeout.as_deref().map(expiry::parse_duration) {
            None => DEFAULT_TIMEOUT,
            Some(Ok(timeout)) if timeout <= MAX_TIMEOUT => timeout,
            Some(Ok(_)) => {
                let text = options.timeout.as_deref().unwrap_or_default();
                let hint = "an upload that makes progress may take ten times as long";
                problem("/timeout", Code::InvalidTimeout, format!("`{text}` is more than an hour"), hint);
                DEFAULT_TIMEOUT
            }
            Some(Err(error)) => {
                problem("/timeout", Code::InvalidTimeout, error.to_string(), "durations are written `30s` or `2m`");
                DEFAULT_TIMEOUT
            }
        };
        match (sid, api_key, problems.is_empty()) {
            (Some(sid), Some(api_key), true) => Ok(Self {
                base_url: spec.base_url.clone(),
                sid,
                api_key,
                from: spec.sender,
                callback: spec.callback.clone(),
                send_ref: options.send_ref,
                encoding: match options.expiry_encoding {
                    ExpiryEncoding::Absolute => Encoding::Absolute,
                    ExpiryEncoding::Duration => Encoding::Duration,
                },
                timeout,
            }),
            _ => Err(problems),
        }
    }
}
