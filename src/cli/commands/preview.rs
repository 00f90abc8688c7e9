//! `sendform preview`

use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;

use crate::audience::source;
use crate::cli::args::LedgerArgs;
use crate::cli::args::VarArgs;
use crate::cli::clock;
use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::cli::session;
use crate::cli::session::locate::locate;
use crate::cli::ui::Ui;
use crate::domain::campaign::ExpirySpec;
use crate::domain::diagnostic::{Code, Diagnostics};
use crate::domain::expiry::in_zone;
use crate::domain::row::{Row, RowLocation, RowOrigin};
use crate::gateway::Request;
use crate::gateway::kaleyra::form;
use crate::gateway::kaleyra::multipart::Value;
use crate::plan::{Desired, Inputs, Item, Pass, Prepared, origin_and_path};

/// Show one rendered message and the exact request
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendform preview campaign.yaml
  sendform preview campaign.yaml --recipient 1042
  sendform preview campaign.yaml --recipient people.csv:12

The middle digits of the number, the SID and the key are hidden.")]
pub(crate) struct PreviewArgs {
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

pub(crate) fn run(ui: &Ui, args: &PreviewArgs) -> Result<Exit, CommandError> {
    let now = clock::now();
    let mut campaign = session::campaign(ui, &args.campaign, &args.vars.read()?, now)?;
    let located = locate(&args.ledger, args.ledger.sandbox, &args.campaign)?;
    let inputs = Inputs::open(&campaign);
    let session::Record { key, snapshot, .. } = session::runtime()?.block_on(session::read(&located, &mut campaign))?;
    let planned_at = snapshot.planned_at.unwrap_or(now);
    let pass = Pass::new(&campaign, inputs, &snapshot, key.as_ref(), planned_at, false)?;
    let wanted = match &args.recipient {
        None => None,
        Some(wanted) => Some(origins(&campaign, wanted)?),
    };
    let is_wanted = |origin: RowOrigin| wanted.as_ref().is_none_or(|origins| origins.contains(&origin));
    let mut found = None;
    // The first of the wanted rows that gets no message, and why.
    let mut blocked = None;
    pass.run(|item| {
        match item {
            Item::Desired(desired) if is_wanted(desired.origin) => {
                found = Some(desired);
                return ControlFlow::Break(());
            }
            Item::Blocked(row) if is_wanted(row.origin) && blocked.is_none() => blocked = Some(row),
            _ => {}
        }
        ControlFlow::Continue(())
    })?;
    let Some(desired) = found else {
        return Err(match (blocked, &args.recipient) {
            (Some(blocked), Some(_)) => {
                let why = blocked.detail.as_deref().unwrap_or_else(|| blocked.reason.words());
                let problem =
                    format!("`{}` is blocked: {} ({why})", name_of(&campaign, blocked.origin), blocked.reason.code());
                CommandError::new(Exit::Invalid, Code::RecipientBlocked, problem)
                    .hint("it gets no message, so there is none to show")
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

/// The rows of a recipient, who is named by FILE:LINE or by their id.
fn origins(campaign: &Prepared, wanted: &str) -> Result<Vec<RowOrigin>, CommandError> {
    let sources = &campaign.audience.sources;
    let mut origins = Vec::new();
    let mut names_a_file = false;
    for (position, spec) in sources.iter().enumerate() {
        let shown = spec.to_string();
        let line = wanted.strip_prefix(&shown).and_then(|rest| rest.strip_prefix(':')?.parse::<u64>().ok());
        names_a_file |= line.is_some();
        let mut source = source::open(spec).map_err(Diagnostics::from)?;
        let id = campaign.audience.id.as_deref().map(|column| source.require(column)).transpose();
        let id = id.map_err(Diagnostics::from)?;
        if id.is_none() && line.is_none() {
            continue;
        }
        let mut row = Row::new(Arc::clone(source.columns()));
        while let Some(location) = source.next(&mut row).map_err(Diagnostics::from)? {
            let has_id = id.is_some_and(|column| row.cell(column) == wanted);
            if line.map(RowLocation::Line) == Some(location) || has_id {
                origins.push(RowOrigin { source: position, location });
            }
        }
    }
    if !origins.is_empty() {
        return Ok(origins);
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

fn name_of(campaign: &Prepared, origin: RowOrigin) -> String {
    let source = campaign.audience.sources.get(origin.source).map(ToString::to_string);
    format!("{}:{}", source.unwrap_or_default(), origin.location)
}

fn describe(campaign: &Prepared, desired: &Desired, now: Timestamp) -> Result<String, CommandError> {
    let message = &desired.message;
    let expires = message.expiry.map(|expiry| expiry.at(now));
    let reference = Some(desired.key.to_string());
    let request = Request { to: vec![desired.address], message, expires, reference, lease: None };
    let spec = session::kaleyra(&campaign.gateway)?;
    let fields = form(&spec, &request, now)
        .map_err(|expired| CommandError::new(Exit::Invalid, Code::ExpiryInThePast, expired.to_string()))?;
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(out, "{}, {}\n", desired.address.masked(), name_of(campaign, desired.origin));
    let _ = writeln!(out, "  {}", message.template.offer_text);
    if let Some(expires) = expires {
        let _ =
            writeln!(out, "  Ends {}", in_zone(expires.instant(), campaign.expiry.as_ref().and_then(ExpirySpec::zone)));
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
