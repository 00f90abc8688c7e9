//! The ledgers: one suite that each passes, the protocol explored, and what is PostgreSQL's alone.

mod conformance;
mod explore;
mod formats;
mod lookup;
mod postgres;
pub mod stage;
