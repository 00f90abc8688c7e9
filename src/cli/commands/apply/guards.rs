//! What `apply` refuses although the plan is the approved one.

use secrecy::{ExposeSecret, SecretString};

use super::ApplyArgs;
use crate::cli::env;
use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::cli::owner;
use crate::domain::campaign::Rate;
use crate::domain::diagnostic::Code;
use crate::ledger::{LedgerKey, LedgerLocation, RunRecord};
use crate::plan::{Built, Prepared};

/// Sends at `rate` instead of the campaign's own. The approval covers the campaign's rate, so nothing may leave faster.
pub(super) fn slow_down(campaign: &mut Prepared, rate: Rate) -> Result<(), CommandError> {
    let own = campaign.delivery.rate;
    if rate.interval() < own.interval() {
        return Err(CommandError::usage(format!("`--rate {rate}` is faster than the campaign's {own}")).hint(
            "`--rate` can only lower the rate; to raise it, change `delivery.rate` in the manifest and review the plan",
        ));
    }
    campaign.rate = rate;
    Ok(())
}

/// Refuses a plan that repeats another campaign.
pub(super) fn refuse_repeats(built: &Built, args: &ApplyArgs) -> Result<(), CommandError> {
    let Some(repeats) = built.file.repeats.as_ref().filter(|repeats| repeats.need_permission && !args.allow_repeat)
    else {
        return Ok(());
    };
    let (campaign, people) = (&repeats.campaign, crate::util::human::grouped(repeats.people));
    let message = format!(
        "{people} of {} recipients had the same message from the campaign `{campaign}`{}; nothing was sent",
        crate::util::human::grouped(repeats.of),
        if repeats.same == repeats.people { "" } else { " and others" }
    );
    Err(CommandError::new(Exit::Error, Code::RepeatedMessage, message).hint(format!(
        "a renamed campaign needs `moved: {{ from: {campaign} }}`, or its name `{campaign}` back if something was sent under the new one; to send the message again on purpose, pass `--allow-repeat`"
    )))
}

/// Fingerprints the account that messages go out from, and refuses another than before.
pub(super) fn check_account(
    runs: &[RunRecord],
    campaign: &Prepared,
    key: &LedgerKey,
    sid: Option<&SecretString>,
    args: &ApplyArgs,
) -> Result<Option<String>, CommandError> {
    let account = sid.map(|sid| key.account_fingerprint(sid.expose_secret()));
    let subject = owner::Subject { account, ..owner::subject(campaign, sid.is_none()) };
    owner::check(runs, &subject, args.owner)?;
    Ok(subject.account)
}

/// Refuses a ledger on the disk of a pipeline job, which is deleted with the job.
pub(super) fn require_durable_ledger_in_ci(place: &LedgerLocation, fine: bool) -> Result<(), CommandError> {
    match (place.local_file(), env::pipeline()) {
        (Some(path), Some(variable)) if !fine => Err(CommandError::new(Exit::Error, Code::LedgerOnEphemeralDisk,
            format!(
                "the ledger `{}` is on this runner's disk, which is deleted with the job (`{variable}` is set); nothing was sent",
                path.display()
            ),
        )
        .hint(
            "without its ledger, the next job would send everything again: use `--ledger postgres://…`, or keep the ledger on a persistent disk and pass `--ledger-is-durable`",
        )),
        _ => Ok(()),
    }
}
