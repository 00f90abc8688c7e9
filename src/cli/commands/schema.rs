//! `sendform schema`

use clap::Args;

use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::cli::ui::Ui;
use crate::schemas;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendform schema > campaign.schema.json
  sendform schema gateway")]
pub(crate) struct SchemaArgs {
    /// campaign, project, plan, decisions, or a block: gateway, template, audience, coupons, expiry, delivery
    #[arg(default_value = "campaign")]
    kind: String,
}

pub(crate) fn run(ui: &Ui, args: &SchemaArgs) -> Result<Exit, CommandError> {
    let schema = schemas::get(&args.kind).ok_or_else(|| {
        CommandError::usage(format!("there is no schema `{}`", args.kind))
            .hint(format!("schemas: {}", schemas::KINDS.join(", ")))
    })?;
    ui.json(&schema)?;
    Ok(Exit::Done)
}
