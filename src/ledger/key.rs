//! Send keys, and the secret that they are made with.
//!
//! A plain hash of a phone number can be reversed by trying all numbers, so people are recorded under a keyed
//! hash. The key belongs to the ledger: with another key the ledger could not tell who got an offer already,
//! so it keeps the key's fingerprint and refuses another key.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::error::LedgerError;
use super::location::{canonical_file, exists, parent};
use crate::domain::phone::Identity;
use crate::domain::send::SendKey;
use crate::util::hex;

/// The environment variable that gives the key, as 64 hexadecimal digits.
pub const KEY_VARIABLE: &str = "SENDFORM_KEY";

/// The secret that send keys and generated codes are derived from.
#[derive(Clone)]
pub struct LedgerKey([u8; 32]);

impl fmt::Debug for LedgerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LedgerKey({})", self.fingerprint())
    }
}

impl LedgerKey {
    /// A key from its bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A key from its 64 hexadecimal digits, as [`KEY_VARIABLE`] gives it.
    pub fn parse(text: &str) -> Result<Self, LedgerError> {
        parse(text).ok_or_else(|| LedgerError::key(format!("in `{KEY_VARIABLE}` is not 64 hexadecimal digits")))
    }

    /// The path of the key of a ledger file: beside the file.
    pub fn path(ledger: &Path) -> PathBuf {
        canonical_file(ledger).with_extension("key")
    }

    /// The key of a ledger file: `given` (64 hexadecimal digits), or the key in the file beside it. If there
    /// is neither a key nor a ledger, creates a key.
    pub fn of(ledger: &Path, given: Option<&str>) -> Result<Self, LedgerError> {
        if let Some(text) = given {
            return Self::parse(text);
        }
        let path = Self::path(ledger);
        match Self::in_file(&path)? {
            Some(key) => Ok(key),
            None if !exists(ledger)? => Self::create(&path),
            None => Err(LedgerError::key(format!(
                "`{}` is missing; without it the ledger cannot tell who got an offer already",
                path.display()
            ))),
        }
    }

    /// The key in a file, if there is one.
    pub fn in_file(path: &Path) -> Result<Option<Self>, LedgerError> {
        let shown = path.display();
        match std::fs::read_to_string(path) {
            Ok(text) => parse(&text).map(Some).ok_or_else(|| not_a_key(path)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LedgerError::key_io(format!("`{shown}` cannot be read"), error)),
        }
    }

    fn create(path: &Path) -> Result<Self, LedgerError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| LedgerError::key(format!("cannot be created: {error}")))?;
        Self(bytes).write(path)
    }

    /// Writes the key to a file that only its owner can read. If the file exists already, returns the key in
    /// it instead.
    pub(super) fn write(self, path: &Path) -> Result<Self, LedgerError> {
        let shown = path.display();
        let fail = |error: std::io::Error| LedgerError::key_io(format!("`{shown}` cannot be written"), error);
        // A temporary file has mode 0600, and appears under its name whole or not at all.
        let directory = parent(path);
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(fail)?;
        writeln!(file, "{}", self.hex()).map_err(fail)?;
        file.as_file().sync_all().map_err(fail)?;
        match file.persist_noclobber(path) {
            Ok(_) => File::open(directory).and_then(|directory| directory.sync_all()).map(|()| self).map_err(fail),
            // Another process was faster: its key counts.
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {
                Self::in_file(path)?.ok_or_else(|| not_a_key(path))
            }
            Err(error) => Err(fail(error.error)),
        }
    }

    /// Writes the key beside a ledger file, unless there is one already.
    pub fn keep_beside(self, ledger: &Path) -> Result<(), LedgerError> {
        self.write(&Self::path(ledger)).map(drop)
    }

    fn hex(&self) -> String {
        hex::encode(&self.0)
    }

    /// Identifies the key without revealing anything of it.
    pub fn fingerprint(&self) -> String {
        let derived = blake3::derive_key("sendform 2026-11 fingerprint of the ledger key", &self.0);
        hex::encode(&derived[..8])
    }

    /// The key that codes are generated with.
    pub fn for_codes(&self) -> [u8; 32] {
        blake3::derive_key("sendform 2026-11 generated coupon codes", &self.0)
    }

    /// Identifies an account without revealing its SID.
    pub fn account_fingerprint(&self, sid: &str) -> String {
        let derived = blake3::derive_key("sendform 2026-11 fingerprint of an account", &self.0);
        blake3::keyed_hash(&derived, sid.as_bytes()).to_hex()[..16].to_owned()
    }

    /// Derives the send keys of one edition of a campaign.
    pub fn send_keys(&self, campaign: &str, edition: u32) -> SendKeys {
        SendKeys::new(blake3::derive_key("sendform 2026-11 send keys", &self.0), campaign, edition)
    }
}

