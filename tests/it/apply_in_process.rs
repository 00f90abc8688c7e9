//! A plan applied by another program: [`sendform::apply::run`] with a gateway of the caller's and a ledger
//! in a file, without the command line.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use sendform::apply::feed::FileSource;
use sendform::apply::{self, ApprovedPlan, Event, Progress, Run, RunEnding, RunResult, RunSummary, ShutdownRequest};
use sendform::domain::clock::SystemClock;
use sendform::domain::send::SendState;
use sendform::gateway::{Gateway, NotSent, Outcome, Reply, Request};
use sendform::ledger::memory::MemoryStore;
use sendform::ledger::{Ledger, LedgerKey, LedgerLocation, Operator, RunStart, Scope};
use sendform::manifest::{self, Given};
use sendform::plan::build::{Basis, build};
use sendform::plan::{Inputs, Prepared};
use tokio::sync::{mpsc, watch};

use crate::support::Project;

/// Keeps what it was asked to send, and answers as told.
struct Recording {
    sent: Mutex<Vec<(String, String)>>,
    reply: Box<dyn Fn(usize) -> Reply + Send + Sync>,
}

#[async_trait]
impl Gateway for Recording {
    async fn send(&self, request: Request<'_>) -> Reply {
        let number = {
            let mut sent = self.sent.lock().unwrap();
            sent.push((request.to[0].to_string(), request.message.params.join("|")));
            sent.len() - 1
        };
        tokio::time::sleep(Duration::from_millis(2)).await;
        (self.reply)(number)
    }
}

fn accept(number: usize) -> Reply {
    Reply::Settled(vec![Outcome::Accepted { message_id: format!("m:{number}") }])
}

fn operator() -> Operator {
    Operator { host: "host".into(), actor: "actor".into(), clock: Arc::new(SystemClock) }
}

/// A project, its ledger, and a gateway: what a program needs to apply a plan.
struct Embedding {
    project: Project,
    location: LedgerLocation,
    key: LedgerKey,
    runtime: tokio::runtime::Runtime,
}

impl Embedding {
    fn new(people: &str) -> Self {
        let project = Project::empty();
        project.people(people);
        project.campaign(&[]);
        let key = LedgerKey::from_bytes([7; 32]);
        let location = LedgerLocation::File(project.path().join("ledger.db"));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(location.create(&operator(), &key)).unwrap();
        Self { project, location, key, runtime }
    }

    /// Plans and applies, as often as wanted.
    fn apply(
        &self,
        reply: impl Fn(usize) -> Reply + Send + Sync + 'static,
    ) -> (RunSummary, Vec<(String, String)>, Vec<Event>) {
        let ledger = self.runtime.block_on(self.location.open_for_run(&operator(), &self.key)).unwrap();
        self.apply_on(ledger, |_| {}, reply)
    }

    /// The same on another ledger. `begins` sees what the run is begun with.
    fn apply_on(
        &self,
        mut ledger: Box<dyn Ledger>,
        begins: impl FnOnce(&RunStart),
        reply: impl Fn(usize) -> Reply + Send + Sync + 'static,
    ) -> (RunSummary, Vec<(String, String)>, Vec<Event>) {
        let now = Timestamp::now();
        let loaded = manifest::load(&self.project.path().join("campaign.yaml"), &Given::default(), now).unwrap();
        let compiled = loaded.compiled;
        let campaign =
            Arc::new(Prepared::new(loaded.path, loaded.campaign, compiled.composer, compiled.audience, compiled.pool));
        let scope = Scope { campaign: campaign.record_name.clone(), edition: campaign.edition, unique_codes: false };
        let snapshot = self.runtime.block_on(ledger.snapshot(&scope)).unwrap();
        let basis = Basis {
            snapshot: &snapshot,
            key: Some(&self.key),
            now,
            planned_at: None,
            retry_rejected: false,
            sandbox: false,
            list_blocked: false,
            collect_newcomers: false,
        };
        let built = build(&campaign, Inputs::open(&campaign), basis).unwrap();
        let gateway = Arc::new(Recording { sent: Mutex::default(), reply: Box::new(reply) });
        let (events_sender, mut events) = mpsc::unbounded_channel();
        let (_shutdown_sender, shutdown) = watch::channel(ShutdownRequest::None);
        let run = Run {
            start: RunStart {
                campaign: campaign.record_name.clone(),
                edition: campaign.edition,
                name: campaign.name.clone(),
                manifest: "campaign.yaml".into(),
                destination: "a test".into(),
                account: None,
                environment: None,
                plan_hash: built.hash.to_string(),
                planned_at: built.planned_at,
                unique_codes: false,
                recipients: built.file.recipients,
                sender: campaign.gateway.sender.to_string(),
                interval: campaign.delivery.rate.interval(),
                retry_rejected: false,
                lease: Duration::from_secs(30),
                longest_request: Duration::from_secs(30),
                host: "host".into(),
                actor: "actor".into(),
            },
            plan: ApprovedPlan {
                sends: built.file.counts.send,
                unknown: built.file.counts.unknown,
                approved: built.approved,
                leave_by: built.leave_by,
                snapshot,
                source: Box::new(FileSource {
                    campaign: Arc::clone(&campaign),
                    key: self.key.clone(),
                    planned_at: built.planned_at,
                    retry_rejected: false,
                }),
            },
            delivery: campaign.delivery,
            ledger,
            gateway: Arc::clone(&gateway) as Arc<dyn Gateway>,
            clock: Arc::new(SystemClock),
            shutdown,
            events: events_sender,
            progress: watch::Sender::new(Progress::default()),
            keep_lost: Box::new(|_, _| panic!("the ledger has lost nothing")),
        };
        begins(&run.start);
        let summary = self.runtime.block_on(self.runtime.spawn(apply::run(run))).unwrap().unwrap();
        let sent = gateway.sent.lock().unwrap().clone();
        let mut seen = Vec::new();
        while let Ok(event) = events.try_recv() {
            seen.push(event);
        }
        (summary, sent, seen)
    }

