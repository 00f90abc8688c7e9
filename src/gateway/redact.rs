//! Removes personal data and secrets from a provider's texts before they reach the screen or the ledger.
//!
//! | hidden | how it is found |
//! |---|---|
//! | secrets, the recipient's code and the values of the message | in any letter case; a code of one or two characters only as a word of its own |
//! | numbers: seven digits or more, of any script | with spaces, dashes, dots, commas, brackets and the like between them |
//! | the recipient's own digits, six in a row or more | in any grouping, with any text in between |
//! | control, format and line-separator characters | by their Unicode category, see [`crate::util::human`] |
//!
//! Ids are kept unchanged, because delivery reports contain them; see [`Private::id`] for the exceptions.

use std::fmt::Write;

use crate::domain::phone::E164;
use crate::util::human::{is_format, one_line};

/// The maximum length of a text, in characters.
const MAX_TEXT: usize = 300;

/// The maximum length of an id, in characters.
const MAX_ID: usize = 200;

/// The length to which a longer id is cut, in characters.
const CUT_ID_LEN: usize = 160;

/// The minimum number of digits that may be somebody's phone number.
const MIN_NUMBER: usize = 7;

/// The minimum number of consecutive digits of the recipient's number that are no coincidence.
const MIN_OWN_DIGITS: usize = 6;

/// The maximum number of characters between two digits of one number.
const MAX_GAP: usize = 4;

/// The minimum length of a secret or value: a shorter one would hide parts of every sentence.
const MIN_TEXT: usize = 3;

/// Replaces what was hidden.
const HIDDEN: &str = "•••";

/// What must not appear in the texts of a response to one request.
#[derive(Debug, Clone, Default)]
pub struct Private<'a> {
    /// The numbers of the recipients.
    pub numbers: &'a [E164],
    /// The API key and other secrets.
    pub secrets: Vec<&'a str>,
    /// The coupon code.
    pub code: &'a str,
    /// The other values of the recipient: the parameters of the body and of the URL.
    pub values: Vec<&'a str>,
}

