//! From an approved plan to its end: rounds of the engine, the sandbox, signals.

use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use secrecy::SecretString;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use super::close::Report;
use super::{Exit, forgotten, progress};
use crate::apply::{self, Ending, Engine, Leftover, Setup};
use crate::cli::Stop;
use crate::cli::ui::Ui;
use crate::domain::campaign::{Campaign, Delivery};
use crate::gateway::kaleyra::KaleyraSpec;
use crate::gateway::kaleyra::KaleyraV1;
use crate::ledger::{LedgerKey, LedgerLocation, RunCounts, RunLedger, Snapshot, State};
use crate::plan::{Built, Inputs, Item, Pass, Prepared};
use crate::sandbox::{self, Preview, Sandbox};

/// How many messages go from the audience to the engine at a time.
const TOGETHER: usize = 64;

/// How many times as many wait between the two.
const AHEAD: usize = 16;

/// The provider, or its stand-in, ready for requests.
pub(super) struct Provider {
    /// The stand-in, if this is a trial. It ends when it is dropped.
    sandbox: Option<Sandbox>,
    gateway: Arc<KaleyraV1>,
}

impl Provider {
    /// Opens the provider with the account's secrets; without them it starts the stand-in.
    pub(super) fn open(
        runtime: &Runtime,
        campaign: &Campaign,
        spec: KaleyraSpec,
        secrets: Option<(SecretString, SecretString)>,
    ) -> Result<Self, Stop> {
        let fail = |problem: String| Stop::new(Exit::Error, problem);
        let mut spec = spec;
        let (sandbox, sid, api_key) = match secrets {
            Some((sid, api_key)) => (None, sid, api_key),
            None => {
                let sandbox = runtime
                    .block_on(embedded(campaign))
                    .map_err(|error| fail(format!("the sandbox cannot start: {error}")))?;
                spec.base_url = url::Url::parse(&sandbox.url()).map_err(|error| fail(error.to_string()))?;
                (Some(sandbox), SecretString::from(sandbox::SID), SecretString::from(sandbox::API_KEY))
            }
        };
        let gateway = KaleyraV1::new(spec, sid, api_key, campaign.delivery.concurrency)
            .map_err(|error| fail(error.to_string()))?;
        Ok(Self { sandbox, gateway: Arc::new(gateway) })
    }
}

/// A run that has begun, and everything that it sends with.
pub(super) struct Job<'a> {
    pub(super) ui: &'a Ui,
    pub(super) campaign: Prepared,
    pub(super) snapshot: Snapshot,
    pub(super) key: LedgerKey,
    pub(super) built: Built,
    pub(super) run: Box<dyn RunLedger>,
    pub(super) provider: &'a Provider,
    pub(super) retry_rejected: bool,
    pub(super) place: LedgerLocation,
    /// How urgently the user asks to stop.
    pub(super) stop: watch::Receiver<apply::Stop>,
}

impl Job<'_> {
    pub(super) fn send(self, runtime: &Runtime) -> Result<Exit, Stop> {
        let Self { ui, campaign, snapshot, key, built, mut run, provider, retry_rejected, place, stop } = self;
        for warning in run.warnings() {
            ui.say(&format!("warning: {warning}"));
        }
        ui.say(&format!("Run {} started; ledger head {}", run.id(), run.head()));
        let run_id = run.id();

        let shared = place.is_shared();
        let spent_codes = snapshot.spent_codes.len();
        let mut snapshot = snapshot;
        if shared {
            // Others may have gone on while this plan was made and approved.
            snapshot = runtime.block_on(run.snapshot())?;
            if snapshot.planned_at.is_some_and(|planned_at| planned_at != built.planned_at) {
                runtime.block_on(run.finish("stopped", RunCounts::default()))?;
                return Err(Stop::new(
                    Exit::Differs,
                    "another plan of this campaign was applied meanwhile; nothing was sent",
                )
                .hint("make a new plan"));
            }
        }

        let (event_sender, events) = mpsc::unbounded_channel();
        let (figures_sender, figures) = watch::channel(apply::Progress::default());
        let setup = Setup {
            ledger: run,
            gateway: Arc::clone(&provider.gateway),
            delivery: Delivery { rate: campaign.rate, ..campaign.delivery },
            approved: Arc::new(built.approved),
            leave_by: built.leave_by,
            stop,
            events: event_sender,
            figures: figures_sender,
        };
        let started = std::time::Instant::now();
        let mut unknown_of_all = None;
        let planned = built.file.counts.send;
        let showing = runtime.handle().clone();
        let (ending, progress, ledger, not_taken, forgotten) = std::thread::scope(|scope| {
            let shown = scope.spawn(move || showing.block_on(progress::show(ui, planned, events, figures)));
            let rounds =
                Rounds { campaign: &campaign, key: &key, planned_at: built.planned_at, retry_rejected, spent_codes };
            let guard = runtime.enter();
            let engine = Engine::new(setup);
            drop(guard);
            let (ending, mut engine) = rounds.run(runtime, engine, snapshot);
            if shared && ending.is_ok() {
                // Others may have died, and left doubt behind.
                unknown_of_all = runtime.block_on(engine.unknown()).ok();
            }
            let progress = engine.progress();
            let (not_taken, forgotten) = (engine.not_taken(), engine.forgotten().to_vec());
            // The listener ends with the engine's sender.
            let ledger = engine.into_ledger();
            let _ = shown.join();
            (ending, progress, ledger, not_taken, forgotten)
        });
        if let (Some(sandbox), LedgerLocation::File(path)) = (&provider.sandbox, &place) {
            let page = path.with_file_name("inbox.html");
            if crate::cli::commands::plan::write(&page, &sandbox.page(), 0o600).is_ok() {
                ui.say(&format!("Inbox     {}", page.display()));
            }
        }
        let of = forgotten::Of {
            run: run_id,
            campaign: &campaign.record_name,
            edition: campaign.edition,
            planned_at: built.planned_at,
            unique_codes: campaign.has_unique_codes(),
        };
        let forgotten = forgotten::keep(&place, &of, &forgotten);
        let ending = match ending {
            Ok(ending) => ending,
            Err(stop) => {
                // The run is over all the same.
                runtime.block_on(ledger.finish("stopped", RunCounts::default()))?;
                return Err(stop);
            }
        };
        let report = Report {
            ui,
            manifest: &campaign.path,
            sandbox: provider.sandbox.is_some(),
            done: progress,
            elapsed: started.elapsed(),
            planned,
            unknown: unknown_of_all.unwrap_or(built.file.counts.unknown + progress.unknown),
            shared,
            not_taken,
            forgotten,
        };
        runtime.block_on(report.close(&ending, ledger))
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

/// Rounds over the audience: one, unless other appliers may have left something.
struct Rounds<'a> {
    campaign: &'a Prepared,
    key: &'a LedgerKey,
    planned_at: jiff::Timestamp,
    retry_rejected: bool,
    /// How many codes others had given away when the plan was made.
    spent_codes: usize,
}

