//! Coupon codes: the type, and codes generated from a key.

use std::fmt;

use unicode_general_category::{GeneralCategory, get_general_category};

use crate::audience::Identity;

/// WhatsApp's limit for a limited-time offer, in characters.
/// Source: Meta, "Limited-time offer templates" (Infobip enforces the same 1–15).
pub const MAX_CHARACTERS: usize = 15;

/// The code behind COPY CODE: 1 to 15 characters, none of them white space or invisible.
///
/// A code is worth money, so `Debug` hides it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CouponCode(Box<str>);

/// Why a text is no code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Nothing there.
    #[error("the code is empty")]
    Empty,
    /// More than WhatsApp takes; holds the number of characters.
    #[error("the code has {0} characters; WhatsApp allows at most 15")]
    TooLong(usize),
    /// White space, a control or a format character, which nobody could see or would copy.
    #[error("the code holds white space or an invisible character")]
    Invisible,
}

impl CouponCode {
    /// Checks a code.
    pub fn new(code: &str) -> Result<Self, CodeError> {
        check(code)?;
        Ok(Self(code.into()))
    }

    /// A code that the ledger holds. It was checked when it was sent, perhaps by a version that allowed more,
    /// and it stays its recipient's own.
    pub fn recorded(code: &str) -> Option<Self> {
        (!code.is_empty()).then(|| Self(code.into()))
    }

    /// The code itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether every character is one that all sources agree on. Meta's page states no character
    /// set; other clients allow letters and digits only.
    pub fn is_plain(&self) -> bool {
        self.0.bytes().all(|byte| byte.is_ascii_alphanumeric())
    }
}

/// Checks a code without making one.
pub fn check(code: &str) -> Result<(), CodeError> {
    if code.is_empty() {
        return Err(CodeError::Empty);
    }
    // Nearly all codes.
    if code.len() <= MAX_CHARACTERS && code.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    if code.chars().any(is_invisible) {
        return Err(CodeError::Invisible);
    }
    match code.chars().count() {
        length if length > MAX_CHARACTERS => Err(CodeError::TooLong(length)),
        _ => Ok(()),
    }
}

/// Whether nobody can see a character: white space, control and format characters (Unicode Cc and Cf),
/// and characters of other categories that are shown as nothing or as a blank.
pub fn is_invisible(character: char) -> bool {
    if character.is_ascii_graphic() {
        return false;
    }
    character.is_whitespace()
        || matches!(get_general_category(character), GeneralCategory::Control | GeneralCategory::Format)
        // Joiners, fillers, vowel inherents, variation selectors (Unicode: Default_Ignorable_Code_Point), and
        // the blank Braille pattern.
        || matches!(
            character,
            '\u{34f}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{2065}' | '\u{2800}'
                | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{e0000}'..='\u{e0fff}'
        )
}

impl fmt::Debug for CouponCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CouponCode(•••)")
    }
}

/// Computes codes from a secret key, a campaign and a recipient.
///
/// The same recipient gets the same candidates in the same order, always. Which candidate is
/// taken depends on those that others have already: [`Generator::candidate`] with a rising `salt`.
#[derive(Clone)]
pub struct Generator {
    key: [u8; 32],
    scope: String,
    prefix: String,
    alphabet: Vec<char>,
    length: usize,
}

impl fmt::Debug for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generator").field("scope", &self.scope).field("length", &self.length).finish_non_exhaustive()
    }
}

impl Generator {
    /// `scope` keeps campaigns and editions apart. `alphabet` has at least two different
    /// characters, and prefix and length together at most 15: the manifest's checks see to it.
    pub fn new(key: [u8; 32], scope: String, prefix: &str, alphabet: &str, length: usize) -> Self {
        Self { key, scope, prefix: prefix.to_owned(), alphabet: alphabet.chars().collect(), length }
    }

    /// How many different codes there are.
    pub fn capacity(&self) -> u128 {
        (self.alphabet.len() as u128).saturating_pow(u32::try_from(self.length).unwrap_or(u32::MAX))
    }

