//! Tests that take long or need servers, root or other programs. `tests/run` installs those and runs everything.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests write files, read the clock and print figures"
)]

#[path = "../support/mod.rs"]
mod support;

mod kaleyra;
mod late_answers;
mod ledger;
mod stopping;
mod torture;
mod wire;
