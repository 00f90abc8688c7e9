//! What several commands need: variables, the project, the ledger and its key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tokio::runtime::Runtime;

use super::ui::Ui;
use super::{Exit, LedgerArgs, Stop, VarArgs};
use crate::campaign::{Campaign, CouponSpec};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::files;
use crate::ledger::key::KEY_VARIABLE;
use crate::ledger::{Head, Ledger, LedgerKey, LedgerLocation, Scope, Snapshot, report};
use crate::manifest::{self, Given};
use crate::offer::PoolAhead;
use crate::project;

/// The largest file of variables.
const MAX_VAR_FILE: u64 = 4 * 1024 * 1024;

/// The directories that `--data-dir`, else `SENDFORM_DATA_DIR`, names.
pub fn data_dirs(args: &VarArgs) -> Vec<PathBuf> {
    if !args.data_dir.is_empty() {
        return args.data_dir.clone();
    }
    let named = std::env::var_os("SENDFORM_DATA_DIR").unwrap_or_default();
    std::env::split_paths(&named).filter(|directory| !directory.as_os_str().is_empty()).collect()
}

/// Reads `--var-file` and `--var`, and the data directories.
pub fn given(args: &VarArgs) -> Result<Given, Stop> {
    let mut vars = BTreeMap::new();
    for file in &args.var_file {
        let content = files::read_named(file, MAX_VAR_FILE).map_err(|error| {
            Stop::new(Exit::Invalid, error.to_string()).hint("name the file itself with `--var-file`")
        })?;
        vars.extend(variables(file, &content)?);
    }
    for var in &args.vars {
        let (name, value) = var.split_once('=').ok_or_else(|| {
            Stop::new(Exit::Usage, format!("`--var {var}` has no value")).hint("write `--var NAME=VALUE`")
        })?;
        vars.insert(name.trim().to_owned(), serde_json::Value::from(value));
    }
    Ok(Given { vars, data_dirs: data_dirs(args) })
}

/// The variables of a file. It may hold something else, so nothing of its content is shown.
fn variables(file: &Path, content: &[u8]) -> Result<BTreeMap<String, serde_json::Value>, Stop> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    // By way of a value, since only that notices a key that stands twice.
    serde_yaml::from_slice::<serde_yaml::Value>(content).and_then(serde_yaml::from_value).map_err(|error| {
        let problem = Diagnostic::error("var-file", format!("`{}` is not a list of variables", file.display()))
            .hint("one `name: value` a line");
        let (line, column) = error.location().map(|at| (at.line() as u64, at.column() as u64)).unzip();
        Diagnostics::from(problem.in_file(file, line, column)).into()
    })
}

/// Loads a campaign and tells its warnings.
pub fn campaign(ui: &Ui, path: &Path, given: &Given, now: Timestamp) -> Result<Campaign, Stop> {
    let checked = manifest::load(path, given, now)?;
    ui.problems(&checked.warnings);
    Ok(checked.campaign)
}

/// The ledger that a campaign's sends are recorded in.
pub fn ledger_place(args: &LedgerArgs, sandbox: bool, start: &Path) -> Result<LedgerLocation, Stop> {
    let current = std::env::current_dir()
        .map_err(|error| Stop::new(Exit::Error, format!("the current directory is not to be had: {error}")))?;
    // A trial has a ledger of its own, whatever the environment names for real runs.
    let named = args.ledger.clone().or_else(|| std::env::var("SENDFORM_LEDGER").ok().filter(|url| !url.is_empty()));
    let project = project::find(start, &current)?;
    let location = match named.filter(|_| !sandbox) {
        Some(url) => LedgerLocation::parse(&url, &project.root).map_err(|problem| {
            Stop::new(Exit::Usage, problem.to_string())
                .hint("such as `--ledger sqlite:/var/lib/offers/ledger.db` or `--ledger postgres://USER@HOST/DATABASE`")
        })?,
        None if sandbox => {
            LedgerLocation::File(project.root.join(project::DIRECTORY).join("sandbox").join("ledger.db"))
        }
        None => project.ledger,
    };
    // Below the current directory a short path is easier to read.
    Ok(match location {
        LedgerLocation::File(path) => {
            LedgerLocation::File(path.strip_prefix(&current).map(Path::to_owned).unwrap_or(path))
        }
        database => database,
    })
}

/// Where asynchronous work runs: on one thread of its own. It is mostly waiting, and a second thread
/// would cost more in waking one another than it does.
pub fn runtime() -> Result<Runtime, Stop> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Stop::new(Exit::Error, format!("cannot start: {error}")))
}

/// The key that the environment gives, if it does.
fn key_variable() -> Option<String> {
    std::env::var(KEY_VARIABLE).ok().filter(|value| !value.is_empty())
}

