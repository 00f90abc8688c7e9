//! When an offer ends, and how the provider is told.
//!
//! The wire value `expiration_time_ms` is an absolute instant in epoch milliseconds. The vendor's
//! page says so in its table ("UNIX TIMESTAMP which indicates the date on which the offer ends")
//! and contradicts itself in its example (`1209600000`, "equals to 14 days", which as an instant is
//! 15 January 1970). Meta's own page and six other providers use an instant, so an instant it is;
//! [`ExpiresAt::to_wire`] is the only way to the wire, and refuses what is past.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// The instant at which an offer ends, to the millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExpiresAt(Timestamp);

/// What the provider is told.
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

    /// Epoch milliseconds, for the record.
    pub fn as_millisecond(self) -> i64 {
        self.0.as_millisecond()
    }

    /// The instant.
    pub fn instant(self) -> Timestamp {
        self.0
    }

    /// How long the offer still runs at `now`; nothing if it has ended.
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
    /// So long after the plan: the same end for everybody and every retry.
    AfterPlan(Duration),
    /// So long after each message's own intent.
    AfterSend(Duration),
}

/// When the offer in one message ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageExpiry {
    /// At an instant that the plan fixed.
    At(ExpiresAt),
    /// So long after the message's intent is recorded.
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

/// Why an expiry as written is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpiryError {
    /// The text is no date and time.
    #[error("`{0}` is not a date and time")]
    NotATime(String),
    /// Digits only: an epoch value, or a duration in milliseconds.
    #[error("`{0}` is a bare number")]
    BareNumber(String),
    /// A local time, and no zone.
    #[error("`{0}` has no time zone")]
    NoZone(String),
    /// Both an offset and a zone.
    #[error("`{0}` has an offset already, so `timezone` would say it twice")]
    ZoneTwice(String),
    /// No such zone.
    #[error("there is no time zone `{0}`")]
    UnknownZone(String),
    /// The clocks were put forward over this time.
    #[error("{0} does not exist in {1}: the clocks are put forward over it")]
    Gap(String, String),
    /// The clocks were put back over this time.
    #[error("{0} exists twice in {1}: the clocks are put back over it")]
    Fold(String, String),
    /// The text is no duration, or one in months or years.
    #[error("`{0}` is not a duration")]
    NotADuration(String),
}

/// Reads `at` with `timezone`.
pub fn parse_at(at: &str, timezone: Option<&str>) -> Result<ExpiresAt, ExpiryError> {
    let at = at.trim();
    if !at.is_empty() && at.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ExpiryError::BareNumber(at.to_owned()));
    }
    let zone = match timezone {
        None => None,
        Some(name) => Some(TimeZone::get(name).map_err(|_| ExpiryError::UnknownZone(name.to_owned()))?),
    };
    if let Ok(instant) = at.parse::<Timestamp>() {
        return match zone {
            Some(_) => Err(ExpiryError::ZoneTwice(at.to_owned())),
            None => Ok(ExpiresAt::new(instant)),
        };
    }
    let local: DateTime = at.parse().map_err(|_| ExpiryError::NotATime(at.to_owned()))?;
    let Some(zone) = zone else { return Err(ExpiryError::NoZone(at.to_owned())) };
    let name = timezone.unwrap_or_default().to_owned();
    let ambiguous = zone.to_ambiguous_zoned(local);
    match ambiguous.offset() {
        jiff::tz::AmbiguousOffset::Gap { .. } => return Err(ExpiryError::Gap(local.to_string(), name)),
        jiff::tz::AmbiguousOffset::Fold { .. } => return Err(ExpiryError::Fold(local.to_string(), name)),
        jiff::tz::AmbiguousOffset::Unambiguous { .. } => {}
    }
    let zoned = ambiguous.unambiguous().map_err(|_| ExpiryError::NotATime(at.to_owned()))?;
    Ok(ExpiresAt::new(zoned.timestamp()))
}

/// Reads a duration such as `14d`, `36h` or `1d 12h`. A day is 24 hours.
pub fn parse_duration(text: &str) -> Result<Duration, ExpiryError> {
    let refused = || ExpiryError::NotADuration(text.to_owned());
    if text.trim().bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ExpiryError::BareNumber(text.to_owned()));
    }
    let span: jiff::Span = text.trim().parse().map_err(|_| refused())?;
    if span.get_months() != 0 || span.get_years() != 0 {
        return Err(refused());
    }
    let signed = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| refused())?;
    let duration = Duration::try_from(signed).map_err(|_| refused())?;
    if duration.is_zero() { Err(refused()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instant(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_wire_value_is_the_instant_in_epoch_milliseconds() {
        let expires = parse_at("2026-12-31T23:59:00Z", None).unwrap();
        assert_eq!(expires.to_wire(instant("2026-11-23T00:00:00Z"), Encoding::Absolute), Ok(1_798_761_540_000));
        let same = parse_at("2027-01-01T05:29:00", Some("Asia/Kolkata")).unwrap();
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
        let expires = parse_at("2026-11-24T00:00:00Z", None).unwrap();
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
    fn durations_carry_their_unit() {
        assert_eq!(parse_duration("14d"), Ok(Duration::from_secs(14 * 86_400)));
        assert_eq!(parse_duration("36h"), Ok(Duration::from_secs(36 * 3_600)));
        assert_eq!(parse_duration("1d 12h"), Ok(Duration::from_secs(36 * 3_600)));
        assert!(matches!(parse_duration("1209600000"), Err(ExpiryError::BareNumber(_))));
        for text in ["", "0s", "-2h", "1mo", "soon"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_end_counted_from_the_plan_does_not_move() {
        let planned = instant("2026-11-23T10:00:00Z");
        let fixed = ExpiryRule::AfterPlan(Duration::from_secs(3_600)).resolve(planned);
        assert_eq!(fixed.at(instant("2026-11-23T10:30:00Z")), fixed.at(planned));
        let moving = ExpiryRule::AfterSend(Duration::from_secs(3_600)).resolve(planned);
        assert_eq!(moving.at(instant("2026-11-23T10:30:00Z")).instant(), instant("2026-11-23T11:30:00Z"));
    }
}
