//! One connection: made from a URL, and made again when it is lost.
//!
//! Nothing depends on the state of a session (no prepared statements, no session settings, no session locks), so a
//! connection pooler in transaction mode can be used.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::ledger::error::{LedgerError, UnknownValue};
use crate::ledger::location::{DatabaseUrl, split_tls};

/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one transaction may take before its connection counts as lost.
pub(super) const QUERY_TIMEOUT: Duration = Duration::from_secs(15);

/// The database, and how to connect to it.
#[derive(Clone)]
pub(super) struct Target {
    config: Config,
    tls: Option<Arc<rustls::ClientConfig>>,
    /// The display form: without user and password.
    pub(super) place: String,
}

/// A connection that is made when it is needed.
pub(super) struct Connection {
    pub(super) target: Target,
    client: Option<Client>,
    /// How many connections were made.
    pub(super) made: u64,
    timeout: Duration,
    /// Whether this must stay the only connection.
    only: bool,
}

impl Target {
    /// Reads a URL.
    pub(super) fn parse(url: &str) -> Result<Self, LedgerError> {
        let url = DatabaseUrl::parse(url)?;
        let place = url.to_string();
        let wrong =
            |problem: String| LedgerError::storage(place.clone(), "reached", format!("its URL is wrong: {problem}"));
        let (text, mode, root) = split_tls(&url);
        // The URL was checked already, and the driver's error may quote it.
        let mut config: Config = text.parse().map_err(|_| wrong("the driver cannot read it".to_owned()))?;
        config.application_name("sendform").connect_timeout(CONNECT_TIMEOUT).tcp_user_timeout(QUERY_TIMEOUT);
        let local = config.get_hosts().iter().all(|host| match host {
            Host::Tcp(name) => {
                name == "localhost" || name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
            }
            Host::Unix(_) => true,
        });
        // Connections to other machines are encrypted, and the server must prove its identity, unless the URL says
        // otherwise.
        let encrypted = match mode {
            None => !local,
            Some("disable") => false,
            Some("require" | "verify-ca" | "verify-full") => true,
            Some(_) => return Err(wrong("`sslmode` is not one of `disable`, `require`, `verify-full`".to_owned())),
        };
        config.ssl_mode(if encrypted { SslMode::Require } else { SslMode::Disable });
        let tls = if encrypted { Some(Arc::new(tls(root).map_err(wrong)?)) } else { None };
        Ok(Self { config, tls, place })
    }

    async fn connect(&self) -> Result<Client, LedgerError> {
        let connecting = async {
            match &self.tls {
                Some(tls) => {
                    let tls = MakeRustlsConnect::new(tls.as_ref().clone());
                    let (client, connection) = self.config.connect(tls).await?;
                    tokio::spawn(connection);
                    Ok(client)
                }
                None => {
                    let (client, connection) = self.config.connect(NoTls).await?;
                    tokio::spawn(connection);
                    Ok(client)
                }
            }
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(error)) => Err(self.failed("reached", error)),
            Err(_) => Err(self.lost("no connection within 10 seconds")),
        }
    }

    pub(super) fn lost(&self, problem: impl Into<String>) -> LedgerError {
        LedgerError::lost(self.place.clone(), problem)
    }

    /// Tells a passing error from one that stays.
    pub(super) fn failed(&self, action: &'static str, error: tokio_postgres::Error) -> LedgerError {
        let place = self.place.clone();
        if let Some(value) = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<UnknownValue>())
        {
            return LedgerError::UnknownValue { place, value: value.clone() };
        }
        let problem = cause(&error);
        let passing = match error.code() {
            Some(code) => {
                code.code().starts_with("08")
                    || [
                        SqlState::ADMIN_SHUTDOWN,
                        SqlState::CRASH_SHUTDOWN,
                        SqlState::CANNOT_CONNECT_NOW,
                        SqlState::TOO_MANY_CONNECTIONS,
                        SqlState::T_R_SERIALIZATION_FAILURE,
                        SqlState::T_R_DEADLOCK_DETECTED,
                        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
                        SqlState::LOCK_NOT_AVAILABLE,
                        SqlState::QUERY_CANCELED,
                        // A standby that has not been promoted yet.
                        SqlState::READ_ONLY_SQL_TRANSACTION,
                    ]
                    .contains(code)
            }
            // The database did not answer: the connection is broken. Or it answered with a value that cannot be read.
            None => !is_conversion(&error),
        };
        let source = Some(Box::new(error) as _);
        if passing {
            LedgerError::Lost { place, problem, source }
        } else {
            LedgerError::Storage { place, action, problem, source }
        }
    }
}

