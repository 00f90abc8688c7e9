//! The hash of a plan, which an approval names.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use crate::domain::canonical::Canonical;

/// The hash of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanHash {
    /// Over the messages and the campaign.
    pub digest: [u8; 32],
    /// The instant that the expiry counts from, if it counts from the plan.
    pub planned_at: Option<Timestamp>,
}

impl PlanHash {
    /// The hash over two digests.
    pub fn over(messages: &[u8; 32], campaign: &[u8; 32], planned_at: Option<Timestamp>) -> Self {
        let mut canonical = Canonical::new(b"sendform plan v2");
        canonical.bytes(messages);
        canonical.bytes(campaign);
        Self { digest: canonical.finish(), planned_at }
    }
}

impl fmt::Display for PlanHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v2:{}", blake3::Hash::from(self.digest).to_hex())?;
        match self.planned_at {
            Some(instant) => write!(f, "@{instant:.0}"),
            None => Ok(()),
        }
    }
}

/// Why a text is not a plan hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAPlanHash {
    /// It was computed by a version whose hashes cover less.
    #[error("`{0}` is the hash of an older version of Sendform, which did not cover where and how fast messages go")]
    Older(String),
    /// It is another text.
    #[error("`{0}` is not a plan hash; one starts with `v2:` and is printed by `sendform plan`")]
    Other(String),
}

impl FromStr for PlanHash {
    type Err = NotAPlanHash;

    fn from_str(text: &str) -> Result<Self, NotAPlanHash> {
        let text = text.trim();
        let wrong = || NotAPlanHash::Other(text.to_owned());
        let (version, rest) = text.split_once(':').ok_or_else(wrong)?;
        let (digest, planned_at) = match rest.split_once('@') {
            Some((digest, instant)) => (digest, Some(instant.parse().map_err(|_| wrong())?)),
            None => (rest, None),
        };
        let digest = blake3::Hash::from_hex(digest).map_err(|_| wrong())?;
        match version {
            "v1" => Err(NotAPlanHash::Older(text.to_owned())),
            "v2" => Ok(Self { digest: *digest.as_bytes(), planned_at }),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_survives_being_written_and_read() {
        let plain = PlanHash { digest: [7; 32], planned_at: None };
        let timed = PlanHash { planned_at: Some("2026-11-23T10:00:00Z".parse().unwrap()), ..plain.clone() };
        for hash in [plain, timed] {
            assert_eq!(hash.to_string().parse(), Ok(hash));
        }
        for text in ["", "v2:", "v2:zz", "v2:00", "v3:00", &format!("v2:{}@never", "00".repeat(32))] {
            assert!(matches!(text.parse::<PlanHash>(), Err(NotAPlanHash::Other(_))), "{text}");
        }
        let old = format!("v1:{}", "00".repeat(32));
        assert_eq!(old.parse::<PlanHash>(), Err(NotAPlanHash::Older(old.clone())));
    }
}
