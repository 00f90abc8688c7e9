//! The cost of one recipient, step by step.

#![allow(clippy::disallowed_methods, reason = "a benchmark writes its own files and reads the clock")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use sendform::audience::source;
use sendform::coupons::generator::Generator;
use sendform::domain::canonical::ContentDigest;
use sendform::domain::clock::SystemClock;
use sendform::domain::coupon::CouponCode;
use sendform::domain::expiry::Encoding;
use sendform::domain::input::{CsvInput, SourceInput};
use sendform::domain::message::{Message, TemplateHead};
use sendform::domain::phone::{E164, PhoneReader};
use sendform::domain::row::Row;
use sendform::domain::secret::SecretRef;
use sendform::gateway::kaleyra::multipart::Boundary;
use sendform::gateway::kaleyra::v1::reply;
use sendform::gateway::kaleyra::{KaleyraSpec, form};
use sendform::gateway::redact::Private;
use sendform::gateway::{Outcome, Request};
use sendform::ledger::sqlite::SqliteLedger;
use sendform::ledger::{
    AttemptResult, Batch, Claim, Intent, Ledger, LedgerKey, Operator, RunLedger, RunStart, SendKey, Settlement,
    Snapshot,
};
use sendform::render::{CompiledTemplate, Composer};
use sendform::util::fs::InputFile;

fn numbers(c: &mut Criterion) {
    let reader = PhoneReader::new(Some("IN")).unwrap();
    c.bench_function("read a number with country code", |b| b.iter(|| reader.read(black_box("+919876543210"))));
    c.bench_function("read a national number", |b| b.iter(|| reader.read(black_box("098765 43210"))));
    let number = E164::parse_exact("+552187654321").unwrap();
    c.bench_function("identity of a number", |b| b.iter(|| black_box(number).identity()));
}

fn hashes(c: &mut Criterion) {
    let person = E164::parse_exact("+919876543210").unwrap().identity();
    let from = E164::parse_exact("+919900112233").unwrap();
    let key = LedgerKey::from_bytes([7; 32]);
    let keys = key.send_keys("diwali-gold", 1);
    c.bench_function("send key", |b| b.iter(|| keys.of(black_box(person))));
    let alphabet = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    let generator = Generator::new(key.for_codes(), "diwali-gold/1".into(), "DI", alphabet, 8);
    c.bench_function("generated code", |b| b.iter(|| generator.candidate(black_box(person), 0)));
    let message = message();
    c.bench_function("content digest", |b| b.iter(|| black_box(&message).digest(from)));
}

fn head() -> Arc<TemplateHead> {
    Arc::new(TemplateHead {
        key: "en".into(),
        name: "diwali_gold".into(),
        language: Some("en".into()),
        offer_text: "Diwali offer!".into(),
        has_expiration: true,
        body: "Hi {{1}}, {{2}}".into(),
        button_label: "Shop".into(),
        button_url: "https://shop.example.com/{{1}}".into(),
    })
}

fn message() -> Message {
    Message {
        template: head(),
        media: None,
        params: vec!["Asha".into(), "Lucky Shrub".into()],
        url_param: Some("diwali?m=1001".into()),
        coupon: CouponCode::new("GOLD1234").unwrap(),
        expiry: None,
    }
}

/// Two body parameters: once with plain columns, once with expressions that need the template engine.
fn rendering(c: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("people.csv");
    std::fs::write(&path, "mobile,first_name,city\n919876543210,Asha,Mumbai\n").unwrap();
    let path = InputFile::below(directory.path(), &path).unwrap();
    let spec = SourceInput::Csv(CsvInput { path, delimiter: b',', multiline: false });
    let mut source = source::open(&spec).unwrap();
    let mut row = Row::new(Arc::clone(source.columns()));
    source.next(&mut row).unwrap();
    let row = Arc::new(row);
    for (name, params) in [
        ("render two columns", ["{{ recipient.first_name | default('there') }}", "{{ recipient.city }}"]),
        (
            "render two expressions",
            ["{{ recipient.first_name | upper }}", "{% if recipient.city %}{{ recipient.city }}{% endif %}"],
        ),
    ] {
        let mut composer = Composer::new("diwali-gold", 1, &BTreeMap::new());
        let params = params.map(|text| composer.compile(text).unwrap().0).to_vec();
        composer.add_template(CompiledTemplate { head: head(), params, url_param: None, media: None });
        c.bench_function(name, |b| b.iter(|| composer.compose(black_box(&row), "GOLD1234").unwrap()));
    }
}

