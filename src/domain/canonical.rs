//! Canonical forms: an unambiguous encoding of a value as bytes, and its digest.
//!
//! The ledger's chain, the plan hash and the content digest of a message use them.

use std::fmt;

/// The digest of everything that a recipient sees.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentDigest(pub [u8; 32]);

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", blake3::Hash::from(self.0).to_hex())
    }
}

/// Builds a canonical form: every part is prefixed with its length, so that two different values never have the same
/// form.
///
/// The form is hashed at once, which takes half as long as part by part for a hundred bytes.
pub struct Canonical {
    key: Option<[u8; 32]>,
    form: Vec<u8>,
}

impl Canonical {
    /// A canonical form of the kind of value that `tag` names.
    pub fn new(tag: &[u8]) -> Self {
        let mut canonical = Self { key: None, form: Vec::with_capacity(INITIAL_CAPACITY) };
        canonical.bytes(tag);
        canonical
    }

    /// A canonical form within the scope of another one, whose digest is `key`.
    pub fn keyed(key: &[u8; 32]) -> Self {
        Self { key: Some(*key), form: Vec::with_capacity(INITIAL_CAPACITY) }
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) {
        self.form.extend_from_slice(&number.to_le_bytes());
    }

    /// Adds bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.form.extend_from_slice(bytes);
    }

    /// Adds a text.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Adds an optional text.
    pub fn optional(&mut self, text: Option<&str>) {
        match text {
            None => self.number(u64::MAX),
            Some(text) => self.text(text),
        }
    }

    /// The first eight bytes of the digest of the parts so far.
    pub fn so_far(&self) -> i64 {
        self.hash().as_bytes().first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes))
    }

    /// The digest.
    pub fn finish(self) -> [u8; 32] {
        *self.hash().as_bytes()
    }

    fn hash(&self) -> blake3::Hash {
        match &self.key {
            None => blake3::hash(&self.form),
            Some(key) => blake3::keyed_hash(key, &self.form),
        }
    }
}

/// The size of nearly every canonical form, in bytes.
const INITIAL_CAPACITY: usize = 256;
