//! What several commands need: variables, the project, the ledger and its key.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::ui::Ui;
use super::{Exit, LedgerArgs, Stop, VarArgs};
use crate::campaign::{Campaign, CouponSpec};
use crate::ledger::key::KEY_VARIABLE;
use crate::ledger::sqlite::SqliteLedger;
use crate::ledger::{LedgerKey, Snapshot};
use crate::manifest::{self, Given};
use crate::project;

/// Reads `--var-file` and `--var`.
pub fn given(args: &VarArgs) -> Result<Given, Stop> {
    let mut given = Given::new();
    for file in &args.var_file {
        let shown = file.display();
        let text = std::fs::read_to_string(file)
            .map_err(|error| Stop::new(Exit::Invalid, format!("cannot read `{shown}`: {error}")))?;
        let values: Given = serde_yaml::from_str(&text).map_err(|error| {
            Stop::new(Exit::Invalid, format!("`{shown}` is not a list of variables: {error}"))
                .hint("one `name: value` a line")
        })?;
        given.extend(values);
    }
    for var in &args.vars {
        let (name, value) = var.split_once('=').ok_or_else(|| {
            Stop::new(Exit::Usage, format!("`--var {var}` has no value")).hint("write `--var NAME=VALUE`")
        })?;
        given.insert(name.trim().to_owned(), serde_json::Value::from(value));
    }
    Ok(given)
}

/// Loads a campaign and tells its warnings.
pub fn campaign(ui: &Ui, path: &Path, given: &Given, now: Timestamp) -> Result<Campaign, Stop> {
    let checked = manifest::load(path, given, now)?;
    ui.problems(&checked.warnings);
    Ok(checked.campaign)
}

/// The ledger that a campaign's sends are recorded in.
pub fn ledger_path(args: &LedgerArgs, sandbox: bool, start: &Path) -> Result<PathBuf, Stop> {
    let current = std::env::current_dir()
        .map_err(|error| Stop::new(Exit::Error, format!("the current directory is not to be had: {error}")))?;
    // A trial has a ledger of its own, whatever the environment names for real runs.
    let named = args.ledger.clone().or_else(|| std::env::var("SENDFORM_LEDGER").ok().filter(|url| !url.is_empty()));
    if let Some(url) = named.as_ref().filter(|_| !sandbox) {
        return project::ledger_path(url).map_err(|problem| {
            Stop::new(Exit::Usage, problem).hint("such as `--ledger sqlite:/var/lib/offers/ledger.db`")
        });
    }
    let project = project::find(start, &current)?;
    let path =
        if sandbox { project.root.join(project::DIRECTORY).join("sandbox").join("ledger.db") } else { project.ledger };
    // Below the current directory a short path is easier to read.
    Ok(path.strip_prefix(&current).map(Path::to_owned).unwrap_or(path))
}

/// The key that the environment gives, if it does.
fn key_variable() -> Option<String> {
    std::env::var(KEY_VARIABLE).ok().filter(|value| !value.is_empty())
}

/// The key of a ledger, for a run.
pub fn key(ledger: &Path) -> Result<LedgerKey, Stop> {
    prepare(ledger)?;
    Ok(LedgerKey::of(ledger, key_variable().as_deref())?)
}

fn prepare(ledger: &Path) -> Result<(), Stop> {
    project::prepare(ledger).map_err(|error| {
        Stop::new(
            Exit::Error,
            format!("the ledger's directory `{}` cannot be made: {error}", ledger.parent().unwrap_or(ledger).display()),
        )
        .hint("nothing is sent without a ledger; name a place that can be written to with `--ledger sqlite:PATH`")
    })
}

/// The key and what is recorded, for reading. Writes nothing, unless codes are to be generated and
/// there is no key yet.
pub fn read(ledger: &Path, campaign: &Campaign) -> Result<(LedgerKey, Snapshot), Stop> {
    let given = key_variable();
    let generates = matches!(campaign.coupons, CouponSpec::Generate { .. });
    let exists = crate::ledger::exists(ledger)?;
    let key = if exists || given.is_some() || LedgerKey::path(ledger).exists() {
        LedgerKey::of(ledger, given.as_deref())?
    } else if generates {
        key(ledger)?
    } else {
        // Nobody is recorded yet, so no key tells anybody apart.
        LedgerKey::from_bytes([0; 32])
    };
    let snapshot = match SqliteLedger::open_existing(ledger, Some(&key).filter(|_| exists))? {
        Some(ledger) => ledger.snapshot(&campaign.name, campaign.edition, uses_pool(campaign))?,
        None => Snapshot::default(),
    };
    Ok((key, snapshot))
}

/// Whether the campaign gives codes of a pool away.
pub fn uses_pool(campaign: &Campaign) -> bool {
    matches!(campaign.coupons, CouponSpec::Pool(_))
}
