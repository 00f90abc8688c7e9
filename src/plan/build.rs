//! Counting and hashing a pass, and the whole-plan checks: enough codes, enough time, within limits.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::Prepared;
use super::block::{BlockReason, Blocked};
use super::file::{
    BlockedRow, Counts, CouponKind, CouponSummary, Destination, Digests, ExpirySummary, FORMAT_VERSION, PlanFile,
    Sample, SourceRows, SuppressRows,
};
use super::fingerprint::{Fingerprint, Options};
use super::load::Inputs;
use super::rename_guard::Newcomers;
use super::{Item, Pass, PlanHash, SendStatus};
use crate::audience::ReadReport;
use crate::domain::campaign::{CouponSpec, ExpirySpec};
use crate::domain::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::domain::expiry::{ExpiryRule, MessageExpiry};
use crate::domain::phone::E164;
use crate::ledger::{LedgerKey, Snapshot};
use crate::util::human::{self, count};

/// How many messages are shown.
const SAMPLES: usize = 3;

/// What a plan is made from besides the campaign and its files.
pub struct Basis<'a> {
    /// What the ledger holds.
    pub snapshot: &'a Snapshot,
    /// The ledger's key.
    pub key: Option<&'a LedgerKey>,
    /// Now.
    pub now: Timestamp,
    /// The instant of an approved plan, if one is applied.
    pub planned_at: Option<Timestamp>,
    /// Whether refused sends are tried again.
    pub retry_rejected: bool,
    /// Whether this is for the sandbox.
    pub sandbox: bool,
    /// Whether each row that gets no message is listed.
    pub list_blocked: bool,
    /// Whether other campaigns are recorded, so that people with no record under this name are collected.
    pub collect_newcomers: bool,
}

/// A plan, and what `apply` needs of it.
#[derive(Debug)]
pub struct Built {
    /// The plan.
    pub file: PlanFile,
    /// Its hash.
    pub hash: PlanHash,
    /// The digest of its messages, as the hash covers it.
    pub messages: [u8; 32],
    /// The campaign, as the hash covers it.
    pub fingerprint: Fingerprint,
    /// The instant that its expiry counts from.
    pub planned_at: Timestamp,
    /// Every message that was hashed.
    pub approved: Approved,
    /// The last instant at which a message may leave, if the offer ends at one.
    pub leave_by: Option<Timestamp>,
    /// Those to be sent who have no record under this name, if they were to be collected.
    pub newcomers: Newcomers,
}

/// Every message that a plan holds, with its recipient.
#[derive(Debug)]
pub struct Approved {
    /// In order.
    entries: Vec<[u8; 32]>,
    /// Where the entries that begin with the same bits start, and at last how many there are: a search
    /// through all of them would meet memory that no cache holds at nearly every step.
    starts: Vec<usize>,
}

impl Approved {
    /// A set of entries.
    pub fn of(mut entries: Vec<[u8; 32]>) -> Self {
        sort(&mut entries);
        let groups = (entries.len() / 8).next_power_of_two().min(MAX_GROUPS);
        let mut starts = vec![0; groups + 1];
        for entry in &entries {
            starts[group(entry, groups) + 1] += 1;
        }
        for group in 1..starts.len() {
            starts[group] += starts[group - 1];
        }
        Self { entries, starts }
    }

    /// Whether this recipient was to get this message.
    pub fn holds(&self, entry: &[u8; 32]) -> bool {
        let group = group(entry, self.starts.len() - 1);
        self.entries[self.starts[group]..self.starts[group + 1]].binary_search(entry).is_ok()
    }

    fn len(&self) -> usize {
        self.entries.len()
    }

    /// The digest over all of them.
    fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"sendform plan messages v2");
        hasher.update(self.entries.as_flattened());
        *hasher.finalize().as_bytes()
    }
}

/// How many entries are worth a second thread.
const MIN_FOR_TWO_THREADS: usize = 20_000;

/// Sorts entries, many of them on two threads.
fn sort(entries: &mut [[u8; 32]]) {
    if entries.len() < MIN_FOR_TWO_THREADS {
        return entries.sort_unstable();
    }
    let (lower, _, upper) = entries.select_nth_unstable(entries.len() / 2);
    std::thread::scope(|scope| {
        scope.spawn(|| upper.sort_unstable());
        lower.sort_unstable();
    });
}