fn parse(text: &str) -> Option<LedgerKey> {
    hex::decode(text.trim()).map(LedgerKey)
}

fn not_a_key(path: &Path) -> LedgerError {
    LedgerError::key(format!("in `{}` is not 64 hexadecimal digits", path.display()))
}

/// Derives the send keys of one edition of a campaign.
#[derive(Clone)]
pub struct SendKeys {
    derived: [u8; 32],
    scope: Vec<u8>,
}

impl SendKeys {
    /// Send keys for a plan that is made where there is neither a ledger nor a key. They identify recipients within
    /// the plan; no ledger holds any of them.
    pub fn without_ledger(campaign: &str, edition: u32) -> Self {
        Self::new(blake3::derive_key("sendform 2026-11 send keys without a ledger", &[]), campaign, edition)
    }

    fn new(derived: [u8; 32], campaign: &str, edition: u32) -> Self {
        let length = (campaign.len() as u64).to_le_bytes();
        Self { derived, scope: [&length, campaign.as_bytes(), &edition.to_le_bytes()].concat() }
    }

    /// The key of one person's send.
    pub fn of(&self, person: Identity) -> SendKey {
        let mut input = Vec::with_capacity(self.scope.len() + 8);
        input.extend_from_slice(&self.scope);
        input.extend_from_slice(&person.digits().to_le_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&blake3::keyed_hash(&self.derived, &input).as_bytes()[..16]);
        SendKey(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::phone::E164;

    #[test]
    fn send_keys_differ_by_person_campaign_edition_and_key() {
        let person = E164::parse_exact("+919876543210").unwrap().identity();
        let other = E164::parse_exact("+919876543211").unwrap().identity();
        let key = LedgerKey::from_bytes([1; 32]);
        let base = key.send_keys("diwali", 1).of(person);
        assert_eq!(base, key.send_keys("diwali", 1).of(person));
        for different in [
            key.send_keys("diwali", 1).of(other),
            key.send_keys("diwali", 2).of(person),
            key.send_keys("diwali2", 1).of(person),
            LedgerKey::from_bytes([2; 32]).send_keys("diwali", 1).of(person),
        ] {
            assert_ne!(base, different);
        }
    }

    #[test]
    fn send_keys_are_those_that_ledgers_hold() {
        let person = E164::parse_exact("+919876543210").unwrap().identity();
        let keys = LedgerKey::from_bytes([1; 32]).send_keys("diwali-gold", 2);
        assert_eq!(keys.of(person).to_string(), "d17a43078fbb3b6a0e8ffc7768c1e663");
    }

    #[test]
    fn a_plan_without_a_ledger_uses_no_key_that_a_ledger_could_have() {
        let person = E164::parse_exact("+919876543210").unwrap().identity();
        let without = SendKeys::without_ledger("diwali", 1).of(person);
        assert_eq!(without, SendKeys::without_ledger("diwali", 1).of(person));
        for key in [[0; 32], [1; 32]] {
            assert_ne!(without, LedgerKey::from_bytes(key).send_keys("diwali", 1).of(person));
        }
    }

    #[test]
    fn an_account_has_one_fingerprint_under_one_key() {
        let key = LedgerKey::from_bytes([1; 32]);
        assert_eq!(key.account_fingerprint("HXIN1"), key.account_fingerprint("HXIN1"));
        assert_ne!(key.account_fingerprint("HXIN1"), key.account_fingerprint("HXIN2"));
        assert_ne!(key.account_fingerprint("HXIN1"), LedgerKey::from_bytes([2; 32]).account_fingerprint("HXIN1"));
        assert_eq!(key.account_fingerprint("HXIN1").len(), 16);
    }

    #[test]
    fn a_key_is_made_once_and_never_where_a_ledger_has_lost_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = directory.path().join("ledger.db");
        let made = LedgerKey::of(&ledger, None).unwrap();
        assert_eq!(made.fingerprint(), LedgerKey::of(&ledger, None).unwrap().fingerprint());
        std::fs::write(&ledger, "").unwrap();
        std::fs::remove_file(LedgerKey::path(&ledger)).unwrap();
        assert!(LedgerKey::of(&ledger, None).is_err());
        let given = "ab".repeat(32);
        assert!(LedgerKey::of(&ledger, Some(&given)).is_ok());
        assert!(LedgerKey::of(&ledger, Some("short")).is_err());
    }
}
