//! Phone numbers, and the people that they belong to.
//!
//! Two values come out of one cell. The [`E164`] is what the operator supplied, normalised and
//! otherwise unchanged: it is what the provider gets. The [`Identity`] identifies the person. Three countries have numbers that exist in two forms at WhatsApp:
//!
//! | country | forms | identity |
//! |---|---|---|
//! | Brazil | `55` + area + 8 digits (older accounts), `55` + area + `9` + 8 digits | with the 9, if the 8 digits start with 6, 8 or 9. Landlines (2–5) stay, and so does 7, which is also a valid 8-digit mobile |
//! | Mexico | `521` + 10 digits (legacy), `52` + 10 digits | without the 1: no national number starts with 1 |
//! | Argentina | `549` + 10 digits (mobile), `54` + 10 digits | without the 9. This may join a mobile with a landline of the same digits, so such a pair is reported, never dropped silently |
//!
//! The identity is computed before the number is validated, because the legacy forms are invalid in the
//! numbering plans. Sources: Meta's send-messages page on altered BR and MX prefixes;
//! nyaruka/courier#433, chatwoot/chatwoot#14048 and #6222, kevinrivm/vocero-crm#35.

use std::fmt;

use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumberFormat, Region};

/// A phone number with country code, at most 15 digits: what the provider gets.
///
/// Its `Debug` and [`E164::masked`] hide the middle; only `Display` shows all of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct E164(u64);

/// The person that a number belongs to, by which rows are deduplicated, suppressed and recorded. Messages are never
/// sent to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(u64);

/// Why a cell is not a phone number. Contains nothing of the cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PhoneError {
    /// Nothing but white space.
    #[error("no phone number")]
    Missing,
    /// Such as `9.19877E+11`.
    #[error("the number is in scientific notation, so digits are lost; export the column as text")]
    Scientific,
    /// Such as `919876543210.0`.
    #[error("the number has decimals; export the column as text")]
    Decimal,
    /// Letters, or two numbers in one cell.
    #[error("not a phone number")]
    NotANumber,
    /// A national number, and there is no default region.
    #[error("the number has no country code; set `audience.default_region`, or write the number with `+`")]
    NoCountryCode,
    /// More than the 15 digits of E.164.
    #[error("the number has more than 15 digits")]
    TooLong,
    /// The numbering plan of the country does not have such a number.
    #[error("the number does not exist in the numbering plan of its country")]
    Invalid,
}

impl E164 {
    /// Parses `+` and 7 to 15 digits; rejects everything else.
    pub fn parse_exact(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('+')?;
        let well_formed = (7..=15).contains(&digits.len())
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && !digits.starts_with('0');
        if well_formed { digits.parse().ok().map(E164) } else { None }
    }

    /// The number without `+`.
    pub fn digits(self) -> u64 {
        self.0
    }

    /// The number for the screen and the ledger: the country code's first two digits and the last two, `+91••••••••10`.
    pub fn masked(self) -> String {
        let digits = self.0.to_string();
        let (first, last) = (2, digits.len() - 2);
        let mut masked = String::with_capacity(3 * digits.len());
        masked.push('+');
        masked.push_str(&digits[..first]);
        (first..last).for_each(|_| masked.push('•'));
        masked.push_str(&digits[last..]);
        masked
    }

    /// The person that the number belongs to; see the module's table.
    pub fn identity(self) -> Identity {
        let number = self.0;
        Identity(match number {
            // 55, the area's two digits, then eight of which the first is a mobile's.
            550_000_000_000..560_000_000_000 if matches!(number / 10_000_000 % 10, 6 | 8 | 9) => {
                (number / 100_000_000 * 10 + 9) * 100_000_000 + number % 100_000_000
            }
            5_210_000_000_000..5_220_000_000_000 => 520_000_000_000 + number % 10_000_000_000,
            5_490_000_000_000..5_500_000_000_000 => 540_000_000_000 + number % 10_000_000_000,
            _ => number,
        })
    }

    /// The same person's number in the other form that WhatsApp may use, where there are two (see
    /// the module's table).
    pub fn other_form(self) -> Option<Self> {
        let identity = self.identity().0;
        if identity != self.0 {
            return Some(Self(identity));
        }
        let number = self.0;
        let legacy = Self(match number {
            // 55, the area's two digits, the 9, then eight.
            5_500_000_000_000..5_600_000_000_000 if number / 100_000_000 % 10 == 9 => {
                number / 1_000_000_000 * 100_000_000 + number % 100_000_000
            }
            520_000_000_000..530_000_000_000 => 5_210_000_000_000 + number % 10_000_000_000,
            540_000_000_000..550_000_000_000 => 5_490_000_000_000 + number % 10_000_000_000,
            _ => return None,
        });
        (legacy.identity().0 == number).then_some(legacy)
    }

