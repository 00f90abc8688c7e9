//! What several commands open: the project, the campaign, the ledger and its key.

pub(super) mod locate;

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::runtime::Runtime;

use super::args::LedgerArgs;
use super::env;
use super::error::CommandError;
use super::exit::Exit;
use super::ui::Ui;
use crate::domain::campaign::{CouponSpec, GatewaySpec};
use crate::domain::clock::SystemClock;
use crate::domain::diagnostic::Code;
use crate::gateway::kaleyra::KaleyraSpec;
use crate::ledger::{
    Head, Ledger, LedgerError, LedgerKey, LedgerLocation, Operator, RunRecord, Scope, Snapshot, query,
};
use crate::manifest::{self, Given, Loaded};
use crate::plan::rename_guard::{self, Repeats};
use crate::plan::{Built, Prepared};
use crate::project;
pub(super) use locate::{Located, locate};

/// Who uses the ledger, and the clock that it is used by.
pub(super) fn operator() -> Operator {
    Operator { host: env::host(), actor: env::actor(), clock: Arc::new(SystemClock) }
}

/// Loads a campaign and reports its warnings.
pub(super) fn campaign(ui: &Ui, path: &Path, given: &Given, now: Timestamp) -> Result<Prepared, CommandError> {
    let Loaded { path, campaign, compiled, warnings } = manifest::load(path, given, now)?;
    ui.problems(&warnings);
    Ok(Prepared::new(path, campaign, compiled.composer, compiled.audience, compiled.pool))
}

/// The settings of the account at Kaleyra.
pub(super) fn kaleyra(gateway: &GatewaySpec) -> Result<KaleyraSpec, CommandError> {
    KaleyraSpec::read(gateway).map_err(|problems| {
        let messages: Vec<String> =
            problems.iter().map(|problem| format!("`gateway{}`: {problem}", problem.pointer)).collect();
        CommandError::new(Exit::Invalid, Code::SchemaMismatch, messages.join("; "))
    })
}

/// The ledger that a command uses.
pub(super) fn ledger_place(args: &LedgerArgs, sandbox: bool, start: &Path) -> Result<LedgerLocation, CommandError> {
    locate(args, sandbox, start).map(|located| located.ledger)
}

/// Where asynchronous work runs: on one thread of its own. It is mostly waiting, and a second thread
/// would cost more in waking one another than it does.
pub(super) fn runtime() -> Result<Runtime, CommandError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| CommandError::new(Exit::Error, Code::Internal, format!("cannot start: {error}")))
}

/// The key of a ledger, for a run. Creates one if there is neither a key nor a ledger.
pub(super) fn key(place: &LedgerLocation) -> Result<LedgerKey, CommandError> {
    if let Some(path) = place.local_file() {
        prepare(path)?;
    }
    Ok(place.key(env::key().as_deref())?)
}

/// The key of an existing ledger, to look recipients up in it.
pub(super) async fn key_of_recorded(place: &LedgerLocation) -> Result<LedgerKey, LedgerError> {
    let key = place.key(env::key().as_deref())?;
    // With another key the ledger would seem to hold nobody.
    place.open(&operator(), Some(&key)).await?;
    Ok(key)
}

/// Creates the directory of a ledger file.
pub(super) fn prepare(ledger: &Path) -> Result<(), CommandError> {
    project::prepare(ledger).map_err(|error| {
        CommandError::new(
            Exit::Error,
            Code::CannotWrite,
            format!("cannot create the ledger's directory `{}`: {error}", ledger.parent().unwrap_or(ledger).display()),
        )
        .hint("nothing is sent without a ledger; give a path that can be written to with `--ledger sqlite:PATH`")
        .source(error)
    })
}

/// Opens a ledger for commands that need an existing one.
pub(super) async fn open_recorded(place: &LedgerLocation) -> Result<Box<dyn Ledger>, CommandError> {
    place.open(&operator(), None).await?.ok_or_else(|| {
        CommandError::new(Exit::Error, Code::LedgerMissing, format!("there is no ledger at `{place}` yet"))
            .hint("create it with `sendform ledger create`, or give another one with `--ledger URL`")
    })
}

/// What a plan is made from besides the campaign.
pub(super) struct Record {
    /// The ledger's key; nothing if there is neither a ledger nor a key.
    pub key: Option<LedgerKey>,
    /// The ledger, if there is one.
    pub ledger: Option<Box<dyn Ledger>>,
    /// What it holds of the campaign.
    pub snapshot: Snapshot,
    /// The head of its chain.
    pub head: Option<Head>,
    /// All runs.
    pub runs: Vec<RunRecord>,
}

