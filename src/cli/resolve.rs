//! `sendform resolve`

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::{Value, json};

use super::located::refuse_moved;
use super::ui::Ui;
use super::{Exit, Format, LedgerArgs, Stop, context};
use crate::ledger::protocol::{Finding, Verdict};
use crate::ledger::{Evidence, SendKey, Source, actor};
use crate::manifest::decisions;
use crate::plan::FORMAT_VERSION;

/// Settle sends whose outcome cannot be told, by a recorded decision
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendform sends list --state unknown
  sendform resolve 5f0c… --as accepted --reason 'in the console, 12:04'
  sendform sends list --state unknown --format decisions > decisions.yaml
  sendform resolve --file decisions.yaml         after somebody has filled it in and reviewed it

`--as not-sent` makes a send pending again, under a new attempt: it is sent by the next `apply`.
Whatever else is decided, it is never sent again.")]
pub struct ResolveArgs {
    /// The send, as `sends list` names it
    #[arg(required_unless_present = "file", conflicts_with = "file", value_name = "SEND")]
    send: Option<SendKey>,
    /// What became of it
    #[arg(long = "as", value_parser = verdict(), required_unless_present = "file", conflicts_with = "file", value_name = "WHAT")]
    verdict: Option<Verdict>,
    /// What the decision rests on; it is recorded
    #[arg(long, required_unless_present = "file", conflicts_with = "file")]
    reason: Option<String>,
    /// Many decisions, from a reviewed file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Who decides [default: the pipeline's user, or the machine's]
    #[arg(long)]
    actor: Option<String>,
    #[command(flatten)]
    ledger: LedgerArgs,
    /// How it is printed
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

fn verdict() -> impl TypedValueParser<Value = Verdict> {
    let names = Verdict::ALL.map(|verdict| verdict.state().as_str());
    PossibleValuesParser::new(names).map(|name| {
        Verdict::ALL.into_iter().find(|verdict| verdict.state().as_str() == name).unwrap_or(Verdict::Accepted)
    })
}

pub fn run(ui: &Ui, args: &ResolveArgs) -> Result<Exit, Stop> {
    let actor = args.actor.clone().unwrap_or_else(actor);
    let evidence = |key, attempt, verdict, reason: String| Evidence {
        key,
        attempt,
        verdict,
        message_id: None,
        source: Source::Decision,
        actor: actor.clone(),
        reason,
    };
    let evidence: Vec<Evidence> = match (&args.file, args.send, args.verdict, &args.reason) {
        (Some(file), ..) => decisions::load(file)?
            .into_iter()
            .map(|(key, reason, decision)| evidence(key, decision.attempt, decision.verdict, reason))
            .collect(),
        (None, Some(send), Some(verdict), Some(reason)) if !reason.trim().is_empty() => {
            vec![evidence(send, None, verdict, reason.clone())]
        }
        _ => return Err(Stop::new(Exit::Usage, "a decision needs a reason")),
    };
    let place = context::ledger_place(&args.ledger, args.ledger.sandbox, std::path::Path::new("."))?;
    let findings = context::runtime()?.block_on(async {
        let mut ledger = context::open_recorded(&place).await?;
        refuse_moved(ledger.as_mut(), &place).await?;
        Ok::<_, Stop>(ledger.evidence(&evidence).await?)
    })?;
    let settled = findings.iter().filter(|finding| **finding == Finding::Settled).count();
    let refused = findings.iter().filter(|finding| !matches!(finding, Finding::Settled | Finding::Already)).count();
    match args.format {
        Format::Json => {
            let list: Vec<Value> = evidence
                .iter()
                .zip(&findings)
                .map(|(piece, finding)| json!({ "send": piece.key.to_string(), "as": piece.verdict, "finding": finding, "told": told(*finding, piece.verdict) }))
                .collect();
            ui.data(&format!(
                "{:#}\n",
                json!({ "format_version": FORMAT_VERSION, "settled": settled, "refused": refused, "decisions": list })
            ));
        }
        Format::Text => {
            for (piece, finding) in evidence.iter().zip(&findings) {
                ui.data(&format!("{}  {}\n", piece.key, told(*finding, piece.verdict)));
            }
        }
    }
    if refused > 0 {
        return Err(Stop::new(Exit::Error, format!("{refused} of {} decisions were not recorded", findings.len()))
            .hint("a decision settles an unknown outcome and overrules no other; `sendform sends show SEND` tells what is recorded"));
    }
    Ok(Exit::Done)
}

fn told(finding: Finding, verdict: Verdict) -> String {
    match finding {
        Finding::Settled => match verdict {
            Verdict::Accepted => "settled: accepted; never sent again".to_owned(),
            Verdict::Rejected => "settled: rejected; not sent again unless `--retry-rejected` asks for it".to_owned(),
            Verdict::NotSent => "settled: not sent; pending again".to_owned(),
        },
        Finding::Already => "nothing to settle: that is what the record says".to_owned(),
        Finding::Contradicts(state) => format!("refused: its outcome is known: {state}"),
        Finding::UnderWay => "refused: its run is under way, and the outcome may still come".to_owned(),
        Finding::OtherAttempt(attempt) => format!("refused: the last attempt is {attempt}"),
        Finding::NotRecorded => "refused: nothing is recorded of it".to_owned(),
    }
}
