//! `sendform status`

use std::path::Path;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::ui::Ui;
use super::{Exit, Format, LedgerArgs, Stop, context};
use crate::ledger::sqlite::{CampaignStatus, SqliteLedger};
use crate::plan::FORMAT_VERSION;
use crate::words::grouped;

/// Show what happened, from the ledger
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendform status
  sendform status campaign.yaml --format json
  sendform status diwali-gold")]
pub struct StatusArgs {
    /// A campaign, by its file or its name [default: all]
    campaign: Option<String>,
    #[command(flatten)]
    ledger: LedgerArgs,
    /// How it is printed
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

pub fn run(ui: &Ui, args: &StatusArgs) -> Result<Exit, Stop> {
    let as_path = args.campaign.as_deref().map(Path::new).filter(|path| path.is_file());
    let (name, edition) = match (as_path, &args.campaign) {
        (Some(path), _) => {
            let (name, edition) = identity(path)?;
            (Some(name), Some(edition))
        }
        (None, name) => (name.clone(), None),
    };
    let path = context::ledger_path(&args.ledger, args.ledger.sandbox, as_path.unwrap_or(Path::new(".")))?;
    let mut campaigns = match SqliteLedger::open_existing(&path, None)? {
        Some(ledger) => ledger.status(name.as_deref())?,
        None => Vec::new(),
    };
    if let Some(edition) = edition {
        campaigns.retain(|campaign| campaign.edition == edition);
    }
    match args.format {
        Format::Json if args.campaign.is_some() => {
            let mut value = match campaigns.first() {
                Some(campaign) => describe(campaign),
                None => {
                    json!({ "campaign": name, "edition": edition, "counts": counts(0, 0, 0, 0, 0), "last_run": null })
                }
            };
            value["format_version"] = Value::from(FORMAT_VERSION);
            ui.data(&format!("{value:#}\n"));
        }
        Format::Json => {
            let list: Vec<Value> = campaigns.iter().map(describe).collect();
            ui.data(&format!("{:#}\n", json!({ "format_version": FORMAT_VERSION, "campaigns": list })));
        }
        Format::Text if campaigns.is_empty() => ui.say(&format!("Nothing is recorded in {} yet", path.display())),
        Format::Text => campaigns.iter().for_each(|campaign| ui.data(&text(campaign))),
    }
    Ok(Exit::Done)
}

/// Name and edition of a manifest that may have other mistakes: what was sent stays true.
fn identity(path: &Path) -> Result<(String, u32), Stop> {
    let document = crate::manifest::read::read(path)?;
    let name = document.value["name"]
        .as_str()
        .ok_or_else(|| Stop::new(Exit::Invalid, format!("`{}` has no `name`", path.display())))?;
    let edition = document.value["edition"].as_u64().and_then(|edition| u32::try_from(edition).ok()).unwrap_or(1);
    Ok((name.to_owned(), edition))
}

fn pending(campaign: &CampaignStatus) -> u64 {
    campaign.recipients.saturating_sub(campaign.accepted + campaign.rejected + campaign.unknown + campaign.in_flight)
}

fn counts(accepted: u64, rejected: u64, unknown: u64, pending: u64, in_flight: u64) -> Value {
    json!({ "accepted": accepted, "rejected": rejected, "unknown": unknown, "pending": pending, "in_flight": in_flight })
}

fn describe(campaign: &CampaignStatus) -> Value {
    json!({
        "campaign": campaign.campaign,
        "edition": campaign.edition,
        "recipients": campaign.recipients,
        "counts": counts(campaign.accepted, campaign.rejected, campaign.unknown, pending(campaign), campaign.in_flight),
        "last_run": campaign.last_run,
    })
}

fn text(campaign: &CampaignStatus) -> String {
    let run = &campaign.last_run;
    let when = |instant: Timestamp| format!("{instant:.0}");
    let ended = match (&run.ending, run.ended_at) {
        (Some(ending), Some(at)) => format!("{ending} at {}", when(at)),
        _ if campaign.in_flight > 0 => "under way".to_owned(),
        _ => "did not get to say how it ended".to_owned(),
    };
    format!(
        "{}, edition {}\n  accepted  {:>11}\n  rejected  {:>11}\n  unknown   {:>11}\n  pending   {:>11}\n  Run {} by {} on {}, started {}\n      {ended}\n",
        campaign.campaign,
        campaign.edition,
        grouped(campaign.accepted),
        grouped(campaign.rejected),
        grouped(campaign.unknown),
        grouped(pending(campaign) + campaign.in_flight),
        run.id,
        run.actor,
        run.host,
        when(run.started_at),
    )
}
