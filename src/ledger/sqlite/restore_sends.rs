//! Records sends again that the file has lost.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, named_params, params};

use super::copy::OVERLAPPED;
use super::rows::set_property;
use super::{add_link, append, head, late_outcomes, load_states, position};
use crate::domain::send::{SendKey, SendState};
use crate::ledger::chain::LinkKind;
use crate::ledger::head::StartLink;
use crate::ledger::lost_send::LostSend;
use crate::ledger::protocol::Finding;
use crate::ledger::record::{Operator, RecordedEnding};

pub(super) fn restore(
    connection: &mut Connection,
    lost: &[LostSend],
    operator: &Operator,
) -> Result<Vec<Finding>, rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let wanted: HashSet<SendKey> = lost.iter().map(|send| send.intent.key).collect();
    let mut known = load_states(&transaction, |key| wanted.contains(key))?;
    let now = operator.now_ms();
    let mut findings = Vec::with_capacity(lost.len());
    let mut intents = false;
    for send in lost {
        let run = run_for(&transaction, send, &operator.host, now)?;
        let (finding, repair) = send.repair(known.get(&send.intent.key).copied(), run, now);
        append(&transaction, &repair.entries)?;
        intents |= repair.entries.iter().any(|entry| entry.state() == SendState::Intent);
        if let Some(last) = repair.last {
            known.insert(send.intent.key, last);
        }
        if let Some(found) = &repair.contradiction {
            late_outcomes::write(&transaction, found)?;
        }
        findings.push(finding);
    }
    if intents {
        // They may belong to a run that was followed by others.
        set_property(&transaction, OVERLAPPED, Some("yes"))?;
    }
    transaction.commit()?;
    Ok(findings)
}

/// The run that a lost send is recorded under.
fn run_for(connection: &Connection, send: &LostSend, host: &str, now: i64) -> Result<i64, rusqlite::Error> {
    let sql = "SELECT id FROM run WHERE campaign = ?1 AND edition = ?2 ORDER BY id <> ?3, id DESC LIMIT 1";
    let found =
        connection.query_row(sql, params![send.campaign, send.edition, send.run], |row| row.get("id")).optional()?;
    if let Some(run) = found {
        return Ok(run);
    }
    connection.execute(
        "INSERT INTO run (campaign, edition, name, plan_hash, planned_at, unique_codes, recipients, host, actor, pid,
                          version, started_at, first_seq, ended_at, ending)
         VALUES (:campaign, :edition, :campaign, '', :planned_at, :unique_codes, 0, :host, :actor, :pid,
                 :version, :now, :first_seq, :now, :ending)",
        named_params! {
            ":campaign": send.campaign,
            ":edition": send.edition,
            ":unique_codes": send.unique_code,
            ":planned_at": send.planned_at.as_millisecond(),
            ":now": now,
            ":host": host,
            ":actor": send.actor,
            ":pid": std::process::id(),
            ":version": env!("CARGO_PKG_VERSION"),
            ":first_seq": position(connection)? + 1,
            ":ending": RecordedEnding::Restored.as_str(),
        },
    )?;
    let run = connection.last_insert_rowid();
    let start = StartLink { run, campaign: &send.campaign, edition: send.edition, plan_hash: "", started_at: now };
    add_link(connection, head(connection)?.started(&start), LinkKind::Start, Some(run), None)?;
    Ok(run)
}
