//! What a run says of itself when it starts.

use std::time::Duration;

use crate::cli::{env, owner, session};
use crate::domain::campaign::Campaign;
use crate::ledger::RunStart;
use crate::plan::Built;

/// What a run of this plan says of itself.
pub(super) fn run_start(
    campaign: &Campaign,
    built: &Built,
    account: Option<String>,
    lease: Duration,
    sandbox: bool,
) -> RunStart {
    RunStart {
        campaign: campaign.record.clone(),
        edition: campaign.edition,
        name: campaign.name.clone(),
        plan_hash: built.hash.to_string(),
        planned_at: built.planned_at,
        manifest: owner::manifest_path(campaign),
        destination: campaign.destination(sandbox),
        account,
        environment: None,
        unique_codes: session::has_unique_codes(campaign),
        recipients: built.file.recipients,
        sender: campaign.gateway.from.to_string(),
        interval: campaign.delivery.rate.interval(),
        retry_rejected: built.file.retry_rejected,
        lease,
        host: env::host(),
        actor: env::actor(),
        longest_request: campaign.gateway.longest_request(campaign.composer.uploads()),
    }
}
