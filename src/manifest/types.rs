//! The manifest as it is written. These types *are* the JSON Schema: the doc comments are the
//! descriptions that an editor shows, and `x-expected` is what an error says was expected.
//!
//! Nothing here is resolved: durations, rates, zones and paths are the text that the user wrote.
//! [`super::check`] turns them into the domain's own types, or into diagnostics.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// A WhatsApp limited-time-offer campaign: who gets which offer, until when.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Campaign {
    /// The version of this format.
    pub api_version: ApiVersion,
    /// What this file describes.
    pub kind: Kind,
    /// The campaign's identity. Nobody gets the same campaign twice. Renaming a campaign takes `moved`,
    /// or everybody may get it again.
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9._-]{0,63}$"))]
    #[schemars(extend("x-expected" = "1 to 64 of `a-z`, `0-9`, `.`, `_` and `-`, starting with a letter or digit"))]
    pub name: String,
    /// The name that this campaign had before, so that nobody gets it again under the new one. It stays
    /// for as long as the campaign does.
    pub moved: Option<Moved>,
    /// Raise this, in review, to send the campaign again on purpose. Starts at 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub edition: u32,
    /// A note for reviewers. Not sent.
    pub description: Option<String>,
    /// The provider that the messages go through.
    pub gateway: Gateway,
    /// Values that templates and conditions use as `vars.NAME`; `--var NAME=VALUE` sets them.
    #[serde(default)]
    pub vars: BTreeMap<String, Var>,
    /// The approved WhatsApp templates, under names of your choice.
    #[schemars(length(min = 1), extend("x-expected" = "at least one template"))]
    pub templates: BTreeMap<String, Template>,
    /// Who gets the offer.
    pub audience: Audience,
    /// The codes behind the COPY CODE button.
    pub coupons: Coupons,
    /// When the offer ends. Needed when a template has `offer.has_expiration: true`.
    pub expiry: Option<Expiry>,
    /// How fast the messages leave.
    #[serde(default)]
    pub delivery: Delivery,
    /// Bounds that stop a plan which is larger than anybody meant.
    #[serde(default)]
    pub limits: Limits,
}

/// Where a campaign's record stands from before.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Moved {
    /// The name before.
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9._-]{0,63}$"))]
    #[schemars(extend("x-expected" = "1 to 64 of `a-z`, `0-9`, `.`, `_` and `-`, starting with a letter or digit"))]
    pub from: String,
}

fn one() -> u32 {
    1
}

/// The version of the manifest format.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub enum ApiVersion {
    /// The first version.
    #[serde(rename = "sendform/v1")]
    V1,
}

/// The kind of a manifest.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub enum Kind {
    /// One campaign.
    Campaign,
}

/// The provider that the messages go through.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Gateway {
    /// Kaleyra's WhatsApp API, version 1.
    Kaleyra(Kaleyra),
}

/// An account at Kaleyra, and the WhatsApp business number to send from.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kaleyra {
    /// The region of the account ("API Domain" in the console): `in`, `sg`, `eu` or `na`.
    /// Leave it out when `base_url` is given.
    pub domain: Option<Domain>,
    /// The API's address, when it is none of the known regions: `https://…`, or `http://` to loopback.
    pub base_url: Option<String>,
    /// The account's SID.
    pub sid: Secret,
    /// The account's API key.
    pub api_key: Secret,
    /// The WhatsApp business number that the messages come from, as `"+919900112233"`.
    #[schemars(regex(pattern = r"^\+[1-9][0-9]{6,14}$"))]
    #[schemars(extend("x-expected" = "a quoted number with `+` and country code, such as \"+919900112233\""))]
    pub from: String,
    /// Where Kaleyra reports what became of each message.
    pub callback: Option<Callback>,
    /// Whether each message carries its send key as `ref`, so that reports can be matched. On by default.
    #[serde(default = "yes")]
    pub send_ref: bool,
    /// What `expiration_time_ms` holds: the absolute instant in epoch milliseconds (default), or the
    /// milliseconds that the offer still runs. Only change this if a trial message shows the wrong end.
    #[serde(default)]
    pub expiry_encoding: ExpiryEncoding,
    /// How long a request may take without progress, such as `30s` (the default): half of it to connect,
    /// this long for each piece of an upload, and this long for the answer once the request is complete.
    /// An upload that makes progress may take ten times as long in all.
    pub timeout: Option<String>,
}