/// Into how many groups a plan's messages fall at most.
const MAX_GROUPS: usize = 1 << 16;

/// Which of so many groups, a power of two, an entry falls into.
fn group(entry: &[u8; 32], groups: usize) -> usize {
    let first = u32::from_be_bytes([entry[0], entry[1], entry[2], entry[3]]);
    ((u64::from(first) * groups as u64) >> 32) as usize
}

/// Why there is no plan.
#[derive(Debug)]
pub enum PlanError {
    /// The files are wrong.
    Input(Diagnostics),
    /// The campaign would exceed a limit that it sets itself.
    Limit(String),
    /// The campaign cannot be written as JSON.
    Json(serde_json::Error),
}

impl From<Diagnostics> for PlanError {
    fn from(diagnostics: Diagnostics) -> Self {
        PlanError::Input(diagnostics)
    }
}

impl From<serde_json::Error> for PlanError {
    fn from(error: serde_json::Error) -> Self {
        PlanError::Json(error)
    }
}

#[derive(Default)]
struct Tally {
    rows: u64,
    counts: Counts,
    reasons: BTreeMap<BlockReason, u64>,
    templates: BTreeMap<String, u64>,
    entries: Vec<[u8; 32]>,
    samples: Vec<Sample>,
    blocked: Vec<BlockedRow>,
    without_code: u64,
    american: u64,
    upload_bytes: u64,
    first_problem: Option<(Blocked, String)>,
    /// Collected if other campaigns are recorded.
    newcomers: Option<Newcomers>,
    /// Whether a template fills the URL, which older versions recorded as a part of the likeness.
    fills_url: bool,
    /// The column of ids, and a hash of the id of each recipient.
    id_column: Option<String>,
    ids: Vec<u64>,
    id_hasher: hashbrown::DefaultHashBuilder,
}

/// Makes the plan of a campaign.
pub fn build(prepared: &Prepared, inputs: Inputs, basis: Basis<'_>) -> Result<Built, PlanError> {
    let campaign = &prepared.campaign;
    // What was fixed by the first messages stays: the same end for everybody and every retry.
    let planned_at = basis.snapshot.planned_at.or(basis.planned_at).unwrap_or(basis.now);
    let planned_at = Timestamp::from_second(planned_at.as_second()).unwrap_or(planned_at);
    let pass = Pass::new(prepared, inputs, basis.snapshot, basis.key, planned_at, basis.retry_rejected)?;
    let free = pass.free_codes();
    let pool_warnings = pass.pool_warnings();
    let mut tally = Tally {
        newcomers: basis.collect_newcomers.then(Newcomers::default),
        fills_url: prepared.composer.templates().values().any(|template| template.url_param.is_some()),
        id_column: campaign.audience.id.clone(),
        ..Tally::default()
    };
    let file_of = |source: usize| prepared.source_name(source);
    // To move ten million entries to a larger place takes their memory twice.
    let _ = tally.entries.try_reserve_exact(pass.size_hint());
    let read = pass.run(|item| {
        tally.add(item, basis.list_blocked, &file_of);
        ControlFlow::Continue(())
    })?;
    tally.check(prepared, free)?;
    // Files that leave nobody out come first: nothing else in the plan shows them.
    let mut warnings: Vec<String> =
        read.warnings(&prepared.audience, true).into_iter().map(|warning| warning.message).collect();
    warnings.extend(tally.warnings(campaign.audience.id.as_deref()));
    warnings.extend(pool_warnings);
    let estimate = prepared.rate.time_for(tally.counts.send);
    let leave_by = check_time(prepared, &tally, planned_at, basis.now, estimate)?;

    let approved = Approved::of(std::mem::take(&mut tally.entries));
    let messages = approved.digest();
    let fingerprint = Fingerprint::of(campaign)?;
    let options = Options { sandbox: basis.sandbox, retry_rejected: basis.retry_rejected };
    let of_campaign = fingerprint.digest(options);
    let counted_from_plan = matches!(campaign.expiry.as_ref().map(ExpirySpec::rule), Some(ExpiryRule::AfterPlan(_)));
    let hash = PlanHash::over(&messages, &of_campaign, counted_from_plan.then_some(planned_at));
    let hex = |digest: [u8; 32]| blake3::Hash::from(digest).to_hex().to_string();

    let mut file = PlanFile {
        format_version: FORMAT_VERSION.to_owned(),
        sendform_version: env!("CARGO_PKG_VERSION").to_owned(),
        campaign: campaign.name.clone(),
        edition: campaign.edition,
        manifest: absolute(&prepared.path),
        vars: campaign.vars.clone(),
        sandbox: basis.sandbox,
        created_at: basis.now,
        hash: hash.to_string(),
        digests: Digests { messages: hex(messages), campaign: hex(of_campaign) },
        retry_rejected: basis.retry_rejected,
        destination: Destination::of(&campaign.gateway, basis.sandbox),
        campaign_fields: fingerprint.shown(options),
        rows: tally.rows,
        recipients: approved.len() as u64,
        counts: tally.counts,
        blocked_reasons: tally.reasons.clone(),
        warnings,
        sources: sources(prepared, &read),
        suppress: suppress(prepared, &read),
        templates: tally.templates,
        coupons: CouponSummary {
            kind: match &campaign.coupons {
                CouponSpec::Code(_) => CouponKind::Code,
                CouponSpec::Pool(_) => CouponKind::Pool,
                CouponSpec::Generate { .. } => CouponKind::Generate,
            },
            needed: tally.counts.send,
            free,
        },
        expiry: campaign.expiry.as_ref().map(|expiry| match expiry.rule().resolve(planned_at) {
            MessageExpiry::At(instant) => ExpirySummary {
                at: Some(instant.instant()),
                zone: expiry.zone().map(str::to_owned),
                after_send_seconds: None,
                at_least_seconds: expiry.at_least.as_secs(),
            },
            MessageExpiry::AfterSend(duration) => ExpirySummary {
                at: None,
                zone: None,
                after_send_seconds: Some(duration.as_secs()),
                at_least_seconds: expiry.at_least.as_secs(),
            },
        }),
        rate: prepared.rate.to_string(),
        estimated_seconds: estimate.as_secs(),
        upload_bytes: tally.upload_bytes,
        samples: tally.samples,
        blocked: basis.list_blocked.then_some(tally.blocked),
        repeats: None,
        compared_with_ledger: false,
        ledger_head: None,
        checksum: String::new(),
    };
    file.checksum = file.compute_checksum()?;
    Ok(Built {
        file,
        hash,
        messages,
        fingerprint,
        planned_at,
        approved,
        leave_by,
        newcomers: tally.newcomers.unwrap_or_default(),
    })
}

