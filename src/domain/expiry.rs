//! When an offer ends, and how that is sent to the provider.
//!
//! The wire value `expiration_time_ms` is an absolute instant in epoch milliseconds. The vendor's
//! page says so in its table ("UNIX TIMESTAMP which indicates the date on which the offer ends")
//! and contradicts itself in its example (`1209600000`, "equals to 14 days", which as an instant is
//! 15 January 1970). Meta's own page and six other providers use an instant, and so does
//! Sendform. [`ExpiresAt::to_wire`] is the only way to the wire, and rejects instants in the past.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::temporal::{DateTimeParser, Pieces};
use jiff::tz::{AmbiguousOffset, TimeZone};

/// The instant at which an offer ends, to the millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExpiresAt(Timestamp);

/// How the end of an offer is encoded in a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Epoch milliseconds.
    #[default]
    Absolute,
    /// Milliseconds from now.
    Duration,
}

/// The offer has ended already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the offer ended at {0}")]
pub struct Expired(pub ExpiresAt);

impl ExpiresAt {
    /// The instant, cut to whole milliseconds.
    pub fn new(instant: Timestamp) -> Self {
        let cut = Timestamp::from_millisecond(instant.as_millisecond()).unwrap_or(instant);
        Self(cut)
    }

    /// From epoch milliseconds.
    pub fn from_millisecond(milliseconds: i64) -> Option<Self> {
        Timestamp::from_millisecond(milliseconds).ok().map(Self)
    }

    /// Epoch milliseconds, for the ledger.
    pub fn as_millisecond(self) -> i64 {
        self.0.as_millisecond()
    }

    /// The instant.
    pub fn instant(self) -> Timestamp {
        self.0
    }

    /// How long the offer still runs at `now`; zero if it has ended.
    pub fn remaining(self, now: Timestamp) -> Duration {
        Duration::try_from(self.0.duration_since(now)).unwrap_or(Duration::ZERO)
    }

    /// The value of `expiration_time_ms` for a message that leaves at `now`.
    pub fn to_wire(self, now: Timestamp, encoding: Encoding) -> Result<i64, Expired> {
        if self.0 <= now {
            return Err(Expired(self));
        }
        Ok(match encoding {
            Encoding::Absolute => self.0.as_millisecond(),
            Encoding::Duration => self.0.as_millisecond() - now.as_millisecond(),
        })
    }
}

impl fmt::Display for ExpiresAt {
    /// RFC 3339 in UTC, to the second.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}", self.0)
    }
}

/// How the manifest says when the offer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiryRule {
    /// At an instant.
    At(ExpiresAt),
    /// This long after the plan: the same end for everybody and every retry.
    AfterPlan(Duration),
    /// This long after the intent of each message.
    AfterSend(Duration),
}

/// When the offer in one message ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageExpiry {
    /// At an instant that the plan fixed.
    At(ExpiresAt),
    /// This long after the intent of the message is recorded.
    AfterSend(Duration),
}

impl ExpiryRule {
    /// Resolves the rule as of a plan made at `planned`.
    pub fn resolve(self, planned: Timestamp) -> MessageExpiry {
        match self {
            ExpiryRule::At(instant) => MessageExpiry::At(instant),
            ExpiryRule::AfterPlan(duration) => MessageExpiry::At(ExpiresAt::new(later(planned, duration))),
            ExpiryRule::AfterSend(duration) => MessageExpiry::AfterSend(duration),
        }
    }
}

impl MessageExpiry {
    /// The instant for a message whose intent is recorded at `intent`.
    pub fn at(self, intent: Timestamp) -> ExpiresAt {
        match self {
            MessageExpiry::At(instant) => instant,
            MessageExpiry::AfterSend(duration) => ExpiresAt::new(later(intent, duration)),
        }
    }
}

fn later(instant: Timestamp, duration: Duration) -> Timestamp {
    instant.checked_add(duration).unwrap_or(Timestamp::MAX)
}

