//! The owner of each code, where a code belongs to one recipient for ever.
//!
//! A plan never uses a code that the ledger holds for somebody else. A claim checks the same rule, so that no
//! mistake in a plan gives one code to two people.

use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, BuildHasherDefault};

use hashbrown::DefaultHashBuilder;

use crate::domain::send::{PassThroughHasher, SendKey};
use crate::ledger::contract::Snapshot;
use crate::ledger::send_table::SendTable;

/// The owner of a code that belongs to another campaign or edition.
const ELSEWHERE: u64 = u64::MAX;

/// Maps the hash of a code to half of its send's key. Two codes with the same hash are so rare (one in a million
/// runs of ten million codes) that their consequence, a plan that must be made again, is acceptable.
pub(super) struct CodeOwners {
    owners: std::collections::HashMap<u64, u64, BuildHasherDefault<PassThroughHasher>>,
    hasher: DefaultHashBuilder,
}

impl CodeOwners {
    /// The owners before a run.
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

    /// Takes a code for a send. Returns false if it belongs to somebody else.
    pub(super) fn take(&mut self, code: &str, key: &SendKey, before: &SendTable) -> bool {
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
