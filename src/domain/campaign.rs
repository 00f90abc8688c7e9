//! The effective campaign: the manifest after `use:` and variables, with every value checked and defaults filled in.
//!
//! It is plain data. [`crate::manifest`] makes it together with the working forms (compiled texts, opened files); the
//! plan hash covers its fields, the plan shows how they change, and the ledger can store them. Serialised it has the
//! shape of a manifest, so the same JSON pointers name a field everywhere. Secrets are references, and paths are as the
//! manifest writes them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Map, Value};
use url::Url;

use crate::domain::coupon::CouponCode;
use crate::domain::expiry::{self, ExpiresAt, ExpiryRule};
use crate::domain::phone::E164;
use crate::domain::secret::SecretRef;
use crate::util::net::is_loopback;

/// One campaign.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Campaign {
    /// The name that identifies it.
    pub name: String,
    /// The name that it had before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved: Option<Moved>,
    /// Raised to send the campaign again on purpose. Starts at 1.
    pub edition: u32,
    /// A note for reviewers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The provider, and the account and number at it.
    pub gateway: GatewaySpec,
    /// The values of the variables.
    #[serde(serialize_with = "as_defaults")]
    pub vars: BTreeMap<String, Value>,
    /// The templates, by their names in the manifest.
    pub templates: BTreeMap<String, TemplateSpec>,
    /// The people.
    pub audience: AudienceSpec,
    /// The codes.
    pub coupons: CouponSpec,
    /// The end of the offer. `None` if no template has a timer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiry: Option<ExpirySpec>,
    /// The rate, and what stops a run.
    pub delivery: Delivery,
    /// Bounds that stop a plan.
    pub limits: Limits,
}

impl Campaign {
    /// Whether each code belongs to one recipient for ever.
    pub fn has_unique_codes(&self) -> bool {
        matches!(self.coupons, CouponSpec::Pool(_) | CouponSpec::Generate { .. })
    }

    /// The name that the campaign is recorded under, as far as the manifest knows it. The ledger may know an
    /// older one.
    pub fn record_name(&self) -> &str {
        self.moved.as_ref().map_or(&self.name, |moved| &moved.from)
    }
}

/// The name of a renamed campaign before it was renamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// The former name.
    pub from: String,
}

/// Variables as a manifest declares them: the value is the default.
fn as_defaults<S: Serializer>(vars: &BTreeMap<String, Value>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(vars.len()))?;
    for (name, value) in vars {
        map.serialize_entry(name, &BTreeMap::from([("default", value)]))?;
    }
    map.end()
}

/// A provider and how to use it. Holds no secret.
///
/// The common parts are fields. What only one provider knows is in `options`, which
/// [`crate::gateway`] reads into a type of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewaySpec {
    /// The provider's name in the manifest, such as `kaleyra`.
    pub provider: String,
    /// The business number that messages come from.
    pub sender: E164,
    /// The address of the provider's API.
    pub base_url: Url,
    /// Where each secret is, by the provider's name for it, such as `api_key`.
    pub secrets: BTreeMap<String, SecretRef>,
    /// The key in `secrets` of the one that identifies the account, such as `sid`.
    pub account: String,
    /// Where the provider reports the delivery of messages.
    pub callback: Option<Callback>,
    /// The provider's own options, as the manifest writes them.
    pub options: Map<String, Value>,
}

impl GatewaySpec {
    /// The reference to the secret that identifies the account.
    pub fn account(&self) -> Option<&SecretRef> {
        self.secrets.get(&self.account)
    }

    /// The name under which the ledger records where messages went: `sandbox`, `loopback`, or the host's name.
    pub fn destination(&self, sandbox: bool) -> String {
        if sandbox {
            "sandbox".to_owned()
        } else if is_loopback(&self.base_url) {
            "loopback".to_owned()
        } else {
            self.base_url.host_str().unwrap_or_default().trim_end_matches('.').to_owned()
        }
    }
}

impl Serialize for GatewaySpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Block<'a> {
            base_url: &'a str,
            from: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            callback: &'a Option<Callback>,
            #[serde(flatten)]
            secrets: &'a BTreeMap<String, SecretRef>,
            #[serde(flatten)]
            options: &'a Map<String, Value>,
        }
        let block = Block {
            base_url: self.base_url.as_str(),
            from: self.sender.to_string(),
            callback: &self.callback,
            secrets: &self.secrets,
            options: &self.options,
        };
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(&self.provider, &block)?;
        map.end()
    }
}

/// Where a provider reports the delivery of messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Callback {
    /// A profile that is configured at the provider.
    ProfileId(String),
    /// A URL.
    Url(String),
}

