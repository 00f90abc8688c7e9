//! The chain of the runs: what tells a ledger from an older copy of itself.
//!
//! Each run adds a link when it starts and one when it ends, hashed over the link before. The last
//! link is the head; `plan` and `apply` print it, and a plan file records it. A ledger that does not
//! hold a head that was printed before was restored from an older copy, or is another ledger: it has
//! forgotten who got an offer.

use std::fmt;
use std::str::FromStr;

use super::{Entry, RunCounts, SendState, state_code};
use crate::domain::canonical::Canonical;

/// A link of the chain, as it is printed: `7:` and 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Head {
    /// How many links come before.
    pub number: u64,
    /// The hash of this link and all before.
    pub hash: [u8; 16],
}

/// What a link stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// The ledger was made.
    Ledger,
    /// A run started.
    Start,
    /// A run ended.
    End,
    /// The ledger was put back from a copy that had forgotten sends.
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

    pub(super) fn parse(text: &str) -> Option<Self> {
        [LinkKind::Ledger, LinkKind::Start, LinkKind::End, LinkKind::Restored]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// A link, as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number and hash.
    pub head: Head,
    /// What it stands for.
    pub kind: LinkKind,
    /// Of which run.
    pub run: Option<i64>,
    /// For a link of no run: what it is hashed over.
    pub detail: Option<String>,
}

/// What a starting run adds to the chain.
#[derive(Debug)]
pub struct StartLink<'a> {
    /// Its number.
    pub run: i64,
    /// The campaign, by the name that it is recorded under.
    pub campaign: &'a str,
    /// Its edition.
    pub edition: u32,
    /// The plan that was approved.
    pub plan_hash: &'a str,
    /// When, in milliseconds since 1970.
    pub started_at: i64,
}

/// What an ending run adds to the chain.
#[derive(Debug)]
pub struct EndLink<'a> {
    /// Its number.
    pub run: i64,
    /// How it ended.
    pub ending: &'a str,
    /// When, in milliseconds since 1970.
    pub ended_at: i64,
    /// What became of its sends.
    pub counts: RunCounts,
    /// The digest of its part of the journal.
    pub digest: [u8; 32],
}

impl Head {
    /// The first link: the ledger itself.
    pub fn of_ledger(id: &str) -> Self {
        let mut canonical = Canonical::new(b"sendform ledger v1");
        canonical.text(id);
        Self { number: 0, hash: short(canonical.finish()) }
    }

    fn next(self, tag: &[u8], fill: impl FnOnce(&mut Canonical)) -> Self {
        let mut canonical = Canonical::new(tag);
        canonical.number(self.number);
        canonical.bytes(&self.hash);
        fill(&mut canonical);
        Self { number: self.number + 1, hash: short(canonical.finish()) }
    }

    /// The head after a run has started.
    pub fn started(self, link: &StartLink<'_>) -> Self {
        self.next(b"sendform run start v1", |canonical| {
            canonical.number(link.run.cast_unsigned());
            canonical.text(link.campaign);
            canonical.number(u64::from(link.edition));
            canonical.text(link.plan_hash);
            canonical.number(link.started_at.cast_unsigned());
        })
    }

    /// The head after something that belongs to no run, such as a restored copy. `detail` is stored
    /// with the link, so that the chain can be computed again.
    pub fn noted(self, kind: LinkKind, detail: &str) -> Self {
        self.next(b"sendform ledger note v1", |canonical| {
            canonical.text(kind.as_str());
            canonical.text(detail);
        })
    }

    /// The head after a run has ended.
    pub fn ended(self, link: &EndLink<'_>) -> Self {
        self.next(b"sendform run end v1", |canonical| {
            canonical.number(link.run.cast_unsigned());
            canonical.text(link.ending);
            canonical.number(link.ended_at.cast_unsigned());
            for count in [link.counts.accepted, link.counts.rejected, link.counts.unknown, link.counts.not_sent] {
                canonical.number(count);
            }
            canonical.bytes(&link.digest);
        })
    }
}

fn short(hash: [u8; 32]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&hash[..16]);
    short
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.number)?;
        self.hash.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (number, digits) = text.trim().split_once(':')?;
            Some(Self { number: number.parse().ok()?, hash: crate::util::hex::decode(digits)? })
        };
        parse().ok_or_else(|| format!("`{text}` is not a ledger head; one looks like `7:` and 32 hexadecimal digits"))
    }
}

/// The digest of a run's part of the journal. It does not depend on the order of the entries, so
/// that it can be added to as they are written, and is the same in every store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JournalDigest([u64; 4]);

impl JournalDigest {
    /// Adds an entry, if it is its run's own word. Its number and its time belong to the store.
    pub fn add(&mut self, entry: &Entry) {
        if entry.source.is_some() {
            return;
        }
        let mut canonical = Canonical::new(b"sendform entry v1");
        canonical.bytes(&entry.key.0);
        canonical.number(u64::from(entry.attempt));
        canonical.number(state_code(entry.state).unsigned_abs().into());
        if entry.state == SendState::Intent {
            canonical.bytes(entry.digest.as_ref().map_or(&[][..], |digest| digest));
            canonical.optional(entry.masked.as_deref());
            canonical.optional(entry.coupon.as_deref());
            canonical.number(entry.expires.unwrap_or(i64::MIN).cast_unsigned());
        } else {
            canonical.optional(entry.message_id.as_deref());
            canonical.optional(entry.reason.as_deref());
        }
        let hash = canonical.finish();
        for (lane, bytes) in self.0.iter_mut().zip(hash.as_chunks::<8>().0) {
            *lane = lane.wrapping_add(u64::from_le_bytes(*bytes));
        }
    }

    /// Its bytes.
    pub fn bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (part, lane) in bytes.chunks_exact_mut(8).zip(self.0) {
            part.copy_from_slice(&lane.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_survives_being_written_and_read() {
        let head = Head::of_ledger("a").started(&StartLink {
            run: 1,
            campaign: "diwali",
            edition: 1,
            plan_hash: "v1:00",
            started_at: 5,
        });
        assert_eq!(head.number, 1);
        assert_eq!(head.to_string().parse(), Ok(head));
        assert_ne!(Head::of_ledger("a"), Head::of_ledger("b"));
        for text in ["", "7", "7:zz", "x:00112233445566778899aabbccddeeff", "7:00112233445566778899aabbccddeeff00"] {
            assert!(text.parse::<Head>().is_err(), "{text}");
        }
    }
}
