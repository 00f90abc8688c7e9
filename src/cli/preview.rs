//! `sendform preview`

use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;

use super::ui::Ui;
use super::{Exit, LedgerArgs, Stop, VarArgs, context};
use crate::campaign::Campaign;
use crate::gateway::Request;
use crate::gateway::kaleyra::multipart::Value;
use crate::gateway::kaleyra::v1::form;
use crate::plan::{Desired, Item, Pass};

/// Show one rendered message and the exact request
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendform preview campaign.yaml
  sendform preview campaign.yaml --recipient 1042
  sendform preview campaign.yaml --recipient people.csv:12

The number's middle is hidden, and so are the SID and the key.")]
pub struct PreviewArgs {
    /// The campaign
    campaign: PathBuf,
    /// Who: the value of the column `audience.id`, or FILE:LINE [default: the first]
    #[arg(long, value_name = "ID")]
    recipient: Option<String>,
    #[command(flatten)]
    vars: VarArgs,
    #[command(flatten)]
    ledger: LedgerArgs,
}

pub fn run(ui: &Ui, args: &PreviewArgs) -> Result<Exit, Stop> {
    let now = Timestamp::now();
    let mut campaign = context::campaign(ui, &args.campaign, &context::given(&args.vars)?, now)?;
    let place = context::ledger_place(&args.ledger, args.ledger.sandbox, &args.campaign)?;
    let pool = context::pool_ahead(&campaign);
    let context::Record { key, snapshot, .. } = context::runtime()?.block_on(context::read(&place, &mut campaign))?;
    let planned_at = snapshot.planned_at.unwrap_or(now);
    let pass = Pass::new(&campaign, &snapshot, &key, planned_at, false, pool)?;
    let wanted = |desired: &Desired| match &args.recipient {
        None => true,
        Some(wanted) => {
            let id = campaign.audience.id.as_deref().and_then(|column| desired.row.get(column));
            id == Some(wanted.as_str()) || row(&campaign, desired) == *wanted
        }
    };
    let mut found = None;
    pass.run(|item| match item {
        Item::Desired(desired) if wanted(&desired) => {
            found = Some(desired);
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    })?;
    let Some(desired) = found else {
        let hint = match (&args.recipient, &campaign.audience.id) {
            (None, _) => "`sendform plan --list-blocked` tells why each row gets none",
            (Some(_), None) => "name a row as FILE:LINE, or set `audience.id` to the column that holds ids",
            (Some(_), Some(_)) => "it may be left out: see `sendform plan --list-blocked`",
        };
        return Err(Stop::new(Exit::Error, "there is no such recipient with a message").hint(hint));
    };
    ui.data(&describe(&campaign, &desired, now)?);
    Ok(Exit::Done)
}

fn row(campaign: &Campaign, desired: &Desired) -> String {
    let file = campaign.audience.sources.get(desired.place.source).map(|source| source.path.display().to_string());
    format!("{}:{}", file.unwrap_or_default(), desired.place.line)
}

fn describe(campaign: &Campaign, desired: &Desired, now: Timestamp) -> Result<String, Stop> {
    let message = &desired.message;
    let expires = message.expiry.map(|expiry| expiry.at(now));
    let reference = Some(desired.key.to_string());
    let request = Request { to: vec![desired.address], message, expires, reference, lease: None };
    let fields =
        form(&campaign.gateway, &request, now).map_err(|expired| Stop::new(Exit::Invalid, expired.to_string()))?;
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(out, "{}, {}\n", desired.address.masked(), row(campaign, desired));
    let _ = writeln!(out, "  {}", message.template.offer_text);
    if let Some(expires) = expires {
        let _ = writeln!(out, "  Ends {expires}");
    }
    let _ = writeln!(out, "\n  {}\n", message.body().replace('\n', "\n  "));
    let _ = writeln!(
        out,
        "  [ Copy code: {} ]\n  [ {}: {} ]\n",
        message.coupon.expose(),
        message.template.button_label,
        message.button_url()
    );
    let _ = writeln!(out, "POST {}v1/•••/messages\napi-key: •••\n", campaign.gateway.base_url);
    for (name, value) in fields {
        let value = match value {
            Value::Text(_) if name == "to" => desired.address.masked(),
            Value::Text(text) => text.into_owned(),
            Value::File { name, mime, content } => format!("@{name} ({mime}, {} bytes)", content.len()),
        };
        let _ = writeln!(out, "{name:<20} {value}");
    }
    Ok(out)
}
