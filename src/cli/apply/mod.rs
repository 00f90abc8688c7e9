//! `sendform apply`

mod close;
mod send;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use secrecy::SecretString;

use super::ui::Ui;
use super::{Exit, LedgerArgs, Stop, VarArgs, context, progress};
use crate::campaign::Campaign;
use crate::ledger::{Head, Ledger, report};
use crate::manifest::Given;
use crate::plan::build::{Inputs, build};
use crate::plan::text::render;
use crate::plan::{Built, PlanFile, PlanHash, repeat};
use crate::project::Place;
use crate::words::grouped;
use send::Job;
pub use send::signal;

/// Send what the plan says; run again to resume
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendform apply campaign.yaml                   shows the plan, asks, sends
  sendform apply --plan plan.json                sends exactly the plan that was reviewed
  sendform apply campaign.yaml --plan-hash v1:…  the same, by the plan's hash alone
  sendform apply campaign.yaml --sandbox --auto-approve

Running it again sends nothing twice: it resumes what is left. Ctrl-C once stops after what is under
way, twice at once. On a ledger in PostgreSQL several appliers share one plan and its rate.")]
pub struct ApplyArgs {
    /// The campaign
    #[arg(required_unless_present = "plan", conflicts_with = "plan")]
    campaign: Option<PathBuf>,
    /// Send this plan, written by `plan --out`; it counts as approved
    #[arg(long, value_name = "FILE", conflicts_with_all = ["vars", "var_file"])]
    plan: Option<PathBuf>,
    /// Send only if the plan has this hash; it counts as approved
    #[arg(long, value_name = "HASH")]
    plan_hash: Option<String>,
    /// Do not ask
    #[arg(long)]
    auto_approve: bool,
    #[command(flatten)]
    vars: VarArgs,
    #[command(flatten)]
    ledger: LedgerArgs,
    /// Try again what the provider refused before
    #[arg(long)]
    retry_rejected: bool,
    /// Send although most recipients had the same message from another campaign
    #[arg(long)]
    allow_repeat: bool,
    /// Refuse a ledger that does not hold this head, as `plan` and `apply` printed it before
    #[arg(long, value_name = "HEAD")]
    ledger_head: Option<Head>,
    /// How long this applier may be silent before others take its place, on a shared ledger
    #[arg(long, env = "SENDFORM_LEASE", value_name = "DURATION", default_value = "30s", value_parser = lease)]
    lease: Duration,
    /// In a pipeline: the local ledger outlives this job
    #[arg(long, env = "SENDFORM_LEDGER_IS_DURABLE", value_parser = clap::builder::FalseyValueParser::new())]
    ledger_is_durable: bool,
}

/// What was approved before this command.
struct Approval {
    file: Option<PlanFile>,
    hash: Option<PlanHash>,
}

fn lease(text: &str) -> Result<Duration, String> {
    let lease = crate::offer::expiry::parse_duration(text).map_err(|_| "such as `30s` or `2m`".to_owned())?;
    if (Duration::from_secs(2)..=Duration::from_secs(3_600)).contains(&lease) {
        Ok(lease)
    } else {
        Err("from `2s` to `1h`".to_owned())
    }
}