/// Why an expiry in a manifest is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpiryError {
    /// The text is not a date and time.
    #[error("`{0}` is not a date and time")]
    NotATime(String),
    /// A date without a time of day. It is unclear whether the beginning or the end of the day is meant.
    #[error("`{0}` has no time of day")]
    NoTime(String),
    /// Digits only: an epoch value, or a duration in milliseconds.
    #[error("`{0}` has no unit")]
    BareNumber(String),
    /// A local time without a zone.
    #[error("`{0}` has no time zone")]
    NoZone(String),
    /// `at` has an offset or a zone, and `timezone` is given too.
    #[error("`{0}` already has an offset or a zone; `timezone` would state it twice")]
    ZoneTwice(String),
    /// The zone in brackets has another offset at that time than the one that is written.
    #[error("`{at}` contradicts itself: its offset is {written}, but the time in {zone} is {real} then")]
    ZoneContradicts {
        /// The text.
        at: String,
        /// The offset that it has.
        written: String,
        /// The zone that it has.
        zone: String,
        /// The zone's offset at that time.
        real: String,
    },
    /// The zone does not exist.
    #[error("there is no time zone `{0}`")]
    UnknownZone(String),
    /// The clocks go forward over this time.
    #[error("{0} does not exist in {1}: the clocks go forward then")]
    Gap(String, String),
    /// The clocks go back over this time.
    #[error("{0} exists twice in {1}: the clocks go back then")]
    Fold(String, String),
    /// The text is not a duration, or one in months or years.
    #[error("`{0}` is not a duration")]
    NotADuration(String),
}

/// The end of an offer as the manifest writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenEnd {
    /// The instant.
    pub instant: ExpiresAt,
    /// The time zone that it is written in: an IANA name or an offset such as `+05:30`. `None` for UTC.
    pub zone: Option<String>,
}

/// The longest text that can be a date and time with an offset and a zone, or a duration.
const MAX_TEXT: usize = 128;

/// Reads `at` with `timezone`.
pub fn parse_at(at: &str, timezone: Option<&str>) -> Result<WrittenEnd, ExpiryError> {
    let at = at.trim();
    if !at.is_empty() && at.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ExpiryError::BareNumber(at.to_owned()));
    }
    let pieces = Some(at)
        .filter(|at| at.len() <= MAX_TEXT)
        .and_then(|at| Pieces::parse(at).ok())
        .ok_or_else(|| ExpiryError::NotATime(at.to_owned()))?;
    let time = pieces.time().ok_or_else(|| ExpiryError::NoTime(at.to_owned()))?;
    let local = pieces.date().to_datetime(time);
    let offset = pieces.to_numeric_offset();
    let bracket = bracket(at);
    if timezone.is_some() && (offset.is_some() || bracket.is_some()) {
        return Err(ExpiryError::ZoneTwice(at.to_owned()));
    }
    let name = timezone.or(bracket);
    let zone = name.map(find_zone).transpose()?;
    if let Some(offset) = offset {
        let instant = offset.to_timestamp(local).map_err(|_| ExpiryError::NotATime(at.to_owned()))?;
        let Some((name, zone)) = name.zip(zone) else {
            let zone = (!offset.is_zero()).then(|| offset.to_string());
            return Ok(WrittenEnd { instant: ExpiresAt::new(instant), zone });
        };
        let real = zone.to_offset(instant);
        if real != offset {
            return Err(ExpiryError::ZoneContradicts {
                at: at.to_owned(),
                written: offset.to_string(),
                zone: name.to_owned(),
                real: real.to_string(),
            });
        }
        return Ok(WrittenEnd { instant: ExpiresAt::new(instant), zone: Some(name.to_owned()) });
    }
    let Some((name, zone)) = name.zip(zone) else { return Err(ExpiryError::NoZone(at.to_owned())) };
    let ambiguous = zone.to_ambiguous_zoned(local);
    match ambiguous.offset() {
        AmbiguousOffset::Gap { .. } => return Err(ExpiryError::Gap(local.to_string(), name.to_owned())),
        AmbiguousOffset::Fold { .. } => return Err(ExpiryError::Fold(local.to_string(), name.to_owned())),
        AmbiguousOffset::Unambiguous { .. } => {}
    }
    let zoned = ambiguous.unambiguous().map_err(|_| ExpiryError::NotATime(at.to_owned()))?;
    Ok(WrittenEnd { instant: ExpiresAt::new(zoned.timestamp()), zone: Some(name.to_owned()) })
}

/// The zone in brackets at the end of a date and time, as it is written.
fn bracket(at: &str) -> Option<&str> {
    let (_, rest) = at.split_once('[')?;
    rest.split(']').next().map(|name| name.trim_start_matches('!'))
}