fn sources(prepared: &Prepared, read: &ReadReport) -> Vec<SourceRows> {
    let sources = prepared.audience.sources.iter().zip(&read.sources);
    sources.map(|(source, read)| SourceRows { file: source.to_string(), rows: read.rows }).collect()
}

fn suppress(prepared: &Prepared, read: &ReadReport) -> Vec<SuppressRows> {
    let lists = prepared.audience.suppress.iter().zip(&read.suppress);
    lists
        .map(|(list, read)| SuppressRows {
            file: list.source.to_string(),
            rows: read.rows,
            skipped: read.skipped,
            matched: read.matched,
            filtered: read.filtered,
        })
        .collect()
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// Whether every offer still runs for `at_least` when the last message leaves.
fn check_time(
    prepared: &Prepared,
    tally: &Tally,
    planned_at: Timestamp,
    now: Timestamp,
    estimate: Duration,
) -> Result<Option<Timestamp>, PlanError> {
    let Some(expiry) = &prepared.campaign.expiry else { return Ok(None) };
    let MessageExpiry::At(end) = expiry.rule().resolve(planned_at) else { return Ok(None) };
    let leave_by = end.instant().checked_sub(expiry.at_least).unwrap_or(Timestamp::MIN);
    let last = now.checked_add(estimate).unwrap_or(Timestamp::MAX);
    if tally.counts.send > 0 && last > leave_by {
        let remaining = end.remaining(last);
        let problem = if remaining.is_zero() {
            format!("the offer ends at {end}, before the last message leaves at {last:.0}")
        } else {
            format!(
                "the offer ends at {end}, in less than {} when the last message leaves at {last:.0}",
                human::duration(expiry.at_least)
            )
        };
        let hint = if planned_at < now && matches!(expiry.rule(), ExpiryRule::AfterPlan(_)) {
            format!(
                "the end counts from the plan of {planned_at:.0}; make a new plan, or, once messages were sent, raise `edition`"
            )
        } else {
            "choose a later end, a higher rate, or a smaller `at_least`".to_owned()
        };
        return Err(PlanError::Input(
            Diagnostic::error(Code::ExpiryTooSoon, problem).hint(hint).in_file(&prepared.path, None, None).into(),
        ));
    }
    Ok(Some(leave_by))
}

impl Tally {
    fn add(&mut self, item: Item, list: bool, file_of: &impl Fn(usize) -> String) {
        self.rows += 1;
        let desired = match item {
            Item::Blocked(blocked) => {
                if blocked.reason.is_problem() && self.first_problem.is_none() {
                    self.first_problem = Some((blocked.clone(), file_of(blocked.origin.source)));
                }
                return self.block(&blocked, list, file_of);
            }
            Item::NoCodeLeft => {
                self.without_code += 1;
                return;
            }
            Item::Desired(desired) => desired,
        };
        self.entries.push(desired.entry);
        if let Some(column) = &self.id_column {
            self.ids.extend(desired.row.get(column).map(|id| self.id_hasher.hash_one(id)));
        }
        match desired.status {
            SendStatus::Send(attempt) => {
                self.counts.send += 1;
                self.upload_bytes += desired.message.upload_bytes();
                if attempt == 1
                    && let Some(newcomers) = &mut self.newcomers
                {
                    let older = self.fills_url.then(|| desired.message.older_similarity_digest(&desired.head));
                    newcomers.add(desired.identity, desired.similarity_digest(), older);
                }
                if is_american(desired.address) {
                    self.american += 1;
                }
                match self.templates.get_mut(&desired.message.template.key) {
                    Some(count) => *count += 1,
                    None => drop(self.templates.insert(desired.message.template.key.clone(), 1)),
                }
                if self.samples.len() < SAMPLES {
                    self.samples.push(Sample {
                        to: desired.address.masked(),
                        row: format!("{}:{}", file_of(desired.origin.source), desired.origin.location),
                        template: desired.message.template.key.clone(),
                        params: desired.message.params.len(),
                    });
                }
            }
            SendStatus::Sent => self.counts.sent += 1,
            SendStatus::Drifted => self.counts.drifted += 1,
            SendStatus::UnderWay => self.counts.deferred += 1,
            SendStatus::Unknown => self.counts.unknown += 1,
            SendStatus::Rejected => {
                let blocked = Blocked { origin: desired.origin, reason: BlockReason::Rejected, detail: None };
                self.block(&blocked, list, file_of);
            }
        }
    }

    fn block(&mut self, blocked: &Blocked, list: bool, file_of: &impl Fn(usize) -> String) {
        self.counts.blocked += 1;
        *self.reasons.entry(blocked.reason).or_default() += 1;
        if list {
            self.blocked.push(BlockedRow {
                file: file_of(blocked.origin.source),
                line: blocked.origin.location.line().unwrap_or_default(),
                reason: blocked.reason,
                detail: blocked.detail.clone(),
            });
        }
    }

    /// How many ids stand at several numbers. A person has one row, so an id that comes twice is of two people.
    fn shared_ids(&mut self) -> u64 {
        self.ids.sort_unstable();
        self.ids.chunk_by(|one, other| one == other).filter(|same| same.len() > 1).count() as u64
    }

    fn check(&self, prepared: &Prepared, free: Option<u64>) -> Result<(), PlanError> {
        if self.without_code > 0 {
            let needed = self.counts.send + self.without_code;
            let problem = match (&prepared.pool, free) {
                (Some(pool), Some(free)) => {
                    let problem = Diagnostic::error(
                        Code::PoolTooSmall,
                        format!(
                            "the pool lacks {}: it has {free} free, and {needed} are needed",
                            count(usize::try_from(self.without_code).unwrap_or(usize::MAX), "code")
                        ),
                    );
                    pool.source
                        .locate(problem.hint("a code goes to one recipient, for ever; add codes to the file"), None)
                }
                _ => Diagnostic::error(
                    Code::AlphabetTooSmall,
                    format!("prefix, alphabet and length cannot give {needed} different codes"),
                )
                .hint("raise `length`, or add characters to `alphabet`")
                .in_file(&prepared.path, None, None),
            };
            return Err(PlanError::Input(problem.into()));
        }
        if self.entries.is_empty()
            && let Some((first, file)) = &self.first_problem
        {
            let detail = first.detail.clone().unwrap_or_else(|| first.reason.words().to_owned());
            let problem = Diagnostic::error(
                Code::NobodyLeft,
                format!("none of the {} rows can get a message; the first: {detail}", self.rows),
            )
            .hint("`sendform plan --list-blocked` tells why for each row, once one of them can be sent")
            .in_file(file, first.origin.location.line(), None);
            return Err(PlanError::Input(problem.into()));
        }
        let people = self.entries.len() as u64;
        match prepared.campaign.limits.recipients {
            Some(most) if people > most => Err(PlanError::Limit(format!(
                "the campaign is for {people} recipients, and `limits.recipients` allows {most}"
            ))),
            _ => Ok(()),
        }
    }

    fn warnings(&mut self, id: Option<&str>) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.counts.drifted > 0 {
            warnings.push(drift_in_words(self.counts.drifted));
        }
        let shared_ids = self.shared_ids();
        if let (Some(id), 1..) = (id, shared_ids) {
            warnings.push(format!(
                "{} of the column `{id}` {} at more than one number: each of these numbers gets a message",
                count(usize::try_from(shared_ids).unwrap_or(usize::MAX), "value"),
                if shared_ids == 1 { "stands" } else { "stand" }
            ));
        }
        if let Some(pairs) = self.reasons.get(&BlockReason::PossibleDuplicate) {
            warnings.push(format!(
                "{pairs} Argentine numbers are left out because the same digits with or without the mobile `9` have an earlier row: \
                 the same people, or landlines of others; `--list-blocked` names them"
            ));
        }
        if self.american > 0 {
            warnings.push(format!(
                "{} numbers are in the United States, where WhatsApp delivers no marketing messages (since April 2025)",
                self.american
            ));
        }
        warnings
    }
}

