//! `sendform schema`

use clap::Args;

use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::ui::Ui;
use crate::schemas;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendform schema > campaign.schema.json
  sendform schema gateway
  sendform schema status                    what `status --format json` prints

Kinds of files: campaign, project, plan, decisions, and the blocks gateway, template, audience, coupons,
expiry and delivery.
Kinds of output: validate, status, sends-list, sends-show, resolve, ledger-check, and ledger-export, of
which each line is a document.")]
pub(crate) struct SchemaArgs {
    /// The kind of file or output
    #[arg(default_value = "campaign")]
    kind: String,
}

pub(crate) fn run(ui: &Ui, args: &SchemaArgs) -> Result<Exit, CommandError> {
    let schema = schemas::get(&args.kind).or_else(|| output::schema(&args.kind)).ok_or_else(|| {
        let kinds: Vec<_> = schemas::KINDS.into_iter().chain(output::KINDS).collect();
        CommandError::usage(format!("there is no schema `{}`", args.kind))
            .hint(format!("schemas: {}", kinds.join(", ")))
    })?;
    ui.json(&schema)?;
    Ok(Exit::Done)
}
