//! References to secrets. A manifest names where a secret is; nothing here reads it.

use std::fmt;
use std::path::PathBuf;

use serde::ser::{Serialize, SerializeMap, Serializer};

/// Where a secret is.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// In an environment variable.
    Env(String),
    /// In a file. White space at its end is ignored.
    File {
        /// The path as the manifest writes it.
        written: String,
        /// The path to open.
        path: PathBuf,
    },
    /// In the output of a command. White space at its end is ignored.
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
            SecretRef::File { path, .. } => write!(f, "file `{}`", path.display()),
            SecretRef::Exec(words) => write!(f, "command `{}`", words.first().map_or("", String::as_str)),
        }
    }
}

impl Serialize for SecretRef {
    /// As a manifest writes it, such as `{ "env": "KALEYRA_SID" }`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match self {
            SecretRef::Env(name) => map.serialize_entry("env", name)?,
            SecretRef::File { written, .. } => map.serialize_entry("file", written)?,
            SecretRef::Exec(words) => map.serialize_entry("exec", words)?,
        }
        map.end()
    }
}