    fn states(&self) -> (usize, usize) {
        let scope = Scope { campaign: "test-offer".into(), edition: 1, unique_codes: false };
        let mut ledger = self.runtime.block_on(self.location.open(&operator(), None)).unwrap().unwrap();
        let snapshot = self.runtime.block_on(ledger.snapshot(&scope)).unwrap();
        (snapshot.sends.count(SendState::Accepted) as usize, snapshot.sends.len())
    }
}

const THREE: &str = "mobile,first_name\n9876543210,Asha\n9876543211,Ravi\n9876543212,Meera\n";

#[test]
fn a_program_applies_a_plan_without_the_command_line() {
    let embedding = Embedding::new(THREE);
    let (summary, mut sent, events) = embedding.apply(accept);
    assert_eq!((&summary.ending, summary.result), (&RunEnding::Finished, RunResult::Complete));
    assert_eq!((summary.planned, summary.progress.accepted, summary.pending, summary.unknown), (3, 3, 0, 0));
    let sealed = summary.sealed.unwrap();
    sent.sort();
    let expected = [("+919876543210", "Asha"), ("+919876543211", "Ravi"), ("+919876543212", "Meera")];
    assert_eq!(sent, expected.map(|(to, name)| (to.to_owned(), name.to_owned())));
    assert!(
        events.iter().any(|event| matches!(event, Event::Started { run, head, .. } if *run == summary.run && head.number + 1 == sealed.number)),
        "{events:?}"
    );
    assert_eq!(embedding.states(), (3, 3));
    // The second run finds nothing to do.
    let (again, sent, _) = embedding.apply(accept);
    assert_eq!((again.planned, again.result, sent.len()), (0, RunResult::Complete, 0));
}

#[test]
fn the_ending_of_a_run_is_a_value_and_what_is_left_is_sent_by_the_next() {
    let embedding = Embedding::new(THREE);
    let refuse = |number| match number {
        1 => Reply::NotSent(NotSent::Account { reason: "no balance".into() }),
        other => accept(other),
    };
    let (summary, ..) = embedding.apply(refuse);
    assert_eq!(summary.ending, RunEnding::AccountRefused("no balance".into()));
    assert_eq!(summary.result, RunResult::Stopped);
    let done = summary.progress.accepted;
    assert_eq!(summary.pending, 3 - done);
    let (rest, sent, _) = embedding.apply(accept);
    assert_eq!((rest.ending, rest.progress.accepted), (RunEnding::Finished, 3 - done));
    assert_eq!(sent.len() as u64, 3 - done);
    assert_eq!(embedding.states(), (3, 3));
}

#[test]
fn a_gateway_that_panics_costs_its_own_send_alone() {
    let embedding = Embedding::new(THREE);
    let (summary, ..) = embedding.apply(|number| if number == 1 { panic!("this is meant") } else { accept(number) });
    assert!(matches!(&summary.ending, RunEnding::Internal(problem) if problem.contains("crashed")), "{summary:?}");
    assert_eq!(summary.progress.unknown, 1);
    assert!(summary.sealed.is_ok());
}

#[test]
fn a_later_round_that_cannot_open_its_files_keeps_the_figures_of_the_run() {
    let embedding = Embedding::new(THREE);
    embedding.project.write("stop.csv", "mobile\n9800000000\n");
    embedding.project.campaign(&[("  default_region: IN", "  default_region: IN\n  suppress: [{ csv: stop.csv }]")]);
    let store = MemoryStore::new(&embedding.key, Arc::new(SystemClock));
    let stop = embedding.project.path().join("stop.csv");
    let other = store.clone();
    // Another applier of the same plan is about, so that a further round follows.
    let begins = |start: &RunStart| {
        other.begin(start).unwrap();
    };
    let (summary, sent, _) = embedding.apply_on(store.open(Some(&embedding.key)).unwrap(), begins, move |number| {
        if number == 2 {
            std::fs::remove_file(&stop).unwrap();
        }
        accept(number)
    });
    assert!(matches!(summary.ending, RunEnding::InputsUnreadable(_)), "{:?}", summary.ending);
    assert_eq!((sent.len(), summary.progress.accepted, summary.result), (3, 3, RunResult::Stopped));
    let runs = embedding.runtime.block_on(async { store.open(None).unwrap().runs().await.unwrap() });
    let recorded = runs.iter().find(|run| run.id == summary.run).unwrap();
    assert_eq!(recorded.counts.map(|counts| counts.accepted), Some(3));
}
