//! A campaign as the program works with it: every value checked, every path resolved.
//!
//! [`crate::manifest`] builds it; the plan and the engine read it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::audience::AudienceSpec;
use crate::gateway::kaleyra::KaleyraSpec;
use crate::message::Composer;
use crate::offer::pool::PoolSpec;
use crate::offer::{CouponCode, ExpiryRule};

/// A campaign that has passed every check that needs no ledger.
#[derive(Debug)]
pub struct Campaign {
    /// Its manifest, as the user would type it.
    pub path: PathBuf,
    /// Its identity.
    pub name: String,
    /// Raised to send again on purpose.
    pub edition: u32,
    /// The provider.
    pub gateway: KaleyraSpec,
    /// The variables' values.
    pub vars: BTreeMap<String, serde_json::Value>,
    /// Who.
    pub audience: AudienceSpec,
    /// What.
    pub composer: Composer,
    /// Which codes.
    pub coupons: CouponSpec,
    /// Until when. `None` if no template has a timer.
    pub expiry: Option<ExpiryRule>,
    /// How long the offer must still run when a message leaves.
    pub at_least: Duration,
    /// How fast.
    pub delivery: Delivery,
    /// The most recipients it may reach.
    pub most_recipients: Option<u64>,
}

/// Which codes.
#[derive(Debug, Clone)]
pub enum CouponSpec {
    /// One for all.
    Code(CouponCode),
    /// The next of a pool.
    Pool(PoolSpec),
    /// Computed.
    Generate {
        /// What each code starts with.
        prefix: String,
        /// What the rest is made of.
        alphabet: String,
        /// How long the rest is, in characters.
        length: usize,
    },
}

/// How fast messages leave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Delivery {
    /// How many in what time.
    pub rate: Rate,
    /// How many messages may be under way at once.
    pub concurrency: usize,
    /// How many recipients one request may carry.
    pub batch: usize,
}

/// So many messages in so much time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Messages.
    pub messages: u32,
    /// The time they take.
    pub per: Duration,
}

impl Rate {
    /// WhatsApp's default for one business number. Source: Meta, "Throughput".
    pub const DEFAULT: Rate = Rate { messages: 80, per: Duration::from_secs(1) };

    /// Reads `80/s`, `600/m` or `5000/h`.
    pub fn parse(text: &str) -> Option<Self> {
        let (messages, unit) = text.split_once('/')?;
        let messages: u32 = messages.trim().parse().ok().filter(|messages| (1..=1_000_000).contains(messages))?;
        let seconds = match unit.trim() {
            "s" => 1,
            "m" | "min" => 60,
            "h" => 3_600,
            _ => return None,
        };
        Some(Self { messages, per: Duration::from_secs(seconds) })
    }

    /// The time between two messages.
    pub fn interval(self) -> Duration {
        self.per / self.messages
    }

    /// How long `messages` take.
    pub fn time_for(self, messages: u64) -> Duration {
        self.per.mul_f64(messages as f64 / f64::from(self.messages))
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unit = match self.per.as_secs() {
            60 => "m",
            3_600 => "h",
            _ => "s",
        };
        write!(f, "{}/{unit}", self.messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_and_a_unit() {
        assert_eq!(Rate::parse("80/s"), Some(Rate::DEFAULT));
        assert_eq!(Rate::parse("600/m").unwrap().interval(), Duration::from_millis(100));
        assert_eq!(Rate::parse("3600/h").unwrap().interval(), Duration::from_secs(1));
        assert_eq!(Rate::DEFAULT.time_for(160), Duration::from_secs(2));
        for text in ["80", "0/s", "80/d", "/s", "-1/s", "80 per second"] {
            assert_eq!(Rate::parse(text), None, "{text}");
        }
    }
}
