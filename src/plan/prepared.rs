//! A campaign that is ready to be planned.

use std::path::PathBuf;

use crate::domain::campaign::{Campaign, Rate};
use crate::domain::input::{AudienceInput, PoolInput};
use crate::render::Composer;

/// A campaign with its working forms, and what the command line and the ledger add to it.
#[derive(Debug)]
pub struct Prepared {
    /// The manifest's path, as the user would type it.
    pub path: PathBuf,
    /// The campaign.
    pub campaign: Campaign,
    /// The compiled texts.
    pub composer: Composer,
    /// The files of the audience.
    pub audience: AudienceInput,
    /// The file of the coupon pool, if the campaign has one.
    pub pool: Option<PoolInput>,
    /// The name that the campaign is recorded under: its first one, if it was renamed.
    pub record_name: String,
    /// The rate of the run: the campaign's own, or a lower one.
    pub rate: Rate,
}

impl std::ops::Deref for Prepared {
    type Target = Campaign;

    fn deref(&self) -> &Campaign {
        &self.campaign
    }
}

impl Prepared {
    /// A campaign that is sent at its own rate, and recorded under the name that its manifest knows.
    pub fn new(
        path: PathBuf,
        campaign: Campaign,
        composer: Composer,
        audience: AudienceInput,
        pool: Option<PoolInput>,
    ) -> Self {
        let (record_name, rate) = (campaign.record_name().to_owned(), campaign.delivery.rate);
        Self { path, campaign, composer, audience, pool, record_name, rate }
    }

    /// A source of the audience as messages name it.
    pub(super) fn source_name(&self, source: usize) -> String {
        self.audience.sources.get(source).map_or_else(String::new, ToString::to_string)
    }
}
