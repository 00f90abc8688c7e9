//! The vocabulary: values with their rules. No asynchronous code.

pub mod campaign;
pub mod canonical;
pub mod clock;
pub mod coupon;
pub mod diagnostic;
pub mod expiry;
pub mod lease;
pub mod media;
pub mod message;
pub mod phone;
pub mod secret;
pub mod send;
