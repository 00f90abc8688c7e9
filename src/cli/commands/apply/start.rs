//! What a run says of itself when it starts.

use std::time::Duration;

use crate::cli::{env, owner};
use crate::ledger::RunStart;
use crate::plan::{Built, Prepared};

/// What a run of this plan says of itself.
pub(super) fn run_start(
    campaign: &Prepared,
    built: &Built,
    account: Option<String>,
    lease: Duration,
    sandbox: bool,
    longest_request: Duration,
) -> RunStart {
    RunStart {
        campaign: campaign.record_name.clone(),
        edition: campaign.edition,
        name: campaign.name.clone(),
        plan_hash: built.hash.to_string(),
        planned_at: built.planned_at,
        manifest: owner::manifest_path(campaign),
        destination: campaign.gateway.destination(sandbox),
        account,
        environment: None,
        unique_codes: campaign.has_unique_codes(),
        recipients: built.file.recipients,
        sender: campaign.gateway.sender.to_string(),
        interval: campaign.rate.interval(),
        retry_rejected: built.file.retry_rejected,
        lease,
        host: env::host(),
        actor: env::actor(),
        longest_request,
    }
}
