//! Tests that every kind of ledger passes. Both test binaries include them: `it` runs them with SQLite,
//! `slow` with PostgreSQL, as their `LEDGER` says.

mod conformance;
pub mod generated_codes;
mod history;
mod identity;
mod lookup;
mod record;
pub mod stage;
pub mod unknown;
mod which_ledger;

use crate::support::{Kind, Project, Sandbox};

/// A project with a ledger of the kind that this binary tests.
pub fn project(sandbox: &Sandbox) -> Project {
    let mut project = Project::with_sandbox(sandbox);
    if crate::LEDGER == Kind::Postgres {
        project.on_postgres(&crate::support::postgres::shared().database());
    }
    project
}