    /// Whether this number's identity may also be somebody else's landline (Argentina).
    pub fn identity_may_merge(self) -> bool {
        let mut leading = self.0;
        while leading >= 100 {
            leading /= 10;
        }
        leading == 54
    }
}

impl fmt::Display for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}", self.0)
    }
}

impl fmt::Debug for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl Identity {
    /// The canonical number, without `+`.
    pub fn digits(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&E164(self.0).masked())
    }
}

/// The maximum length of a phone number with its separators, in bytes.
const MAX_CELL_LEN: usize = 128;

/// Reads phone numbers as people write them.
#[derive(Debug, Clone, Copy, Default)]
pub struct PhoneReader {
    region: Option<Region>,
}

impl PhoneReader {
    /// A reader that reads numbers without country code as numbers of `region`, two capital letters.
    /// `None` if there is no such region.
    pub fn new(region: Option<&str>) -> Option<Self> {
        match region {
            None => Some(Self { region: None }),
            Some(name) => {
                let region = name.parse().ok()?;
                // Some regions have no numbering plan.
                PHONE_NUMBER_UTIL.get_country_code_for_region(region)?;
                Some(Self { region: Some(region) })
            }
        }
    }

    /// Reads one cell.
    pub fn read(&self, cell: &str) -> Result<E164, PhoneError> {
        let cell = cell.trim();
        if cell.len() > MAX_CELL_LEN {
            return Err(PhoneError::NotANumber);
        }
        check_characters(cell)?;
        let parsed = PHONE_NUMBER_UTIL.parse(cell, self.region).map_err(|_| {
            if self.region.is_none() && !cell.starts_with('+') {
                PhoneError::NoCountryCode
            } else {
                PhoneError::NotANumber
            }
        })?;
        let formatted = PHONE_NUMBER_UTIL.format(&parsed, PhoneNumberFormat::E164);
        if formatted.len() > 16 {
            return Err(PhoneError::TooLong);
        }
        let number = E164::parse_exact(&formatted).ok_or(PhoneError::Invalid)?;
        let valid = |number: &rlibphonenumber::PhoneNumber| PHONE_NUMBER_UTIL.is_valid_number(number);
        if valid(&parsed) {
            return Ok(number);
        }
        // The legacy forms of Brazil and Mexico are invalid by the numbering plan, their identities are not.
        let identity = number.identity();
        let canonical =
            (identity.0 != number.0).then(|| PHONE_NUMBER_UTIL.parse(format!("+{}", identity.0), None).ok()).flatten();
        if canonical.is_some_and(|canonical| valid(&canonical)) { Ok(number) } else { Err(PhoneError::Invalid) }
    }
}