/// A WhatsApp template as it was approved, and the expressions that fill it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TemplateSpec {
    /// Its name at the provider.
    pub name: String,
    /// Its language code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// The image or video above the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderSpec>,
    /// The headline.
    pub offer: OfferSpec,
    /// The text.
    pub body: BodySpec,
    /// The button that opens a web page.
    pub url_button: UrlButtonSpec,
}

/// The image or video above the text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HeaderSpec {
    /// An image.
    Image(MediaSource),
    /// A video.
    Video(MediaSource),
}

impl HeaderSpec {
    /// Where the image or video is.
    pub fn source(&self) -> &MediaSource {
        match self {
            HeaderSpec::Image(source) | HeaderSpec::Video(source) => source,
        }
    }
}

/// Where an image or video is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum MediaSource {
    /// At a public URL.
    Url {
        /// The URL. May hold expressions.
        url: String,
    },
    /// In a file that is uploaded with each request.
    File {
        /// Its path, as the manifest writes it.
        file: String,
        /// `blake3:` and the hash of its content.
        digest: String,
    },
}

/// The headline of a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OfferSpec {
    /// The words.
    pub text: String,
    /// Whether a timer is shown.
    pub has_expiration: bool,
}

/// The text of a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BodySpec {
    /// The approved text, with `{{1}}`, `{{2}}`….
    pub text: String,
    /// The texts that fill the placeholders. May hold expressions.
    pub params: Vec<String>,
}

/// The button that opens a web page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UrlButtonSpec {
    /// Its label.
    pub label: String,
    /// The approved URL, perhaps with `{{1}}` at its end.
    pub url: String,
    /// The text that fills `{{1}}`. May hold expressions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub param: Option<String>,
}

/// The people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AudienceSpec {
    /// The lists, in order.
    pub sources: Vec<SourceSpec>,
    /// The column of the phone number.
    pub phone: String,
    /// The country of numbers without a country code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_region: Option<String>,
    /// The column of the id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The expression that selects rows.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// The text that renders to the name of a row's template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The lists of people who must not get the offer.
    pub suppress: Vec<SuppressSpec>,
}

/// One list of people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceSpec {
    /// The CSV file's path, as the manifest writes it.
    pub csv: String,
    /// The character between two cells.
    pub delimiter: char,
    /// Whether cells may hold line breaks.
    pub multiline: bool,
}

/// One list of people who must not get the offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SuppressSpec {
    /// The CSV file's path, as the manifest writes it.
    pub csv: String,
    /// The column of the phone number, if it is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// The character between two cells.
    pub delimiter: char,
    /// The treatment of rows without a phone number.
    pub invalid: InvalidRows,
    /// Whether cells may hold line breaks.
    pub multiline: bool,
}

/// The treatment of rows of a suppression list that have no phone number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InvalidRows {
    /// The plan fails.
    Error,
    /// The rows are ignored.
    Skip,
}

/// The codes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CouponSpec {
    /// One code for all.
    Code(#[serde(serialize_with = "exposed")] CouponCode),
    /// The next code of a list.
    Pool(PoolSpec),
    /// Codes that are computed from a secret key.
    Generate {
        /// The beginning of each code.
        prefix: String,
        /// The characters of the rest.
        alphabet: String,
        /// The length of the rest, in characters.
        length: usize,
    },
}

fn exposed<S: Serializer>(code: &CouponCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(code.expose())
}

/// A list of codes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PoolSpec {
    /// The CSV file's path, as the manifest writes it.
    pub csv: String,
    /// The column of the codes, if it is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The character between two cells.
    pub delimiter: char,
    /// Whether cells may hold line breaks.
    pub multiline: bool,
}

/// The end of the offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExpirySpec {
    /// The end.
    #[serde(flatten)]
    pub end: ExpiryEnd,
    /// How long the offer must still run when a message leaves.
    #[serde(serialize_with = "duration")]
    pub at_least: Duration,
}

/// The two ways to state the end of an offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ExpiryEnd {
    /// At an instant.
    At {
        /// The time, as the manifest writes it.
        at: String,
        /// The time zone of a local time, as the manifest writes it.
        #[serde(skip_serializing_if = "Option::is_none")]
        timezone: Option<String>,
        /// The instant that these two name.
        #[serde(skip)]
        instant: ExpiresAt,
        /// The time zone to show the instant in: an IANA name or an offset. `None` for UTC.
        #[serde(skip)]
        zone: Option<String>,
    },
    /// Some time after the plan or after each message.
    After {
        /// The time.
        #[serde(serialize_with = "duration")]
        after: Duration,
        /// What it counts from.
        from: ExpiryFrom,
    },
}

