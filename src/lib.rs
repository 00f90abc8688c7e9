//! Sendform: WhatsApp offers as code.
//!
//! # How data flows
//!
//! ```text
//!  campaign.yaml ─▶ manifest ─▶ audience ─▶ render ─▶ plan ─▶ apply ─▶ gateway ─▶ provider
//!                     rules       people      messages   ▲  hash   │
//!                                             coupons    └─ ledger ◀┘
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`project`] | finds the project that a campaign belongs to, its settings and its data directories |
//! | [`manifest`] | turns YAML into a checked campaign, or reports every mistake at once |
//! | [`audience`] | reads rows, normalises numbers, removes duplicates and suppressed people |
//! | [`coupons`] | takes codes from pools, or computes them |
//! | [`render`] | makes each recipient's message from a template and a row |
//! | [`plan`] | compares what should be sent with what is recorded, and computes the plan hash |
//! | [`apply`] | carries out an approved plan: claims, paces, sends, records |
//! | [`ledger`] | keeps the durable record, and grants each attempt once |
//! | [`gateway`] | speaks to the provider: Kaleyra |
//! | [`sandbox`] | stands in for the provider on loopback |
//! | [`schemas`] | lists the JSON Schemas of all files |
//! | [`cli`] | arguments, commands, output, exit codes: the only part that speaks to a person |
//!
//! Below all of them are [`domain`], the vocabulary without I/O, and [`util`]. A module uses only
//! modules that stand below it; a test holds the table of allowed imports.

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
pub mod schemas;
pub mod util;
