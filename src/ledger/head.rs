//! The head of a ledger: the last link of its chain.
//!
//! `plan` and `apply` print the head, and a plan file records it. A ledger that does not hold a head that
//! was printed before was restored from an older copy, or is another ledger: sends are missing from it.

use std::fmt;
use std::str::FromStr;

use super::chain::LinkKind;
use super::record::RunCounts;
use crate::domain::canonical::Canonical;
use crate::util::hex;

/// A link of the chain: how many links come before it, and its hash. Printed as `7:` and 32 hexadecimal
/// digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Head {
    /// How many links come before this one.
    pub number: u64,
    /// The hash over this link and all before it.
    pub hash: [u8; 16],
}

/// What the link of a starting run is hashed over.
#[derive(Debug)]
pub struct StartLink<'a> {
    /// The run's number.
    pub run: i64,
    /// The campaign, by the name that it is recorded under.
    pub campaign: &'a str,
    /// The edition of the campaign.
    pub edition: u32,
    /// The hash of the approved plan.
    pub plan_hash: &'a str,
    /// When the run started, in milliseconds since 1970.
    pub started_at: i64,
}

/// What the link of an ending run is hashed over.
#[derive(Debug)]
pub struct EndLink<'a> {
    /// The run's number.
    pub run: i64,
    /// How the run ended, as recorded.
    pub ending: &'a str,
    /// When the run ended, in milliseconds since 1970.
    pub ended_at: i64,
    /// The results of its attempts.
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

    /// The head after an event that belongs to no run, such as a restored backup. `detail` is stored with
    /// the link, so that the chain can be computed again.
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
            Some(Self { number: number.parse().ok()?, hash: hex::decode(digits)? })
        };
        parse().ok_or_else(|| format!("`{text}` is not a ledger head; one looks like `7:` and 32 hexadecimal digits"))
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
