//! One file for each command.

pub mod apply;
pub mod completions;
pub mod init;
pub mod ledger;
pub mod plan;
pub mod preview;
pub mod resolve;
pub mod sandbox;
pub mod schema;
pub mod sends;
pub mod status;
pub mod validate;
