//! From an approved plan to a run: the provider or the sandbox, and what is shown meanwhile.

use std::sync::Arc;

use secrecy::SecretString;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use super::close::Report;
use super::forgotten;
use crate::apply::feed::FileSource;
use crate::apply::{self, ApprovedPlan, Progress, Run, RunError, ShutdownRequest};
use crate::cli::env;
use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::cli::progress;
use crate::cli::ui::Ui;
use crate::domain::campaign::{Campaign, Delivery, GatewaySpec};
use crate::domain::clock::SystemClock;
use crate::domain::diagnostic::Code;
use crate::domain::secret::SecretRef;
use crate::gateway::{self, Connection, EnvLookup, Gateway, OpenError};
use crate::ledger::{Ledger, LedgerError, LedgerKey, LedgerLocation, RunStart, Snapshot};
use crate::plan::{Built, Prepared};
use crate::sandbox::{self, Preview, Sandbox};

/// The provider or the sandbox, ready for requests.
pub(super) struct Provider {
    /// The sandbox, if this is a trial. It ends when it is dropped.
    sandbox: Option<Sandbox>,
    gateway: Arc<dyn Gateway>,
    /// Identifies the account at the provider; the sandbox has none.
    pub(super) account: Option<SecretString>,
}

impl Provider {
    /// Reads the secrets of the account and connects to the provider, or starts the sandbox.
    pub(super) fn open(runtime: &Runtime, campaign: &Campaign, trial: bool) -> Result<Self, CommandError> {
        if !trial {
            let connection = connect(&campaign.gateway, &env::lookup, campaign)?;
            return Ok(Self { sandbox: None, gateway: connection.gateway, account: Some(connection.account) });
        }
        let fail = |problem: String| CommandError::new(Exit::Error, Code::SandboxFailed, problem);
        let sandbox =
            runtime.block_on(embedded(campaign)).map_err(|error| fail(format!("cannot start the sandbox: {error}")))?;
        let mut spec = campaign.gateway.clone();
        spec.base_url = url::Url::parse(&sandbox.url()).map_err(|error| fail(error.to_string()))?;
        // The account of the sandbox, without reading the one of the campaign.
        spec.secrets.iter_mut().for_each(|(name, secret)| *secret = SecretRef::Env(name.clone()));
        let env = |name: &str| Some(if name == spec.account { sandbox::SID.into() } else { sandbox::API_KEY.into() });
        let gateway = connect(&spec, &env, campaign)?.gateway;
        Ok(Self { sandbox: Some(sandbox), gateway, account: None })
    }
}

fn connect(spec: &GatewaySpec, env: EnvLookup<'_>, campaign: &Campaign) -> Result<Connection, CommandError> {
    gateway::open(spec, env, Arc::new(SystemClock), campaign.delivery.concurrency).map_err(cannot_open)
}

/// The error for a provider that cannot be opened.
pub(super) fn cannot_open(error: OpenError) -> CommandError {
    let message = error.to_string();
    match error {
        OpenError::Secret(_) => CommandError::new(Exit::Error, Code::SecretUnavailable, message)
            .hint("nothing was sent; `--sandbox` needs no credentials"),
        OpenError::Setting(_) | OpenError::UnknownProvider(_) => {
            CommandError::new(Exit::Invalid, Code::SchemaMismatch, message)
        }
        OpenError::Setup(_) => CommandError::new(Exit::Error, Code::ProviderUnreachable, message),
    }
}

/// An approved plan, and everything that it is sent with.
pub(super) struct Job<'a> {
    pub(super) ui: &'a Ui,
    pub(super) campaign: Arc<Prepared>,
    pub(super) ledger: Box<dyn Ledger>,
    pub(super) start: RunStart,
    pub(super) snapshot: Snapshot,
    pub(super) key: LedgerKey,
    pub(super) built: Built,
    pub(super) provider: &'a Provider,
    pub(super) retry_rejected: bool,
    pub(super) place: LedgerLocation,
    pub(super) shutdown: watch::Receiver<ShutdownRequest>,
}

