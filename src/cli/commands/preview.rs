//! `sendform preview`

use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;

use crate::audience::RowPlace;
use crate::audience::source::csv::Table;
use crate::cli::args::LedgerArgs;
use crate::cli::args::VarArgs;
use crate::cli::clock;
use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::cli::session;
use crate::cli::session::locate::locate;
use crate::cli::ui::Ui;
use crate::domain::campaign::Campaign;
use crate::domain::diagnostic::{Code, Diagnostics};
use crate::domain::expiry::in_zone;
use crate::gateway::Request;
use crate::gateway::kaleyra::multipart::Value;
use crate::gateway::kaleyra::v1::form;
use crate::plan::{Desired, Item, Pass, origin_and_path};

/// Show one rendered message and the exact request
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendform preview campaign.yaml
  sendform preview campaign.yaml --recipient 1042
  sendform preview campaign.yaml --recipient people.csv:12

The middle digits of the number, the SID and the key are hidden.")]
pub struct PreviewArgs {
    /// Campaign file
    campaign: PathBuf,
    /// Recipient: a value of the column `audience.id`, or FILE:LINE [default: the first recipient]
    #[arg(long, value_name = "ID")]
    recipient: Option<String>,
    #[command(flatten)]
    vars: VarArgs,
    #[command(flatten)]
    ledger: LedgerArgs,
}

pub fn run(ui: &Ui, args: &PreviewArgs) -> Result<Exit, CommandError> {
    let now = clock::now();
    let mut campaign = session::campaign(ui, &args.campaign, &args.vars.read()?, now)?;
    let located = locate(&args.ledger, args.ledger.sandbox, &args.campaign)?;
    let pool = session::pool_ahead(&campaign);
    let session::Record { key, snapshot, .. } = session::runtime()?.block_on(session::read(&located, &mut campaign))?;
    let planned_at = snapshot.planned_at.unwrap_or(now);
    let pass = Pass::new(&campaign, &snapshot, key.as_ref(), planned_at, false, pool)?;
    let wanted = match &args.recipient {
        None => None,
        Some(wanted) => Some(places(&campaign, wanted)?),
    };
    let is_wanted = |place: RowPlace| wanted.as_ref().is_none_or(|places| places.contains(&place));
    let mut found = None;
    // The first of the wanted rows that gets no message, and why.
    let mut blocked = None;
    pass.run(|item| {
        match item {
            Item::Desired(desired) if is_wanted(desired.place) => {
                found = Some(desired);
                return ControlFlow::Break(());
            }
            Item::LeftOut(left_out) if is_wanted(left_out.place) && blocked.is_none() => blocked = Some(left_out),
            _ => {}
        }
        ControlFlow::Continue(())
    })?;
    let Some(desired) = found else {
        return Err(match (blocked, &args.recipient) {
            (Some(left_out), Some(_)) => {
                let why = left_out.detail.as_deref().unwrap_or_else(|| left_out.reason.words());
                let problem =
                    format!("`{}` is blocked: {} ({why})", row(&campaign, left_out.place), left_out.reason.code());
                CommandError::new(Exit::Invalid, Code::RecipientBlocked, problem).hint("this row gets no message")
            }
            (None, Some(_)) => CommandError::new(
                Exit::Invalid,
                Code::RecipientBlocked,
                "no coupon code is left for this row, so it gets no message",
            ),
            (_, None) => CommandError::new(Exit::Invalid, Code::NobodyLeft, "nobody gets a message")
                .hint("`sendform plan --list-blocked` shows the reason for each row"),
        });
    };
    ui.data(&describe(&campaign, &desired, now)?)?;
    Ok(Exit::Done)
}

/// The rows of a recipient: the one at FILE:LINE, or those that hold this id.
fn places(campaign: &Campaign, wanted: &str) -> Result<Vec<RowPlace>, CommandError> {
    let sources = &campaign.audience.sources;
    let mut places = Vec::new();
    let mut names_a_file = false;
    for (source, spec) in sources.iter().enumerate() {
        let shown = spec.path.display().to_string();
        let line = wanted.strip_prefix(&shown).and_then(|rest| rest.strip_prefix(':')?.parse::<u64>().ok());
        names_a_file |= line.is_some();
        let mut table = Table::open(&spec.path, spec.delimiter, spec.multiline).map_err(Diagnostics::from)?;
        let id = campaign.audience.id.as_deref().map(|column| table.require(column)).transpose();
        let id = id.map_err(Diagnostics::from)?;
        if id.is_none() && line.is_none() {
            continue;
        }
        let mut record = csv::StringRecord::new();
        while let Some(at) = table.next(&mut record).map_err(Diagnostics::from)? {
            let has_id = id.and_then(|column| record.get(column)) == Some(wanted);
            if line == Some(at) || has_id {
                places.push(RowPlace { source, line: at });
            }
        }
    }
    if !places.is_empty() {
        return Ok(places);
    }
    let stop = |problem: String| CommandError::new(Exit::Invalid, Code::RecipientNotFound, problem);
    Err(match &campaign.audience.id {
        _ if names_a_file => stop(format!("there is no row at `{wanted}`")).hint("line 1 is the header"),
        Some(column) => stop(format!("no row has `{wanted}` in the column `{column}`"))
            .hint("pass FILE:LINE, or a value of that column"),
        None => stop(format!("`{wanted}` is not FILE:LINE of one of the audience's files"))
            .hint("such as `people.csv:12`; or set `audience.id` to the column that holds ids"),
    })
}

fn row(campaign: &Campaign, place: RowPlace) -> String {
    let file = campaign.audience.sources.get(place.source).map(|source| source.path.display().to_string());
    format!("{}:{}", file.unwrap_or_default(), place.line)
}

fn describe(campaign: &Campaign, desired: &Desired, now: Timestamp) -> Result<String, CommandError> {
    let message = &desired.message;
    let expires = message.expiry.map(|expiry| expiry.at(now));
    let reference = Some(desired.key.to_string());
    let request = Request { to: vec![desired.address], message, expires, reference, lease: None };
    let fields = form(&campaign.gateway, &request, now)
        .map_err(|expired| CommandError::new(Exit::Invalid, Code::ExpiryInThePast, expired.to_string()))?;
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(out, "{}, {}\n", desired.address.masked(), row(campaign, desired.place));
    let _ = writeln!(out, "  {}", message.template.offer_text);
    if let Some(expires) = expires {
        let _ = writeln!(out, "  Ends {}", in_zone(expires.instant(), campaign.zone.as_deref()));
    }
    let _ = writeln!(out, "\n  {}\n", message.body().replace('\n', "\n  "));
    let _ = writeln!(
        out,
        "  [ Copy code: {} ]\n  [ {}: {} ]\n",
        message.coupon.expose(),
        message.template.button_label,
        message.button_url()
    );
    // A query in it is sent along and may hold a token, too.
    let address = origin_and_path(campaign.gateway.base_url.as_str());
    let _ = writeln!(out, "POST {}/v1/•••/messages\napi-key: •••\n", address.trim_end_matches('/'));
    for (name, value) in fields {
        let value = match value {
            Value::Text(_) if name == "to" => desired.address.masked(),
            Value::Text(text) if name == "callback_url" => {
                let shown = origin_and_path(&text);
                if shown == text { shown } else { format!("{shown} (the rest is hidden)") }
            }
            Value::Text(text) => text.into_owned(),
            Value::File { name, mime, content } => format!("@{name} ({mime}, {} bytes)", content.len()),
        };
        let _ = writeln!(out, "{name:<20} {value}");
    }
    Ok(out)
}
