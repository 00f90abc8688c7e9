//! Tests that need nothing but the program, filed by capability. Each runs it as a user would.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    unreachable_pub,
    reason = "tests write files, read the clock, print figures and share modules"
)]

#[path = "../support/mod.rs"]
mod support;

#[path = "../each_ledger/mod.rs"]
mod each_ledger;

mod apply;
mod apply_in_process;
mod approval;
mod architecture;
mod audience;
mod bad_input;
mod data_files;
mod docs;
mod examples;
mod fixtures;
mod formats;
mod hardening;
mod identity;
mod ledger_files;
mod machine_output;
mod manifest;
mod offer;
mod outputs;
mod plan;
mod record;
mod replies;
mod sandbox;
mod which_ledger;
mod wire;

/// The kind of ledger with which `each_ledger` runs here.
const LEDGER: support::Kind = support::Kind::Sqlite;