impl Record {
    /// Looks for recipients of a plan who had the same message from other campaigns.
    pub(super) async fn repeats(
        &mut self,
        campaign: &Prepared,
        built: &mut Built,
    ) -> Result<Option<Repeats>, LedgerError> {
        let newcomers = std::mem::take(&mut built.newcomers);
        match (&mut self.ledger, &self.key) {
            (Some(ledger), Some(key)) => {
                let sends = built.file.counts.send;
                rename_guard::find(ledger.as_mut(), key, &self.runs, &campaign.record_name, newcomers, sends).await
            }
            _ => Ok(None),
        }
    }

    /// A record without a ledger.
    fn empty(key: Option<LedgerKey>) -> Self {
        Self { key, ledger: None, snapshot: Snapshot::default(), head: None, runs: Vec::new() }
    }
}

/// Reads the key and the record. Writes nothing, except that it creates a key if codes are to be generated and there
/// is none. Refuses a ledger that is not the campaign's.
pub(super) async fn read(located: &Located, campaign: &mut Prepared) -> Result<Record, CommandError> {
    let (place, operator) = (&located.ledger, operator());
    let generates = matches!(campaign.coupons, CouponSpec::Generate { .. });
    let exists = place.exists(&operator).await?;
    let key = match place.existing_key(env::key().as_deref())? {
        None if exists || generates => Some(key(place)?),
        existing => existing,
    };
    let Some(mut ledger) = place.open(&operator, key.as_ref().filter(|_| exists)).await? else {
        located.check_absent(&names(campaign))?;
        return Ok(Record::empty(key));
    };
    let runs = ledger.runs().await?;
    recorded_as(&runs, campaign)?;
    located.check(ledger.as_mut(), campaign).await?;
    let snapshot = ledger.snapshot(&scope(campaign)).await?;
    let head = query::head(ledger.as_mut()).await?;
    Ok(Record { key, ledger: Some(ledger), snapshot, head, runs })
}

/// Reads the key alone, for a plan that is compared with no ledger.
pub(super) fn read_nothing(place: &LedgerLocation, campaign: &Prepared) -> Result<Record, CommandError> {
    let key = place.existing_key(env::key().as_deref())?;
    if key.is_none() && matches!(campaign.coupons, CouponSpec::Generate { .. }) {
        return Err(CommandError::new(
            Exit::Invalid,
            Code::LedgerKeyMissing,
            "codes are generated with the ledger's key, and there is none",
        )
        .hint(format!("give the key in `{}`", env::KEY)));
    }
    Ok(Record::empty(key))
}

/// All names that a campaign is known by.
pub(super) fn names(campaign: &Prepared) -> Vec<String> {
    let names = [Some(&campaign.name), campaign.moved.as_ref().map(|moved| &moved.from), Some(&campaign.record_name)];
    names.into_iter().flatten().cloned().collect()
}

/// Settles the name that a campaign is recorded under: renamed campaigns keep their first.
pub(super) fn recorded_as(runs: &[RunRecord], campaign: &mut Prepared) -> Result<(), CommandError> {
    let record_of = |name: &str| runs.iter().rev().find(|run| run.name == name).map(|run| run.campaign.clone());
    match campaign.campaign.moved.as_ref().map(|moved| &moved.from) {
        Some(from) => {
            if runs.iter().any(|run| run.campaign == campaign.name) && *from != campaign.name {
                return Err(CommandError::new(Exit::Invalid, Code::MovedCampaignRecorded,
                    format!("sends are recorded under `{}` as well as under `{from}`", campaign.name),
                )
                .hint(format!("`moved` is for a campaign that was not sent under its new name yet; call this one `{from}` again, and remove `moved`")));
            }
            campaign.record_name = record_of(from).unwrap_or_else(|| from.clone());
        }
        // The ledger remembers a move that the manifest no longer tells of.
        None => {
            if let Some(record) = record_of(&campaign.name) {
                campaign.record_name = record;
            }
        }
    }
    Ok(())
}

/// What is asked of the record for a campaign.
pub(super) fn scope(campaign: &Prepared) -> Scope {
    Scope {
        campaign: campaign.record_name.clone(),
        edition: campaign.edition,
        unique_codes: campaign.has_unique_codes(),
    }
}
