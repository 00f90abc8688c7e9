//! The plan as a document: what `plan --format json` prints and `plan --out` writes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::block::BlockReason;
use super::{fingerprint, origin_and_path, rename_guard};
use crate::domain::campaign::{Callback, GatewaySpec};
use crate::domain::secret::SecretRef;
use crate::ledger::Head;
use crate::util::human::grouped;

/// The version of the plan's machine-readable form: minor adds, major breaks.
pub const FORMAT_VERSION: &str = "2.0";

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How many rows stand where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Would be sent.
    pub send: u64,
    /// Were sent: the provider took them.
    pub sent: u64,
    /// Were sent, with other content than the campaign has now. They are not sent again.
    pub drifted: u64,
    /// Wait for a later time, or are in the hands of a run that is under way.
    pub deferred: u64,
    /// Get no message; `blocked_reasons` tells why.
    pub blocked: u64,
    /// Were started, and cannot be told to have been sent or not.
    pub unknown: u64,
}

/// What one recipient would get, with the number masked and the code hidden.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// The number with its middle hidden.
    pub to: String,
    /// The file and line of the row.
    pub row: String,
    /// The template, by its key in the manifest.
    pub template: String,
    /// How many parameters fill the body. The text itself is in `sendform preview`, since it may name the person.
    pub params: usize,
}

/// A row that gets no message.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct BlockedRow {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: u64,
    /// The reason, as in `blocked_reasons`.
    pub reason: BlockReason,
    /// More about it. Holds nothing of the row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// How much was read from a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceRows {
    /// The file.
    pub file: String,
    /// How many rows were read.
    pub rows: u64,
}

/// How much was read from a suppression list, and whom it leaves out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SuppressRows {
    /// The file.
    pub file: String,
    /// How many rows were read.
    pub rows: u64,
    /// How many rows had no number and were passed over, as `invalid: skip` says.
    pub skipped: u64,
    /// How many rows of the audience it excludes.
    pub matched: u64,
    /// How many rows of the audience are on the list, and are excluded by `where` before it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub filtered: u64,
}

impl SuppressRows {
    /// Whether no row of the audience is on the list.
    pub fn matches_nobody(&self) -> bool {
        self.matched == 0 && self.filtered == 0
    }
}

/// The kinds of coupons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CouponKind {
    /// One code for all.
    Code,
    /// The next code of a list.
    Pool,
    /// Codes that are computed from a secret key.
    Generate,
}

/// The coupons of a plan.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct CouponSummary {
    /// The kind of coupons.
    pub kind: CouponKind,
    /// How many codes this plan would give away.
    pub needed: u64,
    /// How many codes could be given away before it; for a pool only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free: Option<u64>,
}

/// The expiry of a plan.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ExpirySummary {
    /// The instant at which every offer ends, unless each counts from its own send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// The time zone that the manifest writes that instant in: an IANA name, or an offset such as `+05:30`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// How long each offer runs, in seconds, if it counts from its own send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_send_seconds: Option<u64>,
    /// How long, in seconds, the offer must still run when a message leaves.
    pub at_least_seconds: u64,
}

/// The two digests that the hash covers, as 64 hexadecimal digits each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Digests {
    /// Over all messages with their recipients.
    pub messages: String,
    /// Over the fields of the campaign.
    pub campaign: String,
}

/// Where messages go, and from whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Destination {
    /// The provider's host, with its port unless it is the usual one; `sandbox` for the embedded sandbox.
    pub host: String,
    /// Where the account's SID is read from, such as `KALEYRA_SID`. The sandbox needs no account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The last four digits of the number that messages come from.
    pub sender: String,
    /// Where the provider reports what became of each message: a URL without its query, or a profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callback: Option<String>,
}

impl Destination {
    pub(super) fn of(gateway: &GatewaySpec, sandbox: bool) -> Self {
        let host = match gateway.base_url.port() {
            _ if sandbox => "sandbox".to_owned(),
            Some(port) => format!("{}:{port}", gateway.base_url.host_str().unwrap_or_default()),
            None => gateway.base_url.host_str().unwrap_or_default().to_owned(),
        };
        // The path as it is written: the resolved one depends on the machine.
        let account = gateway.account().map(|secret| match secret {
            SecretRef::Env(name) => name.clone(),
            SecretRef::File { written, .. } => format!("file {written}"),
            SecretRef::Exec(words) => format!("command {}", words.first().map_or("", String::as_str)),
        });
        let callback = gateway.callback.as_ref().map(|callback| match callback {
            Callback::ProfileId(id) => format!("profile {id}"),
            Callback::Url(url) => origin_and_path(url),
        });
        Self {
            host,
            account: account.filter(|_| !sandbox),
            sender: fingerprint::last_digits(&gateway.sender.to_string()).to_owned(),
            callback,
        }
    }
}

