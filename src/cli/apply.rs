//! `sendform apply`

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use secrecy::SecretString;
use tokio::sync::{mpsc, watch};

use super::ui::Ui;
use super::{Exit, LedgerArgs, Stop, VarArgs, context, progress};
use crate::apply::{Ending, Engine, Progress};
use crate::campaign::Campaign;
use crate::gateway::kaleyra::KaleyraV1;
use crate::ledger::sqlite::{SqliteLedger, SqliteRun};
use crate::ledger::{LedgerKey, RunStart, Snapshot};
use crate::plan::build::{Inputs, build};
use crate::plan::text::render;
use crate::plan::{Built, Item, Pass, PlanFile, PlanHash, Standing};
use crate::sandbox::{self, Preview, Sandbox};
use crate::words::grouped;

/// Send what the plan says; run again to resume
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendform apply campaign.yaml                   shows the plan, asks, sends
  sendform apply --plan plan.json                sends exactly the plan that was reviewed
  sendform apply campaign.yaml --plan-hash v1:…  the same, by the plan's hash alone
  sendform apply campaign.yaml --sandbox --auto-approve

Running it again sends nothing twice: it resumes what is left.")]
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
    /// In a pipeline: the local ledger outlives this job
    #[arg(long, env = "SENDFORM_LEDGER_IS_DURABLE", value_parser = clap::builder::FalseyValueParser::new())]
    ledger_is_durable: bool,
}

/// What was approved before this command.
struct Approval {
    file: Option<PlanFile>,
    hash: Option<PlanHash>,
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
    let campaign = context::campaign(ui, &path, &given, now)?;
    let ledger_path = context::ledger_path(&args.ledger, sandbox, &path)?;
    if !sandbox && !args.ledger_is_durable && std::env::var_os("CI").is_some_and(|value| !value.is_empty()) {
        return Err(Stop::new(Exit::Error, format!("the ledger `{}` is on this runner's disk, which goes with the job", ledger_path.display()))
            .hint("the next job would send everything again; keep the ledger on a disk that stays and pass `--ledger-is-durable`"));
    }

    let key = context::key(&ledger_path)?;
    let ledger = SqliteLedger::open_for_run(&ledger_path, &key)?;
    let snapshot = ledger.snapshot(&campaign.name, campaign.edition, context::uses_pool(&campaign))?;
    let inputs = Inputs {
        snapshot: &snapshot,
        key: &key,
        now,
        planned_at: approval.hash.as_ref().and_then(|hash| hash.planned_at),
        retry_rejected: args.retry_rejected,
        sandbox,
        list_blocked: false,
    };
    tracing::info!(ledger = %ledger_path.display(), recorded = snapshot.sends.len(), "lease taken");
    let built = build(&campaign, &inputs)?;
    if let Some(approved) = &approval.hash
        && *approved != built.hash
    {
        return Err(differs(approved, &built, approval.file.as_ref()));
    }
    ui.data(&render(&built.file));
    ui.say(&format!("Ledger    {}", ledger_path.display()));
    if built.file.counts.send == 0 {
        ui.say("Nothing to send");
        return Ok(if built.file.counts.unknown > 0 { Exit::Unknown } else { Exit::Done });
    }
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
    let job =
        Job { ui, campaign, snapshot, key, built, ledger, secrets, retry_rejected: args.retry_rejected, ledger_path };
    let runtime =
        tokio::runtime::Runtime::new().map_err(|error| Stop::new(Exit::Error, format!("cannot start: {error}")))?;
    job.send(&runtime)
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

/// Everything that is needed to send.
struct Job<'a> {
    ui: &'a Ui,
    campaign: Campaign,
    snapshot: Snapshot,
    key: LedgerKey,
    built: Built,
    ledger: SqliteLedger,
    secrets: Option<(SecretString, SecretString)>,
    retry_rejected: bool,
    ledger_path: PathBuf,
}

impl Job<'_> {
    fn send(self, runtime: &tokio::runtime::Runtime) -> Result<Exit, Stop> {
        let Self { ui, mut campaign, snapshot, key, built, ledger, secrets, retry_rejected, ledger_path } = self;
        let fail = |problem: String| Stop::new(Exit::Error, problem);
        let (sandbox, sid, api_key) = match secrets {
            Some((sid, api_key)) => (None, sid, api_key),
            None => {
                let previews = campaign
                    .composer
                    .templates()
                    .values()
                    .map(|template| (template.head.name.clone(), preview(&template.head)))
                    .collect();
                let config = sandbox::Config { previews, ..sandbox::Config::default() };
                let sandbox = runtime
                    .block_on(Sandbox::start(config))
                    .map_err(|error| fail(format!("the sandbox cannot start: {error}")))?;
                campaign.gateway.base_url = url::Url::parse(&sandbox.url()).map_err(|error| fail(error.to_string()))?;
                (Some(sandbox), SecretString::from(sandbox::SID), SecretString::from(sandbox::API_KEY))
            }
        };
        let gateway = KaleyraV1::new(campaign.gateway.clone(), sid, api_key, campaign.delivery.concurrency)
            .map_err(|error| fail(error.to_string()))?;
        let start = RunStart {
            campaign: campaign.name.clone(),
            edition: campaign.edition,
            plan_hash: built.hash.to_string(),
            planned_at: built.planned_at,
            pool: context::uses_pool(&campaign),
            recipients: built.file.recipients,
            retry_rejected,
        };
        let run = ledger.begin(&start, &snapshot)?;
        let pass = Pass::new(&campaign, &snapshot, &key, built.planned_at, retry_rejected)?;
        let (stop_sender, stop) = watch::channel(false);
        let (event_sender, events) = mpsc::unbounded_channel();
        let (feed_sender, feed) = mpsc::channel(1_024);
        let engine = Engine {
            ledger: run,
            gateway: Arc::new(gateway),
            delivery: campaign.delivery,
            approved: Arc::new(built.approved),
            leave_by: built.leave_by,
            stop,
            events: event_sender,
        };
        runtime.spawn(watch_signals(stop_sender.clone()));
        let started = std::time::Instant::now();
        let (ending, done, run) = std::thread::scope(|scope| {
            let feeding = scope.spawn(move || {
                pass.run(|item| match item {
                    Item::Desired(desired) if matches!(desired.standing, Standing::Send(_)) => {
                        match feed_sender.blocking_send(desired) {
                            Ok(()) => ControlFlow::Continue(()),
                            // The engine has ended.
                            Err(_) => ControlFlow::Break(()),
                        }
                    }
                    _ => ControlFlow::Continue(()),
                })
            });
            let (outcome, ()) = runtime
                .block_on(async { tokio::join!(engine.run(feed), progress::show(ui, built.file.counts.send, events)) });
            // Files that cannot be read a second time have changed since the plan.
            match feeding.join() {
                Ok(Ok(())) => outcome,
                _ => (Ending::Changed, outcome.1, outcome.2),
            }
        });
        drop(stop_sender);
        let report = Report {
            ui,
            done,
            elapsed: started.elapsed(),
            planned: built.file.counts.send,
            earlier_unknown: built.file.counts.unknown,
        };
        if let Some(sandbox) = &sandbox {
            let page = ledger_path.with_file_name("inbox.html");
            if super::plan::write(&page, &sandbox.page(), 0o600).is_ok() {
                ui.say(&format!("Inbox     {}", page.display()));
            }
        }
        runtime.block_on(report.close(&ending, run))
    }
}