    /// The recipient's code number `salt`.
    pub fn candidate(&self, recipient: Identity, salt: u32) -> Result<CouponCode, CodeError> {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&(self.scope.len() as u64).to_le_bytes());
        hasher.update(self.scope.as_bytes());
        hasher.update(&recipient.digits().to_le_bytes());
        hasher.update(&salt.to_le_bytes());
        let mut stream = hasher.finalize_xof();
        let mut code = self.prefix.clone();
        // Values past the last whole multiple of the alphabet are thrown away, so that every
        // character is equally likely.
        let letters = self.alphabet.len() as u32;
        let bound = u32::from(u16::MAX) + 1;
        let fair = bound - bound % letters;
        for _ in 0..self.length {
            loop {
                let mut two = [0_u8; 2];
                stream.fill(&mut two);
                let value = u32::from(u16::from_le_bytes(two));
                if value < fair {
                    code.push(self.alphabet[(value % letters) as usize]);
                    break;
                }
            }
        }
        CouponCode::new(&code)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::audience::E164;

    fn identity(last: u64) -> Identity {
        E164::parse_exact(&format!("+91{}", 9_000_000_000 + last)).unwrap().identity()
    }

    #[test]
    fn a_code_has_1_to_15_visible_characters() {
        assert!(CouponCode::new("happy76").is_ok());
        assert!(CouponCode::new("ABCDEFGHIJKLMNO").is_ok());
        assert_eq!(CouponCode::new("ABCDEFGHIJKLMNOP"), Err(CodeError::TooLong(16)));
        assert_eq!(CouponCode::new(""), Err(CodeError::Empty));
        assert_eq!(CouponCode::new("A B"), Err(CodeError::Invisible));
        for invisible in
            ["AB\u{200b}", "\u{ad}AB", "A\u{202e}B", "A\u{2066}B", "AB\u{e0041}", "A\u{fe0f}", "A\u{3164}B"]
        {
            assert_eq!(CouponCode::new(invisible), Err(CodeError::Invisible), "{}", invisible.escape_unicode());
        }
        // Characters, not bytes.
        assert!(CouponCode::new("ÄÖÜÄÖÜÄÖÜÄÖÜÄÖÜ").is_ok());
    }

    #[test]
    fn debug_hides_the_code() {
        assert!(!format!("{:?}", CouponCode::new("happy76").unwrap()).contains("happy76"));
    }

    #[test]
    fn a_recipient_keeps_the_code_and_others_get_others() {
        let generator = Generator::new([7; 32], "diwali/1".into(), "DI-", "ABCDEFGHJKLMNPQRSTUVWXYZ23456789", 8);
        let again = Generator::new([7; 32], "diwali/1".into(), "DI-", "ABCDEFGHJKLMNPQRSTUVWXYZ23456789", 8);
        let codes: HashSet<_> = (0..2_000).map(|last| generator.candidate(identity(last), 0).unwrap()).collect();
        assert_eq!(codes.len(), 2_000);
        assert_eq!(generator.candidate(identity(5), 0), again.candidate(identity(5), 0));
        assert_ne!(generator.candidate(identity(5), 0), generator.candidate(identity(5), 1));
        let other_key = Generator::new([8; 32], "diwali/1".into(), "DI-", "ABCDEFGHJKLMNPQRSTUVWXYZ23456789", 8);
        assert_ne!(generator.candidate(identity(5), 0), other_key.candidate(identity(5), 0));
    }

    proptest! {
        #[test]
        fn no_code_holds_a_format_character(code in "[A-Z]{0,3}\\p{Cf}[A-Z]{0,3}") {
            prop_assert_eq!(CouponCode::new(&code), Err(CodeError::Invisible));
        }

        #[test]
        fn letters_and_digits_of_any_script_are_visible(code in "[\\p{L}\\p{Nd}&&[^\u{115f}\u{1160}\u{3164}\u{ffa0}]]{1,15}") {
            prop_assert!(CouponCode::new(&code).is_ok(), "{}", code.escape_unicode());
        }
    }
}