/// A plan, as `plan --format json` prints it and `plan --out` writes it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PlanFile {
    /// `2.0`: minor adds, major breaks.
    pub format_version: String,
    /// The version of the program that made it.
    pub sendform_version: String,
    /// The campaign.
    pub campaign: String,
    /// Its edition.
    pub edition: u32,
    /// Its manifest, absolute, for `apply --plan`.
    pub manifest: String,
    /// The values of its variables.
    pub vars: BTreeMap<String, serde_json::Value>,
    /// Whether it was made for the sandbox.
    pub sandbox: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// What `apply` compares.
    pub hash: String,
    /// What the hash covers.
    pub digests: Digests,
    /// Whether sends that the provider rejected are tried again.
    pub retry_rejected: bool,
    /// Where messages go, and from whom.
    pub destination: Destination,
    /// What the campaign digest covers, by JSON pointer. A field with its default is left out. Of what must not be shown
    /// there are four digits that change with it.
    pub campaign_fields: BTreeMap<String, serde_json::Value>,
    /// How many rows were read of all sources.
    pub rows: u64,
    /// How many rows were read of each source, in the order of the manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceRows>,
    /// How many rows were read of each suppression list, in the order of the manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suppress: Vec<SuppressRows>,
    /// How many people the campaign is for, sent or not.
    pub recipients: u64,
    /// How many rows stand where.
    pub counts: Counts,
    /// Why rows get no message, and how many.
    pub blocked_reasons: BTreeMap<BlockReason, u64>,
    /// How many messages would be sent by each template.
    pub templates: BTreeMap<String, u64>,
    /// The codes.
    pub coupons: CouponSummary,
    /// The end of the offer, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiry: Option<ExpirySummary>,
    /// The rate, as the manifest writes it.
    pub rate: String,
    /// How long the sending takes at this rate, in seconds.
    pub estimated_seconds: u64,
    /// How many bytes of files the requests upload, if each carries one send. The line may need longer
    /// for them than `estimated_seconds`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub upload_bytes: u64,
    /// The first messages that would be sent.
    pub samples: Vec<Sample>,
    /// What is worth a look.
    pub warnings: Vec<String>,
    /// Recipients who had the same message from other campaigns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeats: Option<rename_guard::Repeats>,
    /// Whether the plan was compared with a ledger. Without one, everybody counts as new.
    pub compared_with_ledger: bool,
    /// The head of the ledger's chain when the plan was made: `apply` refuses a ledger that does not hold it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger_head: Option<String>,
    /// Each row that gets no message, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked: Option<Vec<BlockedRow>>,
    /// A checksum over everything above, so that a plan edited by hand is noticed.
    pub checksum: String,
}

impl PlanFile {
    /// Adds what the ledger says beyond the campaign's own sends.
    pub fn with_ledger(
        mut self,
        head: Option<Head>,
        repeats: Option<rename_guard::Repeats>,
    ) -> Result<Self, serde_json::Error> {
        if let Some(repeats) = &repeats {
            // Behind the suppression lists that leave nobody out, which nothing else shows.
            let lists = self.suppress.iter().filter(|list| list.matches_nobody()).count();
            self.warnings.insert(lists.min(self.warnings.len()), in_words(repeats));
        }
        self.repeats = repeats;
        self.compared_with_ledger = head.is_some();
        self.ledger_head = head.map(|head| head.to_string());
        self.checksum = self.compute_checksum()?;
        Ok(self)
    }

    /// The checksum that this plan should have.
    pub fn compute_checksum(&self) -> Result<String, serde_json::Error> {
        let mut bare = self.clone();
        bare.checksum = String::new();
        let canonical = serde_json::to_vec(&bare)?;
        Ok(format!("blake3:{}", blake3::hash(&canonical).to_hex()))
    }

    /// Reads a plan and checks that nobody has changed it.
    pub fn parse(text: &str) -> Result<Self, PlanFileError> {
        #[derive(Deserialize)]
        struct Version {
            format_version: String,
        }
        let version: Version = serde_json::from_str(text).map_err(|_| PlanFileError::NotAPlan)?;
        let major = |version: &str| version.split('.').next().map(str::to_owned);
        if major(&version.format_version) != major(FORMAT_VERSION) {
            return Err(PlanFileError::OtherFormat(version.format_version));
        }
        let plan: Self = serde_json::from_str(text).map_err(PlanFileError::Damaged)?;
        if plan.checksum != plan.compute_checksum().map_err(PlanFileError::Damaged)? {
            return Err(PlanFileError::Changed);
        }
        Ok(plan)
    }
}

/// Why a file is not used as a plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanFileError {
    /// It has no format version.
    #[error("it is not a plan")]
    NotAPlan,
    /// Its format has another major version.
    #[error("it has format {0}, and this version of sendform reads format {FORMAT_VERSION}")]
    OtherFormat(String),
    /// A field is missing or has another type.
    #[error("it is damaged: {0}")]
    Damaged(#[source] serde_json::Error),
    /// It does not match its checksum.
    #[error("it was changed after it was made: its checksum does not match")]
    Changed,
}

/// What a plan says of people who had the same message from other campaigns.
fn in_words(repeats: &rename_guard::Repeats) -> String {
    let rename_guard::Repeats { people, of, campaign, edition, same, need_permission } = repeats;
    let (people_words, of) = (grouped(*people), grouped(*of));
    let from = if same == people {
        format!("the campaign `{campaign}` (edition {edition})")
    } else {
        format!("other campaigns, most of them from `{campaign}` (edition {edition})")
    };
    let what_to_do = if *need_permission {
        format!(
            ": if this is that campaign under a new name, add `moved: {{ from: {campaign} }}`, or call it `{campaign}` again if something was sent under the new name; else `apply` needs `--allow-repeat`"
        )
    } else {
        String::new()
    };
    format!("{people_words} of {of} recipients had the same message from {from}{what_to_do}")
}