fn yes() -> bool {
    true
}

/// The region of a Kaleyra account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Domain {
    /// India: `api.in.kaleyra.io`.
    In,
    /// Singapore: `api.kaleyra.io`.
    Sg,
    /// Europe: `api.eu.kaleyra.io`.
    Eu,
    /// North America: `api.na.kaleyra.ai`.
    Na,
}

/// A reference to a secret. Never the secret itself.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Secret {
    /// The name of an environment variable.
    Env(String),
    /// The path of a file that holds the secret.
    File(String),
    /// A command that prints the secret, as a list of words.
    Exec(Vec<String>),
}

/// Where the provider reports what became of each message.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Callback {
    /// The id of a callback profile in the Kaleyra console.
    ProfileId(String),
    /// A URL of your own.
    Url(String),
}

/// What the provider is told about the end of the offer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExpiryEncoding {
    /// Epoch milliseconds of the instant at which the offer ends.
    #[default]
    Absolute,
    /// Milliseconds from the moment of sending to the end of the offer.
    Duration,
}

/// A variable.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Var {
    /// The value when `--var` gives none. Without it the variable must be given.
    pub default: Option<Scalar>,
    /// What the variable is for.
    pub description: Option<String>,
}

/// A text, a number, or true or false.
#[derive(Debug, Clone, Deserialize)]
pub struct Scalar(pub serde_json::Value);

impl JsonSchema for Scalar {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Scalar".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

/// A WhatsApp template as it was approved at the provider, and what fills it.
/// Limited-time-offer templates are of category MARKETING and have no footer.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// The template's name at the provider.
    #[schemars(regex(pattern = r"^[a-z0-9_]{1,512}$"))]
    #[schemars(extend("x-expected" = "1 to 512 of `a-z`, `0-9` and `_`, as WhatsApp allows"))]
    pub name: String,
    /// The template's language code, such as `en` or `en_US` (these two are different templates).
    #[schemars(regex(pattern = r"^[a-z]{2,3}(_[A-Za-z]{2,4})?$"))]
    #[schemars(extend("x-expected" = "a WhatsApp language code such as `en`, `en_US` or `hi`"))]
    pub language: Option<String>,
    /// The image or video above the text.
    pub header: Option<Header>,
    /// The offer's headline.
    pub offer: OfferBlock,
    /// The text.
    pub body: Body,
    /// The button that opens a web page. Always there in a limited-time-offer template.
    pub url_button: UrlButton,
}

/// The media above the text: an image or a video.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Header {
    /// An image: PNG or JPEG, at most 5 MB.
    Image(Media),
    /// A video: MP4 or 3GPP, at most 16 MB.
    Video(Media),
}

/// Where the media comes from.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Media {
    /// A public https URL with a file extension. May hold expressions.
    Url(String),
    /// A file that is uploaded with each request, relative to this manifest and below the project's root.
    File(String),
}

/// The offer's headline.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfferBlock {
    /// The headline as approved, at most 16 characters.
    #[schemars(length(min = 1, max = 16))]
    #[schemars(extend("x-expected" = "1 to 16 characters, as WhatsApp allows"))]
    pub text: String,
    /// Whether the template was approved with `has_expiration`, so that it shows a timer.
    pub has_expiration: bool,
}

/// The text of the message.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Body {
    /// The text as approved, with `{{1}}`, `{{2}}`… for what varies. For previews and checks; not sent.
    #[schemars(length(min = 1, max = 600))]
    #[schemars(extend("x-expected" = "1 to 600 characters, as WhatsApp allows in a limited-time offer"))]
    pub text: String,
    /// What fills `{{1}}`, `{{2}}`…, in order. Expressions see `recipient`, `vars` and `campaign`.
    #[serde(default)]
    pub params: Vec<String>,
}

