//! An argument that names a campaign, by its file or by its name.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::error::CommandError;
use super::exit::Exit;
use crate::domain::diagnostic::Code;
use crate::manifest::{read, schema};

/// A campaign that is named by its file or its name: where its project starts, its name, its edition.
pub(super) fn parse(named: Option<&str>) -> Result<(PathBuf, Option<String>, Option<u32>), CommandError> {
    let here = || PathBuf::from(".");
    match named {
        None => Ok((here(), None, None)),
        Some(text) if Path::new(text).is_file() => {
            let (name, edition) = recorded_identity(Path::new(text))?;
            Ok((PathBuf::from(text), Some(name), Some(edition)))
        }
        Some(name) => Ok((here(), Some(name.to_owned()), None)),
    }
}

/// Name and edition of a manifest that may have other mistakes: what was sent stays true.
pub(super) fn identity(path: &Path) -> Result<(String, u32), CommandError> {
    identity_in(path, &manifest(path)?)
}

/// The name that a manifest's sends are found under, and its edition. A campaign that was renamed and
/// not sent since is recorded under its name before.
fn recorded_identity(path: &Path) -> Result<(String, u32), CommandError> {
    let manifest = manifest(path)?;
    let (name, edition) = identity_in(path, &manifest)?;
    Ok((manifest["moved"]["from"].as_str().map_or(name, ToOwned::to_owned), edition))
}

/// A manifest as it is written, with what it uses.
fn manifest(path: &Path) -> Result<Value, CommandError> {
    Ok(read::read(path, &read::files(path, &[])?, schema::campaign())?.value)
}

fn identity_in(path: &Path, manifest: &Value) -> Result<(String, u32), CommandError> {
    let name = manifest["name"].as_str().ok_or_else(|| {
        CommandError::new(Exit::Invalid, Code::MissingKey, format!("`{}` has no `name`", path.display()))
    })?;
    let edition = manifest["edition"].as_u64().and_then(|edition| u32::try_from(edition).ok()).unwrap_or(1);
    Ok((name.to_owned(), edition))
}
