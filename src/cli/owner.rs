//! For `plan` and `apply`: the check that the recorded sends belong to this campaign and this provider.

use clap::Args;

use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::domain::diagnostic::Code;
use crate::ledger::RunRecord;
use crate::plan::Prepared;
pub(super) use crate::plan::owner::Subject;
use crate::plan::owner::{self, Allowed};
use crate::project;

/// Confirmations of a plan that does not fit the record.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct OwnerArgs {
    /// Confirm that the provider moved to another host since the campaign was last sent
    #[arg(long)]
    gateway_moved: bool,
    /// Confirm that it is the same campaign although its file, sender or account has changed
    #[arg(long)]
    allow_same_name: bool,
}

/// The properties of a plan that are compared with the record.
pub(crate) fn subject(campaign: &Prepared, sandbox: bool) -> Subject {
    Subject {
        record: campaign.record_name.clone(),
        edition: campaign.edition,
        manifest: manifest_path(campaign),
        destination: campaign.gateway.destination(sandbox),
        sender: campaign.gateway.sender.to_string(),
        account: None,
    }
}

/// Refuses a plan whose record belongs to another campaign or host.
pub(super) fn check(runs: &[RunRecord], subject: &Subject, args: OwnerArgs) -> Result<(), CommandError> {
    let allowed = Allowed { gateway_moved: args.gateway_moved, same_name: args.allow_same_name };
    owner::check(runs, subject, allowed).map_err(|refused| {
        CommandError::new(Exit::Error, Code::CampaignMismatch, format!("{refused}; nothing was sent"))
            .hint(refused.hint())
    })
}

/// A manifest's path below the project's root, with `/`, whatever links lead to it.
pub(super) fn manifest_path(campaign: &Prepared) -> String {
    let current = std::env::current_dir().unwrap_or_default();
    project::find(&campaign.path, &current)
        .map_or_else(|_| campaign.path.display().to_string(), |project| project.path_below(&campaign.path))
}