/// The button that opens a web page.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UrlButton {
    /// The button's label as approved, at most 25 characters.
    #[schemars(length(min = 1, max = 25))]
    #[schemars(extend("x-expected" = "1 to 25 characters, as WhatsApp allows"))]
    pub label: String,
    /// The URL as approved. May end in `{{1}}`, nowhere else.
    #[schemars(length(min = 1, max = 2000))]
    #[schemars(extend("x-expected" = "1 to 2000 characters, as WhatsApp allows"))]
    pub url: String,
    /// What fills the URL's `{{1}}`.
    pub param: Option<String>,
}

/// Who gets the offer.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Audience {
    /// The lists of people, read in order. The first row of a person counts.
    #[schemars(length(min = 1), extend("x-expected" = "at least one source"))]
    pub sources: Vec<Source>,
    /// The column that holds the phone number.
    pub phone: String,
    /// The country of numbers without a country code, as two letters such as `IN`.
    #[schemars(regex(pattern = "^[A-Z]{2}$"))]
    #[schemars(extend("x-expected" = "a country as two capital letters, such as `IN`"))]
    pub default_region: Option<String>,
    /// The column by which `preview --recipient` finds a person.
    pub id: Option<String>,
    /// An expression that tells whether a row takes part, such as `recipient.consent == 'yes'`.
    #[serde(rename = "where")]
    pub where_: Option<String>,
    /// Text that renders to the name of the template for a row. Needed with several templates.
    pub template: Option<String>,
    /// Lists of people who must not get the offer.
    #[serde(default)]
    #[schemars(length(max = 64), extend("x-expected" = "at most 64 lists"))]
    pub suppress: Vec<Suppress>,
}

/// A list of people.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// A CSV file with a header row, in UTF-8, relative to this manifest or to a data directory.
    pub csv: String,
    /// What separates the columns: `,` (the default), `;`, `|` or a tab.
    #[serde(default)]
    pub delimiter: Delimiter,
    /// Whether cells may hold line breaks. Without it a line break inside a cell is an error, since it is
    /// most likely a quote that was not closed.
    #[serde(default)]
    pub multiline: bool,
}

/// What separates the columns of a CSV file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Delimiter {
    /// A comma.
    #[default]
    #[serde(rename = ",")]
    Comma,
    /// A semicolon.
    #[serde(rename = ";")]
    Semicolon,
    /// A vertical bar.
    #[serde(rename = "|")]
    Bar,
    /// A tab.
    #[serde(rename = "\t")]
    Tab,
}

/// A list of people who must not get the offer.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Suppress {
    /// A CSV file with a header row, in UTF-8, relative to this manifest or to a data directory.
    pub csv: String,
    /// The column that holds the phone number. Not needed if it is the file's only column,
    /// or is called as in `audience.phone`.
    pub phone: Option<String>,
    /// What separates the columns: `,` (the default), `;`, `|` or a tab.
    #[serde(default)]
    pub delimiter: Delimiter,
    /// What happens to a row without a phone number: `error` (the default), because somebody
    /// who must be left out would not be, or `skip`.
    #[serde(default)]
    pub invalid: InvalidRow,
    /// Whether cells may hold line breaks. Without it a line break inside a cell is an error, since it is
    /// most likely a quote that was not closed.
    #[serde(default)]
    pub multiline: bool,
}

/// What happens to a row without a phone number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InvalidRow {
    /// The plan fails and names the rows.
    #[default]
    Error,
    /// The row is passed over.
    Skip,
}

/// The codes behind the COPY CODE button, each 1 to 15 characters.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Coupons {
    /// The same code for everybody.
    Code(
        #[schemars(length(min = 1, max = 15))]
        #[schemars(extend("x-expected" = "a code of 1 to 15 characters, as WhatsApp allows"))]
        String,
    ),
    /// The next unused code of a list, one for each recipient, for ever.
    Pool(Pool),
    /// A code of its own for each recipient, computed from a secret key.
    Generate(Generate),
}

/// A list of codes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// A CSV file with a header row, in UTF-8, relative to this manifest or to a data directory.
    pub csv: String,
    /// The column that holds the code. Not needed if it is the file's only column.
    pub column: Option<String>,
    /// What separates the columns: `,` (the default), `;`, `|` or a tab.
    #[serde(default)]
    pub delimiter: Delimiter,
    /// Whether cells may hold line breaks. Without it a line break inside a cell is an error, since it is
    /// most likely a quote that was not closed.
    #[serde(default)]
    pub multiline: bool,
}

