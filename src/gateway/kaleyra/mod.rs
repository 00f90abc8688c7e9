//! Kaleyra's WhatsApp API.
//!
//! * `options` reads the settings of a campaign, [`account`] its secrets.
//! * [`v1`] writes the request of the send-LTO page and reads its response; `codes` has the result codes.
//! * [`multipart`] writes the bytes of the form, `client` posts them, `transfer` tracks which of them have left, and
//!   `uploads` limits how many bytes of files are in flight together.

pub mod account;
mod client;
mod codes;
pub mod multipart;
mod options;
mod transfer;
mod uploads;
pub mod v1;

use std::time::Duration;

use url::Url;

pub use crate::domain::campaign::Callback;
use crate::domain::expiry::Encoding;
use crate::domain::phone::E164;
use crate::domain::secret::SecretRef;
pub use crate::util::net::is_loopback;
pub use options::SpecError;
pub use v1::form::form;
pub use v1::{KaleyraV1, SetupError};

/// The provider's name in the manifest.
pub const NAME: &str = "kaleyra";

/// An account at Kaleyra and how to use it; holds no secret.
#[derive(Debug, Clone)]
pub struct KaleyraSpec {
    /// The API's address.
    pub base_url: Url,
    /// Where the SID is.
    pub sid: SecretRef,
    /// Where the API key is.
    pub api_key: SecretRef,
    /// The business number.
    pub from: E164,
    /// Where reports go.
    pub callback: Option<Callback>,
    /// Whether requests carry the send key as `ref`.
    pub send_ref: bool,
    /// What `expiration_time_ms` holds.
    pub encoding: Encoding,
    /// How long a request may take without progress: each piece of an upload, and the answer.
    pub timeout: Duration,
}

impl KaleyraSpec {
    /// No request lives longer than this: connecting, the upload and the answer. `uploads` says
    /// whether requests carry a file.
    pub fn longest_request(&self, uploads: bool) -> Duration {
        let limits = client::limits(self.timeout, uploads);
        limits.connect.saturating_add(limits.upload).saturating_add(limits.progress)
    }
}

/// An API key may only travel encrypted, or stay on this machine.
pub fn check_base_url(url: &Url) -> Result<(), String> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the API's address must not contain a user name or a password".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(
            "the API's address must not have a query or a fragment: requests have paths of their own".to_owned()
        );
    }
    check_url(url, "plain http would send the API key unencrypted", "a scheme that the API can be reached by")
}

/// Reports name recipients, so they may only travel encrypted, or stay on this machine.
pub fn check_callback_url(url: &Url) -> Result<(), String> {
    check_url(url, "plain http would send reports about recipients unencrypted", "a scheme that reports can be sent to")
}

fn check_url(url: &Url, plain_http: &str, kind: &str) -> Result<(), String> {
    if url.host().is_none() {
        return Err("this address has no host".to_owned());
    }
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback(url) => Ok(()),
        "http" => Err(plain_http.to_owned()),
        other => Err(format!("`{other}:` is not {kind}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_about_recipients_are_encrypted_or_stay_on_this_machine() {
        let check = |text: &str| check_callback_url(&Url::parse(text).unwrap()).is_ok();
        assert!(check("https://hooks.example.com/whatsapp?token=1"));
        assert!(check("http://127.0.0.1:8080/status"));
        assert!(!check("http://hooks.example.com/whatsapp"));
        assert!(!check("ftp://hooks.example.com"));
    }

    #[test]
    fn plain_http_stays_on_this_machine() {
        let check = |text: &str| check_base_url(&Url::parse(text).unwrap()).is_ok();
        assert!(check("https://api.in.kaleyra.io"));
        assert!(check("http://127.0.0.1:8080"));
        assert!(check("http://localhost:8080"));
        assert!(check("http://[::1]:8080"));
        assert!(!check("http://api.in.kaleyra.io"));
        assert!(!check("http://127.0.0.1.example.com"));
        assert!(!check("ftp://127.0.0.1"));
        assert!(!check("https://me:secret@api.in.kaleyra.io"));
        assert!(!check("https://api.in.kaleyra.io/?region=in"));
        assert!(!check("https://api.in.kaleyra.io/#in"));
    }
}
