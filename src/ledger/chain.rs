//! The chain of the runs: it tells a ledger from an older copy of itself.
//!
//! Each run adds a link when it starts and one when it ends, hashed over the link before. The last link is
//! the ledger's [`Head`].

use super::error::UnknownValue;
use super::head::Head;
use schemars::JsonSchema;
use serde::Serialize;

use super::record::{JournalEntry, JournalKind, state_code};
use crate::domain::canonical::Canonical;

/// What a link stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// The ledger was created.
    Ledger,
    /// A run started.
    Start,
    /// A run ended.
    End,
    /// The ledger was restored from a backup in which sends were missing.
    Restored,
}

impl LinkKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            LinkKind::Ledger => "ledger",
            LinkKind::Start => "start",
            LinkKind::End => "end",
            LinkKind::Restored => "restored",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, UnknownValue> {
        [LinkKind::Ledger, LinkKind::Start, LinkKind::End, LinkKind::Restored]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownValue::new("link.kind", text))
    }
}

/// A link of the chain, as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The link's number and hash.
    pub head: Head,
    /// What the link stands for.
    pub kind: LinkKind,
    /// The run that it belongs to.
    pub run: Option<i64>,
    /// Of a link that belongs to no run: the text that it is hashed over.
    pub detail: Option<String>,
}

/// The digest of a run's part of the journal. It does not depend on the order of the entries, so entries
/// can be added as they are written, and every store computes the same digest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JournalDigest([u64; 4]);

impl JournalDigest {
    /// Adds an entry, if the run wrote it about its own attempt. The entry's number and time are not part of
    /// the digest, because they belong to the store.
    pub fn add(&mut self, entry: &JournalEntry) {
        if !entry.is_of_its_run() {
            return;
        }
        let mut canonical = Canonical::new(b"sendform entry v1");
        canonical.bytes(&entry.key.0);
        canonical.number(u64::from(entry.attempt));
        canonical.number(state_code(entry.state()).unsigned_abs().into());
        match &entry.kind {
            JournalKind::Intent(intent) => {
                canonical.bytes(intent.digest.as_ref().map_or(&[][..], |digest| digest));
                canonical.optional(intent.masked.as_deref());
                canonical.optional(intent.coupon.as_deref());
                canonical.number(intent.expires.unwrap_or(i64::MIN).cast_unsigned());
            }
            _ => {
                canonical.optional(entry.message_id());
                canonical.optional(entry.reason());
            }
        }
        let hash = canonical.finish();
        for (lane, bytes) in self.0.iter_mut().zip(hash.as_chunks::<8>().0) {
            *lane = lane.wrapping_add(u64::from_le_bytes(*bytes));
        }
    }

    /// The digest as bytes.
    pub fn bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (part, lane) in bytes.chunks_exact_mut(8).zip(self.0) {
            part.copy_from_slice(&lane.to_le_bytes());
        }
        bytes
    }
}
