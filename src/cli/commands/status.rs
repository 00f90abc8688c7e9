//! `sendform status`

use clap::Args;
use serde_json::{Value, json};

use crate::cli::args::Format;
use crate::cli::args::LedgerArgs;
use crate::cli::campaign_argument;
use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::cli::session;
use crate::cli::ui::Ui;
use crate::ledger::RunRecord;
use crate::ledger::contradiction::ContradictionJson;
use crate::ledger::report::{self, CampaignStatus};
use crate::plan::FORMAT_VERSION;
use crate::util::human::grouped;

/// Show what happened, from the ledger
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendform status
  sendform status campaign.yaml --format json
  sendform status diwali-gold")]
pub(crate) struct StatusArgs {
    /// A campaign, by its file or its name [default: all]
    campaign: Option<String>,
    #[command(flatten)]
    ledger: LedgerArgs,
    /// How it is printed
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

pub(crate) fn run(ui: &Ui, args: &StatusArgs) -> Result<Exit, CommandError> {
    let (start, name, edition) = campaign_argument::parse(args.campaign.as_deref())?;
    let place = session::ledger_place(&args.ledger, args.ledger.sandbox, &start)?;
    let mut campaigns = session::runtime()?.block_on(async {
        match place.open(None).await? {
            Some(mut ledger) => report::status(ledger.as_mut(), name.as_deref()).await,
            None => Ok(Vec::new()),
        }
    })?;
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
            ui.data(&format!("{value:#}\n"))?;
        }
        Format::Json => {
            let list: Vec<Value> = campaigns.iter().map(describe).collect();
            ui.data(&format!("{:#}\n", json!({ "format_version": FORMAT_VERSION, "campaigns": list })))?;
        }
        Format::Text if campaigns.is_empty() => ui.say(&format!("Nothing is recorded in {place} yet")),
        Format::Text => ui.data(&campaigns.iter().map(text).collect::<String>())?,
    }
    Ok(Exit::Done)
}

/// Without an outcome: not started yet, or under way.
fn pending(campaign: &CampaignStatus) -> u64 {
    campaign.recipients.saturating_sub(campaign.accepted + campaign.rejected + campaign.unknown)
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
        "contradictions": campaign.contradictions.iter().map(ContradictionJson::from).collect::<Vec<_>>(),
        "last_run": campaign.runs.first(),
        "runs": campaign.runs,
    })
}

/// How many contradictions are listed one by one.
const MOST_CONTRADICTIONS: usize = 20;

/// How many runs are told one by one.
const MOST_RUNS: usize = 5;

fn text(campaign: &CampaignStatus) -> String {
    let mut out = format!(
        "{}, edition {}\n  accepted  {:>11}\n  rejected  {:>11}\n  unknown   {:>11}\n  pending   {:>11}\n",
        campaign.campaign,
        campaign.edition,
        grouped(campaign.accepted),
        grouped(campaign.rejected),
        grouped(campaign.unknown),
        grouped(pending(campaign)),
    );
    let contradictions = &campaign.contradictions;
    if !contradictions.is_empty() {
        out.push_str(&format!(
            "  contradictions {:>6}: what a run saw and the record could not follow\n",
            contradictions.len()
        ));
    }
    for found in contradictions.iter().take(MOST_CONTRADICTIONS) {
        out.push_str(&format!("    send {}: {}\n", found.key, found.sentence()));
    }
    if contradictions.len() > MOST_CONTRADICTIONS {
        out.push_str("    and more; `--format json` has all\n");
    }
    campaign.runs.iter().take(MOST_RUNS).for_each(|run| out.push_str(&run_text(run)));
    let more = campaign.runs.len().saturating_sub(MOST_RUNS);
    if more > 0 {
        out.push_str(&format!("  and {more} earlier runs; `--format json` has all\n"));
    }
    out
}

fn run_text(run: &RunRecord) -> String {
    let ended = match (&run.ending, run.ended_at, run.heartbeat_at) {
        (Some(ending), Some(at), _) => format!("{ending} at {at:.0}"),
        (_, _, Some(at)) if run.live => format!("under way, last heartbeat {at:.0}"),
        _ if run.live => "under way".to_owned(),
        _ => "did not get to say how it ended".to_owned(),
    };
    let counts = run.counts.unwrap_or_default();
    let mut figures = vec![format!("{} accepted", grouped(counts.accepted))];
    for (name, number) in [("rejected", counts.rejected), ("unknown", counts.unknown)] {
        if number > 0 {
            figures.push(format!("{} {name}", grouped(number)));
        }
    }
    format!(
        "  Run {} by {} on {}, started {:.0}\n      {ended}: {}\n      plan {}\n",
        run.id,
        run.actor,
        run.host,
        run.started_at,
        figures.join(", "),
        run.plan_hash
    )
}
