//! Ids that stand with more than one number.

use std::hash::BuildHasher;

use hashbrown::hash_map::Entry;
use hashbrown::{DefaultHashBuilder, HashMap};

use super::Identity;

/// How many groups ids fall into, by their hash: the ids of one group of a million fit a cache.
const GROUPS: usize = 256;

/// Notices ids with several numbers. Adding is a push to a list, so that a million rows cost little; the
/// comparison happens once at the end, group by group.
pub struct IdNumbers {
    hasher: DefaultHashBuilder,
    /// For each person the two halves of the id's hash, and a hash of the number.
    groups: Vec<Vec<[u32; 3]>>,
}

impl Default for IdNumbers {
    fn default() -> Self {
        Self { hasher: DefaultHashBuilder::default(), groups: vec![Vec::new(); GROUPS] }
    }
}

impl IdNumbers {
    /// Adds a person with their id.
    pub fn add(&mut self, id: &str, person: Identity) {
        let hash = self.hasher.hash_one(id);
        // A multiplication by an odd number keeps different numbers different in the upper half, nearly always.
        let number = (person.digits().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32;
        self.groups[(hash >> 56) as usize].push([(hash >> 32) as u32, hash as u32, number]);
    }

    /// How many ids stand with more than one number.
    pub fn with_several(&self) -> u64 {
        let mut count = 0;
        // The number that stood with an id first, and whether the id was counted.
        let mut first: HashMap<[u32; 2], (u32, bool)> = HashMap::new();
        for group in &self.groups {
            first.clear();
            for [upper, lower, number] in group {
                match first.entry([*upper, *lower]) {
                    Entry::Vacant(free) => drop(free.insert((*number, false))),
                    Entry::Occupied(mut there) => {
                        let (known, counted) = there.get_mut();
                        if known != number && !*counted {
                            *counted = true;
                            count += 1;
                        }
                    }
                }
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::super::E164;
    use super::*;

    proptest! {
        #[test]
        fn ids_with_several_numbers_are_counted_once_each(rows in prop::collection::vec((0_u8..40, 0_u64..6), 0..200)) {
            let mut ids = IdNumbers::default();
            let mut expected: BTreeMap<u8, BTreeSet<u64>> = BTreeMap::new();
            for (id, last) in &rows {
                let person = E164::parse_exact(&format!("+91{}", 9_000_000_000 + last)).unwrap().identity();
                ids.add(&format!("M-{id}"), person);
                expected.entry(*id).or_default().insert(*last);
            }
            let several = expected.values().filter(|numbers| numbers.len() > 1).count();
            prop_assert_eq!(ids.with_several(), several as u64);
        }
    }
}