/// Whether a value of a row could not be converted.
fn is_conversion(error: &tokio_postgres::Error) -> bool {
    // The driver tells this kind of error from others only by its text.
    error.to_string().starts_with("error deserializing column")
}

impl Connection {
    pub(super) fn new(target: Target) -> Self {
        Self { target, client: None, made: 0, timeout: QUERY_TIMEOUT, only: false }
    }

    /// With a shorter timeout, for what is useless later.
    pub(super) fn with_shorter_timeout(target: Target, timeout: Duration) -> Self {
        Self { timeout: timeout.min(QUERY_TIMEOUT), ..Self::new(target) }
    }

    /// With another timeout, for what takes long.
    pub(super) fn with_timeout(target: Target, timeout: Duration) -> Self {
        Self { timeout, ..Self::new(target) }
    }

    /// Never makes another connection: a transaction is open on this one, and another connection would not hold its
    /// locks.
    pub(super) fn never_reconnect(&mut self) {
        self.only = true;
    }

    /// The client, connected.
    pub(super) async fn client(&mut self) -> Result<&Client, LedgerError> {
        if self.client.as_ref().is_none_or(Client::is_closed) {
            self.client = None;
            if self.only {
                return Err(self.target.lost("the connection broke, and its locks are gone"));
            }
            self.client = Some(self.target.connect().await?);
            self.made += 1;
        }
        match &self.client {
            Some(client) => Ok(client),
            None => Err(self.target.lost("there is no connection")),
        }
    }

    /// Drops the connection, after an answer that did not come in time.
    pub(super) fn forget(&mut self) {
        self.client = None;
    }

    /// Runs `work` with the client, within this connection's timeout. A failure drops the connection, so that no
    /// unfinished transaction is left on it.
    pub(super) async fn with<T>(
        &mut self,
        action: &'static str,
        work: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, LedgerError> {
        let (target, timeout) = (self.target.clone(), self.timeout);
        let client = self.client().await?;
        match tokio::time::timeout(timeout, work(client)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                self.forget();
                Err(target.failed(action, error))
            }
            Err(_) => {
                self.forget();
                Err(target.lost(format!("no answer within {timeout:?}")))
            }
        }
    }
}

/// The innermost message of an error: the outer one is only "db error".
fn cause(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        return db.message().to_owned();
    }
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let text = inner.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        source = inner.source();
    }
    words
}

/// The TLS configuration. It always verifies the certificate and the host's name in it.
fn tls(root: Option<&str>) -> Result<rustls::ClientConfig, String> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use rustls_platform_verifier::BuilderVerifierExt;

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let Some(path) = root else {
        return Ok(builder.with_platform_verifier().map_err(|error| error.to_string())?.with_no_client_auth());
    };
    let mut roots = rustls::RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(|error| format!("`sslrootcert={path}` cannot be read: {error}"))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| format!("`sslrootcert={path}` cannot be read: {error}"))?;
        roots.add(certificate).map_err(|error| format!("`sslrootcert={path}`: {error}"))?;
    }
    if roots.is_empty() {
        return Err(format!("`sslrootcert={path}` holds no certificate"));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_whose_locks_are_needed_is_not_made_again() {
        let target = Target::parse("postgres://me@127.0.0.1:1/offers").unwrap();
        let mut connection = Connection::new(target);
        connection.never_reconnect();
        let error = connection.with("read", async |_| Ok(())).await.unwrap_err().to_string();
        assert!(error.contains("its locks are gone"), "{error}");
        assert_eq!(connection.made, 0);
    }

    #[test]
    fn a_place_holds_no_password_and_remote_databases_are_encrypted() {
        let local = Target::parse("postgres://me:secret@127.0.0.1:5433/offers").unwrap();
        assert_eq!(local.place, "postgres://127.0.0.1:5433/offers");
        assert!(local.tls.is_none());
        assert!(Target::parse("postgres://me:secret@db.example.com/offers?sslmode=disable").unwrap().tls.is_none());
        for url in [
            "postgres://me:secret@db.example.com/offers",
            "postgres://me:secret@localhost/offers?sslmode=verify-full&connect_timeout=3",
        ] {
            assert!(Target::parse(url).unwrap().tls.is_some(), "{url}");
        }
        for url in [
            "postgres://me:secret@h/db?sslmode=prefer",
            "postgres://",
            "postgres://me:secret@h/db?sslmode=require&sslrootcert=/nowhere.pem",
            "postgres://me:secret@h:port/db",
            // The name decides about encryption, but the connection would go to the address.
            "postgres://me:secret@localhost/db?hostaddr=203.0.113.7",
        ] {
            let error = Target::parse(url).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains("URL is wrong"), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