fn preview(head: &crate::message::TemplateHead) -> Preview {
    Preview {
        offer: head.offer_text.clone(),
        body: head.body.clone(),
        button: head.button_label.clone(),
        url: head.button_url.clone(),
    }
}

/// The first signal asks to stop, the second stops.
async fn watch_signals(stop: watch::Sender<bool>) {
    signal().await;
    let _ = stop.send(true);
    signal().await;
    // What is under way stays in the ledger as an intent without an outcome: unknown.
    std::process::exit(Exit::Interrupted as i32);
}

/// Waits for Ctrl-C or SIGTERM.
pub async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

struct Report<'a> {
    ui: &'a Ui,
    done: Progress,
    elapsed: std::time::Duration,
    planned: u64,
    earlier_unknown: u64,
}

impl Report<'_> {
    /// Writes down how the run ended, and says it.
    async fn close(self, ending: &Ending, run: SqliteRun) -> Result<Exit, Stop> {
        let done = self.done;
        let settled = done.accepted + done.rejected + done.unknown + done.held;
        let pending = self.planned.saturating_sub(settled);
        let unknown = done.unknown + self.earlier_unknown;
        let word = match ending {
            Ending::Finished if pending == 0 && unknown == 0 && done.rejected == 0 => "complete",
            Ending::Finished => "partial",
            Ending::Interrupted => "interrupted",
            _ => "stopped",
        };
        let id = run.id();
        let finished = run.finish(word).await;
        let seconds = self.elapsed.as_secs_f64();
        let rate = if seconds > 0.0 { settled as f64 / seconds } else { 0.0 };
        self.ui.say(&format!(
            "\nRun {id} {word}: {} of {} accepted in {seconds:.1} s, {rate:.0}/s",
            grouped(done.accepted),
            count(self.planned)
        ));
        let figures =
            [("rejected", done.rejected), ("unknown", unknown), ("pending", pending), ("held by others", done.held)];
        for (name, number) in figures.into_iter().filter(|(_, number)| *number > 0) {
            self.ui.say(&format!("  {name:<15}{:>11}", grouped(number)));
        }
        if unknown > 0 {
            self.ui.say("Unknown sends may have arrived, so they are never sent again by themselves; the reports in the provider's console show which did.");
        }
        if pending > 0 {
            self.ui.say("Run the same command again to send what is left; nobody gets it twice.");
        }
        let nothing_sent = done.accepted + done.unknown + done.rejected == 0;
        let partly = |problem: &str| {
            let exit = if nothing_sent {
                Exit::Error
            } else if unknown > 0 {
                Exit::Unknown
            } else {
                Exit::Partly
            };
            Err(Stop::new(exit, problem))
        };
        match ending {
            Ending::Interrupted => Ok(Exit::Interrupted),
            Ending::Account(reason) => {
                Err(Stop::new(Exit::Account, format!("the provider refuses the account: {reason}"))
                    .hint("check the SID, the key, the balance, and the addresses that the key may be used from"))
            }
            Ending::Late(reason) => {
                Err(Stop::new(Exit::Limit, reason.clone()).hint("raise `edition` with a later end to reach the rest"))
            }
            Ending::Hopeless(reason) => Err(Stop::new(
                if unknown > 0 { Exit::Unknown } else { Exit::Limit },
                reason.clone(),
            )
            .hint(
                "compare the template, the parameters and the address with the provider's console before the next try",
            )),
            Ending::Unreachable(reason) => {
                partly(&format!("the provider cannot be reached, or takes nothing more: {reason}"))
            }
            Ending::Ledger(problem) => partly(&format!("{problem}; nothing more was sent")),
            Ending::Changed => {
                partly("the campaign's files changed while it was sent; what was not approved was not sent")
            }
            Ending::Finished => {
                finished?;
                Ok(if unknown > 0 {
                    Exit::Unknown
                } else if done.rejected > 0 || pending > 0 {
                    Exit::Partly
                } else {
                    Exit::Done
                })
            }
        }
    }
}
