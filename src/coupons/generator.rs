//! Codes that are computed from the recipient and the ledger's key.

use std::fmt;

use crate::domain::coupon::{CodeError, CouponCode};
use crate::domain::phone::Identity;

/// Computes codes from a secret key, a campaign and a recipient.
///
/// A recipient always gets the same candidates in the same order. Which of them is used depends on the codes that
/// others have already: callers try [`Generator::candidate`] with a rising `salt`.
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
    /// `scope` separates campaigns and editions. The manifest's checks ensure that `alphabet` has at least two
    /// different characters, and prefix and length together at most 15.
    pub fn new(key: [u8; 32], scope: String, prefix: &str, alphabet: &str, length: usize) -> Self {
        Self { key, scope, prefix: prefix.to_owned(), alphabet: alphabet.chars().collect(), length }
    }

    /// The number of different codes.
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
        // Values above the last whole multiple of the alphabet's length are discarded, so that every
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

    use super::*;
    use crate::domain::phone::E164;

    fn identity(last: u64) -> Identity {
        E164::parse_exact(&format!("+91{}", 9_000_000_000 + last)).unwrap().identity()
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
}
