//! The sandbox: a stand-in for Kaleyra on loopback, over real HTTP.
//!
//! | module | does |
//! |---|---|
//! | [`kaleyra_v1`] | accepts or refuses a request as Kaleyra's documentation says, and reports to a callback |
//! | [`fault`] | fails in the ways in which a real provider fails |
//! | `server` | listens, keeps the accepted messages and serves them |
//! | `inbox` | shows them as a phone would |
//! | `guard` | refuses requests from other people's web pages |
//!
//! The sandbox never contacts anything but loopback.

mod connection;
pub mod fault;
mod guard;
mod inbox;
pub mod kaleyra_v1;
mod server;

pub use fault::{Fault, FaultRule, Faults};
pub use inbox::Preview;
pub use server::{API_KEY, Config, SID, Sandbox};