fn find_zone(name: &str) -> Result<TimeZone, ExpiryError> {
    let found = if name.starts_with(['+', '-']) {
        DateTimeParser::new().parse_time_zone(name).ok()
    } else {
        TimeZone::get(name).ok()
    };
    found.ok_or_else(|| ExpiryError::UnknownZone(name.to_owned()))
}

/// Abbreviations of time zones that the IANA database does not know, and the zones that people mean by
/// them, the most populous first.
const ABBREVIATIONS: [(&str, &[&str]); 40] = [
    ("ACST", &["Australia/Adelaide", "Australia/Darwin"]),
    ("ACDT", &["Australia/Adelaide"]),
    ("AEST", &["Australia/Sydney", "Australia/Brisbane"]),
    ("AEDT", &["Australia/Sydney"]),
    ("ART", &["America/Argentina/Buenos_Aires"]),
    ("AST", &["Asia/Riyadh", "America/Halifax"]),
    ("AWST", &["Australia/Perth"]),
    ("BRT", &["America/Sao_Paulo"]),
    ("BST", &["Europe/London", "Asia/Dhaka"]),
    ("CAT", &["Africa/Maputo"]),
    ("CDT", &["America/Chicago", "America/Havana"]),
    ("CEST", &["Europe/Berlin", "Europe/Paris"]),
    ("CLT", &["America/Santiago"]),
    ("COT", &["America/Bogota"]),
    ("CST", &["Asia/Shanghai", "America/Chicago", "America/Mexico_City"]),
    ("EAT", &["Africa/Nairobi"]),
    ("EDT", &["America/New_York"]),
    ("EEST", &["Europe/Athens", "Africa/Cairo"]),
    ("GST", &["Asia/Dubai"]),
    ("HKT", &["Asia/Hong_Kong"]),
    ("ICT", &["Asia/Bangkok", "Asia/Ho_Chi_Minh"]),
    ("IDT", &["Asia/Jerusalem"]),
    ("IST", &["Asia/Kolkata", "Asia/Jerusalem", "Europe/Dublin"]),
    ("JST", &["Asia/Tokyo"]),
    ("KST", &["Asia/Seoul"]),
    ("MDT", &["America/Denver"]),
    ("MSK", &["Europe/Moscow"]),
    ("MYT", &["Asia/Kuala_Lumpur"]),
    ("NPT", &["Asia/Kathmandu"]),
    ("NZDT", &["Pacific/Auckland"]),
    ("NZST", &["Pacific/Auckland"]),
    ("PDT", &["America/Los_Angeles"]),
    ("PET", &["America/Lima"]),
    ("PHT", &["Asia/Manila"]),
    ("PKT", &["Asia/Karachi"]),
    ("PST", &["America/Los_Angeles", "Asia/Manila"]),
    ("SAST", &["Africa/Johannesburg"]),
    ("SGT", &["Asia/Singapore"]),
    ("WAT", &["Africa/Lagos"]),
    ("WIB", &["Asia/Jakarta"]),
];

/// The zones that people mean by an abbreviation, the most likely first.
pub fn zones_of_abbreviation(abbreviation: &str) -> Option<&'static [&'static str]> {
    ABBREVIATIONS.iter().find(|(known, _)| known.eq_ignore_ascii_case(abbreviation)).map(|(_, zones)| *zones)
}

/// An instant as people of a zone read it, with UTC beside it: `Wed 2 Dec 2026, 23:59 IST (18:29 UTC)`.
///
/// `zone` is an IANA name or an offset. Without one, or with one that this machine does not know,
/// only UTC is shown.
pub fn in_zone(instant: Timestamp, zone: Option<&str>) -> String {
    let time = |zoned: &jiff::Zoned| if zoned.second() == 0 { "%H:%M" } else { "%H:%M:%S" };
    let utc = instant.to_zoned(TimeZone::UTC);
    let Some(local) = zone.and_then(|zone| find_zone(zone).ok()).map(|zone| instant.to_zoned(zone)) else {
        return utc.strftime(&format!("%a %-d %b %Y, {} UTC", time(&utc))).to_string();
    };
    if local.offset().is_zero() {
        return local.strftime(&format!("%a %-d %b %Y, {} %Z", time(&local))).to_string();
    }
    let day = if local.date() == utc.date() { "" } else { "%a %-d %b, " };
    format!(
        "{} ({})",
        local.strftime(&format!("%a %-d %b %Y, {} %Z", time(&local))),
        utc.strftime(&format!("{day}{} UTC", time(&utc)))
    )
}

