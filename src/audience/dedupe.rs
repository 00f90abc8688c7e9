//! Who appeared in an earlier row.

use hashbrown::{HashMap, HashSet};

use super::Exclusion;
use crate::domain::phone::{E164, Identity};

/// The people of all rows so far.
#[derive(Debug, Default)]
pub(super) struct People {
    seen: HashSet<Identity>,
    /// The first number of each person whose identity may also be somebody else's landline.
    ambiguous: HashMap<Identity, E164>,
    duplicates: u64,
}

impl People {
    /// Adds a person by their number, unless they have an earlier row.
    pub(super) fn add(&mut self, address: E164) -> Result<(), Exclusion> {
        let identity = address.identity();
        if !self.seen.insert(identity) {
            self.duplicates += 1;
            let other_form = address.identity_may_merge() && self.ambiguous.get(&identity) != Some(&address);
            return Err(if other_form { Exclusion::PossibleDuplicate } else { Exclusion::Duplicate });
        }
        if address.identity_may_merge() {
            self.ambiguous.insert(identity, address);
        }
        Ok(())
    }

    /// The number of people.
    pub(super) fn len(&self) -> u64 {
        self.seen.len() as u64
    }

    /// The number of rows that were duplicates.
    pub(super) fn duplicates(&self) -> u64 {
        self.duplicates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_counts_once_and_the_other_argentine_form_is_only_possibly_the_same() {
        let mut people = People::default();
        let mut add = |number: &str| people.add(E164::parse_exact(number).unwrap());
        assert_eq!(add("+919876543210"), Ok(()));
        assert_eq!(add("+919876543210"), Err(Exclusion::Duplicate));
        assert_eq!(add("+552187654321"), Ok(()));
        assert_eq!(add("+5521987654321"), Err(Exclusion::Duplicate));
        assert_eq!(add("+5491123456789"), Ok(()));
        assert_eq!(add("+541123456789"), Err(Exclusion::PossibleDuplicate));
        assert_eq!(add("+5491123456789"), Err(Exclusion::Duplicate));
        assert_eq!((people.len(), people.duplicates()), (3, 4));
    }
}
