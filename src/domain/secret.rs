//! Secrets by reference. A manifest names where a secret is; nothing here reads it.

use std::fmt;
use std::path::PathBuf;

/// Where a secret is.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// In an environment variable.
    Env(String),
    /// In a file; white space at its end does not count.
    File(PathBuf),
    /// In what a command prints; white space at its end does not count.
    Exec(Vec<String>),
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretRef::Env(name) => write!(f, "environment variable `{name}`"),
            SecretRef::File(path) => write!(f, "file `{}`", path.display()),
            SecretRef::Exec(words) => write!(f, "command `{}`", words.first().map_or("", String::as_str)),
        }
    }
}