impl Rounds<'_> {
    fn run(
        &self,
        runtime: &Runtime,
        mut engine: Engine<KaleyraV1>,
        mut snapshot: Snapshot,
    ) -> (Result<Ending, Stop>, Engine<KaleyraV1>) {
        loop {
            let before = engine.progress();
            let open = snapshot.sends.count(State::Intent);
            let (ending, after) = self.round(runtime, engine, &snapshot);
            engine = after;
            match ending {
                Ok(Ending::Finished) => {}
                // Others have given codes away since the plan: the files are the same, the codes are not.
                Ok(Ending::Changed) if snapshot.spent_codes.len() != self.spent_codes => {
                    return (Ok(Ending::Outdated), engine);
                }
                other => return (other, engine),
            }
            let ending = match runtime.block_on(engine.leftover(before, open)) {
                Ok(Leftover::Round(now)) => {
                    snapshot = now;
                    continue;
                }
                Ok(Leftover::Nothing) => Ending::Finished,
                Ok(Leftover::Interrupted) => Ending::Interrupted,
                Err(error) => Ending::Ledger(error.to_string()),
            };
            return (Ok(ending), engine);
        }
    }

    fn round(
        &self,
        runtime: &Runtime,
        mut engine: Engine<KaleyraV1>,
        snapshot: &Snapshot,
    ) -> (Result<Ending, Stop>, Engine<KaleyraV1>) {
        let pass = match Pass::new(
            self.campaign,
            Inputs::open(self.campaign),
            snapshot,
            self.key,
            self.planned_at,
            self.retry_rejected,
        ) {
            Ok(pass) => pass.only_to_send(),
            Err(diagnostics) => return (Err(diagnostics.into()), engine),
        };
        let (feed_sender, feed) = mpsc::channel(AHEAD);
        // The engine and its requests run where the runtime's thread is, and wake nobody else. The pass
        // runs here, on the thread that used the number library first: it is slower on others.
        let running = runtime.spawn(async move { (engine.run(feed).await, engine) });
        let mut together = Vec::with_capacity(TOGETHER);
        let feeding = || {
            pass.run(|item| {
                if let Item::Desired(desired) = item {
                    together.push(desired);
                }
                if together.len() == TOGETHER {
                    let several = std::mem::replace(&mut together, Vec::with_capacity(TOGETHER));
                    let _ = feed_sender.blocking_send(several);
                }
                // Closed: the engine has ended.
                if feed_sender.is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        };
        // Whatever happens to the pass, the run is brought to its end.
        let fed = std::panic::catch_unwind(AssertUnwindSafe(feeding)).is_ok_and(|read| read.is_ok());
        if !together.is_empty() {
            let _ = feed_sender.blocking_send(together);
        }
        drop(feed_sender);
        let (ending, engine) = match runtime.block_on(running) {
            Ok(ended) => ended,
            Err(broken) => std::panic::resume_unwind(broken.into_panic()),
        };
        // Files that cannot be read a second time have changed since the plan.
        (Ok(if fed { ending } else { Ending::Changed }), engine)
    }
}
