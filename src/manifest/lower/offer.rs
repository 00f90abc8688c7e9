//! The offer: codes, and the instant at which it ends.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Check, DEFAULT_AT_LEAST, at, byte, types};
use crate::coupons::pool::PoolSpec;
use crate::domain::campaign::CouponSpec;
use crate::domain::coupon::{self, CouponCode};
use crate::domain::diagnostic::{Code, Diagnostic, did_you_mean};
use crate::domain::expiry::{self, ExpiryError, ExpiryRule, WrittenEnd};
use crate::manifest::source::Pointer;
use crate::util::human;

impl Check<'_> {
    pub(super) fn coupons(&mut self, coupons: &types::Coupons) -> Option<CouponSpec> {
        let root = at!("coupons");
        match coupons {
            types::Coupons::Code(code) => match CouponCode::new(code) {
                Ok(code) => {
                    if !code.is_plain() {
                        self.report(&root.join("code"), plain_warning());
                    }
                    Some(CouponSpec::Code(code))
                }
                Err(error) => {
                    self.error(&root.join("code"), Code::InvalidCoupon, error.to_string(), "");
                    None
                }
            },
            types::Coupons::Pool(pool) => {
                let at = root.join("pool").join("csv");
                let spec = PoolSpec {
                    path: self.data_file(&at, &pool.csv)?,
                    delimiter: byte(pool.delimiter),
                    multiline: pool.multiline,
                    column: pool.column.clone(),
                };
                if let Err(problem) = spec.open() {
                    self.table_problem(&at, problem);
                }
                Some(CouponSpec::Pool(spec))
            }
            types::Coupons::Generate(generate) => self.generate(&root.join("generate"), generate),
        }
    }

    fn generate(&mut self, at: &Pointer, generate: &types::Generate) -> Option<CouponSpec> {
        let alphabet: BTreeSet<char> = generate.alphabet.chars().collect();
        let total = generate.prefix.chars().count() + usize::from(generate.length);
        let before = self.errors();
        if alphabet.len() != generate.alphabet.chars().count() {
            self.error(
                &at.join("alphabet"),
                Code::InvalidCoupon,
                "the alphabet has a character twice",
                "some codes would be likelier than others",
            );
        } else if alphabet.len() < 2 {
            self.error(&at.join("alphabet"), Code::InvalidCoupon, "the alphabet needs at least two characters", "");
        }
        if let Err(error) =
            coupon::check(&format!("{}{}", generate.prefix, generate.alphabet.chars().next().unwrap_or('A')))
        {
            self.error(&at.join("prefix"), Code::InvalidCoupon, error.to_string(), "");
        } else if total > coupon::MAX_CHARACTERS {
            self.error(
                &at.join("length"),
                Code::InvalidCoupon,
                format!("prefix and length together give codes of {total} characters; WhatsApp allows at most 15"),
                "shorten one of them",
            );
        }
        if generate.alphabet.chars().any(coupon::is_invisible) {
            self.error(
                &at.join("alphabet"),
                Code::InvalidCoupon,
                "the alphabet holds white space or an invisible character",
                "",
            );
        }
        if self.errors() > before {
            return None;
        }
        if !generate.prefix.chars().chain(generate.alphabet.chars()).all(|character| character.is_ascii_alphanumeric())
        {
            self.report(at, plain_warning());
        }
        Some(CouponSpec::Generate {
            prefix: generate.prefix.clone(),
            alphabet: generate.alphabet.clone(),
            length: usize::from(generate.length),
        })
    }

    /// The rule, how long an offer must still run, and the time zone that the end is written in.
    pub(super) fn expiry(
        &mut self,
        expiry: Option<&types::Expiry>,
        timed: bool,
    ) -> (Option<ExpiryRule>, Duration, Option<String>) {
        let root = at!("expiry");
        let mut zone = None;
        let Some(expiry) = expiry else {
            if timed {
                self.error(
                    &at!("templates"),
                    Code::MissingKey,
                    "a template has `has_expiration: true`, and there is no `expiry`",
                    "add `expiry: { after: 14d }`, or `at:` with a `timezone`",
                );
            }
            return (None, DEFAULT_AT_LEAST, None);
        };
        if !timed {
            self.error(
                &root,
                Code::ExpiryUnused,
                "no template has `has_expiration: true`, so `expiry` would never be shown",
                "remove it, or set `has_expiration` as the template was approved",
            );
        }
        let at_least = match &expiry.at_least {
            Some(text) => self.duration(&root.join("at_least"), text).unwrap_or(DEFAULT_AT_LEAST),
            None => DEFAULT_AT_LEAST,
        };
        let rule = match (&expiry.at, &expiry.after) {
            (Some(at), None) => {
                if expiry.from.is_some() {
                    self.error(
                        &root.join("from"),
                        Code::InvalidExpiry,
                        "`from` goes with `after`; `at` is an instant already",
                        "remove `from`",
                    );
                }
                let end = self.expiry_at(&root, at, expiry.timezone.as_deref(), at_least);
                end.map(|end| {
                    zone = end.zone;
                    ExpiryRule::At(end.instant)
                })
            }
            (None, Some(after)) => {
                if expiry.timezone.is_some() {
                    self.error(
                        &root.join("timezone"),
                        Code::InvalidExpiry,
                        "`timezone` goes with `at`; `after` needs none",
                        "remove `timezone`",
                    );
                }
                let duration = self.duration(&root.join("after"), after);
                if let Some(duration) = duration
                    && duration < at_least
                {
                    self.error(
                        &root.join("after"),
                        Code::ExpiryTooSoon,
                        format!(
                            "an offer of {after} never runs for {} when a message leaves",
                            human::duration(at_least)
                        ),
                        "lengthen `after`, or set `at_least`",
                    );
                }
                duration.map(|duration| match expiry.from.unwrap_or_default() {
                    types::ExpiryFrom::Plan => ExpiryRule::AfterPlan(duration),
                    types::ExpiryFrom::Send => ExpiryRule::AfterSend(duration),
                })
            }
            (Some(_), Some(_)) => {
                self.error(
                    &root,
                    Code::InvalidExpiry,
                    "`at` and `after` both say when the offer ends",
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
        (rule, at_least, zone)
    }

    fn expiry_at(
        &mut self,
        root: &Pointer,
        at: &str,
        timezone: Option<&str>,
        at_least: Duration,
    ) -> Option<WrittenEnd> {
        let end = match expiry::parse_at(at, timezone) {
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
        Some(end)
    }

    pub(super) fn expiry_error(&mut self, at: &Pointer, error: &ExpiryError) {
        let hint = match error {
            ExpiryError::NoTime(date) => {
                let day = date.split('[').next().unwrap_or_default();
                format!("say when on that day the offer ends, such as `{day}T23:59:59` for its last second")
            }
            ExpiryError::ZoneContradicts { .. } => "keep the one that is meant: the offset or the zone".to_owned(),
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

fn plain_warning() -> Diagnostic {
    Diagnostic::warning(Code::CouponCharacters, "this code has characters other than letters and digits")
        .hint("Meta states no character set; some clients refuse others, so send one to yourself first")
}

/// What to write instead of a time zone that the IANA database does not have.
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
