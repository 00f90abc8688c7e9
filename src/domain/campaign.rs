//! A campaign as the program works with it: every value checked, every path resolved.
//!
//! [`crate::manifest`] builds it; the plan and the engine read it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Map, Value};
use url::Url;

use crate::domain::coupon::CouponCode;
use crate::domain::expiry::ExpiryRule;
use crate::domain::input::{AudienceSpec, PoolSpec};
use crate::domain::phone::E164;
use crate::domain::secret::SecretRef;
use crate::gateway::kaleyra::KaleyraSpec;
use crate::render::Composer;
use crate::util::net::is_loopback;

/// A campaign that has passed every check that needs no ledger.
#[derive(Debug)]
pub struct Campaign {
    /// Its manifest, as the user would type it.
    pub path: PathBuf,
    /// Its identity.
    pub name: String,
    /// The name that it is recorded under: its first one, if it was renamed.
    pub record: String,
    /// The name that it had before, as the manifest says.
    pub moved_from: Option<String>,
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
    /// The time zone that the manifest writes the end in, for the plan: an IANA name or an offset.
    pub zone: Option<String>,
    /// How long the offer must still run when a message leaves.
    pub at_least: Duration,
    /// How fast.
    pub delivery: Delivery,
    /// The most recipients it may reach.
    pub most_recipients: Option<u64>,
    /// The manifest as JSON, after `use:`: what an approval covers is listed from it.
    pub manifest: serde_json::Value,
}

impl Campaign {
    /// What its record belongs to: `sandbox`, `loopback`, or the name of the provider's host.
    pub fn destination(&self, sandbox: bool) -> String {
        let url = &self.gateway.base_url;
        if sandbox {
            "sandbox".to_owned()
        } else if is_loopback(url) {
            "loopback".to_owned()
        } else {
            url.host_str().unwrap_or_default().trim_end_matches('.').to_owned()
        }
    }
}

/// A provider and how to use it. Holds no secret.
///
/// The common parts are fields. What only one provider knows is in `options`, which
/// [`crate::gateway`] reads into a type of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewaySpec {
    /// The provider's name in the manifest, such as `kaleyra`.
    pub provider: String,
    /// The business number that messages come from.
    pub sender: E164,
    /// The address of the provider's API.
    pub base_url: Url,
    /// Where each secret is, by the provider's name for it, such as `api_key`.
    pub secrets: BTreeMap<String, SecretRef>,
    /// The key in `secrets` of the one that identifies the account, such as `sid`.
    pub account: String,
    /// Where the provider reports the delivery of messages.
    pub callback: Option<Callback>,
    /// The provider's own options, as the manifest writes them.
    pub options: Map<String, Value>,
}

impl GatewaySpec {
    /// The reference to the secret that identifies the account.
    pub fn account(&self) -> Option<&SecretRef> {
        self.secrets.get(&self.account)
    }

    /// The name under which the ledger records where messages went: `sandbox`, `loopback`, or the host's name.
    pub fn destination(&self, sandbox: bool) -> String {
        if sandbox {
            "sandbox".to_owned()
        } else if is_loopback(&self.base_url) {
            "loopback".to_owned()
        } else {
            self.base_url.host_str().unwrap_or_default().trim_end_matches('.').to_owned()
        }
    }
}

impl Serialize for GatewaySpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Block<'a> {
            base_url: &'a str,
            from: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            callback: &'a Option<Callback>,
            #[serde(flatten)]
            secrets: &'a BTreeMap<String, SecretRef>,
            #[serde(flatten)]
            options: &'a Map<String, Value>,
        }
        let block = Block {
            base_url: self.base_url.as_str(),
            from: self.sender.to_string(),
            callback: &self.callback,
            secrets: &self.secrets,
            options: &self.options,
        };
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(&self.provider, &block)?;
        map.end()
    }
}

/// Where a provider reports the delivery of messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Callback {
    /// A profile that is configured at the provider.
    ProfileId(String),
    /// A URL.
    Url(String),
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
    /// What stops a run before its end.
    pub stop_when: Option<StopWhen>,
}

/// Bounds on what may go wrong within the last sends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StopWhen {
    /// How many of the last sends are looked at.
    pub within: usize,
    /// How many of them may be refused.
    pub rejected: Option<Bound>,
    /// How many of them may be unknown, instead of what any run may leave unknown. All of them: any number.
    pub unknown: Option<Bound>,
}

/// A number, or a share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// So many.
    Count(u64),
    /// A share of all that are looked at, from 0 to 1.
    Share(f64),
}

impl Bound {
    /// Reads `10` or `5%`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim().strip_suffix('%') {
            Some(share) => {
                let share: f64 = share.trim().parse().ok()?;
                (share > 0.0 && share <= 100.0).then_some(Bound::Share(share / 100.0))
            }
            None => text.trim().parse().ok().filter(|count| *count > 0).map(Bound::Count),
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bound::Count(count) => write!(f, "{count}"),
            // As it was written: 5 %, not 5.000000000000001 %.
            Bound::Share(share) => write!(f, "{}%", (share * 1e8).round() / 1e6),
        }
    }
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
