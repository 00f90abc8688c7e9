//! `sendform resolve`

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::cli::args::Format;
use crate::cli::args::LedgerArgs;
use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::cli::output::FormatVersion;
use crate::cli::output::ledger::{DecisionJson, ResolveJson};
use crate::cli::session::locate::refuse_moved;
use crate::cli::ui::Ui;
use crate::cli::{env, session};
use crate::domain::diagnostic::Code;
use crate::domain::send::Resolution;
use crate::ledger::protocol::Finding;
use crate::ledger::{Evidence, EvidenceSource, Ledger, LostSend, RunRecord, SendKey, SendState, query};
use crate::manifest::decisions;
use crate::util::human;

/// Record decisions about sends whose outcome is unknown
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendform sends list --state unknown
  sendform resolve 5f0c… --as accepted --reason 'in the console, 12:04'
  sendform sends list --state unknown --format decisions > decisions.yaml
  sendform resolve --file decisions.yaml         after somebody has filled it in and reviewed it

`--as not-sent` makes a send pending again, under a new attempt: the next `apply` sends it. After any other
decision it is never sent again. `not-sent` and `rejected` are refused while the answer may still come.")]
pub(crate) struct ResolveArgs {
    /// Send key, as `sends list` prints it
    #[arg(required_unless_present = "file", conflicts_with = "file", value_name = "SEND")]
    send: Option<SendKey>,
    /// Outcome to record
    #[arg(long = "as", value_parser = resolution(), required_unless_present = "file", conflicts_with = "file", value_name = "WHAT")]
    resolution: Option<Resolution>,
    /// Reason, recorded in the ledger
    #[arg(long, required_unless_present = "file", conflicts_with = "file")]
    reason: Option<String>,
    /// File with reviewed decisions
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Decide although the answer may still come; a message that did arrive may then be sent twice
    #[arg(long)]
    force: bool,
    /// Who decides [default: the pipeline's user, else the machine's]
    #[arg(long)]
    actor: Option<String>,
    #[command(flatten)]
    ledger: LedgerArgs,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

fn resolution() -> impl TypedValueParser<Value = Resolution> {
    let names = Resolution::ALL.map(|resolution| resolution.state().as_str());
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Resolution>())
}

pub(crate) fn run(ui: &Ui, args: &ResolveArgs) -> Result<Exit, CommandError> {
    let actor = args.actor.clone().unwrap_or_else(env::actor);
    let mut decisions = Decisions::default();
    match (&args.file, args.send, args.resolution, &args.reason) {
        (Some(file), ..) => decisions::load(file)?.into_iter().for_each(|checked| decisions.add(checked, &actor)),
        (None, Some(send), Some(resolution), Some(reason)) if !reason.trim().is_empty() => {
            decisions.evidence.push(Evidence {
                key: send,
                attempt: None,
                resolution,
                message_id: None,
                source: EvidenceSource::Decision,
                actor,
                reason: reason.clone(),
            });
        }
        _ => return Err(CommandError::usage("a decision needs a reason")),
    }
    let place = session::ledger_place(&args.ledger, args.ledger.sandbox, std::path::Path::new("."))?;
    let Decisions { evidence, lost } = decisions;
    let (findings, restored) = session::runtime()?.block_on(async {
        let mut ledger = session::open_recorded(&place).await?;
        refuse_moved(ledger.as_mut(), &place).await?;
        if !args.force {
            refuse_early(ledger.as_mut(), &evidence).await?;
        }
        let restored = if lost.is_empty() { Vec::new() } else { ledger.restore_sends(&lost).await? };
        let findings = if evidence.is_empty() { Vec::new() } else { ledger.record_evidence(&evidence).await? };
        Ok::<_, CommandError>((findings, restored))
    })?;
    let decided: Vec<Decided> = evidence
        .iter()
        .zip(findings)
        .map(|(piece, finding)| Decided { key: piece.key, state: piece.resolution.state(), finding, lost: false })
        .chain(lost.iter().zip(restored).map(|(send, finding)| Decided {
            key: send.intent.key,
            state: send.outcome,
            finding,
            lost: true,
        }))
        .collect();
    show(ui, args.format, &decided)
}

/// The decisions of one command.
#[derive(Default)]
struct Decisions {
    evidence: Vec<Evidence>,
    lost: Vec<LostSend>,
}

impl Decisions {
    fn add(&mut self, checked: decisions::Checked, actor: &str) {
        let decisions::Checked { key, reason, attempt, decided, message_id, lost } = checked;
        let actor = actor.to_owned();
        match (lost, decided.resolution()) {
            (Some((lost, intent)), _) => self.lost.push(LostSend {
                campaign: lost.campaign,
                edition: lost.edition,
                run: lost.run,
                planned_at: lost.planned_at,
                intent,
                unique_code: lost.unique_code,
                outcome: decided.state(),
                message_id,
                actor,
                reason,
            }),
            (None, Some(resolution)) => self.evidence.push(Evidence {
                key,
                attempt,
                resolution,
                message_id,
                source: EvidenceSource::Decision,
                actor,
                reason,
            }),
            (None, None) => {}
        }
    }
}

