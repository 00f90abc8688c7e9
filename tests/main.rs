//! Black-box tests, filed by capability. Each runs the program as a user would.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests write files, read the clock and print figures"
)]

mod support;

mod apply;
mod approval;
mod architecture;
mod audience;
mod bad_input;
mod data_files;
mod examples;
mod hardening;
mod identity;
mod kaleyra;
mod late_answers;
mod ledger;
mod manifest;
mod offer;
mod plan;
mod record;
mod replies;
mod sandbox;
mod stopping;
mod torture;
mod which_ledger;
mod wire;
