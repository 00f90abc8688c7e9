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

pub mod decisions;
pub mod lower;
pub mod names;
pub mod read;
mod recognise;
pub mod schema;
pub mod source;
pub mod types;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::domain::campaign::Campaign;
use crate::domain::diagnostic::{Code, Diagnostic, Diagnostics, MAX_ERRORS, Severity, limit};
use crate::domain::input::{AudienceInput, PoolInput};
use crate::render::Composer;

/// What the operator gives beside the manifest.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// Values for the manifest's `vars`.
    pub vars: BTreeMap<String, serde_json::Value>,
    /// Directories outside the project that CSV files may lie in.
    pub data_dirs: Vec<PathBuf>,
}

/// A campaign that was read and checked.
#[derive(Debug)]
pub struct Loaded {
    /// The manifest's path, as the user would type it.
    pub path: PathBuf,
    /// The campaign.
    pub campaign: Campaign,
    /// Its working forms.
    pub compiled: Compiled,
    /// Warnings; no errors.
    pub warnings: Vec<Diagnostic>,
}

/// The working forms of a campaign, made once when its manifest is read.
#[derive(Debug)]
pub struct Compiled {
    /// The compiled texts, and the content of header files.
    pub composer: Composer,
    /// The files of the audience.
    pub audience: AudienceInput,
    /// The file of the coupon pool, if the campaign has one.
    pub pool: Option<PoolInput>,
}

/// Reads and checks a campaign as of `now`, without credentials and without a ledger.
pub fn load(path: &Path, given: &Given, now: Timestamp) -> Result<Loaded, Diagnostics> {
    let files = read::files(path, &given.data_dirs)?;
    let document = read::read(path, &files, schema::campaign())?;
    let mut violations = lower::unevaluated::find(&document, MAX_ERRORS + 1);
    // What was said of a place is not said again in other words.
    let add = |found: &mut Vec<Diagnostic>, more: Vec<Diagnostic>| {
        let places: HashSet<_> = found.iter().map(Diagnostic::position).filter(|(_, line, _)| line.is_some()).collect();
        found.extend(more.into_iter().filter(|finding| !places.contains(&finding.position())));
    };
    add(&mut violations, schema::validate(&document));
    let manifest = serde_json::from_value::<types::Campaign>(document.value.clone());
    if !violations.is_empty() {
        // What violates a bound of the schema can often be looked at all the same, so that
        // everything is told at once.
        if let Ok(manifest) = manifest {
            let (_, found) = lower::lower(&manifest, &document, &files, &given.vars, now);
            add(&mut violations, found);
        }
        return Err(Diagnostics(limit(violations)));
    }
    let manifest: types::Campaign = manifest.map_err(|error| {
        Diagnostics::from(
            Diagnostic::error(Code::SchemaMismatch, format!("the manifest does not fit its schema: {error}"))
                .in_file(path, None, None),
        )
    })?;
    let (lowered, found) = lower::lower(&manifest, &document, &files, &given.vars, now);
    match lowered {
        Some((campaign, compiled)) if found.iter().all(|diagnostic| diagnostic.severity != Severity::Error) => {
            Ok(Loaded { path: path.to_owned(), campaign, compiled, warnings: found })
        }
        _ => Err(Diagnostics(limit(found))),
    }
}

/// Reads the audience of a manifest whose other parts may be wrong by now (the offer has ended, a
/// variable is missing): to find the people of what was sent. Files that are not found are told beside it.
pub fn audience(path: &Path, data_dirs: &[PathBuf]) -> Result<(AudienceInput, Diagnostics), Diagnostics> {
    let files = read::files(path, data_dirs)?;
    let document = read::read(path, &files, schema::campaign())?;
    let audience = document.value.get("audience").cloned().unwrap_or_default();
    let audience: types::Audience = serde_json::from_value(audience).map_err(|error| {
        Diagnostic::error(Code::SchemaMismatch, format!("`audience` does not fit its schema: {error}"))
            .in_file(path, None, None)
    })?;
    lower::audience(&audience, &document, &files)
        .map(|(spec, problems)| (spec, Diagnostics(problems)))
        .map_err(Diagnostics)
}
