//! Ledgers that an older version made: their campaigns go on, and nobody is sent to again.

use crate::each_ledger::generated_codes::{five_of_six, goes_on};
use crate::support::{Sandbox, postgres};

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

#[test]
fn a_database_of_format_1_goes_on_and_its_generated_codes_stay_spent() {
    let sandbox = Sandbox::start(&[]);
    let server = postgres::shared();
    let project = five_of_six(&sandbox);
    let name = project.environment[0].1.rsplit_once('/').unwrap().1;
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
