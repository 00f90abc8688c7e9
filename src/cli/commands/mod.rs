//! One file for each command.

pub(super) mod apply;
pub(super) mod completions;
pub(super) mod init;
pub(super) mod ledger;
pub(super) mod plan;
pub(super) mod preview;
pub(super) mod resolve;
pub(super) mod sandbox;
pub(super) mod schema;
pub(super) mod sends;
pub(super) mod status;
pub(super) mod validate;