/// Reads a duration such as `14d`, `36h` or `1d 12h`. A day is 24 hours.
pub fn parse_duration(text: &str) -> Result<Duration, ExpiryError> {
    let refused = || ExpiryError::NotADuration(text.to_owned());
    if text.trim().bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ExpiryError::BareNumber(text.to_owned()));
    }
    if text.len() > MAX_TEXT {
        return Err(refused());
    }
    let span: jiff::Span = text.trim().parse().map_err(|_| refused())?;
    if span.get_months() != 0 || span.get_years() != 0 {
        return Err(refused());
    }
    let signed = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| refused())?;
    let duration = Duration::try_from(signed).map_err(|_| refused())?;
    if duration.is_zero() { Err(refused()) } else { Ok(duration) }
}

/// A duration as [`parse_duration`] reads it: `14d`, `36h`, `90m`, `30s`.
pub fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.subsec_nanos() > 0 {
        let text = format!("{seconds}.{:09}", duration.subsec_nanos());
        return format!("{}s", text.trim_end_matches('0'));
    }
    let units = [(86_400, 'd'), (3_600, 'h'), (60, 'm')];
    match units.into_iter().find(|(length, _)| seconds > 0 && seconds.is_multiple_of(*length)) {
        Some((length, unit)) => format!("{}{unit}", seconds / length),
        None => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instant(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_wire_value_is_the_instant_in_epoch_milliseconds() {
        let expires = parse_at("2026-12-31T23:59:00Z", None).unwrap().instant;
        assert_eq!(expires.to_wire(instant("2026-11-23T00:00:00Z"), Encoding::Absolute), Ok(1_798_761_540_000));
        let same = parse_at("2027-01-01T05:29:00", Some("Asia/Kolkata")).unwrap().instant;
        assert_eq!(same, expires);
    }

    #[test]
    fn a_past_instant_never_reaches_the_wire() {
        let expires = ExpiresAt::from_millisecond(1_209_600_000).unwrap();
        for encoding in [Encoding::Absolute, Encoding::Duration] {
            assert_eq!(expires.to_wire(instant("2026-11-23T00:00:00Z"), encoding), Err(Expired(expires)));
        }
        assert_eq!(expires.to_string(), "1970-01-15T00:00:00Z");
    }

    #[test]
    fn the_duration_encoding_counts_from_the_moment_of_sending() {
        let expires = parse_at("2026-11-24T00:00:00Z", None).unwrap().instant;
        assert_eq!(expires.to_wire(instant("2026-11-23T00:00:00Z"), Encoding::Duration), Ok(86_400_000));
    }

    #[test]
    fn local_times_that_are_none_or_two_are_refused() {
        assert!(matches!(parse_at("2027-03-28T02:30:00", Some("Europe/Berlin")), Err(ExpiryError::Gap(..))));
        assert!(matches!(parse_at("2026-10-25T02:30:00", Some("Europe/Berlin")), Err(ExpiryError::Fold(..))));
        assert!(matches!(parse_at("2026-10-25T02:30:00", Some("Europe/Berln")), Err(ExpiryError::UnknownZone(_))));
        assert!(matches!(parse_at("2026-10-25T02:30:00", None), Err(ExpiryError::NoZone(_))));
        assert!(matches!(parse_at("2026-10-25T02:30:00Z", Some("Asia/Kolkata")), Err(ExpiryError::ZoneTwice(_))));
        assert!(matches!(parse_at("1209600000", None), Err(ExpiryError::BareNumber(_))));
        assert!(matches!(parse_at("tomorrow", None), Err(ExpiryError::NotATime(_))));
    }

    #[test]
    fn a_date_without_a_time_of_day_is_refused() {
        for at in ["2026-12-01", "2026-12-01[Asia/Kolkata]"] {
            assert_eq!(parse_at(at, None), Err(ExpiryError::NoTime(at.into())));
        }
        assert_eq!(parse_at("2026-12-01", Some("Asia/Kolkata")), Err(ExpiryError::NoTime("2026-12-01".into())));
    }

    #[test]
    fn a_zone_in_brackets_counts_and_may_not_contradict_the_offset() {
        let expected = parse_at("2026-12-31T23:59:59", Some("Asia/Kolkata")).unwrap();
        for at in ["2026-12-31T23:59:59+05:30[Asia/Kolkata]", "2026-12-31T23:59:59[Asia/Kolkata]"] {
            assert_eq!(parse_at(at, None).unwrap(), expected, "{at}");
            assert!(matches!(parse_at(at, Some("Asia/Kolkata")), Err(ExpiryError::ZoneTwice(_))), "{at}");
        }
        let offset = parse_at("2026-12-31T23:59:59+05:30", None).unwrap();
        assert_eq!((offset.instant, offset.zone.as_deref()), (expected.instant, Some("+05:30")));
        for (at, written, real) in [
            ("2026-12-31T23:59:59+02:00[Asia/Kolkata]", "+02", "+05:30"),
            ("2026-12-31T23:59:59Z[Asia/Kolkata]", "+00", "+05:30"),
        ] {
            let message = parse_at(at, None).unwrap_err().to_string();
            assert!(message.contains(written) && message.contains("Asia/Kolkata is"), "{message}");
            assert!(message.contains(real) || message.contains(&format!("is {real}")), "{message}");
        }
        let error = parse_at("2026-12-31T23:59:59+05:30[IST]", None).unwrap_err();
        assert_eq!(error, ExpiryError::UnknownZone("IST".into()));
    }

    #[test]
    fn abbreviations_are_none_of_the_databases_zones_and_lead_to_some() {
        for (abbreviation, zones) in ABBREVIATIONS {
            assert!(TimeZone::get(abbreviation).is_err(), "{abbreviation}");
            for zone in zones {
                assert!(TimeZone::get(zone).is_ok(), "{zone}");
            }
        }
        assert_eq!(zones_of_abbreviation("ist").unwrap()[0], "Asia/Kolkata");
    }

    #[test]
    fn an_end_is_shown_in_the_zone_that_it_is_written_in_beside_utc() {
        let end = instant("2026-12-02T18:29:00Z");
        assert_eq!(in_zone(end, Some("Asia/Kolkata")), "Wed 2 Dec 2026, 23:59 IST (18:29 UTC)");
        assert_eq!(in_zone(end, None), "Wed 2 Dec 2026, 18:29 UTC");
        assert_eq!(in_zone(end, Some("Nowhere/Atall")), "Wed 2 Dec 2026, 18:29 UTC");
        let other_day = instant("2026-12-02T20:30:59Z");
        assert_eq!(in_zone(other_day, Some("+05:30")), "Thu 3 Dec 2026, 02:00:59 +05:30 (Wed 2 Dec, 20:30:59 UTC)");
    }

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(parse_duration("14d"), Ok(Duration::from_secs(14 * 86_400)));
        assert_eq!(parse_duration("36h"), Ok(Duration::from_secs(36 * 3_600)));
        assert_eq!(parse_duration("1d 12h"), Ok(Duration::from_secs(36 * 3_600)));
        assert!(matches!(parse_duration("1209600000"), Err(ExpiryError::BareNumber(_))));
        for text in ["", "0s", "-2h", "1mo", "soon", &format!("{}d", "1".repeat(1 << 20)), &"1d ".repeat(1 << 20)] {
            assert!(parse_duration(text).is_err(), "{:.40}", text);
        }
        assert!(parse_at(&format!("2026-12-01T{}", "0".repeat(1 << 20)), None).is_err());
    }

    #[test]
    fn an_end_counted_from_the_plan_does_not_move() {
        let planned = instant("2026-11-23T10:00:00Z");
        let fixed = ExpiryRule::AfterPlan(Duration::from_secs(3_600)).resolve(planned);
        assert_eq!(fixed.at(instant("2026-11-23T10:30:00Z")), fixed.at(planned));
        let moving = ExpiryRule::AfterSend(Duration::from_secs(3_600)).resolve(planned);
        assert_eq!(moving.at(instant("2026-11-23T10:30:00Z")).instant(), instant("2026-11-23T11:30:00Z"));
    }

    #[test]
    fn a_duration_that_is_written_is_read_back() {
        for (text, written) in
            [("14d", "14d"), ("336h", "14d"), ("36h", "36h"), ("90m", "90m"), ("1h30m", "90m"), ("1.5s", "1.5s")]
        {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration_text(duration), written);
            assert_eq!(parse_duration(written).unwrap(), duration);
        }
    }
}
