//! A send: one recipient of one edition of one campaign, its attempts and how they end.
//!
//! The gateway, the engine, the plan and the ledger all speak of these values. How a send moves from one
//! state to the next is decided by [`crate::ledger::protocol`].

use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasherDefault;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::canonical::ContentDigest;
use super::coupon::CouponCode;
use super::expiry::ExpiresAt;
use crate::util::hex;

/// Identifies one recipient of one edition of one campaign, for as long as the ledger lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SendKey(pub [u8; 16]);

impl SendKey {
    /// Half of the key. A send key is a keyed hash, so half of it is as good as a hash of it.
    pub(crate) fn hash_half(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

impl std::hash::Hash for SendKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash_half());
    }
}

impl fmt::Display for SendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for SendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SendKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        hex::decode(text.trim()).map(SendKey).ok_or_else(|| {
            format!("`{text}` is not a send key: it needs 32 hexadecimal digits, as `sends list` prints them")
        })
    }
}

/// A map by send key that does not hash the keys again.
pub type BySend<T> = HashMap<SendKey, T, BuildHasherDefault<PassThroughHasher>>;

/// A hasher for values that are hashes already.
#[derive(Debug, Clone, Copy, Default)]
pub struct PassThroughHasher(u64);

impl std::hash::Hasher for PassThroughHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = self.0.rotate_left(5) ^ u64::from_le_bytes(word);
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 ^= word;
    }
}

/// What is recorded of an attempt before its request starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The send.
    pub key: SendKey,
    /// 1, or one more than the send's last attempt, if that provably sent nothing.
    pub attempt: u32,
    /// The digest of the message.
    pub digest: ContentDigest,
    /// A digest of the message without the URL's parameter, the code and the expiry. Two campaigns with
    /// the same one send the same message, so it recognises a renamed campaign.
    pub similarity_digest: i64,
    /// The code. It belongs to this send from now on.
    pub coupon: CouponCode,
    /// When the offer ends.
    pub expires: Option<ExpiresAt>,
    /// The phone number with its middle digits hidden.
    pub masked: String,
}

/// How the provider decided about one send. Final, except that evidence can settle [`Outcome::Unknown`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The provider accepted the message.
    Accepted {
        /// The provider's id of the message to this recipient.
        message_id: String,
    },
    /// The provider rejected the message: it provably was not sent.
    Rejected {
        /// The provider's reason.
        reason: String,
    },
    /// The message may have been sent.
    Unknown {
        /// What happened instead of an answer.
        reason: String,
    },
}

/// Why a request provably sent nothing. The variants differ in what the engine does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotSent {
    /// The provider asks to slow down. The engine retries later.
    Throttled {
        /// The provider's reason.
        reason: String,
        /// How long the provider asks to wait.
        retry_after: Option<Duration>,
    },
    /// No connection could be made. The engine retries later.
    Unreachable {
        /// What failed.
        reason: String,
    },
    /// The provider refuses the account, or every request of this form: each further request would
    /// fail as well.
    Account {
        /// The provider's reason.
        reason: String,
    },
    /// The request was not built, because the offer has ended.
    Expired {
        /// When the offer ended.
        reason: String,
    },
}

impl NotSent {
    /// What happened, in words.
    pub fn reason(&self) -> &str {
        match self {
            NotSent::Throttled { reason, .. }
            | NotSent::Unreachable { reason }
            | NotSent::Account { reason }
            | NotSent::Expired { reason } => reason,
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptResult {
    /// The request was made, and this is its outcome.
    Outcome(Outcome),
    /// The attempt provably sent nothing: the send may be claimed again.
    NotSent {
        /// Why.
        reason: String,
    },
}

impl AttemptResult {
    /// The state that the send has after it.
    pub fn state(&self) -> SendState {
        match self {
            AttemptResult::Outcome(Outcome::Accepted { .. }) => SendState::Accepted,
            AttemptResult::Outcome(Outcome::Rejected { .. }) => SendState::Rejected,
            AttemptResult::Outcome(Outcome::Unknown { .. }) => SendState::Unknown,
            AttemptResult::NotSent { .. } => SendState::NotSent,
        }
    }

    /// The provider's id of the message, if the provider accepted it.
    pub fn message_id(&self) -> Option<&str> {
        match self {
            AttemptResult::Outcome(Outcome::Accepted { message_id }) => Some(message_id),
            _ => None,
        }
    }

    /// The reason, unless the provider accepted the message.
    pub fn reason(&self) -> Option<&str> {
        match self {
            AttemptResult::Outcome(Outcome::Accepted { .. }) => None,
            AttemptResult::Outcome(Outcome::Rejected { reason } | Outcome::Unknown { reason })
            | AttemptResult::NotSent { reason } => Some(reason),
        }
    }
}

/// An attempt and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// The send.
    pub key: SendKey,
    /// The attempt.
    pub attempt: u32,
    /// How it ended.
    pub result: AttemptResult,
}

/// The state of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SendState {
    /// The request is about to start, or under way.
    Intent,
    /// The provider accepted the message.
    Accepted,
    /// The provider rejected the message.
    Rejected,
    /// The message may have been sent.
    Unknown,
    /// The message provably was not sent: the send is pending.
    NotSent,
}

impl SendState {
    /// All states.
    pub const ALL: [SendState; 5] =
        [SendState::Intent, SendState::Accepted, SendState::Rejected, SendState::Unknown, SendState::NotSent];

