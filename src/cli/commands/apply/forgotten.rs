//! The file of outcomes that the ledger has forgotten, for `resolve --file`.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::apply::LostOutcome;
use crate::ledger::{LedgerLocation, SendKey, SendState};

/// What a run was, as the file says it.
pub(super) struct Of<'a> {
    pub(super) run: i64,
    pub(super) campaign: &'a str,
    pub(super) edition: u32,
    pub(super) planned_at: Timestamp,
    pub(super) unique_codes: bool,
}

/// Writes the outcomes beside the ledger's file, or into the current directory if the ledger is a
/// database, readable by this user alone: it holds codes. Tells where; or the text, if it can be
/// written nowhere. Nothing if there is nothing to keep: what was not sent is pending anyway.
pub(super) fn keep(place: &LedgerLocation, of: &Of<'_>, forgotten: &[LostOutcome]) -> Option<Result<PathBuf, String>> {
    let kept: Vec<&LostOutcome> =
        forgotten.iter().filter(|forgotten| forgotten.settlement.result.state() != SendState::NotSent).collect();
    if kept.is_empty() {
        return None;
    }
    let text = text(of, &kept);
    let name = format!("sendform-outcomes-run-{}.yaml", of.run);
    let written = [place.directory(), std::env::temp_dir()].into_iter().find_map(|directory| {
        let path = free_name(&directory.join(&name));
        crate::util::fs::write_atomically(&path, &text, 0o600).ok().map(|()| path)
    });
    Some(written.ok_or(text))
}

/// The same name with a number, if it is taken: an earlier file may not have been used yet.
fn free_name(path: &Path) -> PathBuf {
    let numbered = (2..1_000).map(|number| path.with_extension(format!("{number}.yaml")));
    std::iter::once(path.to_owned())
        .chain(numbered)
        .find(|path| std::fs::symlink_metadata(path).is_err())
        .unwrap_or_else(|| path.to_owned())
}

fn text(of: &Of<'_>, kept: &[&LostOutcome]) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut out = format!(
        "# Run {} saw these outcomes, and the ledger has lost the sends: a failover to a standby can do that.\n\
         # Record them before the next `sendform apply`, which would send to these people again:\n\
         #   sendform resolve --file THIS_FILE\n\
         # This file holds codes. Delete it afterwards.\n\
         apiVersion: sendform/v1\nkind: Decisions\nreason: {}\ndecisions:\n",
        of.run,
        quoted(&format!("run {} saw it, and the ledger had lost it", of.run))
    );
    for forgotten in kept {
        let settlement = &forgotten.settlement;
        let key: SendKey = settlement.key;
        let _ = write!(
            out,
            "  - send: \"{key}\"\n    attempt: {}\n    as: {}\n",
            settlement.attempt,
            settlement.result.state().as_str()
        );
        if let Some(id) = settlement.result.message_id() {
            let _ = writeln!(out, "    message_id: {}", quoted(id));
        }
        if let Some(reason) = settlement.result.reason() {
            let _ = writeln!(out, "    reason: {}", quoted(&format!("run {} saw: {reason}", of.run)));
        }
        if let Some(intent) = &forgotten.intent {
            let _ = write!(
                out,
                "    lost:\n      campaign: {}\n      edition: {}\n      run: {}\n      planned_at: \"{}\"\n      to: {}\n      coupon: {}\n      \
                 unique_code: {}\n      digest: \"{:?}\"\n      likeness: {}\n",
                quoted(of.campaign),
                of.edition,
                of.run,
                of.planned_at,
                quoted(&intent.masked),
                quoted(intent.coupon.expose()),
                of.unique_codes,
                intent.digest,
                intent.similarity_digest
            );
            if let Some(expires) = intent.expires {
                let _ = writeln!(out, "      expires: {}", expires.as_millisecond());
            }
        }
    }
    out
}
