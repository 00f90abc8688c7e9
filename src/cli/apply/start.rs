//! What a run says of itself when it starts.

use std::path::Path;
use std::time::Duration;

use super::context;
use crate::campaign::Campaign;
use crate::gateway::kaleyra::is_loopback;
use crate::ledger::RunStart;
use crate::plan::Built;
use crate::project;

/// How long connecting to the provider may take.
const CONNECTING: Duration = Duration::from_secs(10);

/// What a run of this plan says of itself.
pub(super) fn run_start(
    campaign: &Campaign,
    built: &Built,
    retry_rejected: bool,
    lease: Duration,
    sandbox: bool,
) -> RunStart {
    RunStart {
        campaign: campaign.record.clone(),
        edition: campaign.edition,
        name: campaign.name.clone(),
        plan_hash: built.hash.to_string(),
        planned_at: built.planned_at,
        manifest: manifest(campaign),
        destination: destination(campaign, sandbox),
        account: None,
        environment: None,
        unique_codes: context::has_unique_codes(campaign),
        recipients: built.file.recipients,
        sender: campaign.gateway.from.to_string(),
        interval: campaign.delivery.rate.interval(),
        retry_rejected,
        lease,
        longest_request: CONNECTING + campaign.gateway.timeout,
    }
}

/// The manifest's path below the project's root.
fn manifest(campaign: &Campaign) -> String {
    let current = std::env::current_dir().unwrap_or_default();
    let path = current.join(&campaign.path);
    let root = project::find(&campaign.path, &current).map(|project| project.root).unwrap_or_default();
    let below = path.strip_prefix(root).ok().or_else(|| path.file_name().map(Path::new)).unwrap_or(&path);
    let parts: Vec<_> = below.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.join("/")
}

/// Where messages go, as the record names it.
fn destination(campaign: &Campaign, sandbox: bool) -> String {
    if sandbox {
        return "sandbox".to_owned();
    }
    let url = &campaign.gateway.base_url;
    if is_loopback(url) {
        return "loopback".to_owned();
    }
    url.host_str().unwrap_or("none").to_owned()
}
