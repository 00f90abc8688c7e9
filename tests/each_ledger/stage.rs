//! A ledger of the kind under test, ready to be opened again and again.

use std::sync::Arc;
use std::time::Duration;

use sendform::domain::canonical::ContentDigest;
use sendform::domain::clock::SystemClock;
use sendform::domain::coupon::CouponCode;
use sendform::gateway::Outcome;
use sendform::ledger::memory::MemoryStore;
use sendform::ledger::postgres::PostgresLedger;
use sendform::ledger::sqlite::SqliteLedger;
use sendform::ledger::{
    AttemptResult, Batch, Intent, Ledger, LedgerError, LedgerKey, Operator, RunLedger, RunStart, Scope, SendKey,
    Settlement, Snapshot,
};
use tempfile::TempDir;

use crate::support::{Kind, postgres};

pub enum Stage {
    Memory(MemoryStore),
    Sqlite(TempDir),
    Postgres(String),
}

/// Runs a check with a new ledger.
pub fn with_stage<F: Future<Output = ()>>(check: impl Fn(Stage) -> F) {
    let runtime = runtime();
    if crate::LEDGER == Kind::Sqlite {
        // Simulations run on it.
        runtime.block_on(check(Stage::memory()));
    }
    runtime.block_on(check(Stage::new()));
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub fn key() -> LedgerKey {
    LedgerKey::from_bytes([7; 32])
}

pub fn operator() -> Operator {
    Operator { host: "host".into(), actor: "actor".into(), clock: Arc::new(SystemClock) }
}

pub fn send_key(number: u8) -> SendKey {
    SendKey([number; 16])
}

pub fn start(plan: &str) -> RunStart {
    RunStart {
        campaign: "diwali".into(),
        edition: 1,
        name: "diwali".into(),
        manifest: "offers/diwali.yaml".into(),
        destination: "loopback".into(),
        account: Some("0123456789abcdef".into()),
        environment: None,
        plan_hash: plan.into(),
        planned_at: "2026-11-01T08:00:00Z".parse().unwrap(),
        unique_codes: false,
        recipients: 10,
        sender: "+919900112233".into(),
        interval: Duration::from_millis(1),
        retry_rejected: false,
        lease: Duration::from_secs(30),
        longest_request: Duration::from_secs(40),
        host: "host".into(),
        actor: "actor".into(),
    }
}

pub fn intent(number: u8, attempt: u32) -> Intent {
    Intent {
        key: send_key(number),
        attempt,
        digest: ContentDigest([number; 32]),
        similarity_digest: i64::from(number),
        coupon: CouponCode::new(&format!("CODE{number}")).unwrap(),
        expires: None,
        masked: format!("+91••••••••{number:02}"),
    }
}

pub fn claim(numbers: &[(u8, u32)]) -> Arc<Batch> {
    let claim = numbers.iter().map(|(number, attempt)| intent(*number, *attempt)).collect();
    Arc::new(Batch { settle: Vec::new(), claim })
}

pub fn accepted() -> AttemptResult {
    AttemptResult::Outcome(Outcome::Accepted { message_id: "m-1".into() })
}

pub fn rejected() -> AttemptResult {
    AttemptResult::Outcome(Outcome::Rejected { reason: "no such template".into() })
}

pub fn unknown() -> AttemptResult {
    AttemptResult::Outcome(Outcome::Unknown { reason: "reset".into() })
}

pub fn not_sent() -> AttemptResult {
    AttemptResult::NotSent { reason: "no connection".into() }
}

pub fn settle(endings: &[(u8, u32, AttemptResult)]) -> Arc<Batch> {
    let settle = endings
        .iter()
        .map(|(number, attempt, ending)| Settlement {
            key: send_key(*number),
            attempt: *attempt,
            result: ending.clone(),
        })
        .collect();
    Arc::new(Batch { settle, claim: Vec::new() })
}

/// Claims and settlements in one commit.
pub fn both(claim: &Batch, settle: &Batch) -> Arc<Batch> {
    Arc::new(Batch { settle: settle.settle.clone(), claim: claim.claim.clone() })
}

impl Stage {
    /// A new ledger of the kind that this binary tests.
    pub fn new() -> Self {
        match crate::LEDGER {
            Kind::Sqlite => Stage::Sqlite(tempfile::tempdir().unwrap()),
            Kind::Postgres => Stage::Postgres(postgres::shared().database()),
        }
    }

    /// A new ledger in memory.
    pub fn memory() -> Self {
        Stage::Memory(MemoryStore::new(&key(), Arc::new(SystemClock)))
    }

    /// Opened for a run. A lease that is just being given back is waited for.
    pub async fn for_run(&self) -> Box<dyn Ledger> {
        for _ in 0..200 {
            match self.try_for_run().await {
                Err(LedgerError::Held { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
                opened => return opened.unwrap(),
            }
        }
        panic!("the lease is not given back");
    }

    pub async fn try_for_run(&self) -> Result<Box<dyn Ledger>, LedgerError> {
        Ok(match self {
            Stage::Memory(store) => store.open(Some(&key()))?,
            Stage::Sqlite(directory) => {
                Box::new(SqliteLedger::open_or_create(&directory.path().join("ledger.db"), &operator(), &key())?)
            }
            Stage::Postgres(url) => Box::new(PostgresLedger::open_or_create(url, &operator(), &key()).await?),
        })
    }

    pub async fn reader(&self) -> Box<dyn Ledger> {
        match self {
            Stage::Memory(store) => store.open(None).unwrap(),
            Stage::Sqlite(directory) => Box::new(
                SqliteLedger::open_existing(&directory.path().join("ledger.db"), &operator(), None).unwrap().unwrap(),
            ),
            Stage::Postgres(url) => {
                Box::new(PostgresLedger::open_existing(url, &operator(), None).await.unwrap().unwrap())
            }
        }
    }

    /// A run as `apply` begins it.
    pub async fn begin(&self, start: &RunStart) -> Box<dyn RunLedger> {
        let mut ledger = self.for_run().await;
        let snapshot = ledger.snapshot(&scope(start)).await.unwrap();
        ledger.begin(start, &snapshot).await.unwrap()
    }

    pub async fn snapshot(&self, start: &RunStart) -> Snapshot {
        self.reader().await.snapshot(&scope(start)).await.unwrap()
    }

    /// Lets others take the place of a run that is alive, as after a pause that was too long or a lock that was lost.
    pub async fn take_the_place_of(&self, run: i64) {
        match self {
            Stage::Memory(store) => assert!(store.unlock(run)),
            Stage::Sqlite(directory) => std::fs::remove_file(directory.path().join("ledger.db.lock")).unwrap(),
            Stage::Postgres(url) => {
                let mut ledger = PostgresLedger::open_existing(url, &operator(), None).await.unwrap().unwrap();
                assert!(ledger.unlock(run).await.unwrap());
            }
        }
    }

    /// Ends a run as a kill does.
    pub async fn kill(&self, run: Box<dyn RunLedger>) {
        let id = run.id();
        drop(run);
        if let Stage::Memory(store) = self {
            store.unlock(id);
        }
        if let Stage::Postgres(url) = self {
            // What the lease would do by itself, a little later.
            PostgresLedger::open_existing(url, &operator(), None).await.unwrap().unwrap().unlock(id).await.unwrap();
        }
    }
}

pub fn scope(start: &RunStart) -> Scope {
    Scope { campaign: start.campaign.clone(), edition: start.edition, unique_codes: start.unique_codes }
}
