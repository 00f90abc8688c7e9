//! Whose each code is, where a code belongs to one recipient for ever.
//!
//! The plan gives nobody a code that the ledger holds for somebody else. This is the same rule in the
//! claim, so that no mistake in a plan gives one code to two people.

use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, BuildHasherDefault};

use hashbrown::DefaultHashBuilder;

use super::super::{SendKey, Sends, Snapshot};
use crate::domain::send::PassThroughHasher;

/// Stands for a send of another campaign or edition.
const ELSEWHERE: u64 = u64::MAX;

/// From the hash of a code to half of its send's key. Two codes of one hash are so rare (once in a
/// million runs of ten million codes) that the harm, a plan that has to be made again, may be taken.
pub(super) struct Codes {
    owners: std::collections::HashMap<u64, u64, BuildHasherDefault<PassThroughHasher>>,
    hasher: DefaultHashBuilder,
}

impl Codes {
    /// The codes that are taken before a run.
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let mut codes = Self { owners: Default::default(), hasher: DefaultHashBuilder::default() };
        codes.owners.reserve(snapshot.sends.len() + snapshot.spent_codes.len());
        for (key, send) in snapshot.sends.iter() {
            codes.owners.insert(codes.hasher.hash_one(send.coupon), key.hash_half());
        }
        for code in &snapshot.spent_codes {
            codes.owners.entry(codes.hasher.hash_one(&**code)).or_insert(ELSEWHERE);
        }
        codes
    }

    /// Takes a code for a send. False if it is somebody else's.
    pub(super) fn take(&mut self, code: &str, key: &SendKey, before: &Sends) -> bool {
        match self.owners.entry(self.hasher.hash_one(code)) {
            Entry::Vacant(free) => {
                free.insert(key.hash_half());
                true
            }
            // Older versions gave one code to people of two editions; each of them keeps it.
            Entry::Occupied(taken) => {
                *taken.get() == key.hash_half() || before.get(key).is_some_and(|send| send.coupon == code)
            }
        }
    }
}
