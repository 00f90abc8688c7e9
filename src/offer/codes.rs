//! Many codes, each once.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

const TOO_MANY: &str = "fewer than 4 GB of codes";

/// Codes in the order in which they came: in one text, not as a million strings.
#[derive(Default)]
pub struct CodeTable {
    text: String,
    ends: Vec<u32>,
    /// From a code to its position.
    index: HashTable<u32>,
    hasher: RandomState,
}

impl CodeTable {
    /// Adds a code at the end. `Err` holds the position, from 0, at which it stands already.
    pub fn insert(&mut self, code: &str) -> Result<(), usize> {
        if let Some(position) = self.position(code) {
            return Err(position);
        }
        let Self { text, ends, index, hasher } = self;
        let position = u32::try_from(ends.len()).expect(TOO_MANY);
        text.push_str(code);
        ends.push(u32::try_from(text.len()).expect(TOO_MANY));
        index.insert_unique(hasher.hash_one(code), position, |other| hasher.hash_one(at(text, ends, *other as usize)));
        Ok(())
    }

    /// Makes room for so many more. A table that grows step by step has to look at every code again.
    pub fn reserve(&mut self, codes: usize) {
        let Self { text, ends, index, hasher } = self;
        // Where there is no room, what comes may be less.
        let _ = index.try_reserve(codes, |other| hasher.hash_one(at(text, ends, *other as usize)));
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

fn at<'a>(text: &'a str, ends: &[u32], position: usize) -> &'a str {
    let start = if position == 0 { 0 } else { ends[position - 1] as usize };
    &text[start..ends[position] as usize]
}

impl fmt::Debug for CodeTable {
    /// Without the codes, which are worth money.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CodeTable({})", self.len())
    }
}
