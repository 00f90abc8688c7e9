//! The vocabulary: values with their rules. No asynchronous code.

#![warn(missing_docs)]

pub mod campaign;
pub mod canonical;
pub mod clock;
pub mod coupon;
pub mod diagnostic;
pub mod expiry;
pub mod input;
pub mod lease;
pub mod media;
pub mod message;
pub mod phone;
pub mod row;
pub mod secret;
pub mod send;
