//! The secrets of an account. A manifest refers to them; only `apply` reads them, and nothing prints them.

mod command;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use secrecy::SecretString;

use super::KaleyraSpec;
use crate::domain::secret::SecretRef;
use crate::gateway::EnvLookup;

/// The secrets of an account.
#[derive(Debug, Clone)]
pub struct Account {
    /// Identifies the account; a part of the API's URL.
    pub sid: SecretString,
    /// The API key.
    pub api_key: SecretString,
}

impl Account {
    /// Reads the secrets that the settings refer to.
    pub fn resolve(spec: &KaleyraSpec, env: EnvLookup<'_>) -> Result<Self, SecretError> {
        Ok(Self { sid: resolve(&spec.sid, "the SID", env)?, api_key: resolve(&spec.api_key, "the API key", env)? })
    }
}

/// Why a secret cannot be read. Contains nothing of the secret.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {what}: {from} {problem}")]
pub struct SecretError {
    what: &'static str,
    from: SecretRef,
    problem: String,
}

/// Reads a secret. `what` is what it is for, in errors.
fn resolve(secret: &SecretRef, what: &'static str, env: EnvLookup<'_>) -> Result<SecretString, SecretError> {
    let fail = |problem: String| SecretError { what, from: secret.clone(), problem };
    let text = match secret {
        SecretRef::Env(name) => {
            let value = env(name).ok_or_else(|| fail("is not set".to_owned()))?;
            value.into_string().map_err(|_| fail("is not UTF-8".to_owned()))?
        }
        SecretRef::File { path, .. } => read(path).map_err(fail)?,
        SecretRef::Exec(words) => {
            let output = command::output_of(words, command::TIME_LIMIT).map_err(fail)?;
            String::from_utf8(output).map_err(|_| fail("printed text that is not UTF-8".to_owned()))?
        }
    };
    let text = text.trim_end();
    if text.is_empty() {
        return Err(fail("is empty".to_owned()));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(fail("contains white space or non-ASCII characters".to_owned()));
    }
    Ok(SecretString::from(text))
}

/// The largest secret that is read.
const MAX_BYTES: u64 = 64 * 1024;

/// Reads a secret's file, which may lie anywhere and may be a pipe.
fn read(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let mut content = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut content)).map_err(unreadable)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(format!("has more than {MAX_BYTES} bytes"));
    }
    String::from_utf8(content).map_err(|_| "is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn resolved(secret: &SecretRef) -> Result<String, String> {
        let env = |name: &str| (name == "KEY").then(|| "key-1\n".into());
        let secret = resolve(secret, "the API key", &env).map_err(|error| error.to_string())?;
        Ok(secret.expose_secret().to_owned())
    }

    #[test]
    fn a_secret_is_read_from_a_variable_a_file_or_a_command_without_its_line_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "abc123\n").unwrap();
        assert_eq!(resolved(&SecretRef::File { written: "key".to_owned(), path }), Ok("abc123".to_owned()));
        let command = SecretRef::Exec(vec!["/usr/bin/printf".into(), "xyz".into()]);
        assert_eq!(resolved(&command), Ok("xyz".to_owned()));
        assert_eq!(resolved(&SecretRef::Env("KEY".to_owned())), Ok("key-1".to_owned()));
    }

    #[test]
    fn an_error_names_the_source_and_contains_nothing_of_the_secret() {
        let error = resolved(&SecretRef::Env("OTHER".into())).unwrap_err();
        assert_eq!(error, "cannot read the API key: environment variable `OTHER` is not set");
        let error = resolved(&SecretRef::Exec(vec!["/usr/bin/printf".into(), "two words".into()])).unwrap_err();
        assert!(!error.contains("two words"), "{error}");
    }
}
