//! The expiry: the instant at which the offer ends.

use std::time::Duration;

use super::{Lowering, at, types};
use crate::domain::campaign::{ExpiryEnd, ExpiryFrom, ExpirySpec};
use crate::domain::diagnostic::{Code, did_you_mean};
use crate::domain::expiry::{self, ExpiryError};
use crate::manifest::source::Pointer;
use crate::util::human;

/// How long an offer must still run when a message leaves, unless the manifest has `at_least`: under one hour the
/// timer is red from the start. Source: Meta, "Limited-time offer templates".
const DEFAULT_AT_LEAST: Duration = Duration::from_secs(3_600);

impl Lowering<'_> {
    pub(super) fn expiry(&mut self, expiry: Option<&types::Expiry>, timed: bool) -> Option<ExpirySpec> {
        let root = at(&["expiry"]);
        let Some(expiry) = expiry else {
            if timed {
                self.error(
                    &at(&["templates"]),
                    Code::MissingKey,
                    "a template has `has_expiration: true`, but the campaign has no `expiry`",
                    "add `expiry: { after: 14d }`, or `at:` with a `timezone`",
                );
            }
            return None;
        };
        if !timed {
            self.error(
                &root,
                Code::ExpiryUnused,
                "`expiry` is not used: no template has `has_expiration: true`",
                "remove it, or set `has_expiration` as the template was approved",
            );
        }
        let at_least = match &expiry.at_least {
            Some(text) => self.duration(&root.join("at_least"), text).unwrap_or(DEFAULT_AT_LEAST),
            None => DEFAULT_AT_LEAST,
        };
        let end = match (&expiry.at, &expiry.after) {
            (Some(at), None) => {
                if expiry.from.is_some() {
                    self.error(
                        &root.join("from"),
                        Code::InvalidExpiry,
                        "`from` belongs to `after`; `at` is an instant already",
                        "remove `from`",
                    );
                }
                self.expiry_at(&root, at, expiry.timezone.as_deref(), at_least)
            }
            (None, Some(after)) => {
                if expiry.timezone.is_some() {
                    self.error(
                        &root.join("timezone"),
                        Code::InvalidExpiry,
                        "`timezone` belongs to `at`; `after` needs none",
                        "remove `timezone`",
                    );
                }
                self.expiry_after(&root, after, expiry.from.unwrap_or_default(), at_least)
            }
            (Some(_), Some(_)) => {
                self.error(
                    &root,
                    Code::InvalidExpiry,
                    "`at` and `after` exclude each other: both state the end of the offer",
                    "keep one of them",
                );
                None
            }
            (None, None) => {
                self.error(
                    &root,
                    Code::MissingKey,
                    "`expiry` needs `at` or `after`",
                    "such as `after: 14d`, or `at: \"2026-12-31T23:59:59\"` with `timezone: Asia/Kolkata`",
                );
                None
            }
        };
        end.map(|end| ExpirySpec { end, at_least })
    }

    fn expiry_after(
        &mut self,
        root: &Pointer,
        written: &str,
        from: types::ExpiryFrom,
        at_least: Duration,
    ) -> Option<ExpiryEnd> {
        let after = self.duration(&root.join("after"), written)?;
        if after < at_least {
            self.error(
                &root.join("after"),
                Code::ExpiryTooSoon,
                format!(
                    "an offer of {written} cannot run for another {} when a message leaves",
                    human::duration(at_least)
                ),
                "lengthen `after`, or set `at_least`",
            );
        }
        let from = match from {
            types::ExpiryFrom::Plan => ExpiryFrom::Plan,
            types::ExpiryFrom::Send => ExpiryFrom::Send,
        };
        Some(ExpiryEnd::After { after, from })
    }

    fn expiry_at(
        &mut self,
        root: &Pointer,
        written: &str,
        timezone: Option<&str>,
        at_least: Duration,
    ) -> Option<ExpiryEnd> {
        let end = match expiry::parse_at(written, timezone) {
            Ok(end) => end,
            Err(error) => {
                let of_the_zone = matches!(error, ExpiryError::UnknownZone(_) | ExpiryError::ZoneTwice(_));
                let key = if of_the_zone && timezone.is_some() { "timezone" } else { "at" };
                self.expiry_error(&root.join(key), &error);
                return None;
            }
        };
        let at = root.join("at");
        let instant = end.instant;
        if instant.instant().as_second() < 86_400 * 365 {
            self.error(
                &at,
                Code::ExpiryInThePast,
                format!("{instant} is in 1970"),
                "a number of milliseconds is not an instant; for a duration use `after: 14d`",
            );
        } else if instant.instant() <= self.now {
            self.error(
                &at,
                Code::ExpiryInThePast,
                format!("the offer ended at {instant}"),
                "choose an instant in the future",
            );
        } else if instant.remaining(self.now) < at_least {
            self.error(
                &at,
                Code::ExpiryTooSoon,
                format!("the offer ends at {instant}, in less than {}", human::duration(at_least)),
                "choose a later end, or set `at_least`",
            );
        }
        Some(ExpiryEnd::At { at: written.to_owned(), timezone: timezone.map(str::to_owned), instant, zone: end.zone })
    }

    fn duration(&mut self, at: &Pointer, text: &str) -> Option<Duration> {
        match expiry::parse_duration(text) {
            Ok(duration) => Some(duration),
            Err(error) => {
                self.expiry_error(at, &error);
                None
            }
        }
    }

    fn expiry_error(&mut self, at: &Pointer, error: &ExpiryError) {
        let hint = match error {
            ExpiryError::NoTime(date) => {
                let day = date.split('[').next().unwrap_or_default();
                format!("say when on that day the offer ends, such as `{day}T23:59:59` for its last second")
            }
            ExpiryError::ZoneContradicts { .. } => "remove the offset or the zone".to_owned(),
            ExpiryError::NotATime(_) => "such as \"2026-12-31T23:59:59\"".to_owned(),
            ExpiryError::BareNumber(number) => match number.parse::<f64>() {
                Ok(milliseconds) if (864_000.0..1e12).contains(&milliseconds) => {
                    let days = milliseconds / 86_400_000.0;
                    format!("durations carry their unit: {number} milliseconds are `after: {days}d`")
                }
                _ => "write an instant such as \"2026-12-31T23:59:59\", or a duration with its unit, such as `14d`"
                    .to_owned(),
            },
            ExpiryError::NoZone(_) => {
                "add `timezone:`, such as `Asia/Kolkata`, or an offset, such as `+05:30`".to_owned()
            }
            ExpiryError::ZoneTwice(_) => "remove `timezone`, or what `at` says of it".to_owned(),
            ExpiryError::UnknownZone(zone) => zone_hint(zone),
            ExpiryError::Gap(..) => "choose a time an hour earlier or later".to_owned(),
            ExpiryError::Fold(..) => "say which one with an offset, such as `+02:00`, and remove `timezone`".to_owned(),
            ExpiryError::NotADuration(_) => "durations are written `14d`, `36h` or `90m`".to_owned(),
        };
        self.error(at, Code::InvalidExpiry, error.to_string(), hint);
    }
}

/// The way out of a time zone that the IANA database does not have.
fn zone_hint(zone: &str) -> String {
    match expiry::zones_of_abbreviation(zone) {
        Some([only]) => return format!("abbreviations are not unique; did you mean `{only}`?"),
        Some([first, others @ ..]) => {
            let others: Vec<String> = others.iter().map(|zone| format!("`{zone}`")).collect();
            return format!(
                "abbreviations are not unique; did you mean `{first}`? Others use it too: {}",
                others.join(", ")
            );
        }
        _ => {}
    }
    let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
    match did_you_mean(zone, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "a name of the IANA time zone database, such as `Asia/Kolkata`".to_owned(),
    }
}
