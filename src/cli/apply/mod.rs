//! `sendform apply`

mod close;
mod restored;
mod send;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use secrecy::SecretString;

use super::located::locate;
use super::ui::Ui;
use super::{Exit, LedgerArgs, Stop, VarArgs, context, progress};
use crate::campaign::Campaign;
use crate::ledger::{Head, Ledger, LedgerError, LedgerLocation, RunStart, report, sqlite};
use crate::plan::build::{Inputs, build};
use crate::plan::text::render;
use crate::plan::{Built, PlanFile, PlanHash, repeat};
use crate::words::grouped;
pub use send::signal;
use send::{CONNECTING, Job, Provider, destination};

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
    #[arg(long, env = "SENDFORM_LEDGER_HEAD", value_name = "HEAD")]
    ledger_head: Option<Head>,
    /// Make a new ledger for this run, if there is none; refused once the ledger holds a run that has ended
    #[arg(long, conflicts_with = "sandbox")]
    new_ledger: bool,
    /// Send although the ledger was restored and has forgotten this many sends of the campaign
    #[arg(long, value_name = "N", conflicts_with = "sandbox")]
    forget_sends: Option<u64>,
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
        Some(plan) => (PathBuf::from(&plan.manifest), plan.vars.clone().into_iter().collect()),
        None => (args.campaign.clone().unwrap_or_default(), context::given(&args.vars)?),
    };
    let sandbox = args.ledger.sandbox || approval.file.as_ref().is_some_and(|plan| plan.sandbox);
    let path = std::env::current_dir()
        .ok()
        .and_then(|current| path.strip_prefix(current).ok().map(ToOwned::to_owned))
        .unwrap_or(path);
    let mut campaign = context::campaign(ui, &path, &given, now)?;
    let located = locate(&args.ledger, sandbox, &path)?;
    let place = located.ledger.clone();
    refuse_a_runners_disk(&place, sandbox || args.ledger_is_durable)?;
    if place.is_shared() {
        // Without its key the database need not be asked.
        context::key(&place)?;
    }
    let runtime = context::runtime()?;
    let mut approved_by_user = None;
    let mut provider = None;
    for _ in 0..MAX_PLANS {
        if let LedgerLocation::File(path) = &place
            && let Some(holder) = sqlite::lease_holder(path)
        {
            return Err(LedgerError::Held { holder }.into());
        }
        // Nothing is written and no lease is taken until the plan is approved and the secrets are at hand.
        let pool = context::pool_ahead(&campaign);
        let mut record = runtime.block_on(context::read(&located, &mut campaign))?;
        if !sandbox {
            runtime.block_on(check_record(record.ledger.as_deref_mut(), args, &approval, &campaign))?;
        }
        let inputs = Inputs {
            snapshot: &record.snapshot,
            key: &record.key,
            now,
            planned_at: approval.hash.as_ref().and_then(|hash| hash.planned_at),
            retry_rejected: args.retry_rejected,
            sandbox,
            list_blocked: false,
            pool,
        };
        tracing::info!(ledger = %place, recorded = record.snapshot.sends.len(), "ledger opened");
        let mut built = build(&campaign, inputs)?;
        if let Some(approved) = &approval.hash
            && *approved != built.hash
        {
            return Err(differs(approved, &built, approval.file.as_ref()));
        }
        let repeats = match record.ledger.as_deref_mut() {
            Some(ledger) => runtime.block_on(repeat::find(ledger, &record.key, &campaign.record, &built.sample))?,
            None => None,
        };
        built.file = built.file.with_ledger(record.head, repeats);
        let sends = (built.hash.clone(), built.file.counts.send);
        if approved_by_user.as_ref() != Some(&sends) {
            ui.data(&render(&built.file));
            ui.say(&format!("Ledger    {place}"));
        }
        if built.file.counts.send == 0 {
            ui.say("Nothing to send");
            return Ok(if built.file.counts.unknown > 0 { Exit::Unknown } else { Exit::Done });
        }
        check_plan(&built, args)?;
        if let Some(ledger) = record.ledger.as_deref_mut() {
            runtime.block_on(ledger.admits(&campaign.record, &built.hash.to_string()))?;
        }
        if approval.hash.is_none() && !args.auto_approve && approved_by_user.as_ref() != Some(&sends) {
            ask(ui, built.file.counts.send, &target(&campaign, sandbox))?;
        }
        approved_by_user = Some(sends);
        let provider = match &mut provider {
            Some(provider) => provider,
            none => {
                let secrets = if sandbox { None } else { Some(secrets(&campaign)?) };
                none.insert(Provider::open(&runtime, &campaign, secrets)?)
            }
        };
        let (key, id) = match record.ledger.take() {
            Some(mut ledger) => {
                if !sandbox {
                    runtime.block_on(restored::told(ledger.as_mut(), &campaign))?;
                }
                (record.key, runtime.block_on(ledger.id())?)
            }
            None => runtime.block_on(located.create_on_request(ui, args.new_ledger))?,
        };
        located.remember(ui, &campaign.name, &id)?;
        let start = RunStart {
            campaign: campaign.record.clone(),
            edition: campaign.edition,
            name: campaign.name.clone(),
            plan_hash: built.hash.to_string(),
            planned_at: built.planned_at,
            manifest: located.project.path_below(&campaign.path),
            destination: destination(&campaign, sandbox),
            account: None,
            environment: None,
            unique_codes: context::has_unique_codes(&campaign),
            recipients: built.file.recipients,
            sender: campaign.gateway.from.to_string(),
            interval: campaign.delivery.rate.interval(),
            retry_rejected: args.retry_rejected,
            lease: args.lease,
            longest_request: CONNECTING + campaign.gateway.timeout,
        };
        let begun = runtime.block_on(async { place.open_for_run(&key).await?.begin(&start, &record.snapshot).await });
        let run = match begun {
            Ok(run) => run,
            Err(LedgerError::Outdated) => {
                ui.say("The ledger was written to after this plan was made; planning again");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let retry_rejected = args.retry_rejected;
        let job = Job { ui, campaign, snapshot: record.snapshot, key, built, run, provider, retry_rejected, place };
        return job.send(&runtime);
    }
    Err(LedgerError::Outdated.into())
}

/// How often a plan is made again because others wrote to the ledger in the meantime.
const MAX_PLANS: usize = 5;

/// What a plan may not be sent with, whoever approved it.
fn check_plan(built: &Built, args: &ApplyArgs) -> Result<(), Stop> {
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
    Ok(())
}

/// Asks whether to send. Without a terminal nobody can answer.
fn ask(ui: &Ui, sends: u64, target: &str) -> Result<(), Stop> {
    match ui.confirm(&format!("\nSend {} through {target}?", count(sends))) {
        Some(true) => Ok(()),
        Some(false) => Err(Stop::new(Exit::Error, "not approved; nothing was sent")),
        None => Err(Stop::new(
            Exit::Error,
            "cannot ask for confirmation: standard input is not a terminal; nothing was sent",
        )
        .hint("pass `--plan FILE` or `--plan-hash HASH` for a reviewed plan, or `--auto-approve`")),
    }
}

/// A job in a pipeline must not keep its record on a disk that goes with it.
fn refuse_a_runners_disk(place: &LedgerLocation, fine: bool) -> Result<(), Stop> {
    let in_pipeline = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    match place {
        LedgerLocation::File(path) if in_pipeline && !fine => Err(Stop::new(
            Exit::Error,
            format!("the ledger `{}` is on this runner's disk, which goes with the job", path.display()),
        )
        .hint(
            "the next job would send everything again; use `--ledger postgres://…`, or keep the ledger on a disk that stays and pass `--ledger-is-durable`",
        )),
        _ => Ok(()),
    }
}

/// Refuses a ledger that has forgotten sends, as far as it or its user can tell.
async fn check_record(
    mut ledger: Option<&mut (dyn Ledger + 'static)>,
    args: &ApplyArgs,
    approval: &Approval,
    campaign: &Campaign,
) -> Result<(), Stop> {
    check_heads(ledger.as_deref_mut(), args, approval).await?;
    let Some(ledger) = ledger else { return Ok(()) };
    if args.new_ledger && ledger.runs().await?.iter().any(|run| run.ended_at.is_some()) {
        return Err(Stop::new(
            Exit::Usage,
            format!(
                "`--new-ledger` is for the first run, and the ledger `{}` holds a run that has ended",
                ledger.place()
            ),
        )
        .hint("leave it out: a pipeline that keeps it would send everything again if its ledger were lost"));
    }
    restored::check(ledger, campaign, args.forget_sends).await
}

/// Refuses a ledger that does not hold a head that was seen before.
async fn check_heads(
    mut ledger: Option<&mut (dyn Ledger + 'static)>,
    args: &ApplyArgs,
    approval: &Approval,
) -> Result<(), Stop> {
    let of_plan = match approval.file.as_ref().and_then(|plan| plan.ledger_head.as_deref()) {
        Some(text) => Some(text.parse::<Head>().map_err(|problem| Stop::new(Exit::Invalid, problem))?),
        None => None,
    };
    for head in [args.ledger_head, of_plan].into_iter().flatten() {
        let problem = match ledger.as_deref_mut() {
            Some(ledger) => report::behind(ledger, head).await?,
            None => Some(format!("there is no ledger, and another ledger with the head {head} was seen before")),
        };
        if let Some(problem) = problem {
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
