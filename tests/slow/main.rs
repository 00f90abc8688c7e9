//! Tests that take long or need servers, root or other programs. `tests/run` installs those and runs everything.

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

mod disks;
mod explore;
mod formats;
mod hostile_files;
mod kaleyra;
mod late_answers;
mod moves;
mod owners;
mod postgres;
mod rate;
mod stopping;
mod torture;
mod wire;

/// The kind of ledger with which `each_ledger` runs here.
const LEDGER: support::Kind = support::Kind::Postgres;