impl Private<'_> {
    /// A provider's text without private data: one line, at most 300 characters.
    pub fn text(&self, text: &str) -> String {
        let text: Vec<char> = one_line(text).chars().collect();
        let mut hidden = vec![false; text.len()];
        self.mark_texts(&text, &mut hidden);
        mark_numbers(&text, &mut hidden);
        self.mark_own_digits(&text, &mut hidden);
        // Everything is marked before the text is cut, because the cut could leave half of a secret.
        let mut clean = String::new();
        let mut length = 0;
        for (position, character) in text.iter().enumerate() {
            if length >= MAX_TEXT {
                clean.push('…');
                break;
            }
            if !hidden[position] {
                clean.push(*character);
                length += 1;
            } else if position == 0 || !hidden[position - 1] {
                clean.push_str(HIDDEN);
                length += HIDDEN.chars().count();
            }
        }
        clean
    }

    /// An id as it is recorded: unchanged, since delivery reports will contain it. Only an id that is too long,
    /// that contains invisible characters, or that contains a recipient's number or a secret is cut and cleaned; then a
    /// digest of the whole id distinguishes it from others.
    pub fn id(&self, id: String) -> String {
        let plain = id.len() <= MAX_ID && id.bytes().all(|byte| byte.is_ascii_graphic());
        if plain && !self.is_private(&id) {
            return id;
        }
        let clean = one_line(&id);
        if clean == id && id.chars().count() <= MAX_ID && !self.is_private(&id) {
            return id;
        }
        let mut shown = clean.into_owned();
        for number in self.numbers.iter().flat_map(|number| [Some(*number), number.other_form()]).flatten() {
            shown = shown.replace(&number.digits().to_string(), HIDDEN);
        }
        for secret in self.secrets.iter().filter(|secret| secret.len() >= MIN_TEXT) {
            shown = shown.replace(secret, HIDDEN);
        }
        let mut shown: String = shown.chars().take(CUT_ID_LEN).collect();
        let digest = blake3::hash(id.as_bytes()).to_hex();
        let _ = write!(shown, "…{}", &digest[..16]);
        shown
    }

    /// Whether an id contains a recipient's number or a secret.
    fn is_private(&self, id: &str) -> bool {
        let mut run = 0;
        let long_number = id.bytes().any(|byte| {
            run = if byte.is_ascii_digit() { run + 1 } else { 0 };
            run >= MIN_NUMBER
        });
        let number = |number: E164| id.contains(&number.digits().to_string());
        let secret = |secret: &&str| secret.len() >= MIN_TEXT && id.contains(secret);
        long_number && self.numbers.iter().any(|own| number(*own) || own.other_form().is_some_and(number))
            || self.secrets.iter().any(secret)
    }

    /// Marks secrets, the code and values, in any letter case. Takes time in proportion to the text, for each of
    /// them, because the search of the standard library does.
    fn mark_texts(&self, text: &[char], hidden: &mut [bool]) {
        let folded: String = text.iter().copied().map(fold).collect();
        let others = self.secrets.iter().chain(&self.values).filter(|value| value.chars().count() >= MIN_TEXT);
        for wanted in others.chain([&self.code]) {
            let wanted: String = wanted.chars().filter(|character| !is_format(*character)).map(fold).collect();
            let length = wanted.chars().count();
            if length == 0 {
                continue;
            }
            // Where the search goes on: in bytes of the folded text, and in characters.
            let (mut from, mut position) = (0, 0);
            while let Some(found) = folded[from..].find(&wanted) {
                let start = position + folded[from..from + found].chars().count();
                let before = folded[..from + found].chars().next_back();
                let after = folded[from + found + wanted.len()..].chars().next();
                let is_part_of_a_word = [before, after].into_iter().flatten().any(char::is_alphanumeric);
                if length >= MIN_TEXT || !is_part_of_a_word {
                    hidden[start..start + length].fill(true);
                    (from, position) = (from + found + wanted.len(), start + length);
                } else {
                    let first = folded[from + found..].chars().next().map_or(1, char::len_utf8);
                    (from, position) = (from + found + first, start + 1);
                }
            }
        }
    }

    /// Marks the recipients' own digits, however they are grouped.
    fn mark_own_digits(&self, text: &[char], hidden: &mut [bool]) {
        let modulus = 10_u64.pow(MIN_OWN_DIGITS as u32);
        let mut own: Vec<u64> = Vec::new();
        for number in self.numbers.iter().flat_map(|number| [Some(*number), number.other_form()]).flatten() {
            let mut digits = number.digits();
            while digits >= modulus / 10 {
                own.push(digits % modulus);
                digits /= 10;
            }
        }
        own.sort_unstable();
        let digits: Vec<(usize, u64)> =
            text.iter().enumerate().filter_map(|(position, character)| Some((position, digit(*character)?))).collect();
        let mut marked_until = 0;
        for window in digits.windows(MIN_OWN_DIGITS) {
            let value = window.iter().fold(0, |value, (_, digit)| value * 10 + digit);
            if own.binary_search(&value).is_err() {
                continue;
            }
            for pair in window.windows(2) {
                let (from, to) = (pair[0].0, pair[1].0);
                if to <= marked_until {
                    continue;
                }
                (hidden[from], hidden[to]) = (true, true);
                // Separators between them are hidden as well, words are not.
                if text[from + 1..to].iter().all(|between| !between.is_alphanumeric()) {
                    hidden[from..to].fill(true);
                }
                marked_until = to;
            }
        }
    }
}

/// Marks every sequence of digits that is long enough for a phone number.
fn mark_numbers(text: &[char], hidden: &mut [bool]) {
    let (mut start, mut end, mut count) = (0, 0, 0);
    let mut mark = |start: usize, end: usize, count: usize| {
        if count >= MIN_NUMBER {
            hidden[start..end].fill(true);
        }
    };
    for (position, character) in text.iter().enumerate() {
        if is_digit(*character) {
            if count == 0 {
                start = position;
            }
            count += 1;
            end = position + 1;
        } else if count > 0 && (!separates_digits(*character) || position - end >= MAX_GAP) {
            mark(start, end, count);
            count = 0;
        }
    }
    mark(start, end, count);
}

/// Whether people write a character between the digits of a number.
fn separates_digits(character: char) -> bool {
    character.is_whitespace()
        || matches!(
            character,
            '-' | '.'
                | ','
                | '('
                | ')'
                | '['
                | ']'
                | '/'
                | '\\'
                | '+'
                | '_'
                | '*'
                | '\''
                | '|'
                | '~'
                | '\u{b7}'
                | '\u{2019}'
                | '\u{2022}'
                | '\u{2010}'
                ..='\u{2015}' | '\u{2212}' | '\u{ff0d}' | '\u{ff0e}'
                // A digit as an emoji.
                | '\u{fe0e}' | '\u{fe0f}' | '\u{20e3}'
        )
}

