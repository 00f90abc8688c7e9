//! A table of coupon codes, each once.

use std::fmt;
use std::hash::BuildHasher;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

/// Codes in the order in which they were added, in one text instead of a million strings.
#[derive(Default)]
pub struct CodeTable {
    text: String,
    ends: Vec<usize>,
    /// From a code to its position. Codes that differ only in case have the same hash, so that they are compared.
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    case_twins: CaseTwins,
}

/// Codes that differ from an earlier one only in case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CaseTwins {
    /// The number of such codes.
    pub codes: usize,
    /// The position of the first one, from 0.
    pub first: usize,
}

impl CodeTable {
    /// Adds a code at the end. `Err` has the position, from 0, of the same code.
    pub fn insert(&mut self, code: &str) -> Result<(), usize> {
        let Self { text, ends, index, hasher, case_twins } = self;
        let code_at = |position: &u32| at(text, ends, *position as usize);
        let mut has_twin = false;
        let is_code = |other: &u32| {
            let other = code_at(other);
            has_twin |= differs_by_case(other, code);
            other == code
        };
        match index.entry(hash(hasher, code), is_code, |other| hash(hasher, code_at(other))) {
            Entry::Occupied(there) => Err(*there.get() as usize),
            Entry::Vacant(free) => {
                if has_twin {
                    if case_twins.codes == 0 {
                        case_twins.first = ends.len();
                    }
                    case_twins.codes += 1;
                }
                free.insert(u32::try_from(ends.len()).expect("fewer than four thousand million codes"));
                text.push_str(code);
                ends.push(text.len());
                Ok(())
            }
        }
    }

    /// The codes that differ from an earlier one only in case.
    pub fn case_twins(&self) -> CaseTwins {
        self.case_twins
    }

    /// Reserves memory for more codes: a table that grows step by step has to hash every code again.
    pub fn reserve(&mut self, codes: usize) {
        let Self { text, ends, index, hasher, .. } = self;
        // A failure does no harm: the number is an estimate.
        let _ = index.try_reserve(codes, |other| hash(hasher, at(text, ends, *other as usize)));
        let _ = ends.try_reserve_exact(codes);
    }

    /// The position of a code, from 0.
    pub fn position(&self, code: &str) -> Option<usize> {
        let found = self.index.find(hash(&self.hasher, code), |position| self.at(*position as usize) == code);
        found.map(|position| *position as usize)
    }

    /// The code at a position.
    pub fn at(&self, position: usize) -> &str {
        at(&self.text, &self.ends, position)
    }

    /// The number of codes.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

/// The longest code that is folded without allocating: all ASCII codes that are allowed.
const MAX_INLINE_LEN: usize = 16;

/// A hash that does not depend on case.
fn hash(hasher: &DefaultHashBuilder, code: &str) -> u64 {
    if code.len() <= MAX_INLINE_LEN && code.is_ascii() {
        let mut folded = [0; MAX_INLINE_LEN];
        folded[..code.len()].copy_from_slice(code.as_bytes());
        folded.make_ascii_lowercase();
        hasher.hash_one(u128::from_le_bytes(folded))
    } else {
        hasher.hash_one(code.to_lowercase())
    }
}

fn differs_by_case(one: &str, other: &str) -> bool {
    one != other
        && match one.is_ascii() && other.is_ascii() {
            true => one.eq_ignore_ascii_case(other),
            false => one.to_lowercase() == other.to_lowercase(),
        }
}

fn at<'a>(text: &'a str, ends: &[usize], position: usize) -> &'a str {
    let start = if position == 0 { 0 } else { ends[position - 1] };
    &text[start..ends[position]]
}

impl fmt::Debug for CodeTable {
    /// Without the codes, which are worth money.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CodeTable({})", self.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn codes_are_found_where_they_were_put_and_case_twins_are_counted(
            codes in prop::collection::vec("[abAB1]{1,3}|[abAB]{15,18}|[äÄaA]{1,2}", 0..60),
        ) {
            let mut table = CodeTable::default();
            let mut known: Vec<String> = Vec::new();
            let mut twins = Vec::new();
            for code in &codes {
                match known.iter().position(|other| other == code) {
                    Some(position) => prop_assert_eq!(table.insert(code), Err(position)),
                    None => {
                        if known.iter().any(|other| other.to_lowercase() == code.to_lowercase()) {
                            twins.push(known.len());
                        }
                        prop_assert_eq!(table.insert(code), Ok(()));
                        known.push(code.clone());
                    }
                }
            }
            for (position, code) in known.iter().enumerate() {
                prop_assert_eq!(table.position(code), Some(position));
            }
            let expected = CaseTwins { codes: twins.len(), first: twins.first().copied().unwrap_or(0) };
            prop_assert_eq!(table.case_twins(), expected);
        }
    }
}
