//! Sendform: WhatsApp offers as code.
//!
//! Data flows one way; a module never uses one that stands above it in this list.
//!
//! ```text
//! manifest ──▶ audience ──▶ message ──▶ plan ──▶ apply ──▶ gateway ──▶ provider
//!  (YAML)      (recipients)  (rendered)   ▲  hash    │
//!                                         └─ ledger ◀┘
//! ```
//!
//! | module | is for |
//! |---|---|
//! | [`cli`] | arguments, commands, output, exit codes |
//! | [`manifest`] | YAML to a checked [`campaign::Campaign`], or every mistake at once |
//! | [`apply`] | the engine: claim, pace, send, settle |
//! | [`plan`] | desired minus recorded, its hash and its faces |
//! | [`campaign`] | a campaign with every value checked |
//! | [`ledger`] | the durable record, and the gate that a send passes once |
//! | [`gateway`] | the provider: Kaleyra |
//! | [`message`] | what one recipient gets |
//! | [`offer`] | coupons and expiry |
//! | [`audience`] | rows in, people out |
//! | [`sandbox`] | a stand-in for the provider, on loopback |

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "unit tests write files and read the clock"))]

#[cfg(not(unix))]
compile_error!(
    "Sendform needs a Unix system: it relies on file owners, inode numbers, file locks and signals. It is tested on \
     Linux. On Windows, use WSL 2."
);

pub mod apply;
pub mod audience;
pub mod cli;
pub mod coupons;
pub mod domain;
pub mod gateway;
pub mod ledger;
pub mod manifest;
pub mod plan;
pub mod project;
pub mod render;
pub mod sandbox;
pub mod util;
