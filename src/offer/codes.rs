//! Many codes, each once.

use std::fmt;
use std::hash::BuildHasher;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

/// Codes in the order in which they came: in one text, not as a million strings.
#[derive(Default)]
pub struct CodeTable {
    text: String,
    ends: Vec<usize>,
    /// From a code to its position.
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl CodeTable {
    /// Adds a code at the end. `Err` holds the position, from 0, at which it stands already.
    pub fn insert(&mut self, code: &str) -> Result<(), usize> {
        let Self { text, ends, index, hasher } = self;
        let stands = |position: &u32| at(text, ends, *position as usize);
        match index.entry(hasher.hash_one(code), |other| stands(other) == code, |other| hasher.hash_one(stands(other)))
        {
            Entry::Occupied(there) => Err(*there.get() as usize),
            Entry::Vacant(free) => {
                free.insert(u32::try_from(ends.len()).expect("fewer than four thousand million codes"));
                text.push_str(code);
                ends.push(text.len());
                Ok(())
            }
        }
    }

    /// Makes room for so many more: a table that grows step by step has to look at every code again.
    pub fn reserve(&mut self, codes: usize) {
        let Self { text, ends, index, hasher } = self;
        // Not to get it is no harm: it is a guess.
        let _ = index.try_reserve(codes, |other| hasher.hash_one(at(text, ends, *other as usize)));
        let _ = ends.try_reserve_exact(codes);
    }

    /// Where a code stands, from 0.
    pub fn position(&self, code: &str) -> Option<usize> {
        let found = self.index.find(self.hasher.hash_one(code), |position| self.at(*position as usize) == code);
        found.map(|position| *position as usize)
    }

    /// The code at a position.
    pub fn at(&self, position: usize) -> &str {
        at(&self.text, &self.ends, position)
    }

    /// How many codes there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
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