/// Rejects what a lenient parser would turn into a wrong number: letters, exponents, two numbers in one cell.
fn check_characters(cell: &str) -> Result<(), PhoneError> {
    if cell.is_empty() {
        return Err(PhoneError::Missing);
    }
    let number = cell.strip_prefix(['+', '\u{ff0b}']).or(cell.strip_prefix("(+")).unwrap_or(cell);
    let mut digits = 0_usize;
    for character in number.chars() {
        match character {
            '0'..='9' => digits += 1,
            ' ' | '-' | '(' | ')' | '.' | '\u{a0}' | '\u{2010}'..='\u{2013}' | '\u{202f}' => {}
            'e' | 'E' if digits > 0 && number.parse::<f64>().is_ok() => return Err(PhoneError::Scientific),
            _ => return Err(PhoneError::NotANumber),
        }
    }
    if digits == 0 {
        return Err(PhoneError::NotANumber);
    }
    // Such as `919876543210.0`: a column that went through floating point.
    if let Some((whole, "0" | "00")) = number.split_once('.')
        && whole.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Err(PhoneError::Decimal);
    }
    if digits > 17 { Err(PhoneError::TooLong) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(cell: &str, region: Option<&str>) -> Result<String, PhoneError> {
        PhoneReader::new(region).unwrap().read(cell).map(|number| number.to_string())
    }

    fn identity(number: &str) -> u64 {
        E164::parse_exact(number).unwrap().identity().digits()
    }

    #[test]
    fn numbers_are_read_as_people_write_them() {
        for cell in
            ["+91 98765 43210", "098765-43210", "9876543210", "919876543210", "00919876543210", " (+91) 98765 43210 "]
        {
            assert_eq!(read(cell, Some("IN")), Ok("+919876543210".into()), "{cell}");
        }
        assert_eq!(read("+1 202-555-0143", None), Ok("+12025550143".into()));
        assert_eq!(read("020 7946 0018", Some("GB")), Ok("+442079460018".into()));
    }

    #[test]
    fn what_is_no_number_is_refused_with_its_reason() {
        let cases = [
            ("", PhoneError::Missing),
            ("9.19877E+11", PhoneError::Scientific),
            ("919876543210.0", PhoneError::Decimal),
            ("1-800-FLOWERS", PhoneError::NotANumber),
            ("9876543210 / 9876543211", PhoneError::NotANumber),
            ("12345", PhoneError::Invalid),
            ("+1234567890123456", PhoneError::TooLong),
            ("n/a", PhoneError::NotANumber),
            (&format!("9876543210{}1", " ".repeat(1 << 20)), PhoneError::NotANumber),
        ];
        for (cell, reason) in cases {
            assert_eq!(read(cell, Some("IN")), Err(reason), "{cell}");
        }
        assert_eq!(read("6315551234", None), Err(PhoneError::NoCountryCode));
    }

    #[test]
    fn legacy_forms_are_valid_and_keep_their_address() {
        assert_eq!(read("+552187654321", None), Ok("+552187654321".into()));
        assert_eq!(read("+5215512345678", None), Ok("+5215512345678".into()));
        assert_eq!(read("+5491123456789", None), Ok("+5491123456789".into()));
        assert_eq!(read("+22507123456", None), Err(PhoneError::Invalid));
    }

    #[test]
    fn both_forms_of_a_person_have_one_identity() {
        assert_eq!(identity("+552187654321"), identity("+5521987654321"));
        assert_eq!(identity("+5215512345678"), identity("+525512345678"));
        assert_eq!(identity("+5491123456789"), identity("+541123456789"));
        // A Brazilian landline has no second form, and 7 is left alone.
        assert_eq!(identity("+552134567890"), 552_134_567_890);
        assert_eq!(identity("+552174567890"), 552_174_567_890);
        assert_eq!(identity("+919876543210"), 919_876_543_210);
    }

    #[test]
    fn a_number_knows_its_other_form() {
        let other = |number: &str| {
            E164::parse_exact(number).unwrap().other_form().map(|other| other.to_string()).unwrap_or_default()
        };
        for (legacy, today) in [
            ("+552187654321", "+5521987654321"),
            ("+5215512345678", "+525512345678"),
            ("+5491123456789", "+541123456789"),
        ] {
            assert_eq!((other(legacy).as_str(), other(today).as_str()), (today, legacy));
        }
        // A Brazilian landline, a Brazilian number with a 7, and a country without two forms.
        for single in ["+552134567890", "+5521974567890", "+919876543210", "+12025550143"] {
            assert_eq!(other(single), "", "{single}");
        }
    }

    #[test]
    fn a_mask_shows_four_digits_at_most() {
        let number = E164::parse_exact("+919876543210").unwrap();
        assert_eq!(number.masked(), "+91••••••••10");
        assert_eq!(format!("{number:?}"), "+91••••••••10");
    }

    /// The module's table, as it is written.
    fn identity_by_the_table(digits: &str) -> String {
        match digits.as_bytes() {
            [b'5', b'5', _, _, b'6' | b'8' | b'9', ..] if digits.len() == 12 => {
                format!("{}9{}", &digits[..4], &digits[4..])
            }
            [b'5', b'2', b'1', ..] if digits.len() == 13 => format!("52{}", &digits[3..]),
            [b'5', b'4', b'9', ..] if digits.len() == 13 => format!("54{}", &digits[3..]),
            _ => digits.to_owned(),
        }
    }

    proptest! {
        #[test]
        fn identities_are_those_of_the_table(digits in "55[0-9]{10}|521[0-9]{10}|549[0-9]{10}|(55|52|54|[1-9]{2})[0-9]{5,12}") {
            let number = E164(digits.parse().unwrap());
            prop_assert_eq!(number.identity().0.to_string(), identity_by_the_table(&digits));
            prop_assert_eq!(number.identity_may_merge(), digits.starts_with("54"));
        }

        #[test]
        fn an_identity_is_its_own_identity(digits in 1_000_000_u64..999_999_999_999_999) {
            let once = E164(digits).identity();
            prop_assert_eq!(E164(once.0).identity(), once);
        }

        #[test]
        fn the_other_form_has_the_same_identity_and_leads_back(digits in "(55|52|521|54|549|91)[0-9]{10,11}") {
            let number = E164(digits.parse().unwrap());
            if let Some(other) = number.other_form() {
                prop_assert_eq!(other.identity(), number.identity());
                prop_assert_eq!(other.other_form(), Some(number));
            }
        }

        #[test]
        fn reading_never_panics(cell in "\\PC{0,24}") {
            let _ = PhoneReader::new(Some("IN")).unwrap().read(&cell);
        }
    }
}