/// Codes computed from the project's secret key, the campaign and the recipient.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Generate {
    /// What each code starts with.
    #[serde(default)]
    pub prefix: String,
    /// The characters that the rest is made of. The default leaves out those that are easily confused.
    #[serde(default = "default_alphabet")]
    pub alphabet: String,
    /// How many characters follow the prefix.
    #[schemars(range(min = 4, max = 15))]
    #[schemars(extend("x-expected" = "4 to 15"))]
    pub length: u8,
}

fn default_alphabet() -> String {
    "ABCDEFGHJKLMNPQRSTUVWXYZ23456789".to_owned()
}

/// When the offer ends: either `at` an instant or `after` a duration.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expiry {
    /// A local time such as `"2026-11-08T23:59:59"` with `timezone`, or an instant with an offset
    /// such as `"2026-11-08T23:59:59+05:30"`.
    pub at: Option<String>,
    /// The time zone of `at`, such as `Asia/Kolkata`.
    pub timezone: Option<String>,
    /// A duration such as `14d` or `36h`.
    pub after: Option<String>,
    /// What `after` counts from: the `plan` (the default: the same end for everybody and every
    /// retry), or each recipient's own `send`.
    pub from: Option<ExpiryFrom>,
    /// How long the offer must still run when a message leaves, such as `2h`. One hour by default.
    pub at_least: Option<String>,
}

/// What a duration counts from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExpiryFrom {
    /// The instant of the plan.
    #[default]
    Plan,
    /// The instant at which each message's intent is recorded.
    Send,
}

/// How fast the messages leave.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// Messages per second, minute or hour: `80/s` (the default, WhatsApp's own default per number), `600/m`.
    pub rate: Option<String>,
    /// How many messages may be under way at once, 50 by default. After a crash at most so many
    /// sends have an outcome that cannot be told.
    #[schemars(range(min = 1, max = 10_000))]
    #[schemars(extend("x-expected" = "1 to 10000"))]
    pub concurrency: Option<u32>,
    /// How many recipients one request may carry, 1 by default. More only where the messages are
    /// identical; such requests carry no `ref`.
    #[schemars(range(min = 1, max = 100))]
    #[schemars(extend("x-expected" = "1 to 100"))]
    pub batch: Option<u32>,
    /// What stops a run before its end, with exit code 6. A run of which nothing is accepted, or too much
    /// ends unknown, stops by itself.
    pub stop_when: Option<StopWhen>,
}

/// How much may go wrong within the last sends.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StopWhen {
    /// How many of them the provider may refuse: a number, which counts at once, or a share such as
    /// `5%`, which counts as soon as so many were sent.
    pub rejected: Option<Most>,
    /// How many of them may end unknown: a number, or a share such as `2%`. Without it a run stops when more
    /// sends ended unknown than 20, twice `concurrency` and 0.2 % of those that ended, or when it had to
    /// pause three times within ten minutes because several in a row did. `100%` never stops a run.
    pub unknown: Option<Most>,
    /// How many of the last sends are looked at, 200 by default.
    #[schemars(range(min = 10, max = 100_000))]
    #[schemars(extend("x-expected" = "10 to 100000"))]
    pub within: Option<u32>,
}

/// A number, or a share of all such as `5%`.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(transparent)]
pub struct Most(
    #[schemars(extend("type" = ["integer", "string"], "minimum" = 1, "pattern" = r"^[0-9]+(\.[0-9]+)?%?$"))]
    #[schemars(extend("x-expected" = "a number from 1, or a share such as `5%`"))]
    pub String,
);

impl<'de> Deserialize<'de> for Most {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self(text)),
            serde_json::Value::Number(number) => Ok(Self(number.to_string())),
            _ => Err(serde::de::Error::custom("neither a number nor a share")),
        }
    }
}

/// Bounds that stop a plan which is larger than anybody meant.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The most recipients that this campaign may reach.
    #[schemars(range(min = 1))]
    pub recipients: Option<u64>,
}