    /// The name, as commands and JSON write it.
    pub fn as_str(self) -> &'static str {
        match self {
            SendState::Intent => "intent",
            SendState::Accepted => "accepted",
            SendState::Rejected => "rejected",
            SendState::Unknown => "unknown",
            SendState::NotSent => "not-sent",
        }
    }
}

impl FromStr for SendState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|state| state.as_str() == text);
        found.ok_or_else(|| format!("`{text}` is not a state of a send"))
    }
}

impl fmt::Display for SendState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendState::NotSent => "not sent",
            state => state.as_str(),
        })
    }
}

/// Something that settles an unknown outcome.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The send.
    pub key: SendKey,
    /// The attempt; the last one if not given.
    pub attempt: Option<u32>,
    /// What the evidence shows.
    pub resolution: Resolution,
    /// The provider's id of the message, if the evidence shows it.
    pub message_id: Option<String>,
    /// What kind of evidence it is.
    pub source: EvidenceSource,
    /// Who supplied it.
    pub actor: String,
    /// The reason to believe it; recorded.
    pub reason: String,
}

/// What evidence shows of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Resolution {
    /// The provider accepted the message. The send is never claimed again.
    Accepted,
    /// The provider rejected the message. The send is claimed again only with `--retry-rejected`.
    Rejected,
    /// The message was not sent. The send is pending again, under a new attempt.
    NotSent,
}

impl Resolution {
    /// All resolutions.
    pub const ALL: [Resolution; 3] = [Resolution::Accepted, Resolution::Rejected, Resolution::NotSent];

    /// The state that the send has after it.
    pub fn state(self) -> SendState {
        match self {
            Resolution::Accepted => SendState::Accepted,
            Resolution::Rejected => SendState::Rejected,
            Resolution::NotSent => SendState::NotSent,
        }
    }
}

impl FromStr for Resolution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|resolution| resolution.state().as_str() == text);
        found.ok_or_else(|| format!("`{text}` is not an outcome that evidence can show"))
    }
}

/// What kind of evidence settled a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceSource {
    /// A person decided.
    Decision,
    /// The provider sent a delivery receipt for the message.
    Receipt,
    /// The provider's report lists the message.
    Report,
}

impl EvidenceSource {
    /// All sources.
    pub const ALL: [EvidenceSource; 3] = [EvidenceSource::Decision, EvidenceSource::Receipt, EvidenceSource::Report];

    /// The name, as the ledger stores it.
    pub fn as_str(self) -> &'static str {
        match self {
            EvidenceSource::Decision => "decision",
            EvidenceSource::Receipt => "receipt",
            EvidenceSource::Report => "report",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_stands_for_no_state_is_an_error_and_not_some_state() {
        assert_eq!("not-sent".parse(), Ok(SendState::NotSent));
        assert_eq!("not-sent".parse(), Ok(Resolution::NotSent));
        assert!("sent".parse::<SendState>().is_err() && "".parse::<SendState>().is_err());
        // Evidence cannot show that an outcome is unknown.
        assert!("unknown".parse::<Resolution>().is_err() && "intent".parse::<Resolution>().is_err());
    }

    #[test]
    fn a_send_key_survives_being_printed_and_parsed() {
        let key = SendKey([0xd1, 0x7a, 0x43, 7, 8, 0xfb, 0xb3, 0xb6, 0xa0, 0xe8, 0xff, 0xc7, 0x76, 0x8c, 0x1e, 0]);
        assert_eq!(key.to_string().parse(), Ok(key));
        for text in ["", "d17a", "d17a43078fbb3b6a0e8ffc7768c1e66g", "d17a43078fbb3b6a0e8ffc7768c1e6630"] {
            assert!(text.parse::<SendKey>().is_err(), "{text}");
        }
    }
}
