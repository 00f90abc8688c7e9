//! Gateways: the code that speaks to a provider.
//!
//! * [`contract`] is what the engine asks of every provider.
//! * [`open`] connects to the provider of a campaign.
//! * [`redact`] removes personal data and secrets from a provider's texts.
//! * [`kaleyra`] is the one provider so far.

pub mod contract;
pub mod kaleyra;
pub mod redact;

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

pub use crate::domain::send::{NotSent, Outcome};
pub use contract::{Gateway, Reply, Request};

use crate::domain::campaign::GatewaySpec;
use crate::domain::clock::Clock;
use kaleyra::account::{Account, SecretError};
use kaleyra::{KaleyraSpec, KaleyraV1, SetupError, SpecError};

/// Looks up an environment variable.
pub type EnvLookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// A provider that is ready for requests.
pub struct Connection {
    /// The provider.
    pub gateway: Arc<dyn Gateway>,
    /// The secret that identifies the account at the provider.
    pub account: SecretString,
}

/// Why a provider cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such provider.
    #[error("unknown provider `{0}`")]
    UnknownProvider(String),
    /// A setting cannot be used.
    #[error(transparent)]
    Setting(SpecError),
    /// A secret cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The client cannot be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

/// Reads the secrets of a provider and connects to it, for up to `connections` requests at once. Nothing is sent.
pub fn open(
    spec: &GatewaySpec,
    env: EnvLookup<'_>,
    clock: Arc<dyn Clock>,
    connections: usize,
) -> Result<Connection, OpenError> {
    let spec = kaleyra_spec(spec)?;
    let account = Account::resolve(&spec, env)?;
    let id = account.sid.clone();
    let gateway = KaleyraV1::new(spec, account, clock, connections)?;
    Ok(Connection { gateway: Arc::new(gateway), account: id })
}

/// The maximum duration of a request: connecting, the upload and the response. `uploads` says whether requests
/// upload a file.
pub fn longest_request(spec: &GatewaySpec, uploads: bool) -> Result<Duration, OpenError> {
    Ok(kaleyra_spec(spec)?.longest_request(uploads))
}

fn kaleyra_spec(spec: &GatewaySpec) -> Result<KaleyraSpec, OpenError> {
    if spec.provider != kaleyra::NAME {
        return Err(OpenError::UnknownProvider(spec.provider.clone()));
    }
    // The manifest's checks report all of them; here one is enough.
    KaleyraSpec::read(spec).map_err(|mut problems| OpenError::Setting(problems.swap_remove(0)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use secrecy::ExposeSecret;

    use super::*;
    use crate::domain::clock::SystemClock;
    use crate::domain::phone::E164;
    use crate::domain::secret::SecretRef;

    fn spec(provider: &str) -> GatewaySpec {
        GatewaySpec {
            provider: provider.to_owned(),
            sender: E164::parse_exact("+919900112233").unwrap(),
            base_url: "https://api.in.kaleyra.io".parse().unwrap(),
            secrets: BTreeMap::from(["sid", "api_key"].map(|name| (name.to_owned(), SecretRef::Env(name.to_owned())))),
            account: "sid".to_owned(),
            callback: None,
            options: serde_json::Map::from_iter([("timeout".to_owned(), "20s".into())]),
        }
    }

    fn open_with(spec: &GatewaySpec, variables: &[&str]) -> Result<String, String> {
        let env = |name: &str| variables.contains(&name).then(|| format!("the-{name}").into());
        match open(spec, &env, Arc::new(SystemClock), 1) {
            Ok(connection) => Ok(connection.account.expose_secret().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_provider_is_opened_with_its_secrets_from_the_given_environment() {
        assert_eq!(open_with(&spec("kaleyra"), &["sid", "api_key"]), Ok("the-sid".to_owned()));
        let error = open_with(&spec("kaleyra"), &["sid"]).unwrap_err();
        assert_eq!(error, "cannot read the API key: environment variable `api_key` is not set");
        assert_eq!(open_with(&spec("other"), &[]).unwrap_err(), "unknown provider `other`");
        let mut wrong = spec("kaleyra");
        wrong.options.insert("timeout".to_owned(), "2h".into());
        assert_eq!(open_with(&wrong, &["sid", "api_key"]).unwrap_err(), "`2h` is more than an hour");
    }

    #[test]
    fn a_request_takes_at_most_its_steps_together() {
        let longest = |uploads| longest_request(&spec("kaleyra"), uploads).unwrap().as_secs();
        assert_eq!((longest(false), longest(true)), (10 + 20 + 20, 10 + 200 + 20));
    }
}
