//! The plan: what is desired minus what is recorded.
//!
//! [`pass`] streams the audience once and says of each person what they would get and where their
//! send stands. [`build`] counts that, and hashes it. `apply` makes the same pass twice: once to
//! see that the plan is the approved one, once to send, and the second time each message must be
//! one that the first has hashed.
//!
//! # The hash
//!
//! The hash covers two digests. The *messages* digest covers, in sorted order, each desired message with its
//! recipient: sent or not, with coupons and expiry resolved as of the plan. The *campaign* digest covers every field
//! of the campaign that decides how messages are sent, such as the provider's host, the account and the rate
//! ([`fingerprint`]). So the hash stays the same while the plan is applied and after a crash, is the same on every
//! machine, and does not depend on the order of rows, comments or paths. It is written `v2:` and 64 hexadecimal digits;
//! where the expiry counts from the plan, `@` and the plan's instant follow, so that the hash alone is enough to apply
//! it.
//!
//! The plan holds no phone number, no coupon and no key.

pub mod block;
pub mod build;
pub mod desired;
pub mod file;
pub mod fingerprint;
mod hash;
pub mod load;
pub mod owner;
mod prepared;
pub mod rename_guard;
pub mod view;

pub use block::{BlockReason, Blocked};
pub use build::{Approved, Basis, Built, PlanError, build};
pub use desired::{Desired, Item, Pass, SendStatus, ToSend};
pub use file::{FORMAT_VERSION, PlanFile};
pub use hash::{NotAPlanHash, PlanHash};
pub use load::Inputs;
pub use prepared::Prepared;

/// A URL as it may be shown: its user, its password and its query may hold a token.
pub fn origin_and_path(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(url) => format!("{}{}", url.origin().ascii_serialization(), url.path()),
        Err(_) => "a URL".to_owned(),
    }
}