fn shared_key() -> Result<LedgerKey, Stop> {
    let given = key_variable().ok_or_else(|| {
        Stop::new(Exit::Error, format!("a ledger in a database needs its key in `{KEY_VARIABLE}`")).hint(
            "all appliers need the same 64 hexadecimal digits, for as long as the ledger lives; `openssl rand -hex 32` makes them",
        )
    })?;
    Ok(LedgerKey::parse(&given)?)
}

/// The key of a ledger, for a run.
pub fn key(place: &LedgerLocation) -> Result<LedgerKey, Stop> {
    match place {
        LedgerLocation::Database(_) => shared_key(),
        LedgerLocation::File(path) => {
            prepare(path)?;
            Ok(LedgerKey::of(path, key_variable().as_deref())?)
        }
    }
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

/// Opens a ledger for commands that only make sense where there is one.
pub async fn open_recorded(place: &LedgerLocation) -> Result<Box<dyn Ledger>, Stop> {
    place.open(None).await?.ok_or_else(|| {
        Stop::new(Exit::Error, format!("there is no ledger at `{place}` yet"))
            .hint("`apply` makes it; name another with `--ledger URL`")
    })
}

/// What a plan is made from besides the campaign.
pub struct Record {
    /// The key that tells people apart.
    pub key: LedgerKey,
    /// The ledger, if there is one.
    pub ledger: Option<Box<dyn Ledger>>,
    /// What it holds of the campaign.
    pub snapshot: Snapshot,
    /// The head of its chain.
    pub head: Option<Head>,
}

/// The key and what is recorded, for reading. Writes nothing, unless codes are to be generated and
/// there is no key yet.
pub async fn read(place: &LedgerLocation, campaign: &mut Campaign) -> Result<Record, Stop> {
    let given = key_variable();
    let generates = matches!(campaign.coupons, CouponSpec::Generate { .. });
    // Nobody is recorded yet, so no key tells anybody apart.
    let nobody = LedgerKey::from_bytes([0; 32]);
    let (key, exists) = match place {
        LedgerLocation::File(path) => {
            let exists = crate::ledger::exists(path)?;
            let key = if exists || given.is_some() || LedgerKey::path(path).exists() {
                LedgerKey::of(path, given.as_deref())?
            } else if generates {
                key(place)?
            } else {
                nobody
            };
            (key, exists)
        }
        LedgerLocation::Database(_) => {
            let exists = place.open(None).await?.is_some();
            (if exists || given.is_some() || generates { shared_key()? } else { nobody }, exists)
        }
    };
    let Some(mut ledger) = place.open(Some(&key).filter(|_| exists)).await? else {
        return Ok(Record { key, ledger: None, snapshot: Snapshot::default(), head: None });
    };
    recorded_as(ledger.as_mut(), campaign).await?;
    let snapshot = ledger.snapshot(&scope(campaign)).await?;
    let head = report::head(ledger.as_mut()).await?;
    Ok(Record { key, ledger: Some(ledger), snapshot, head })
}

/// Settles the name that a campaign is recorded under: renamed campaigns keep their first.
pub async fn recorded_as(ledger: &mut dyn Ledger, campaign: &mut Campaign) -> Result<(), Stop> {
    let runs = ledger.runs().await?;
    let record_of = |name: &str| runs.iter().rev().find(|run| run.name == name).map(|run| run.campaign.clone());
    match &campaign.moved_from {
        Some(from) => {
            if runs.iter().any(|run| run.campaign == campaign.name) && *from != campaign.name {
                return Err(Stop::new(
                    Exit::Invalid,
                    format!("sends are recorded under `{}` as well as under `{from}`", campaign.name),
                )
                .hint("`moved` keeps the record of a campaign that was not sent under its new name yet; remove it"));
            }
            campaign.record = record_of(from).unwrap_or_else(|| from.clone());
        }
        // The ledger remembers a move that the manifest no longer tells of.
        None => {
            if let Some(record) = record_of(&campaign.name) {
                campaign.record = record;
            }
        }
    }
    Ok(())
}

/// What is asked of the record for a campaign.
pub fn scope(campaign: &Campaign) -> Scope {
    Scope { campaign: campaign.record.clone(), edition: campaign.edition, unique_codes: has_unique_codes(campaign) }
}

/// Begins to read the campaign's pool, if it has one: before the ledger, which takes as long.
pub fn pool_ahead(campaign: &Campaign) -> Option<PoolAhead> {
    match &campaign.coupons {
        CouponSpec::Pool(pool) => Some(pool.load_ahead()),
        _ => None,
    }
}

/// Whether each of the campaign's codes belongs to one recipient for ever.
pub fn has_unique_codes(campaign: &Campaign) -> bool {
    matches!(campaign.coupons, CouponSpec::Pool(_) | CouponSpec::Generate { .. })
}