/// What a duration counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExpiryFrom {
    /// The instant of the plan.
    Plan,
    /// The instant at which each message's intent is recorded.
    Send,
}

impl ExpirySpec {
    /// The rule that gives each message its end.
    pub fn rule(&self) -> ExpiryRule {
        match &self.end {
            ExpiryEnd::At { instant, .. } => ExpiryRule::At(*instant),
            ExpiryEnd::After { after, from: ExpiryFrom::Plan } => ExpiryRule::AfterPlan(*after),
            ExpiryEnd::After { after, from: ExpiryFrom::Send } => ExpiryRule::AfterSend(*after),
        }
    }

    /// The time zone to show the end in: an IANA name or an offset.
    pub fn zone(&self) -> Option<&str> {
        match &self.end {
            ExpiryEnd::At { zone, .. } => zone.as_deref(),
            ExpiryEnd::After { .. } => None,
        }
    }
}

fn duration<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&expiry::duration_text(*duration))
}

/// Bounds that stop a plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// The largest number of recipients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipients: Option<u64>,
}

/// The rate, and what stops a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Delivery {
    /// The highest rate at which messages leave.
    pub rate: Rate,
    /// The largest number of messages whose outcome is awaited at the same time.
    pub concurrency: usize,
    /// The largest number of recipients of one request.
    pub batch: usize,
    /// Bounds that stop a run before its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_when: Option<StopWhen>,
}

/// Bounds on failures among the last sends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StopWhen {
    /// The number of last sends that the bounds apply to.
    pub within: usize,
    /// The bound on rejected sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Bound>,
    /// The bound on unknown sends, instead of the one that every run has. 100 %: no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<Bound>,
}

/// A number, or a percentage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// A number.
    Count(u64),
    /// A percentage, above 0 and up to 100.
    Percent(f64),
}

impl Bound {
    /// Reads `10` or `5%`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim().strip_suffix('%') {
            Some(percent) => {
                let percent: f64 = percent.trim().parse().ok()?;
                (percent > 0.0 && percent <= 100.0).then_some(Bound::Percent(percent))
            }
            None => text.trim().parse().ok().filter(|count| *count > 0).map(Bound::Count),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::Count(count) => write!(f, "{count}"),
            Bound::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Serialize for Bound {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A number of messages in an amount of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// The number of messages.
    pub messages: u32,
    /// The amount of time.
    pub per: Duration,
}

impl Rate {
    /// WhatsApp's default for one business number. Source: Meta, "Throughput".
    pub const DEFAULT: Rate = Rate { messages: 80, per: Duration::from_secs(1) };

    /// Reads `80/s`, `600/m` or `5000/h`.
    pub fn parse(text: &str) -> Option<Self> {
        let (messages, unit) = text.split_once('/')?;
        let messages: u32 = messages.trim().parse().ok().filter(|messages| (1..=1_000_000).contains(messages))?;
        let seconds = match unit.trim() {
            "s" => 1,
            "m" | "min" => 60,
            "h" => 3_600,
            _ => return None,
        };
        Some(Self { messages, per: Duration::from_secs(seconds) })
    }

    /// The time between two messages.
    pub fn interval(self) -> Duration {
        self.per / self.messages
    }

    /// The time that a number of messages takes.
    pub fn time_for(self, messages: u64) -> Duration {
        self.per.mul_f64(messages as f64 / f64::from(self.messages))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            60 => "m",
            3_600 => "h",
            _ => "s",
        };
        write!(f, "{}/{unit}", self.messages)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_and_a_unit() {
        assert_eq!(Rate::parse("80/s"), Some(Rate::DEFAULT));
        assert_eq!(Rate::parse("600/m").unwrap().interval(), Duration::from_millis(100));
        assert_eq!(Rate::parse("3600/h").unwrap().interval(), Duration::from_secs(1));
        assert_eq!(Rate::DEFAULT.time_for(160), Duration::from_secs(2));
        for text in ["80", "0/s", "80/d", "/s", "-1/s", "80 per second"] {
            assert_eq!(Rate::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_bound_is_printed_as_it_was_written() {
        for text in ["7", "5%", "0.1%", "12.3456789%", "100%"] {
            assert_eq!(Bound::parse(text).unwrap().to_string(), text);
        }
        for text in ["0", "0%", "101%", "-1", "5 percent", ""] {
            assert_eq!(Bound::parse(text), None, "{text}");
        }
    }
}