/// Refuses to record a send as rejected or not sent while a request of its run may be under way.
async fn refuse_early(ledger: &mut dyn Ledger, evidence: &[Evidence]) -> Result<(), CommandError> {
    let keys: HashSet<SendKey> =
        evidence.iter().filter(|piece| piece.resolution != Resolution::Accepted).map(|piece| piece.key).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let runs: HashMap<i64, RunRecord> = ledger.runs().await?.into_iter().map(|run| (run.id, run)).collect();
    let sends = query::sends(ledger, None, |key| keys.contains(key)).await?;
    let doubtful = sends.iter().filter(|send| matches!(send.state, SendState::Intent | SendState::Unknown));
    // The ledger itself refuses decisions about an intent whose run is under way.
    let decidable = |send: &query::SendRecord, run: &RunRecord| !run.live || send.state == SendState::Unknown;
    let early =
        doubtful.filter_map(|send| runs.get(&send.run).filter(|run| decidable(send, run)).map(|run| (send, run)));
    let Some((send, run)) =
        early.max_by_key(|(_, run)| run.may_live_for()).filter(|(_, run)| !run.may_live_for().is_zero())
    else {
        return Ok(());
    };
    Err(CommandError::new(Exit::Error, Code::AnswerMayCome,
        format!(
            "the answer to the send {} may still come: run {} gave its last sign of life {} ago; nothing was recorded",
            send.last.key,
            run.id,
            human::duration(human::whole_seconds(run.silent))
        ),
    )
    .hint(format!(
        "wait {}: then no request of that run can be under way, and the provider's report is final; `--force` decides now",
        human::duration(human::whole_seconds(run.may_live_for()))
    )))
}

/// The result of a decision.
struct Decided {
    key: SendKey,
    state: SendState,
    finding: Finding,
    /// Whether the ledger had lost the send.
    lost: bool,
}

fn show(ui: &Ui, format: Format, list: &[Decided]) -> Result<Exit, CommandError> {
    let findings: Vec<Finding> = list.iter().map(|decided| decided.finding).collect();
    let settled = findings.iter().filter(|finding| **finding == Finding::Settled).count();
    let kept = |decided: &&Decided| {
        matches!(decided.finding, Finding::Settled | Finding::Already)
            || decided.lost && matches!(decided.finding, Finding::Contradicts(_))
    };
    let refused = list.len() - list.iter().filter(kept).count();
    match format {
        Format::Json => {
            let decisions = list.iter().map(|decided| DecisionJson {
                send: decided.key.to_string(),
                decided: decided.state,
                finding: decided.finding,
                told: decided.sentence(),
            });
            let decisions = decisions.collect();
            ui.json(&ResolveJson { format_version: FormatVersion::RESOLVE, settled, refused, decisions })?;
        }
        Format::Text => {
            for decided in list {
                ui.data(&format!("{}  {}\n", decided.key, decided.sentence()))?;
            }
        }
    }
    if refused > 0 {
        return Err(CommandError::new(
            Exit::Error,
            Code::DecisionRefused,
            format!("{refused} of {} decisions were not recorded", findings.len()),
        )
        .hint("a decision can only settle an unknown outcome; `sendform sends show SEND` shows what is recorded"));
    }
    Ok(Exit::Done)
}

impl Decided {
    fn sentence(&self) -> String {
        match self.finding {
            Finding::Settled => match self.state {
                SendState::Accepted => "settled: accepted; never sent again".to_owned(),
                SendState::Rejected => {
                    "settled: rejected; not sent again unless `--retry-rejected` asks for it".to_owned()
                }
                SendState::NotSent => "settled: not sent; pending again".to_owned(),
                state => format!("recorded: {state}; never sent again by itself"),
            },
            Finding::Contradicts(state) if self.lost => {
                format!(
                    "kept as a contradiction: the record says {state}; the recipient may have got the message twice"
                )
            }
            finding => refused(finding),
        }
    }
}

fn refused(finding: Finding) -> String {
    match finding {
        Finding::Settled => "settled".to_owned(),
        Finding::Already => "already recorded".to_owned(),
        Finding::Contradicts(state) => format!("refused: the outcome is known: {state}"),
        Finding::UnderWay => "refused: its run is under way, and the outcome may still come".to_owned(),
        Finding::OtherAttempt(attempt) => format!("refused: the last attempt is {attempt}"),
        Finding::NotRecorded => "refused: the ledger does not hold this send".to_owned(),
    }
}
