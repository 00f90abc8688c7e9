//! The offer: a code to copy, and the instant at which it ends.
//!
//! Nothing here reads a clock or a terminal: the instant of the plan and the moment of sending are
//! passed in.

pub mod codes;
pub mod coupon;
pub mod expiry;
pub mod pool;

pub use codes::CodeTable;
pub use coupon::{CodeError, CouponCode, Generator};
pub use expiry::{Expired, ExpiresAt, ExpiryRule, MessageExpiry};
pub use pool::{Pool, PoolAhead};