/// What is said of people who have other content than the campaign has now.
pub fn drift_in_words(drifted: u64) -> String {
    format!(
        "{} already {} this campaign with other content, which will not be corrected; raise `edition` to send it to everybody again",
        if drifted == 1 { "1 person".to_owned() } else { format!("{} people", human::grouped(drifted)) },
        if drifted == 1 { "has" } else { "have" },
    )
}

/// Whether a number has a US area code; Canada and the Caribbean share `+1`.
fn is_american(address: E164) -> bool {
    address.digits() / 10_000_000_000 == 1
        && rlibphonenumber::PHONE_NUMBER_UTIL
            .parse(address.to_string(), None)
            .ok()
            .and_then(|number| rlibphonenumber::PHONE_NUMBER_UTIL.get_region_for_number(&number))
            .is_some_and(|region| region == rlibphonenumber::Region::US)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn many_entries_are_sorted_as_few_are() {
        let entry = |number: usize| *blake3::hash(&number.to_le_bytes()).as_bytes();
        for many in [MIN_FOR_TWO_THREADS - 1, MIN_FOR_TWO_THREADS, MIN_FOR_TWO_THREADS + 1] {
            // Some of them twice.
            let mut entries: Vec<[u8; 32]> = (0..many).map(|number| entry(number % (many - 5))).collect();
            let mut expected = entries.clone();
            expected.sort_unstable();
            sort(&mut entries);
            assert!(entries == expected, "{many}");
        }
    }

    proptest! {
        #[test]
        fn what_is_approved_is_what_was_planned_and_nothing_else(
            // Few of them, many of them, and many that begin alike.
            spread in prop::collection::hash_set(any::<[u8; 32]>(), 0..200),
            alike in prop::collection::hash_set(any::<[u8; 2]>(), 0..40),
            others in prop::collection::vec(any::<[u8; 32]>(), 20),
        ) {
            let same_beginning = |tail: &[u8; 2]| {
                let mut entry = [255; 32];
                entry[30..].copy_from_slice(tail);
                entry
            };
            let planned: Vec<[u8; 32]> = spread.iter().copied().chain(alike.iter().map(same_beginning)).collect();
            let approved = Approved::of(planned.clone());
            prop_assert_eq!(approved.len(), planned.len());
            for entry in &planned {
                prop_assert!(approved.holds(entry));
                let mut changed = *entry;
                changed[31] ^= 1;
                prop_assert_eq!(approved.holds(&changed), planned.contains(&changed));
            }
            for entry in others.iter().chain(&[[0; 32], [255; 32]]) {
                prop_assert_eq!(approved.holds(entry), planned.contains(entry));
            }
        }
    }
}
