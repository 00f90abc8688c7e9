//! `sendform sends`

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::path::Path;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};

use crate::cli::args::DataArgs;
use crate::cli::args::Format;
use crate::cli::args::LedgerArgs;
use crate::cli::campaign_argument;
use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::cli::output::FormatVersion;
use crate::cli::output::ledger::{SendJson, SendsListJson, SendsShowJson};
use crate::cli::recipients::{Row, Rows};
use crate::cli::session;
use crate::cli::ui::Ui;
use crate::domain::diagnostic::Code;
use crate::domain::phone::E164;
use crate::ledger::query::{self, SendRecord};
use crate::ledger::{Contradiction, JournalEntry, Ledger, RunRecord, SendKey, SendState};
use crate::util::human::one_line;

/// List sends, or show everything that is recorded of one
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendform sends list campaign.yaml --state unknown     with the file and line of each row
  sendform sends list campaign.yaml --to +919876543210
  sendform sends show 5f0c0d8f6a3b4c2e9d1f00112233aabb")]
pub(crate) struct SendsArgs {
    #[command(subcommand)]
    command: SendsCommand,
}

#[derive(Debug, Subcommand)]
enum SendsCommand {
    /// List sends and their states
    List(ListArgs),
    /// Show everything that is recorded of one send: who sent it, when, and under which plan
    Show(ShowArgs),
}

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ListFormat {
    Text,
    Json,
    /// A file for `resolve --file`, to be filled in and reviewed
    Decisions,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Campaign file or name [default: all]. With the file and the ledger's key, the row of each recipient
    /// is shown
    campaign: Option<String>,
    /// Filter by state
    #[arg(long, value_parser = state())]
    state: Option<SendState>,
    /// Filter by run
    #[arg(long)]
    run: Option<i64>,
    /// Filter by phone number; needs the ledger's key
    #[arg(long, value_name = "NUMBER")]
    to: Option<String>,
    /// Maximum number of sends to list
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    ledger: LedgerArgs,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    format: ListFormat,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// Key of the send, from `sends list`; Kaleyra's reports and receipts contain it as `ref`
    send: SendKey,
    #[command(flatten)]
    ledger: LedgerArgs,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

fn state() -> impl TypedValueParser<Value = SendState> {
    PossibleValuesParser::new(SendState::ALL.map(SendState::as_str)).try_map(|name| name.parse::<SendState>())
}

pub(crate) fn run(ui: &Ui, args: &SendsArgs) -> Result<Exit, CommandError> {
    let runtime = session::runtime()?;
    match &args.command {
        SendsCommand::List(args) => runtime.block_on(list(ui, args)),
        SendsCommand::Show(args) => runtime.block_on(show(ui, args)),
    }
}

async fn list(ui: &Ui, args: &ListArgs) -> Result<Exit, CommandError> {
    let (start, name, edition) = campaign_argument::parse(args.campaign.as_deref())?;
    let place = session::ledger_place(&args.ledger, args.ledger.sandbox, &start)?;
    let mut ledger = session::open_recorded(&place).await?;
    let keys = match &args.to {
        Some(number) => Some(keys_of(ledger.as_mut(), &place, number).await?),
        None => None,
    };
    let mut sends = query::sends(ledger.as_mut(), name.as_deref(), |key| {
        keys.as_ref().is_none_or(|keys: &HashSet<SendKey>| keys.contains(key))
    })
    .await?;
    sends.retain(|send| {
        args.state.is_none_or(|state| send.state == state)
            && args.run.is_none_or(|run| send.run == run)
            && edition.is_none_or(|edition| send.edition == edition)
    });
    let found = sends.len();
    sends.truncate(args.limit.unwrap_or(usize::MAX));
    // A campaign that is named by its file has an audience.
    let rows = match edition {
        Some(_) if !sends.is_empty() => {
            let runs = ledger.runs().await?;
            let listed: HashSet<i64> = sends.iter().map(|send| send.run).collect();
            let runs: Vec<&RunRecord> = runs.iter().filter(|run| listed.contains(&run.id)).collect();
            let wanted = sends.iter().map(|send| send.last.key).collect();
            Rows::find(ui, &place, &start, &args.data.directories(), &runs, &wanted).await?
        }
        _ => None,
    };
    let rows = rows.as_ref();
    match args.format {
        ListFormat::Json => {
            let sends = sends.iter().map(|send| SendJson::new(send, rows.map(|rows| rows.of(&send.last.key))));
            ui.json(&SendsListJson { format_version: FormatVersion::SENDS_LIST, found, sends: sends.collect() })?;
        }
        ListFormat::Text => {
            for send in &sends {
                ui.data(&line(send, rows))?;
            }
            if sends.is_empty() {
                ui.say("No sends match");
            }
        }
        ListFormat::Decisions => ui.data(&decisions(&sends, rows)?)?,
    }
    if sends.len() < found {
        ui.say(&format!("{} more sends match; raise `--limit` to list them", found - sends.len()));
    }
    Ok(Exit::Done)
}

/// The sends of one person under every campaign of the ledger.
async fn keys_of(
    ledger: &mut dyn Ledger,
    place: &crate::ledger::LedgerLocation,
    number: &str,
) -> Result<HashSet<SendKey>, CommandError> {
    let address = E164::parse_exact(number).ok_or_else(|| {
        CommandError::usage(format!("`{number}` is not a phone number"))
            .hint("write it with its country code, such as `+919876543210`")
    })?;
    let key = session::key_of_recorded(place).await?;
    let runs = ledger.runs().await?;
    let scopes: HashSet<(String, u32)> = runs.into_iter().map(|run| (run.campaign, run.edition)).collect();
    Ok(scopes.into_iter().map(|(campaign, edition)| key.send_keys(&campaign, edition).of(address.identity())).collect())
}

fn line(send: &SendRecord, rows: Option<&Rows>) -> String {
    let told = send.last.reason().or(send.last.message_id()).unwrap_or_default();
    let told = one_line(told);
    let row = rows.map_or_else(String::new, |rows| format!("  {}", one_line(&in_words(rows.of(&send.last.key)))));
    format!("{}  {:<9} {:<17} {}{row}  {told}\n", send.last.key, send.state.to_string(), send.masked, send.campaign)
}

fn in_words(row: Row) -> String {
    match row {
        Row::At(place) => place,
        Row::Gone => "no longer in the audience".to_owned(),
        Row::NotFound => "row not found".to_owned(),
    }
}

/// A file for `resolve --file` in which a person fills in each decision.
fn decisions(sends: &[SendRecord], rows: Option<&Rows>) -> Result<String, CommandError> {
    if let Some(send) = sends.iter().find(|send| send.state != SendState::Unknown) {
        return Err(CommandError::usage(format!(
            "the send {} is {}, and only an unknown send can be decided",
            send.last.key, send.state
        ))
        .hint("add `--state unknown`"));
    }
    let mut out = String::from(
        "# For each send, write what the provider's report says: `accepted`, `rejected`, or `not-sent` (it is sent again).\n\
         # Then: sendform resolve --file THIS_FILE\n\
         apiVersion: sendform/v1\nkind: Decisions\nreason: \"\"\ndecisions:\n",
    );
    for send in sends {
        // Each on one line of the comment: none may end it.
        let told = one_line(send.last.reason().unwrap_or_default());
        let row = rows.map_or_else(String::new, |rows| format!(", {}", one_line(&in_words(rows.of(&send.last.key)))));
        let _ = write!(
            out,
            "  # {} of {}{row}, {}: {told}\n  - send: \"{}\"\n    attempt: {}\n    as: # accepted, rejected or not-sent\n",
            one_line(&send.masked),
            one_line(&send.campaign),
            query::time(send.last.at),
            send.last.key,
            send.last.attempt
        );
    }
    Ok(out)
}

async fn show(ui: &Ui, args: &ShowArgs) -> Result<Exit, CommandError> {
    let place = session::ledger_place(&args.ledger, args.ledger.sandbox, Path::new("."))?;
    let mut ledger = session::open_recorded(&place).await?;
    let entries = query::history(ledger.as_mut(), args.send).await?;
    if entries.is_empty() {
        return Err(CommandError::new(
            Exit::Error,
            Code::NothingRecorded,
            format!("nothing is recorded of the send {}", args.send),
        ));
    }
    let runs: HashMap<i64, RunRecord> = ledger.runs().await?.into_iter().map(|run| (run.id, run)).collect();
    let contradictions = query::contradictions(ledger.as_mut(), args.send).await?;
    match args.format {
        Format::Json => {
            let mut ids: Vec<i64> = entries.iter().map(|entry| entry.run).collect();
            ids.dedup();
            let of_entries = ids.iter().filter_map(|id| runs.get(id));
            ui.json(&SendsShowJson::new(args.send, &entries, of_entries, &contradictions))?;
        }
        Format::Text => ui.data(&story(args.send, &entries, &runs, &contradictions))?,
    }
    Ok(Exit::Done)
}

fn story(
    key: SendKey,
    entries: &[JournalEntry],
    runs: &HashMap<i64, RunRecord>,
    contradictions: &[Contradiction],
) -> String {
    let mut out = format!("Send {key}\n");
    for entry in entries {
        let _ = write!(out, "\n  {}  attempt {}  {}", query::time(entry.at), entry.attempt, entry.state());
        if let Some(intent) = entry.intent() {
            let coupon = if intent.coupon.is_some() { ", with a code" } else { "" };
            let _ = writeln!(out, " to {}{coupon}", intent.masked.as_deref().unwrap_or("an unknown number"));
            if let Some(run) = runs.get(&entry.run) {
                let _ = writeln!(
                    out,
                    "    run {} of {}, edition {}, by {} on {} (sendform {})\n    plan {}",
                    run.id, run.name, run.edition, run.actor, run.host, run.version, run.plan_hash
                );
            }
        } else {
            let _ = writeln!(out);
        }
        if let Some(id) = entry.message_id() {
            let _ = writeln!(out, "    message id {}", one_line(id));
        }
        if let Some(reason) = entry.reason() {
            let _ = writeln!(out, "    {}", one_line(reason));
        }
        if let (Some(source), Some(actor)) = (entry.source(), entry.actor()) {
            let _ = writeln!(out, "    {source} of {}", one_line(actor));
        }
    }
    for found in contradictions {
        let _ = writeln!(out, "\n  {}  contradiction\n    {}", query::time(found.at), found.sentence());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{JournalEntry, JournalKind};

    #[test]
    fn a_reason_cannot_add_an_entry_to_the_decisions_file() {
        for line_break in ["\n", "\r", "\u{85}", "\u{2028}", "\u{2029}", "\u{b}", "\u{c}"] {
            let reason = format!("no answer{line_break}  - send: \"{}\"{line_break}    as: not-sent", "0".repeat(32));
            let kind = JournalKind::Settlement { state: SendState::Unknown, message_id: None, reason: Some(reason) };
            let last = JournalEntry { seq: 1, run: 1, at: 0, key: SendKey([7; 16]), attempt: 1, kind };
            let masked = "+91••••••••10".to_owned();
            let send =
                SendRecord { campaign: "offer".into(), edition: 1, state: SendState::Unknown, last, masked, run: 1 };
            let file = decisions(&[send], None).unwrap();
            let document: serde_json::Value = serde_yaml::from_str(&file).unwrap();
            let entries = document["decisions"].as_array().unwrap();
            assert_eq!(entries.len(), 1, "{file}");
            assert_eq!(entries[0]["send"], "07".repeat(16));
            assert!(!file.contains(['\u{85}', '\u{2028}', '\u{2029}', '\r']), "{file:?}");
        }
    }
}
