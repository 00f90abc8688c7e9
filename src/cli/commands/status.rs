//! `sendform status`

use clap::Args;

use crate::cli::args::Format;
use crate::cli::args::LedgerArgs;
use crate::cli::campaign_argument;
use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::cli::output::ledger::{CountsJson, StatusJson};
use crate::cli::session;
use crate::cli::ui::Ui;
use crate::ledger::RunRecord;
use crate::ledger::query::{self, CampaignStatus};
use crate::util::human::grouped;

/// Show what the ledger has recorded of each campaign
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendform status
  sendform status campaign.yaml --format json
  sendform status diwali-gold")]
pub(crate) struct StatusArgs {
    /// Campaign file or name [default: all]
    campaign: Option<String>,
    #[command(flatten)]
    ledger: LedgerArgs,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

pub(crate) fn run(ui: &Ui, args: &StatusArgs) -> Result<Exit, CommandError> {
    let (start, name, edition) = campaign_argument::parse(args.campaign.as_deref())?;
    let place = session::ledger_place(&args.ledger, args.ledger.sandbox, &start)?;
    let mut campaigns = session::runtime()?.block_on(async {
        match place.open(&session::operator(), None).await? {
            Some(mut ledger) => query::status(ledger.as_mut(), name.as_deref()).await,
            None => Ok(Vec::new()),
        }
    })?;
    if let Some(edition) = edition {
        campaigns.retain(|campaign| campaign.edition == edition);
    }
    match args.format {
        Format::Json if args.campaign.is_some() => ui.json(&StatusJson::one(name, edition, campaigns.first()))?,
        Format::Json => ui.json(&StatusJson::all(&campaigns))?,
        Format::Text if campaigns.is_empty() => ui.say(&format!("Nothing is recorded in {place} yet")),
        Format::Text => ui.data(&campaigns.iter().map(text).collect::<String>())?,
    }
    Ok(Exit::Done)
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
        grouped(CountsJson::from(campaign).pending),
    );
    let contradictions = &campaign.contradictions;
    if !contradictions.is_empty() {
        out.push_str(&format!(
            "  contradictions {:>6}: results that the record could not follow\n",
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
        _ => "ended without recording how".to_owned(),
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
