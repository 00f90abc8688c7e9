//! What was approved before this command, and how it differs from the plan as it is now.

use super::ApplyArgs;
use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::domain::diagnostic::Code;
use crate::plan::fingerprint::{self, Options};
use crate::plan::{Built, NotAPlanHash, PlanFile, PlanHash};
use crate::util::fs::read_regular;
use crate::util::human::grouped;

/// The largest plan file that is read. A plan lists at most each row that gets no message.
const MAX_PLAN_FILE: u64 = 1 << 30;

/// A plan file, a hash, or nothing.
pub(super) struct Approval {
    pub(super) file: Option<PlanFile>,
    pub(super) hash: Option<PlanHash>,
}

impl Approval {
    /// Reads `--plan` and `--plan-hash`.
    pub(super) fn read(args: &ApplyArgs) -> Result<Self, CommandError> {
        let file = match &args.plan {
            None => None,
            Some(path) => {
                let shown = path.display();
                let unreadable = |problem: String| {
                    CommandError::new(
                        Exit::Invalid,
                        Code::InvalidPlanFile,
                        format!("cannot read the plan `{shown}`: {problem}"),
                    )
                };
                let content =
                    read_regular(path, MAX_PLAN_FILE).map_err(|error| unreadable(error.to_string()).source(error))?;
                let text = String::from_utf8(content).map_err(|_| unreadable("it is not UTF-8".to_owned()))?;
                let hint = "make a new one with `sendform plan CAMPAIGN --out FILE`";
                Some(PlanFile::parse(&text).map_err(|problem| {
                    CommandError::new(
                        Exit::Invalid,
                        Code::InvalidPlanFile,
                        format!("cannot use the plan `{shown}`: {problem}"),
                    )
                    .hint(hint)
                })?)
            }
        };
        let parse = |text: &str, exit| {
            text.parse::<PlanHash>().map_err(|problem| match problem {
                NotAPlanHash::Older(_) => {
                    CommandError::new(Exit::PlanMismatch, Code::InvalidPlanHash, format!("{problem}; nothing was sent"))
                        .hint("run `sendform plan` again, and have the new plan approved")
                }
                NotAPlanHash::Other(_) => CommandError::new(exit, Code::InvalidPlanHash, problem.to_string()),
            })
        };
        let of_file = file.as_ref().map(|plan| parse(&plan.hash, Exit::Invalid)).transpose()?;
        let given = args.plan_hash.as_deref().map(|text| parse(text, Exit::Usage)).transpose()?;
        if let (Some(of_file), Some(given)) = (&of_file, &given)
            && of_file != given
        {
            return Err(CommandError::new(
                Exit::PlanMismatch,
                Code::PlanMismatch,
                format!("the plan file has the hash {of_file}, and `--plan-hash` is {given}"),
            ));
        }
        Ok(Self { file, hash: of_file.or(given) })
    }

    /// Refuses a plan that is not the approved one, and names what changed as far as the approval tells.
    pub(super) fn check(&self, built: &Built) -> Result<(), CommandError> {
        match &self.hash {
            Some(approved) if *approved != built.hash => Err(differs(approved, built, self.file.as_ref())),
            _ => Ok(()),
        }
    }
}

fn differs(approved: &PlanHash, built: &Built, file: Option<&PlanFile>) -> CommandError {
    let words = match file {
        Some(old) => {
            let changes = changes(old, &built.file);
            if changes.is_empty() { "something that the plan does not list".to_owned() } else { changes.join("; ") }
        }
        None => guess(approved, built),
    };
    CommandError::new(
        Exit::PlanMismatch,
        Code::PlanMismatch,
        format!("this is not the plan that was approved; nothing was sent. Changed: {words}"),
    )
    .hint(format!("review the plan as it is now: its hash is {}", built.hash))
}

/// What differs between two plans.
fn changes(old: &PlanFile, new: &PlanFile) -> Vec<String> {
    let mut changes = fingerprint::changes(&old.campaign_fields, &new.campaign_fields);
    let named = !changes.is_empty();
    if !named && old.digests.campaign != new.digests.campaign {
        changes.push("a field of the campaign whose value the plan hides".to_owned());
    }
    let before = changes.len();
    let mut compare = |what: &str, old: String, new: String| {
        if old != new {
            changes.push(format!("{what}: {old} then, {new} now"));
        }
    };
    compare("recipients", grouped(old.recipients), grouped(new.recipients));
    let end = |plan: &PlanFile| {
        plan.expiry.as_ref().and_then(|expiry| expiry.at).map_or_else(|| "none".to_owned(), |at| format!("{at:.0}"))
    };
    compare("expiry", end(old), end(new));
    let blocked = |plan: &PlanFile| {
        plan.blocked_reasons
            .iter()
            .map(|(reason, number)| format!("{} {number}", reason.code()))
            .collect::<Vec<_>>()
            .join(", ")
    };
    compare("left out", blocked(old), blocked(new));
    if old.digests.messages != new.digests.messages && changes.len() == before {
        let what = if named { "the messages" } else { "the messages: a text, a code, a number, or media" };
        changes.push(what.to_owned());
    }
    changes
}

/// What may differ from a plan of which only the hash is known.
fn guess(approved: &PlanHash, built: &Built) -> String {
    let plan = &built.file;
    let options = |sandbox, retry_rejected| Options { sandbox, retry_rejected };
    let is = options(plan.sandbox, plan.retry_rejected);
    let others = [
        (options(is.sandbox, !is.retry_rejected), "`--retry-rejected`"),
        (options(!is.sandbox, is.retry_rejected), "`--sandbox`"),
    ];
    for (other, flag) in others {
        let hash = PlanHash::over(&built.messages, &built.fingerprint.digest(other), approved.planned_at);
        if hash.digest == approved.digest {
            let set = if other.sandbox && !is.sandbox || other.retry_rejected && !is.retry_rejected {
                "with"
            } else {
                "without"
            };
            return format!("the approved plan was made {set} {flag}");
        }
    }
    if approved.planned_at != built.hash.planned_at && approved.digest == built.hash.digest {
        return "the instant that the expiry counts from".to_owned();
    }
    let short = |digest: &str| digest.chars().take(8).collect::<String>();
    format!(
        "the messages, if the approved plan does not say `messages {}`; the campaign, if it does not say `campaign {}`",
        short(&plan.digests.messages),
        short(&plan.digests.campaign)
    )
}
