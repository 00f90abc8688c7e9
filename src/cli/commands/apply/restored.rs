//! A ledger that was restored from a backup lacks the sends that were recorded later. `apply` refuses a campaign
//! that lost some until `--forget-sends` names their number.

use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::cli::session;
use crate::domain::diagnostic::Code;
use crate::ledger::{FORGOTTEN_SENDS, LOSS_CONFIRMED, Ledger, LedgerError};
use crate::plan::Prepared;

/// How many sends of the campaign are forgotten; `None` if the user has confirmed it before.
async fn forgotten(ledger: &mut dyn Ledger, campaign: &Prepared) -> Result<Option<u64>, LedgerError> {
    let mut known = false;
    for name in session::names(campaign) {
        if let Some(value) = ledger.property(&format!("{FORGOTTEN_SENDS}{name}")).await? {
            known = true;
            if let Ok(sends) = value.parse() {
                return Ok(Some(sends));
            }
        }
    }
    // Of a campaign that the copy does not know at all, the same number may be forgotten.
    let any = if known { None } else { ledger.property(&format!("{FORGOTTEN_SENDS}*")).await? };
    Ok(any.and_then(|value| value.parse().ok()))
}

/// Refuses a campaign of which sends are forgotten, unless their number is given.
pub(super) async fn check(
    ledger: &mut dyn Ledger,
    campaign: &Prepared,
    given: Option<u64>,
) -> Result<(), CommandError> {
    match forgotten(ledger, campaign).await? {
        Some(sends) if given != Some(sends) => Err(CommandError::new(Exit::Error, Code::LedgerForgotSends,
            format!(
                "the ledger was restored from a backup that lacks up to {sends} sends of `{}`; nothing was sent",
                campaign.name
            ),
        )
        .hint(format!(
            "those recipients would get the offer again: exclude them, for example with a suppression list made from the provider's report, then pass `--forget-sends {sends}` once"
        ))),
        _ => Ok(()),
    }
}

/// Records that the user confirmed the loss, so that the campaign is not refused again.
pub(super) async fn confirm_loss(ledger: &mut dyn Ledger, campaign: &Prepared) -> Result<(), LedgerError> {
    if forgotten(ledger, campaign).await?.is_none() {
        return Ok(());
    }
    for name in session::names(campaign) {
        ledger.set_property(&format!("{FORGOTTEN_SENDS}{name}"), Some(LOSS_CONFIRMED)).await?;
    }
    Ok(())
}