pub fn run(ui: &Ui, args: &ApplyArgs) -> Result<Exit, Stop> {
    let now = Timestamp::now();
    let approval = approval(args)?;
    let (path, given) = match &approval.file {
        Some(plan) => {
            let given = Given { vars: plan.vars.clone(), data_dirs: context::data_dirs(&args.vars) };
            (PathBuf::from(&plan.manifest), given)
        }
        None => (args.campaign.clone().unwrap_or_default(), context::given(&args.vars)?),
    };
    let sandbox = args.ledger.sandbox || approval.file.as_ref().is_some_and(|plan| plan.sandbox);
    let path = std::env::current_dir()
        .ok()
        .and_then(|current| path.strip_prefix(current).ok().map(ToOwned::to_owned))
        .unwrap_or(path);
    let mut campaign = context::campaign(ui, &path, &given, now)?;
    let place = context::ledger_place(&args.ledger, sandbox, &path)?;
    refuse_a_runners_disk(&place, sandbox || args.ledger_is_durable)?;

    let key = context::key(&place)?;
    let runtime = context::runtime()?;
    let pool = context::pool_ahead(&campaign);
    let mut ledger = runtime.block_on(context::open_for_run(&place, &key))?;
    runtime.block_on(check_heads(ledger.as_mut(), args, &approval))?;
    runtime.block_on(context::recorded_as(ledger.as_mut(), &mut campaign))?;
    let snapshot = runtime.block_on(ledger.snapshot(&context::scope(&campaign)))?;
    let inputs = Inputs {
        snapshot: &snapshot,
        key: &key,
        now,
        planned_at: approval.hash.as_ref().and_then(|hash| hash.planned_at),
        retry_rejected: args.retry_rejected,
        sandbox,
        list_blocked: false,
        pool,
    };
    tracing::info!(ledger = %place, recorded = snapshot.sends.len(), "ledger opened");
    let mut built = build(&campaign, inputs)?;
    if let Some(approved) = &approval.hash
        && *approved != built.hash
    {
        return Err(differs(approved, &built, approval.file.as_ref()));
    }
    let repeats = runtime.block_on(repeat::find(ledger.as_mut(), &key, &campaign.record, &built.sample))?;
    let head = runtime.block_on(report::head(ledger.as_mut()))?;
    built.file = built.file.with_ledger(head, repeats);
    ui.data(&render(&built.file));
    ui.say(&format!("Ledger    {place}"));
    if built.file.counts.send == 0 {
        ui.say("Nothing to send");
        return Ok(if built.file.counts.unknown > 0 { Exit::Unknown } else { Exit::Done });
    }
    if let Some(repeat) = built.file.repeats.as_ref().filter(|_| !args.allow_repeat) {
        return Err(Stop::new(
            Exit::Error,
            format!("most recipients had the same message from the campaign `{}`; nothing was sent", repeat.campaign),
        )
        .hint(format!(
            "a renamed campaign needs `moved: {{ from: {} }}`; to send it again on purpose, pass `--allow-repeat`",
            repeat.campaign
        )));
    }
    runtime.block_on(ledger.admits(&campaign.record, &built.hash.to_string()))?;
    let secrets = if sandbox { None } else { Some(secrets(&campaign)?) };
    if approval.hash.is_none() && !args.auto_approve {
        let question = format!("\nSend {} through {}?", count(built.file.counts.send), target(&campaign, sandbox));
        match ui.confirm(&question) {
            Some(true) => {}
            Some(false) => return Err(Stop::new(Exit::Error, "not approved; nothing was sent")),
            None => {
                return Err(Stop::new(Exit::Error, "there is nobody to ask; nothing was sent")
                    .hint("pass `--plan FILE` or `--plan-hash HASH` for a reviewed plan, or `--auto-approve`"));
            }
        }
    }
    let (retry_rejected, lease) = (args.retry_rejected, args.lease);
    let job = Job { ui, campaign, snapshot, key, built, ledger, secrets, retry_rejected, lease, place };
    job.send(&runtime)
}

/// A job in a pipeline must not keep its record on a disk that goes with it.
fn refuse_a_runners_disk(place: &Place, fine: bool) -> Result<(), Stop> {
    let in_pipeline = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    match place {
        Place::File(path) if in_pipeline && !fine => Err(Stop::new(
            Exit::Error,
            format!("the ledger `{}` is on this runner's disk, which goes with the job", path.display()),
        )
        .hint(
            "the next job would send everything again; use `--ledger postgres://…`, or keep the ledger on a disk that stays and pass `--ledger-is-durable`",
        )),
        _ => Ok(()),
    }
}

/// Refuses a ledger that has forgotten what was seen of it before.
async fn check_heads(ledger: &mut dyn Ledger, args: &ApplyArgs, approval: &Approval) -> Result<(), Stop> {
    let of_plan = match approval.file.as_ref().and_then(|plan| plan.ledger_head.as_deref()) {
        Some(text) => Some(text.parse::<Head>().map_err(|problem| Stop::new(Exit::Invalid, problem))?),
        None => None,
    };
    for head in [args.ledger_head, of_plan].into_iter().flatten() {
        if let Some(problem) = report::behind(ledger, head).await? {
            return Err(Stop::new(Exit::Error, format!("{problem}; nothing was sent")).hint(
                "restored from an old copy, it has forgotten who got an offer: use the ledger that the head was printed for, or settle what is missing before a new plan",
            ));
        }
    }
    Ok(())
}

