//! Tests that need nothing but the program, filed by capability. Each runs it as a user would.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests write files, read the clock and print figures"
)]

#[path = "../support/mod.rs"]
mod support;

mod apply;
mod apply_in_process;
mod approval;
mod architecture;
mod audience;
mod bad_input;
mod data_files;
mod examples;
mod hardening;
mod identity;
mod manifest;
mod offer;
mod plan;
mod record;
mod replies;
mod sandbox;
mod which_ledger;
