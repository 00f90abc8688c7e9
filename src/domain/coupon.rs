//! Coupon codes.

use std::fmt;

use unicode_general_category::{GeneralCategory, get_general_category};

/// WhatsApp's limit for a limited-time offer, in characters.
/// Source: Meta, "Limited-time offer templates" (Infobip enforces the same 1–15).
pub const MAX_CHARACTERS: usize = 15;

/// The code behind COPY CODE: 1 to 15 characters, none of them white space or invisible.
///
/// A code is worth money, so `Debug` hides it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CouponCode(Box<str>);

/// Why a text is not a coupon code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// It has no characters.
    #[error("the code is empty")]
    Empty,
    /// It has more characters than WhatsApp allows: this many.
    #[error("the code has {0} characters; WhatsApp allows at most 15")]
    TooLong(usize),
    /// It contains white space, a control or a format character, which a customer cannot see or would not copy.
    #[error("the code contains white space or an invisible character")]
    Invisible,
}

impl CouponCode {
    /// Checks a code.
    pub fn new(code: &str) -> Result<Self, CodeError> {
        check(code)?;
        Ok(Self(code.into()))
    }

    /// A code that the ledger has recorded. It was checked when it was sent, perhaps by a version that allowed more,
    /// and remains the code of its recipient.
    pub fn recorded(code: &str) -> Option<Self> {
        (!code.is_empty()).then(|| Self(code.into()))
    }

    /// The code itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether all characters are accepted according to every source. Meta's page states no character
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
    // The fast path, for nearly all codes.
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

/// Whether a character is invisible: white space, control and format characters (Unicode Cc and Cf),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