/// A request and its response.
fn wire(c: &mut Criterion) {
    let message = message();
    let spec = KaleyraSpec {
        base_url: "https://api.in.kaleyra.io".parse().unwrap(),
        sid: SecretRef::Env("SID".into()),
        api_key: SecretRef::Env("KEY".into()),
        from: E164::parse_exact("+919900112233").unwrap(),
        callback: None,
        send_ref: true,
        encoding: Encoding::Absolute,
        timeout: Duration::from_secs(30),
    };
    let boundary = Boundary::draw().unwrap();
    let now = jiff::Timestamp::now();
    c.bench_function("a request's form", |b| {
        b.iter(|| {
            let to = vec![E164::parse_exact("+919876543210").unwrap()];
            let reference = Some("00".repeat(16));
            let request = Request { to, message: black_box(&message), expires: None, reference, lease: None };
            boundary.form(form(&spec, &request, now).unwrap())
        });
    });
    let answer = br#"{"id":"08a72b9e-9e0e-46af-a41b-2d87bf30e036","type":"mediatemplate","createdDateTime":"2024-01-12 07:08:43+00:00","totalCount":1,"data":[{"message_id":"08a72b9e-9e0e-46af-a41b-2d87bf30e036:0","recipient":"919876543210"}],"error":{}}"#;
    let to = [E164::parse_exact("+919876543210").unwrap()];
    let private = Private { numbers: &to, code: "GOLD1234", ..Private::default() };
    c.bench_function("an answer", |b| b.iter(|| reply::read(202, None, black_box(answer), &private)));
}

/// Sends per commit.
const BATCH: u64 = 64;

/// Sends recorded before the measurement, so that an index has a realistic depth.
const RECORDED: u64 = 500_000;

fn random_key(number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key.copy_from_slice(&blake3::hash(&number.to_le_bytes()).as_bytes()[..16]);
    key
}

fn intent(number: u64) -> Intent {
    Intent {
        key: SendKey(random_key(number)),
        attempt: 1,
        digest: ContentDigest([7; 32]),
        similarity_digest: 7,
        coupon: CouponCode::new(&format!("CODE{number}")).unwrap(),
        expires: None,
        masked: "+91••••••••10".into(),
    }
}

fn settled(intent: &Intent) -> Settlement {
    let outcome = Outcome::Accepted { message_id: "f2ab9d23-0b5f-4a8d-8f4d-0c1c5d2b1a10:1".into() };
    Settlement { key: intent.key, attempt: 1, result: AttemptResult::Outcome(outcome) }
}

fn run_start() -> RunStart {
    RunStart {
        campaign: "bench".into(),
        edition: 1,
        name: "bench".into(),
        manifest: "bench.yaml".into(),
        destination: "loopback".into(),
        account: None,
        environment: None,
        plan_hash: "v1:00".into(),
        planned_at: jiff::Timestamp::now(),
        unique_codes: false,
        recipients: 1,
        sender: "+919900112233".into(),
        interval: Duration::from_micros(1),
        retry_rejected: false,
        lease: Duration::from_secs(30),
        longest_request: Duration::from_secs(40),
        host: "host".into(),
        actor: "actor".into(),
    }
}

