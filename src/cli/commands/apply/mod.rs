//! `sendform apply`

mod approval;
mod close;
mod forgotten;
mod guards;
mod restored;
mod send;
mod start;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::sync::watch;

use crate::apply::ShutdownRequest;
use crate::cli::args::{LedgerArgs, VarArgs};
use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::cli::owner::OwnerArgs;
use crate::cli::session::locate;
use crate::cli::signals::Signals;
use crate::cli::ui::{Answer, Ui};
use crate::cli::{clock, env, owner, session};
use crate::domain::campaign::Rate;
use crate::domain::diagnostic::Code;
use crate::gateway;
use crate::ledger::{Head, Ledger, LedgerError, query};
use crate::manifest::Given;
use crate::plan::build::{Basis, build, drift_in_words};
use crate::plan::rename_guard;
use crate::plan::view::text::render;
use crate::plan::{Inputs, Prepared};
use crate::util::human::grouped;
use approval::Approval;
use send::{Job, Provider};

/// Send the messages of a plan; run it again to resume
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendform apply campaign.yaml                   show the plan, ask, send
  sendform apply --plan plan.json                send exactly the plan that was reviewed
  sendform apply campaign.yaml --plan-hash v2:…  the same, with the plan's hash only
  sendform apply campaign.yaml --sandbox --auto-approve

Run the same command again to resume: no message is sent twice. Press Ctrl-C once to stop after the
requests in flight, twice to stop at once. With a ledger in PostgreSQL, several machines can apply one
plan together; they share its rate.")]
pub(crate) struct ApplyArgs {
    /// Campaign file
    #[arg(required_unless_present = "plan", conflicts_with = "plan")]
    campaign: Option<PathBuf>,
    /// Send this plan, written by `plan --out`, without asking
    #[arg(long, value_name = "FILE", conflicts_with_all = ["vars", "var_file"])]
    plan: Option<PathBuf>,
    /// Send without asking, but only if the plan has this hash
    #[arg(long, value_name = "HASH")]
    plan_hash: Option<String>,
    /// Skip the confirmation prompt
    #[arg(long)]
    auto_approve: bool,
    #[command(flatten)]
    vars: VarArgs,
    #[command(flatten)]
    ledger: LedgerArgs,
    /// Send again what the provider rejected before
    #[arg(long)]
    retry_rejected: bool,
    /// Send at a lower rate than the campaign's, such as `10/s`
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<Rate>,
    /// Send although many recipients got the same message from another campaign
    #[arg(long)]
    allow_repeat: bool,
    #[command(flatten)]
    owner: OwnerArgs,
    /// Refuse a ledger that does not contain this head, which `plan` or `apply` printed before
    #[arg(long, env = env::LEDGER_HEAD, value_name = "HEAD")]
    ledger_head: Option<Head>,
    /// Create the ledger if there is none; refused if the ledger already holds a run that has ended
    #[arg(long, conflicts_with = "sandbox")]
    new_ledger: bool,
    /// Send although the ledger was restored from a backup that lacks this many sends of the campaign
    #[arg(long, value_name = "N", conflicts_with = "sandbox")]
    forget_sends: Option<u64>,
    /// On a shared ledger: how long this process may be silent before others take over its work
    #[arg(long, env = env::LEASE, value_name = "DURATION", default_value = "30s", value_parser = lease)]
    lease: Duration,
    /// In a pipeline: confirm that the local ledger is kept after this job
    #[arg(long, env = env::LEDGER_IS_DURABLE, value_parser = clap::builder::FalseyValueParser::new())]
    ledger_is_durable: bool,
}

fn rate(text: &str) -> Result<Rate, String> {
    Rate::parse(text).ok_or_else(|| "such as `10/s`, `600/m` or `5000/h`".to_owned())
}

fn lease(text: &str) -> Result<Duration, String> {
    let lease = crate::domain::expiry::parse_duration(text).map_err(|_| "such as `30s` or `2m`".to_owned())?;
    if (Duration::from_secs(2)..=Duration::from_secs(3_600)).contains(&lease) {
        Ok(lease)
    } else {
        Err("from `2s` to `1h`".to_owned())
    }
}