fn is_digit(character: char) -> bool {
    character.is_ascii_digit() || !character.is_ascii() && (character.is_numeric() || digit(character).is_some())
}

/// A character in lower case. If the lower case has several characters, the first of them.
fn fold(character: char) -> char {
    character.to_lowercase().next().unwrap_or(character)
}

/// The value of a decimal digit of any script (Unicode general category Nd).
fn digit(character: char) -> Option<u64> {
    /// The zero of each script, in ascending order; its other nine digits follow it.
    const ZEROS: [u32; 74] = [
        0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0,
        0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620,
        0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10, 0x104a0, 0x10d30, 0x10d40, 0x11066, 0x110f0, 0x11136,
        0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650, 0x116c0, 0x11730, 0x118e0, 0x11950, 0x11bf0, 0x11c50, 0x11d50,
        0x11da0, 0x11f50, 0x16130, 0x16a60, 0x16ac0, 0x16b50, 0x16d70, 0x1ccf0, 0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec,
        0x1d7f6, 0x1e140, 0x1e2f0, 0x1e4f0, 0x1e5f1, 0x1e950, 0x1fbf0,
    ];
    if let Some(value) = character.to_digit(10) {
        return Some(u64::from(value));
    }
    if character.is_ascii() {
        return None;
    }
    let code = u32::from(character);
    let zero = ZEROS[ZEROS.partition_point(|zero| *zero <= code) - 1];
    (code - zero < 10).then(|| u64::from(code - zero))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number() -> E164 {
        E164::parse_exact("+919876543210").unwrap()
    }

    #[test]
    fn numbers_are_hidden_however_they_are_written() {
        let private = Private { numbers: &[number()], ..Private::default() };
        for (text, clean) in [
            ("invalid number 919876543210", "invalid number •••"),
            ("no account for +44 20 7946 0018, sorry", "no account for +•••, sorry"),
            ("(020) 7946-0018 is no mobile", "(••• is no mobile"),
            ("98.76.54.32.11", "•••"),
            ("number ９８７６５４３２１１ is bad", "number ••• is bad"),
            ("संख्या ९८७६५४३२११", "संख्या •••"),
            ("٩٨٧٦ ٥٤٣ ٢١١", "•••"),
            ("9\u{200b}8\u{200b}7\u{2060}6\u{ad}5\u{feff}4321", "•••"),
            (
                "4\u{fe0f}\u{20e3}4\u{fe0f}\u{20e3}7\u{fe0f}\u{20e3}9\u{fe0f}\u{20e3}4\u{fe0f}\u{20e3}6\u{fe0f}\u{20e3}0",
                "•••",
            ),
            // What is no number stays.
            ("E13001: 131026, see (#100) of 25 rules", "E13001: 131026, see (#100) of 25 rules"),
        ] {
            assert_eq!(private.text(text), clean, "{text}");
        }
    }

    #[test]
    fn the_recipients_own_digits_are_hidden_in_any_grouping() {
        let private = Private { numbers: &[number()], ..Private::default() };
        for text in [
            "98765 then 43210",
            "9:8:7:6:5:4:3:2:1:0",
            "<98765><43210>",
            "\"area\":\"98765\",\"rest\":\"43210\"",
            "98765 किंतु ४३२१०",
            "9876 and 54",
        ] {
            let clean = private.text(text);
            assert!(clean.contains("•••"), "{clean}");
            assert!(!clean.chars().any(|character| digit(character).is_some()), "{clean}");
        }
        assert_eq!(private.text("98765 is too short to be theirs"), "98765 is too short to be theirs");
        // In both forms of the number.
        let numbers = [E164::parse_exact("+552187654321").unwrap()];
        let private = Private { numbers: &numbers, ..Private::default() };
        assert_eq!(private.text("21:98:76:54"), "•••");
    }

    #[test]
    fn secrets_codes_and_values_are_hidden_in_any_case() {
        let private = Private { numbers: &[], secrets: vec!["Ab12cdEF"], code: "Happy76", values: vec!["Åsa", "it"] };
        assert_eq!(private.text("key AB12CDef, code HAPPY76 or happy76 for åsa"), "key •••, code ••• or ••• for •••");
        assert_eq!(private.text("hap\u{200b}py76, it is"), "•••, it is");
        let short = Private { code: "A1", ..Private::default() };
        assert_eq!(short.text("code a1, not BA12"), "code •••, not BA12");
        let single = Private { code: "é", ..Private::default() };
        assert_eq!(single.text("ééé é É."), "ééé ••• •••.");
        // A secret that the cut would leave half of.
        let long = format!("{}{}Ab12cdEF", "1".repeat(2_000), "x".repeat(290));
        assert!(!private.text(&long).contains("Ab1"));
    }

    #[test]
    fn a_text_is_one_line_and_not_endless() {
        let private = Private::default();
        assert_eq!(private.text("a\u{2028}- send: b\nc\u{1b}[31m\u{202e}d"), "a - send: b c [31md");
        assert_eq!(private.text(&"x".repeat(400)), format!("{}…", "x".repeat(300)));
    }

    #[test]
    fn an_id_is_unchanged_unless_it_is_too_long_or_contains_private_data() {
        let numbers = [number()];
        let private = Private { numbers: &numbers, secrets: vec!["sandbox-key"], code: "ada", values: vec!["Bea"] };
        for id in ["08a72b9e-9e0e-46af-a41b-446655440000:0", "ada-bea-0", "wamid.HBgMOTE5=", "идентификатор:1"]
        {
            assert_eq!(private.id(id.to_owned()), id);
        }
        let edge = "é".repeat(200);
        assert_eq!(private.id(edge.clone()), edge);
        let (long, other) = (format!("{}a", "x".repeat(200)), format!("{}b", "x".repeat(200)));
        let kept = private.id(long.clone());
        assert_eq!(kept.chars().count(), 160 + 1 + 16);
        assert!(kept.starts_with(&format!("{}…", "x".repeat(160))), "{kept}");
        assert_ne!(kept, private.id(other));
        assert_eq!(kept, private.id(long));
        for id in ["919876543210:0", "m\u{2028}- send: x", "m\u{202e}1", "sandbox-key/7", "a\nb"] {
            let kept = private.id(id.to_owned());
            assert!(kept.contains('…') && !kept.contains("9876543210") && !kept.contains("sandbox-key"), "{kept:?}");
            assert_eq!(one_line(&kept), kept);
        }
    }

    #[test]
    fn a_megabyte_is_redacted_in_time_whatever_it_repeats() {
        let numbers = [number()];
        // Half of the text fits nearly everywhere.
        let nearly = format!("{}b", "a".repeat(1 << 19));
        let private = Private {
            numbers: &numbers,
            secrets: vec!["aaaaaaab"],
            code: "aaaaab",
            values: vec!["aaaaaaaaaaaac", &nearly, "aab"],
        };
        for text in ["a".repeat(1 << 20), "1 ".repeat(1 << 19), "987654".repeat(1 << 17)] {
            let started = std::time::Instant::now();
            assert!(private.text(&text).chars().count() <= 304);
            assert!(started.elapsed() < std::time::Duration::from_secs(4), "{:?}", started.elapsed());
        }
    }

    proptest! {
        #[test]
        fn no_grouping_lets_the_number_through(
            gaps in prop::collection::vec("[ .:/a-zA-Z(-]{0,3}|\u{200b}|\u{2028}|ж", 9),
            script in prop::sample::select(vec!['0', '٠', '०', '０', '𝟎']),
            before in "[a-z ]{0,5}",
        ) {
            let zero = u32::from(script);
            let mut text = before;
            for (position, value) in "9876543210".bytes().enumerate() {
                text.push(char::from_u32(zero + u32::from(value - b'0')).unwrap());
                text.push_str(gaps.get(position).map_or("", String::as_str));
            }
            let numbers = [number()];
            let private = Private { numbers: &numbers, ..Private::default() };
            let clean = private.text(&text);
            prop_assert!(!clean.chars().any(|character| digit(character).is_some()), "{}", clean);
        }

        #[test]
        fn any_text_is_one_clean_line(text in "\\PC{0,40}|[\\x00-\\x1f\u{2028}\u{200b}\u{e0041}0-9 ]{0,40}") {
            let clean = Private { numbers: &[number()], code: "x", ..Private::default() }.text(&text);
            prop_assert_eq!(one_line(&clean), clean.as_str());
        }
    }
}