/// Claim and settle: like the engine, each commit settles the previous batch and claims the next.
async fn commit(run: &mut dyn RunLedger, number: &mut u64, before: &mut Vec<Settlement>, batch: u64) {
    let claim: Vec<Intent> = (0..batch)
        .map(|_| {
            *number += 1;
            intent(*number)
        })
        .collect();
    let next = claim.iter().map(settled).collect();
    let batch = Arc::new(Batch { settle: std::mem::replace(before, next), claim });
    assert!(run.commit(&batch).await.unwrap().claims.iter().all(|claim| *claim == Claim::Granted));
}

/// The ledger's design beside two alternatives: a journal with a unique index on the key, and a table whose
/// rows are updated. Each commit is durable.
fn ledgers(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut group = c.benchmark_group("claim and settle 64");
    group.throughput(criterion::Throughput::Elements(BATCH)).sample_size(20);
    let directory = tempfile::tempdir().unwrap();

    let key = LedgerKey::from_bytes([7; 32]);
    let operator = Operator { host: "host".into(), actor: "actor".into(), clock: Arc::new(SystemClock) };
    let ledger = Box::new(SqliteLedger::open_or_create(&directory.path().join("ledger.db"), &operator, &key).unwrap());
    let mut run = runtime.block_on(ledger.begin(&run_start(), &Snapshot::default())).unwrap();
    let (mut number, mut before) = (0, Vec::new());
    while number < RECORDED {
        runtime.block_on(commit(run.as_mut(), &mut number, &mut before, 4_096));
    }
    group.bench_function("journal, keys in memory", |b| {
        b.iter(|| runtime.block_on(commit(run.as_mut(), &mut number, &mut before, BATCH)));
    });
    drop(run);

    for (name, sql) in [
        (
            "journal, unique index",
            "CREATE TABLE journal (seq INTEGER PRIMARY KEY, kind INTEGER, send_key BLOB, attempt INTEGER, digest BLOB, address TEXT, coupon TEXT, message_id TEXT); CREATE UNIQUE INDEX once ON journal (send_key, attempt) WHERE kind = 1;",
        ),
        (
            "row for each send, changed in place",
            "CREATE TABLE journal (send_key BLOB PRIMARY KEY, kind INTEGER, attempt INTEGER, digest BLOB, address TEXT, coupon TEXT, message_id TEXT) WITHOUT ROWID;",
        ),
    ] {
        let mut file = rusqlite::Connection::open(directory.path().join(name)).unwrap();
        file.pragma_update(None, "journal_mode", "WAL").unwrap();
        file.pragma_update(None, "synchronous", "FULL").unwrap();
        file.execute_batch(sql).unwrap();
        let changes = name.contains("changed");
        let mut number = 0_u64;
        let mut step = |batch: u64| {
            let transaction = file.transaction().unwrap();
            {
                let settle = if changes {
                    "UPDATE journal SET kind = 2, message_id = ?2 WHERE send_key = ?1"
                } else {
                    "INSERT INTO journal (kind, send_key, attempt, message_id) VALUES (2, ?1, 1, ?2)"
                };
                let mut settle = transaction.prepare(settle).unwrap();
                for earlier in number.saturating_sub(batch)..number {
                    settle
                        .execute(rusqlite::params![random_key(earlier), "f2ab9d23-0b5f-4a8d-8f4d-0c1c5d2b1a10:1"])
                        .unwrap();
                }
                let mut claim = transaction
                    .prepare("INSERT INTO journal (kind, send_key, attempt, digest, address, coupon) VALUES (1, ?1, 1, ?2, ?3, ?4)")
                    .unwrap();
                for next in number..number + batch {
                    let code = format!("CODE{next}");
                    claim.execute(rusqlite::params![random_key(next), [7_u8; 32], "+91••••••••10", code]).unwrap();
                }
            }
            transaction.commit().unwrap();
            number += batch;
        };
        (0..RECORDED / 4_096).for_each(|_| step(4_096));
        group.bench_function(name, |b| b.iter(|| step(BATCH)));
    }
    group.finish();
}

criterion_group!(benches, numbers, hashes, rendering, wire, ledgers);
criterion_main!(benches);
