//! Secrets by reference. A manifest names where a secret is; only `apply` reads it, and nothing prints it.

mod command;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use secrecy::SecretString;

use crate::domain::secret::SecretRef;

/// Why a secret is not to be had. Holds nothing of the secret.
#[derive(Debug, thiserror::Error)]
#[error("{what} is not to be had: {from} {problem}")]
pub struct SecretError {
    what: &'static str,
    from: SecretRef,
    problem: String,
}

impl SecretRef {
    /// Reads the secret. `what` says what it is for, in errors.
    pub fn resolve(&self, what: &'static str) -> Result<SecretString, SecretError> {
        let fail = |problem: String| SecretError { what, from: self.clone(), problem };
        let text = match self {
            SecretRef::Env(name) => std::env::var(name).map_err(|error| match error {
                std::env::VarError::NotPresent => fail("is not set".to_owned()),
                std::env::VarError::NotUnicode(_) => fail("is not UTF-8".to_owned()),
            })?,
            SecretRef::File { path, .. } => read(path).map_err(fail)?,
            SecretRef::Exec(words) => {
                let output = command::output_of(words, command::TIME_LIMIT).map_err(fail)?;
                String::from_utf8(output).map_err(|_| fail("printed something that is not UTF-8".to_owned()))?
            }
        };
        let text = text.trim_end();
        if text.is_empty() {
            return Err(fail("is empty".to_owned()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(fail("holds white space or characters outside ASCII".to_owned()));
        }
        Ok(SecretString::from(text))
    }
}

/// The largest secret that is read.
const MAX_BYTES: u64 = 64 * 1024;

/// Reads a secret's file, which may lie anywhere and may be a pipe.
fn read(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let mut content = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut content)).map_err(unreadable)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(format!("is too large: a secret has at most {MAX_BYTES} bytes"));
    }
    String::from_utf8(content).map_err(|_| "is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_secret_comes_from_a_file_or_a_command_without_its_line_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "abc123\n").unwrap();
        assert_eq!(
            SecretRef::File { written: "key".to_owned(), path }.resolve("the key").unwrap().expose_secret(),
            "abc123"
        );
        let command = SecretRef::Exec(["/bin/sh", "-c", "printf xyz"].map(Into::into).into());
        assert_eq!(command.resolve("the key").unwrap().expose_secret(), "xyz");
    }

    #[test]
    fn an_error_says_where_it_looked_and_nothing_of_the_secret() {
        let error = SecretRef::Env("SENDFORM_TEST_NOT_SET".into()).resolve("the API key").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the API key is not to be had: environment variable `SENDFORM_TEST_NOT_SET` is not set"
        );
        let error = SecretRef::Exec(vec!["printf".into(), "two words".into()]).resolve("the API key").unwrap_err();
        assert!(!error.to_string().contains("two words"));
    }
}