impl Job<'_> {
    /// Applies the plan. `None` if the ledger was written to after the plan was made, so that nothing was sent.
    pub(super) fn send(self, runtime: &Runtime) -> Result<Option<Exit>, CommandError> {
        let Self { ui, campaign, ledger, start, snapshot, key, built, provider, retry_rejected, place, shutdown } =
            self;
        let (events_sender, events) = mpsc::unbounded_channel();
        let (progress_sender, figures) = watch::channel(Progress::default());
        let planned = built.file.counts.send;
        let planned_at = built.planned_at;
        // Written before the run is sealed: the ledger may not answer then, and the user may lose patience.
        let (lost_sender, lost_file) = std::sync::mpsc::channel();
        let keep_lost = {
            let (place, campaign) = (place.clone(), Arc::clone(&campaign));
            move |run: i64, lost: &[apply::LostOutcome]| {
                let of = forgotten::Of {
                    run,
                    campaign: &campaign.record_name,
                    edition: campaign.edition,
                    planned_at,
                    unique_codes: campaign.has_unique_codes(),
                };
                let _ = lost_sender.send(forgotten::keep(&place, &of, lost));
            }
        };
        let source = FileSource { campaign: Arc::clone(&campaign), key, planned_at, retry_rejected };
        let run = Run {
            plan: ApprovedPlan {
                approved: built.approved,
                sends: planned,
                unknown: built.file.counts.unknown,
                leave_by: built.leave_by,
                snapshot,
                source: Box::new(source),
            },
            delivery: Delivery { rate: campaign.rate, ..campaign.delivery },
            start,
            ledger,
            gateway: Arc::clone(&provider.gateway),
            clock: Arc::new(SystemClock),
            shutdown,
            events: events_sender,
            progress: progress_sender,
            keep_lost: Box::new(keep_lost),
        };
        let ended = std::thread::scope(|scope| {
            let shown = scope.spawn(|| runtime.block_on(progress::show(ui, planned, events, figures)));
            // On the runtime's own thread, where the requests are: none of them wakes another thread.
            let ended = runtime.block_on(runtime.spawn(apply::run(run)));
            let _ = shown.join();
            ended
        });
        if let Some(sandbox) = &provider.sandbox {
            let page = place.directory().join("inbox.html");
            if crate::util::fs::write_atomically(&page, &sandbox.page(), 0o600).is_ok() {
                ui.say(&format!("Inbox     {}", page.display()));
            }
        }
        let summary = match ended {
            Ok(Ok(summary)) => summary,
            Ok(Err(RunError::Ledger(LedgerError::Outdated))) => return Ok(None),
            Ok(Err(RunError::Ledger(error))) => return Err(error.into()),
            // What the run had in flight is recorded as an intent without an outcome.
            Err(crashed) => {
                return Err(CommandError::new(
                    Exit::Error,
                    Code::Internal,
                    format!("internal error: the task that sends crashed: {crashed}"),
                )
                .hint("run it again: it sends what is left, and nobody gets it twice"));
            }
        };
        let lost = lost_file.try_recv().ok().flatten();
        Report { ui, manifest: &campaign.path, sandbox: provider.sandbox.is_some(), summary, lost }.close().map(Some)
    }
}

/// The stand-in provider of a trial.
async fn embedded(campaign: &Campaign) -> std::io::Result<Sandbox> {
    let previews = campaign
        .templates
        .values()
        .map(|template| Preview {
            name: template.name.clone(),
            language: template.language.clone(),
            offer: template.offer.text.clone(),
            body: template.body.text.clone(),
            button: template.url_button.label.clone(),
            url: template.url_button.url.clone(),
        })
        .collect();
    Sandbox::start(sandbox::Config { previews, ..sandbox::Config::default() }).await
}