fn approval(args: &ApplyArgs) -> Result<Approval, Stop> {
    let parse = |text: &str| text.parse::<PlanHash>();
    let file = match &args.plan {
        None => None,
        Some(path) => {
            let shown = path.display();
            let text = std::fs::read_to_string(path)
                .map_err(|error| Stop::new(Exit::Invalid, format!("cannot read the plan `{shown}`: {error}")))?;
            let hint = "make it anew with `sendform plan CAMPAIGN --out FILE`";
            Some(PlanFile::parse(&text).map_err(|problem| {
                Stop::new(Exit::Invalid, format!("the plan `{shown}` cannot be used: {problem}")).hint(hint)
            })?)
        }
    };
    let of_file =
        file.as_ref().map(|plan| parse(&plan.hash)).transpose().map_err(|problem| Stop::new(Exit::Invalid, problem))?;
    let given = args.plan_hash.as_deref().map(parse).transpose().map_err(|problem| Stop::new(Exit::Usage, problem))?;
    if let (Some(of_file), Some(given)) = (&of_file, &given)
        && of_file != given
    {
        return Err(Stop::new(
            Exit::Differs,
            format!("the plan file has the hash {of_file}, and `--plan-hash` is {given}"),
        ));
    }
    Ok(Approval { file, hash: of_file.or(given) })
}

/// What changed since the plan was approved, as far as the plan tells.
fn differs(approved: &PlanHash, built: &Built, file: Option<&PlanFile>) -> Stop {
    let mut changes = Vec::new();
    let new = &built.file;
    if let Some(old) = file {
        let mut compare = |what: &str, old: String, new: String| {
            if old != new {
                changes.push(format!("{what}: {old} then, {new} now"));
            }
        };
        compare("recipients", grouped(old.recipients), grouped(new.recipients));
        compare("edition", old.edition.to_string(), new.edition.to_string());
        let end = |plan: &PlanFile| {
            plan.expiry.as_ref().and_then(|expiry| expiry.at).map_or_else(|| "none".to_owned(), |at| format!("{at:.0}"))
        };
        compare("expiry", end(old), end(new));
        compare("coupons", old.coupons.kind.clone(), new.coupons.kind.clone());
        let blocked = |plan: &PlanFile| {
            plan.blocked_reasons
                .iter()
                .map(|(reason, number)| format!("{reason} {number}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        compare("left out", blocked(old), blocked(new));
    } else if approved.planned_at != built.hash.planned_at && approved.digest == built.hash.digest {
        changes.push("the instant that the expiry counts from".to_owned());
    }
    let words = if changes.is_empty() {
        "what somebody would get: a text, a code, a number, the sender, or media".to_owned()
    } else {
        changes.join("; ")
    };
    Stop::new(Exit::Differs, format!("this is not the plan that was approved; nothing was sent. Changed: {words}"))
        .hint(format!("review the plan as it is now: its hash is {}", built.hash))
}

fn secrets(campaign: &Campaign) -> Result<(SecretString, SecretString), Stop> {
    let resolve = |secret: &crate::secret::SecretRef, what| {
        secret.resolve(what).map_err(|error| {
            Stop::new(Exit::Error, error.to_string()).hint("nothing was sent; `--sandbox` needs no credentials")
        })
    };
    Ok((resolve(&campaign.gateway.sid, "the SID")?, resolve(&campaign.gateway.api_key, "the API key")?))
}

fn target(campaign: &Campaign, sandbox: bool) -> String {
    if sandbox {
        "the sandbox".to_owned()
    } else {
        campaign.gateway.base_url.host_str().unwrap_or("the provider").to_owned()
    }
}

fn count(messages: u64) -> String {
    if messages == 1 { "1 message".to_owned() } else { format!("{} messages", grouped(messages)) }
}
