//! What `apply` refuses although the plan is the approved one.

use super::Exit;
use crate::campaign::{Campaign, Rate};
use crate::cli::Stop;

/// Sends at `rate` instead of the campaign's own. The approval covers the campaign's rate, so nothing may leave faster.
pub(super) fn slow_down(campaign: &mut Campaign, rate: Rate) -> Result<(), Stop> {
    let own = campaign.delivery.rate;
    if rate.interval() < own.interval() {
        return Err(Stop::new(Exit::Usage, format!("`--rate {rate}` is faster than the campaign's {own}"))
            .hint("`--rate` may only slow a run down; raise `delivery.rate` in the manifest, in review"));
    }
    campaign.delivery.rate = rate;
    Ok(())
}
