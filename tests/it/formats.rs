//! Ledger files of older versions.

use rusqlite::Connection;

use crate::each_ledger::generated_codes::{five_of_six, goes_on};
use crate::support::Sandbox;

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
INSERT INTO property SELECT name, value FROM newer.property WHERE name <> 'head_required';
INSERT INTO run SELECT id, campaign, edition, plan_hash, planned_at, 0, recipients, host, actor, pid, version, started_at,
  first_seq, ended_at, ending, name, accepted, rejected, unknown, not_sent, digest FROM newer.run;
INSERT INTO journal SELECT seq, run, at, kind, send_key, attempt, digest, address, coupon, expires, message_id, reason,
  likeness, source, actor FROM newer.journal;
INSERT INTO link SELECT number, hash, kind, run FROM newer.link;
";

#[test]
fn a_file_of_format_2_goes_on_and_its_generated_codes_stay_spent() {
    let sandbox = Sandbox::start(&[]);
    let project = five_of_six(&sandbox);
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