pub(crate) fn run(ui: &Ui, args: &ApplyArgs) -> Result<Exit, CommandError> {
    let now = clock::now();
    let approval = Approval::read(args)?;
    let (path, given) = match &approval.file {
        Some(plan) => {
            let given = Given { vars: plan.vars.clone(), data_dirs: args.vars.data.directories() };
            (PathBuf::from(&plan.manifest), given)
        }
        None => (args.campaign.clone().unwrap_or_default(), args.vars.read()?),
    };
    let sandbox = args.ledger.sandbox || approval.file.as_ref().is_some_and(|plan| plan.sandbox);
    let path = std::env::current_dir()
        .ok()
        .and_then(|current| path.strip_prefix(current).ok().map(ToOwned::to_owned))
        .unwrap_or(path);
    let retry_rejected = args.retry_rejected || approval.file.as_ref().is_some_and(|plan| plan.retry_rejected);
    let mut campaign = session::campaign(ui, &path, &given, now)?;
    if let Some(rate) = args.rate {
        guards::slow_down(&mut campaign, rate)?;
    }
    let longest_request =
        gateway::longest_request(&campaign.gateway, campaign.composer.uploads()).map_err(send::cannot_open)?;
    let located = locate(&args.ledger, sandbox, &path)?;
    let place = located.ledger.clone();
    guards::require_durable_ledger_in_ci(&place, sandbox || args.ledger_is_durable)?;
    if place.is_shared() {
        // Without its key the database need not be asked.
        session::key(&place)?;
    }
    let runtime = session::runtime()?;
    let mut approved_by_user = None;
    let mut provider = None;
    let mut shutdown: Option<watch::Receiver<ShutdownRequest>> = None;
    for _ in 0..MAX_PLANS {
        place.check_not_held()?;
        // Nothing is written and no lease is taken until the plan is approved and the secrets are at hand.
        let inputs = Inputs::open(&campaign);
        let mut record = runtime.block_on(session::read(&located, &mut campaign))?;
        if !sandbox {
            runtime.block_on(check_record(record.ledger.as_deref_mut(), args, &approval, &campaign))?;
        }
        let basis = Basis {
            snapshot: &record.snapshot,
            key: record.key.as_ref(),
            now,
            planned_at: approval.hash.as_ref().and_then(|hash| hash.planned_at),
            retry_rejected,
            sandbox,
            list_blocked: false,
            collect_newcomers: rename_guard::has_others(&record.runs, &campaign.record_name),
        };
        owner::check(&record.runs, &owner::subject(&campaign, sandbox), args.owner)?;
        tracing::info!(ledger = %place, recorded = record.snapshot.sends.len(), "ledger opened");
        let mut built = build(&campaign, inputs, basis)?;
        approval.check(&built)?;
        let repeats = runtime.block_on(record.repeats(&campaign, &mut built))?;
        built.file = built.file.with_ledger(record.head, repeats)?;
        let sends = (built.hash.clone(), built.file.counts.send);
        if approved_by_user.as_ref() != Some(&sends) {
            ui.data(&render(&built.file))?;
            ui.say(&format!("Ledger    {place}"));
        }
        if built.file.counts.send == 0 {
            ui.say(&match built.file.counts.drifted {
                0 => "Nothing to send".to_owned(),
                drifted => format!("Nothing to send: {}", drift_in_words(drifted)),
            });
            return Ok(if built.file.counts.unknown > 0 { Exit::Unknown } else { Exit::Done });
        }
        guards::refuse_repeats(&built, args)?;
        if let Some(ledger) = record.ledger.as_deref_mut() {
            runtime.block_on(ledger.check_can_begin(&campaign.record_name, &built.hash.to_string()))?;
        }
        if approval.hash.is_none() && !args.auto_approve && approved_by_user.as_ref() != Some(&sends) {
            ask(ui, &runtime, shutdown.clone(), built.file.counts.send, &target(&campaign, sandbox))?;
        }
        approved_by_user = Some(sends);
        let provider = match &mut provider {
            Some(opened) => opened,
            none => none.insert(Provider::open(&runtime, &campaign, sandbox)?),
        };
        let (key, id) = match (record.ledger.take(), record.key) {
            (Some(mut ledger), Some(key)) => {
                if !sandbox {
                    runtime.block_on(restored::confirm_loss(ledger.as_mut(), &campaign))?;
                }
                (key, runtime.block_on(ledger.id())?)
            }
            _ => runtime.block_on(located.create_on_request(ui, args.new_ledger))?,
        };
        let account = guards::check_account(&record.runs, &campaign, &key, provider.account.as_ref(), args)?;
        located.remember(ui, &campaign.name, &id)?;
        // Before the run begins: a signal must not cut it off from writing down how it ended.
        let shutdown = shutdown.get_or_insert_with(|| catch_signals(&runtime)).clone();
        let start = start::run_start(&campaign, &built, account, args.lease, sandbox, longest_request);
        let ledger = runtime.block_on(place.open_for_run(&session::operator(), &key))?;
        let shared_campaign = Arc::new(campaign);
        let job = Job {
            ui,
            campaign: Arc::clone(&shared_campaign),
            ledger,
            start,
            snapshot: record.snapshot,
            key,
            built,
            provider,
            retry_rejected,
            place: place.clone(),
            shutdown: shutdown.clone(),
        };
        if let Some(exit) = job.send(&runtime)? {
            return Ok(exit);
        }
        if *shutdown.borrow() > ShutdownRequest::None {
            return Ok(Exit::Interrupted);
        }
        ui.say("The ledger has changed since this plan was made; planning again");
        campaign =
            Arc::into_inner(shared_campaign).ok_or_else(|| CommandError::internal("the campaign is still in use"))?;
    }
    Err(LedgerError::Outdated.into())
}

