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
//! | [`domain`] | the vocabulary that all of them share |

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod apply;
pub mod audience;
pub mod campaign;
pub mod cli;
pub mod diagnostic;
pub mod domain;
pub mod files;
pub mod gateway;
pub mod handover;
pub mod hashed;
pub mod ledger;
pub mod manifest;
pub mod message;
pub mod offer;
pub mod plan;
pub mod project;
pub mod sandbox;
pub mod secret;
pub mod table;
pub mod words;
