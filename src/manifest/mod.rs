//! The manifest: YAML files in, a checked [`Campaign`] or every mistake at once out.
//!
//! ```text
//! files ──read──▶ Document (JSON + positions) ──schema──▶ types ──check──▶ Campaign
//! ```
//!
//! * [`read`] turns files into one JSON value, following `use:` and remembering where each part stands.
//! * [`schema`] generates the JSON Schema from [`types`] and tells every violation in words.
//! * [`check`] does what a schema cannot: WhatsApp's rules, times, zones, paths, the names in expressions.
//!
//! Nothing here contacts a provider or opens a ledger, and no secret is read.

pub mod check;
pub mod decisions;
pub mod read;
mod recognise;
pub mod schema;
pub mod source;
pub mod types;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::campaign::Campaign;
use crate::diagnostic::{Diagnostic, Diagnostics, Severity};

/// What the operator gives beside the manifest.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// Values for the manifest's `vars`.
    pub vars: BTreeMap<String, serde_json::Value>,
    /// Directories outside the project that CSV files may lie in.
    pub data_dirs: Vec<PathBuf>,
}

/// A checked campaign, and what is worth a look in it.
#[derive(Debug)]
pub struct Checked {
    /// The campaign.
    pub campaign: Campaign,
    /// Warnings; no errors.
    pub warnings: Vec<Diagnostic>,
}

/// Reads and checks a campaign as of `now`, without credentials and without a ledger.
pub fn load(path: &Path, given: &Given, now: Timestamp) -> Result<Checked, Diagnostics> {
    let files = read::files(path, &given.data_dirs)?;
    let document = read::read(path, &files, schema::campaign())?;
    let mut violations = schema::validate(&document);
    let manifest = serde_json::from_value::<types::Campaign>(document.value.clone());
    if !violations.is_empty() {
        // What violates a bound of the schema can often be looked at all the same, so that
        // everything is told at once; what the schema has told of a place is not told again.
        if let Ok(manifest) = manifest {
            let told: Vec<_> = violations.iter().map(Diagnostic::position).collect();
            let (_, found) = check::check(path, &manifest, &document, &files, &given.vars, now);
            violations.extend(found.into_iter().filter(|finding| !told.contains(&finding.position())));
        }
        return Err(Diagnostics(violations));
    }
    let manifest: types::Campaign = manifest.map_err(|error| {
        Diagnostics::from(
            Diagnostic::error("manifest", format!("the manifest does not fit its schema: {error}"))
                .in_file(path, None, None),
        )
    })?;
    let (campaign, found) = check::check(path, &manifest, &document, &files, &given.vars, now);
    match campaign {
        Some(campaign) if found.iter().all(|diagnostic| diagnostic.severity != Severity::Error) => {
            Ok(Checked { campaign, warnings: found })
        }
        _ => Err(Diagnostics(found)),
    }
}