/// Catches the signals that ask to stop, from now on.
fn catch_signals(runtime: &tokio::runtime::Runtime) -> watch::Receiver<ShutdownRequest> {
    let (sender, shutdown) = watch::channel(ShutdownRequest::None);
    let signals = runtime.block_on(async { Signals::new() });
    runtime.spawn(signals.tell(sender));
    shutdown
}

/// How often a plan is made again because others wrote to the ledger in the meantime.
const MAX_PLANS: usize = 5;

/// Asks whether to send. Once signals are caught, one of them ends the question.
fn ask(
    ui: &Ui,
    runtime: &tokio::runtime::Runtime,
    shutdown: Option<watch::Receiver<ShutdownRequest>>,
    sends: u64,
    target: &str,
) -> Result<(), CommandError> {
    let question = format!("\nSend {} through {target}?", count(sends));
    let answer = match shutdown {
        None => ui.confirm(&question, "sends").map(|yes| if yes { Answer::Yes } else { Answer::No }),
        Some(mut shutdown) => runtime.block_on(ui.confirm_unless(&question, "sends", async move {
            // If the sender is gone, nothing can interrupt.
            if shutdown.wait_for(|request| *request > ShutdownRequest::None).await.is_err() {
                std::future::pending::<()>().await;
            }
        })),
    };
    match answer {
        Some(Answer::Yes) => Ok(()),
        Some(Answer::No) => Err(CommandError::new(Exit::Error, Code::NotConfirmed, "not approved; nothing was sent")),
        Some(Answer::Interrupted) => {
            Err(CommandError::new(Exit::Interrupted, Code::NotConfirmed, "interrupted; nothing was sent"))
        }
        None => Err(CommandError::new(
            Exit::Error,
            Code::CannotConfirm,
            "cannot ask for confirmation: standard input is not a terminal; nothing was sent",
        )
        .hint("pass `--plan FILE` or `--plan-hash HASH` for a reviewed plan, or `--auto-approve`")),
    }
}

/// Refuses a ledger that lacks sends, as far as the ledger or its user knows.
async fn check_record(
    mut ledger: Option<&mut (dyn Ledger + 'static)>,
    args: &ApplyArgs,
    approval: &Approval,
    campaign: &Prepared,
) -> Result<(), CommandError> {
    check_heads(ledger.as_deref_mut(), args, approval).await?;
    let Some(ledger) = ledger else { return Ok(()) };
    if args.new_ledger && ledger.runs().await?.iter().any(|run| run.ended_at.is_some()) {
        return Err(CommandError::usage(format!(
            "`--new-ledger` is for the first run, and the ledger `{}` holds a run that has ended",
            ledger.place()
        ))
        .hint("remove the option: with it, a pipeline would send everything again if its ledger were lost"));
    }
    restored::check(ledger, campaign, args.forget_sends).await
}

/// Refuses a ledger that does not hold a head that was seen before.
async fn check_heads(
    mut ledger: Option<&mut (dyn Ledger + 'static)>,
    args: &ApplyArgs,
    approval: &Approval,
) -> Result<(), CommandError> {
    let of_plan = match approval.file.as_ref().and_then(|plan| plan.ledger_head.as_deref()) {
        Some(text) => Some(
            text.parse::<Head>()
                .map_err(|problem| CommandError::new(Exit::Invalid, Code::InvalidLedgerHead, problem))?,
        ),
        None => None,
    };
    for head in [args.ledger_head, of_plan].into_iter().flatten() {
        let problem = match ledger.as_deref_mut() {
            Some(ledger) => query::check_head(ledger, head).await?,
            None => Some(format!("there is no ledger, but a ledger with the head {head} was used before")),
        };
        if let Some(problem) = problem {
            return Err(CommandError::new(Exit::Error, Code::LedgerForgotSends, format!("{problem}; nothing was sent")).hint(
                "a ledger that was restored from an old backup does not know who got an offer since: use the ledger that the head was printed for, or settle the missing sends before a new plan",
            ));
        }
    }
    Ok(())
}

fn target(campaign: &Prepared, sandbox: bool) -> String {
    if sandbox {
        "the sandbox".to_owned()
    } else {
        campaign.gateway.base_url.host_str().unwrap_or("the provider").to_owned()
    }
}

fn count(messages: u64) -> String {
    if messages == 1 { "1 message".to_owned() } else { format!("{} messages", grouped(messages)) }
}
