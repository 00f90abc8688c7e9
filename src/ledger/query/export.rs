//! Entries of the journal and links of the chain as JSON.

use serde_json::{Value, json};

use crate::ledger::record::instant;
use crate::ledger::{JournalEntry, Link};
use crate::util::hex;

/// An instant of the record, to the second.
pub fn time(milliseconds: i64) -> String {
    format!("{:.0}", instant(milliseconds))
}

/// An entry of the journal as JSON. Shows its code only if `full` is set.
pub fn entry_json(entry: &JournalEntry, full: bool) -> Value {
    let intent = entry.intent();
    let coupon = intent.and_then(|intent| intent.coupon.as_deref()).map(|code| if full { code } else { "***" });
    json!({
        "seq": entry.seq,
        "run": entry.run,
        "at": instant(entry.at),
        "send": entry.key.to_string(),
        "attempt": entry.attempt,
        "state": entry.state(),
        "to": intent.and_then(|intent| intent.masked.as_deref()),
        "digest": intent.and_then(|intent| intent.digest).map(|digest| hex::encode(&digest)),
        "coupon": coupon,
        "expires": intent.and_then(|intent| intent.expires).map(instant),
        "message_id": entry.message_id(),
        "reason": entry.reason(),
        "source": entry.source(),
        "actor": entry.actor(),
    })
}

/// A link of the chain as JSON.
pub fn link_json(link: &Link) -> Value {
    json!({ "head": link.head.to_string(), "kind": link.kind.as_str(), "run": link.run, "detail": link.detail })
}
