//! Ledgers that an older version made: their campaigns go on, and nobody is sent to again.

use rusqlite::Connection;

use crate::support::{Project, Sandbox, nothing_twice, postgres};

/// The tables of a file of format 2, as version 0.2 made them.
const SQLITE_2: &str = "
CREATE TABLE property (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE run (
  id INTEGER PRIMARY KEY,
  campaign TEXT NOT NULL, edition INTEGER NOT NULL,
  plan_hash TEXT NOT NULL, planned_at INTEGER NOT NULL, pool INTEGER NOT NULL, recipients INTEGER NOT NULL,
  host TEXT NOT NULL, actor TEXT NOT NULL, pid INTEGER NOT NULL, version TEXT NOT NULL,
  started_at INTEGER NOT NULL, first_seq INTEGER NOT NULL,
  ended_at INTEGER, ending TEXT
) STRICT;
CREATE INDEX run_campaign ON run (campaign, edition);
CREATE TABLE journal (
  seq INTEGER PRIMARY KEY,
  run INTEGER NOT NULL REFERENCES run (id),
  at INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  send_key BLOB NOT NULL,
  attempt INTEGER NOT NULL,
  digest BLOB, address TEXT, coupon TEXT, expires INTEGER,
  message_id TEXT, reason TEXT
) STRICT;
ALTER TABLE run ADD COLUMN name TEXT;
ALTER TABLE run ADD COLUMN accepted INTEGER;
ALTER TABLE run ADD COLUMN rejected INTEGER;
ALTER TABLE run ADD COLUMN unknown INTEGER;
ALTER TABLE run ADD COLUMN not_sent INTEGER;
ALTER TABLE run ADD COLUMN digest BLOB;
ALTER TABLE journal ADD COLUMN likeness INTEGER;
ALTER TABLE journal ADD COLUMN source TEXT;
ALTER TABLE journal ADD COLUMN actor TEXT;
CREATE TABLE link (number INTEGER PRIMARY KEY, hash BLOB NOT NULL, kind TEXT NOT NULL, run INTEGER REFERENCES run (id)) STRICT;
";

/// What such a file holds of a ledger of today, which is attached as `newer`.
const COPY_2: &str = "
INSERT INTO property SELECT name, value FROM newer.property;
INSERT INTO run SELECT id, campaign, edition, plan_hash, planned_at, 0, recipients, host, actor, pid, version, started_at,
  first_seq, ended_at, ending, name, accepted, rejected, unknown, not_sent, digest FROM newer.run;
INSERT INTO journal SELECT seq, run, at, kind, send_key, attempt, digest, address, coupon, expires, message_id, reason,
  likeness, source, actor FROM newer.journal;
INSERT INTO link SELECT number, hash, kind, run FROM newer.link;
";

/// The tables of a database of format 1, as version 0.2 made them.
const POSTGRES_1: &str = "
CREATE SCHEMA sendform;
CREATE TABLE sendform.property (name text PRIMARY KEY, value text NOT NULL);
CREATE TABLE sendform.campaign (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL UNIQUE,
  next_share bigint NOT NULL DEFAULT 0
);
CREATE TABLE sendform.run (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  campaign int NOT NULL REFERENCES sendform.campaign (id),
  edition int NOT NULL, name text NOT NULL,
  plan_hash text NOT NULL, planned_at bigint NOT NULL, recipients bigint NOT NULL, sender text NOT NULL,
  host text NOT NULL, actor text NOT NULL, pid bigint NOT NULL, version text NOT NULL,
  started_at bigint NOT NULL, lease_ms bigint NOT NULL,
  heartbeat_at timestamptz NOT NULL, open bigint NOT NULL DEFAULT 0,
  fenced_at timestamptz, ended_at bigint, ending text,
  accepted bigint, rejected bigint, unknown bigint, not_sent bigint, digest bytea
) WITH (fillfactor = 50);
CREATE INDEX run_live ON sendform.run (campaign) WHERE ended_at IS NULL;
CREATE TABLE sendform.send (
  send_key bytea PRIMARY KEY,
  campaign int NOT NULL, edition int NOT NULL,
  run bigint NOT NULL, attempt int NOT NULL, state smallint NOT NULL, coupon text NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX send_campaign ON sendform.send (campaign, edition);
CREATE TABLE sendform.journal (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run bigint NOT NULL, at bigint NOT NULL, kind smallint NOT NULL,
  send_key bytea NOT NULL, attempt int NOT NULL,
  digest bytea, likeness bigint, address text, coupon text, expires bigint,
  message_id text, reason text, source text, actor text
);
CREATE TABLE sendform.code (code text PRIMARY KEY, send_key bytea NOT NULL);
CREATE TABLE sendform.number (sender text PRIMARY KEY, next_at timestamptz NOT NULL) WITH (fillfactor = 50);
CREATE TABLE sendform.link (number bigint PRIMARY KEY, hash bytea NOT NULL, kind text NOT NULL, run bigint);
";

/// What such a database holds of a ledger of today, whose schema is `newer`.
const COPY_1: &str = "
INSERT INTO sendform.property SELECT name, value FROM newer.property;
UPDATE sendform.property SET value = '1' WHERE name = 'format';
INSERT INTO sendform.campaign OVERRIDING SYSTEM VALUE SELECT id, name, next_share FROM newer.campaign;
INSERT INTO sendform.run OVERRIDING SYSTEM VALUE
  SELECT id, campaign, edition, name, plan_hash, planned_at, recipients, sender, host, actor, pid, version, started_at,
    lease_ms, heartbeat_at, open, fenced_at, ended_at, ending, accepted, rejected, unknown, not_sent, digest FROM newer.run;
INSERT INTO sendform.send SELECT send_key, campaign, edition, run, attempt, state, coupon FROM newer.send;
INSERT INTO sendform.journal OVERRIDING SYSTEM VALUE
  SELECT seq, run, at, kind, send_key, attempt, digest, likeness, address, coupon, expires, message_id, reason, source, actor
  FROM newer.journal;
INSERT INTO sendform.number SELECT sender, next_at FROM newer.number;
INSERT INTO sendform.link SELECT number, hash, kind, run FROM newer.link;
SELECT setval(pg_get_serial_sequence('sendform.campaign', 'id'), (SELECT max(id) FROM sendform.campaign));
SELECT setval(pg_get_serial_sequence('sendform.run', 'id'), (SELECT max(id) FROM sendform.run));
SELECT setval(pg_get_serial_sequence('sendform.journal', 'seq'), (SELECT max(seq) FROM sendform.journal));
DROP SCHEMA newer CASCADE;
";

const GENERATED: (&str, &str) =
    ("coupons: { code: HELLO25 }", "coupons: { generate: { alphabet: \"AB\", length: 4 } }");

/// Five people have got a generated code; the sixth was added later.
fn five_of_six(sandbox: &Sandbox, database: Option<&str>) -> Project {
    let mut project = Project::with_sandbox(sandbox);
    if let Some(url) = database {
        project.on_postgres(url);
    }
    project.campaign(&[GENERATED]);
    project.people(&people("98", 5));
    project.apply(&[]).expect(0);
    project.people(&people("98", 6));
    project
}

fn people(prefix: &str, many: u32) -> String {
    let rows: String = (0..many).map(|row| format!("{prefix}000000{row:02},Person {row}\n")).collect();
    format!("mobile,first_name\n{rows}")
}

/// The campaign goes on, and so do others with codes of the same kind.
fn goes_on(project: &Project, sandbox: &Sandbox) {
    let counts = &project.plan_json()["counts"];
    assert_eq!((&counts["sent"], &counts["send"]), (&5.into(), &1.into()), "{counts}");
    project.apply(&[]).expect(0);
    project.run(&["ledger", "check"]).expect(0);
    // There are sixteen codes of four letters from two: without care one is given away twice.
    project.campaign(&[
        GENERATED,
        ("name: test-offer", "name: other-offer"),
        ("name: test_offer", "name: other_template"),
    ]);
    project.people(&people("97", 8));
    project.apply(&[]).expect(0);
    assert_eq!(nothing_twice(sandbox), 14);
}

#[test]
fn a_file_of_format_2_goes_on_and_its_generated_codes_stay_spent() {
    let sandbox = Sandbox::start(&[]);
    let project = five_of_six(&sandbox, None);
    let path = project.path().join(".sendform/ledger.db");
    let newer = project.path().join("newer.db");
    let ledger = Connection::open(&path).unwrap();
    ledger.execute("VACUUM INTO ?1", [newer.to_str().unwrap()]).unwrap();
    drop(ledger);
    // It had no head beside it either.
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.head"] {
        let _ = std::fs::remove_file(project.path().join(".sendform").join(name));
    }
    let ledger = Connection::open(&path).unwrap();
    ledger.execute_batch(SQLITE_2).unwrap();
    ledger.execute("ATTACH ?1 AS newer", [newer.to_str().unwrap()]).unwrap();
    ledger.execute_batch(COPY_2).unwrap();
    ledger
        .execute_batch(
            "DETACH newer; PRAGMA application_id = 0x534e4446; PRAGMA user_version = 2; PRAGMA journal_mode = WAL",
        )
        .unwrap();
    drop(ledger);
    // A run of the older version holds the lock for as long as it lives.
    let lock = std::fs::OpenOptions::new().write(true).open(project.path().join(".sendform/ledger.db.lock")).unwrap();
    lock.lock().unwrap();
    for command in [&["plan", "campaign.yaml"][..], &["status"], &["apply", "campaign.yaml", "--auto-approve"]] {
        let refused = project.run(command).expect(8);
        assert!(refused.stderr.contains("is held by"), "{}", refused.stderr);
    }
    drop(lock);
    // Whichever command comes first brings it up to the new format: here one that holds the lock.
    let copy = project.path().join("copy.db");
    std::fs::copy(&path, &copy).unwrap();
    project.run(&["ledger", "copy", "sqlite:copy.db", "sqlite:moved/ledger.db"]).expect(1);
    std::fs::copy(project.path().join(".sendform/ledger.key"), project.path().join("copy.key")).unwrap();
    project.run(&["ledger", "copy", "sqlite:copy.db", "sqlite:moved/ledger.db"]).expect(0);
    goes_on(&project, &sandbox);
    let ledger = Connection::open(&path).unwrap();
    let format: i64 = ledger.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(format, 3, "an older program takes it for its own");
    let status = project.run(&["status", "other-offer", "--format", "json"]).expect(0).json();
    let run = &status["last_run"];
    assert_eq!((&run["manifest"], &run["destination"]), (&"campaign.yaml".into(), &"loopback".into()), "{run}");
    assert_eq!(run["sender"], "+919900112233");
}

#[test]
fn a_database_of_format_1_goes_on_and_its_generated_codes_stay_spent() {
    let sandbox = Sandbox::start(&[]);
    let server = postgres::shared();
    let url = server.database();
    let name = url.rsplit_once('/').unwrap().1;
    let project = five_of_six(&sandbox, Some(&url));
    server.query(name, "ALTER SCHEMA sendform RENAME TO newer");
    server.query(name, &format!("{POSTGRES_1}{COPY_1}"));
    // A run of the older version is under way.
    server.query(name, "DELETE FROM sendform.link WHERE kind = 'end'");
    server.query(
        name,
        "UPDATE sendform.run SET ended_at = NULL, ending = NULL, digest = NULL, heartbeat_at = clock_timestamp()",
    );
    for command in [&["plan", "campaign.yaml"][..], &["status"], &["apply", "campaign.yaml", "--auto-approve"]] {
        let refused = project.run(command).expect(8);
        assert!(refused.stderr.contains("run 1 of `test-offer`"), "{}", refused.stderr);
    }
    // It is silent for longer than its lease: it may be paused, and must not wake up on new tables.
    server.query(name, "UPDATE sendform.run SET heartbeat_at = clock_timestamp() - interval '1 hour'");
    assert_eq!(server.query(name, "SELECT value FROM sendform.property WHERE name = 'format'"), "1");
    project.run(&["status"]).expect(0);
    assert_eq!(server.query(name, "SELECT value FROM sendform.property WHERE name = 'format'"), "2");
    assert_eq!(server.query(name, "SELECT ending FROM sendform.run WHERE fenced_at IS NOT NULL"), "lost");
    // An older program that had looked at the format before cannot begin a run any more.
    server.query(
        name,
        "DO $$ BEGIN
           INSERT INTO sendform.run (campaign, edition, name, plan_hash, planned_at, recipients, sender, host, actor, pid, version, started_at, lease_ms, heartbeat_at)
           VALUES (1, 1, 'test-offer', 'v1:00', 0, 3, '+919900112233', 'h', 'a', 1, '0.2.0', 0, 30000, clock_timestamp());
           RAISE 'an older program has begun a run';
         EXCEPTION WHEN not_null_violation THEN NULL; END $$",
    );
    goes_on(&project, &sandbox);
    assert_eq!(server.query(name, "SELECT count(*) FROM sendform.code"), "14");
}
