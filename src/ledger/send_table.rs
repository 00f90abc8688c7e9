//! The sends of one edition in memory.

use std::fmt;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::contract::StateCounts;
use crate::domain::send::{SendKey, SendState};

/// What the ledger holds of one send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordedSend<'a> {
    /// The state of the send.
    pub state: SendState,
    /// The number of the last attempt.
    pub attempt: u32,
    /// The run of the last attempt.
    pub run: i64,
    /// The code that belongs to the send.
    pub coupon: &'a str,
    /// The beginning of the digest of the last attempt's message, if it was read.
    pub content: Option<ContentPrefix>,
}

/// The beginning of a [`ContentDigest`](crate::domain::canonical::ContentDigest): enough to see that a message
/// has changed.
pub type ContentPrefix = [u8; 6];

/// The beginning of a digest. A digest that begins with zeros counts as not read; one in 2^48 does.
pub fn content_prefix(digest: &[u8]) -> Option<ContentPrefix> {
    digest.first_chunk().copied().filter(|prefix| *prefix != ContentPrefix::default())
}

/// The sends of one edition, by their keys.
///
/// Ten million of them must fit in memory beside a pool of ten million codes and the plan's own tables. So
/// they are kept in one list without gaps, and all codes in one text.
#[derive(Default)]
pub struct SendTable {
    slots: Vec<Slot>,
    /// From a key to its index in `slots`.
    index: HashTable<u32>,
    codes: String,
}

#[derive(Clone, Copy)]
struct Slot {
    key: SendKey,
    code_starts: usize,
    run: u32,
    attempt: u32,
    /// Zeros if it was not read.
    content: ContentPrefix,
    code_bytes: u8,
    state: SendState,
}

impl SendTable {
    /// An empty table with capacity for about this many sends.
    pub fn with_capacity(sends: usize) -> Self {
        let mut table = Self::default();
        if table.slots.try_reserve_exact(sends).is_ok() {
            let _ = table.index.try_reserve(sends, |position| table.slots[*position as usize].key.hash_half());
        }
        table
    }

    /// How many sends there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are no sends.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// What the ledger holds of a send.
    pub fn get(&self, key: &SendKey) -> Option<RecordedSend<'_>> {
        Some(self.recorded(&self.slots[self.find(key)?]))
    }

    fn find(&self, key: &SendKey) -> Option<usize> {
        let position = self.index.find(key.hash_half(), |position| self.slots[*position as usize].key == *key);
        position.map(|position| *position as usize)
    }

    /// A cursor that looks sends up one after the other.
    pub fn cursor(&self) -> Cursor<'_> {
        Cursor { sends: self, next: 0 }
    }

    /// All sends, in the order in which they were first recorded.
    pub fn iter(&self) -> impl Iterator<Item = (SendKey, RecordedSend<'_>)> {
        self.slots.iter().map(|slot| (slot.key, self.recorded(slot)))
    }

    /// How many sends are in this state.
    pub fn count(&self, state: SendState) -> u64 {
        self.slots.iter().filter(|slot| slot.state == state).count() as u64
    }

    /// How many sends are in each state.
    pub fn count_by_state(&self) -> StateCounts {
        let mut counts = StateCounts::default();
        self.slots.iter().for_each(|slot| counts.add(slot.state, 1));
        counts
    }

    /// The first run of all sends that are not `not sent`.
    pub fn first_run(&self) -> Option<i64> {
        self.slots.iter().filter(|slot| slot.state != SendState::NotSent).map(|slot| i64::from(slot.run)).min()
    }

    /// Records the state that a send has from now on; of an intent, also its run and its code.
    pub fn record(&mut self, key: SendKey, state: SendState, attempt: u32, intent: Option<(i64, &str)>) {
        self.record_with_content(key, state, attempt, intent, None);
    }

    /// The same as [`record`](Self::record); of an intent, also the beginning of its digest.
    pub fn record_with_content(
        &mut self,
        key: SendKey,
        state: SendState,
        attempt: u32,
        intent: Option<(i64, &str)>,
        content: Option<ContentPrefix>,
    ) {
        let Self { slots, index, codes } = self;
        let of = |position: &u32| slots[*position as usize].key;
        let position =
            match index.entry(key.hash_half(), |position| of(position) == key, |position| of(position).hash_half()) {
                Entry::Occupied(there) => *there.get() as usize,
                Entry::Vacant(free) => {
                    free.insert(u32::try_from(slots.len()).expect("fewer than four thousand million sends"));
                    let content = ContentPrefix::default();
                    slots.push(Slot { key, code_starts: 0, run: 0, attempt, content, code_bytes: 0, state });
                    slots.len() - 1
                }
            };
        let slot = &mut slots[position];
        slot.state = state;
        // A late acceptance may be about an attempt before the last.
        slot.attempt = slot.attempt.max(attempt);
        if let Some((run, code)) = intent {
            // Runs are numbered one by one. A larger number was written by somebody else: no live run has
            // it, so the send counts as unknown, and the program does not panic over a damaged record.
            slot.run = u32::try_from(run).unwrap_or(u32::MAX);
            slot.content = content.unwrap_or_default();
            // A code has 60 bytes at most. What is longer is none, and is not kept.
            if let Ok(bytes) = u8::try_from(code.len())
                && code_of(codes, slot) != code
            {
                slot.code_starts = codes.len();
                slot.code_bytes = bytes;
                codes.push_str(code);
            }
        }
    }

    /// Records the beginning of the digest of a known send.
    pub fn set_content(&mut self, key: &SendKey, content: Option<ContentPrefix>) {
        if let Some(position) = self.find(key) {
            self.slots[position].content = content.unwrap_or_default();
        }
    }

    /// Records that the provider accepted an earlier attempt of this send, which its run reported when the
    /// record could not follow any more. However later attempts ended, nothing more may be sent.
    pub fn record_earlier_acceptance(&mut self, key: &SendKey) {
        if let Some(position) = self.find(key)
            && matches!(self.slots[position].state, SendState::NotSent | SendState::Rejected)
        {
            self.slots[position].state = SendState::Accepted;
        }
    }

    fn recorded(&self, slot: &Slot) -> RecordedSend<'_> {
        RecordedSend {
            state: slot.state,
            attempt: slot.attempt,
            run: slot.run.into(),
            coupon: code_of(&self.codes, slot),
            content: content_prefix(&slot.content),
        }
    }
}

/// Looks sends up one after the other.
///
/// It is fastest in the order in which the sends were first recorded, which is the order of a plan: then the
/// next send lies behind the last one, and no lookup misses the processor's cache.
pub struct Cursor<'a> {
    sends: &'a SendTable,
    next: usize,
}

impl<'a> Cursor<'a> {
    /// What the ledger holds of a send.
    pub fn get(&mut self, key: &SendKey) -> Option<RecordedSend<'a>> {
        let sends = self.sends;
        let position = match sends.slots.get(self.next) {
            Some(slot) if slot.key == *key => self.next,
            _ => sends.find(key)?,
        };
        self.next = position + 1;
        Some(sends.recorded(&sends.slots[position]))
    }
}

fn code_of<'a>(codes: &'a str, slot: &Slot) -> &'a str {
    &codes[slot.code_starts..][..slot.code_bytes.into()]
}

impl fmt::Debug for SendTable {
    /// Shows no codes, because they are worth money.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SendTable({})", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> SendKey {
        // All in one bucket: only the second half differs.
        let mut key = [7; 16];
        key[12..].copy_from_slice(&number.to_be_bytes());
        SendKey(key)
    }

    #[test]
    fn a_send_takes_little_memory() {
        assert_eq!(size_of::<Slot>(), 40);
    }

    #[test]
    fn the_last_word_on_each_send_counts_and_its_code_stays() {
        let mut sends = SendTable::with_capacity(2);
        for number in 0..1_000 {
            sends.record(key(number), SendState::Intent, 1, Some((3, &format!("CODE{number}"))));
        }
        for number in (0..1_000).step_by(2) {
            sends.record(key(number), SendState::NotSent, 1, None);
        }
        sends.record(key(4), SendState::Intent, 2, Some((9, "CODE4")));
        sends.record(key(4), SendState::Accepted, 2, None);
        assert_eq!(sends.len(), 1_000);
        assert_eq!((sends.count(SendState::Intent), sends.count(SendState::NotSent)), (500, 499));
        let recorded = |state, attempt, run, coupon| Some(RecordedSend { state, attempt, run, coupon, content: None });
        assert_eq!(sends.get(&key(4)), recorded(SendState::Accepted, 2, 9, "CODE4"));
        assert_eq!(sends.get(&key(5)), recorded(SendState::Intent, 1, 3, "CODE5"));
        assert_eq!(sends.get(&key(6)), recorded(SendState::NotSent, 1, 3, "CODE6"));
        assert_eq!(sends.get(&key(1_000)), None);
        assert_eq!(sends.iter().filter(|(key, recorded)| sends.get(key) == Some(*recorded)).count(), 1_000);
        assert_eq!(sends.first_run(), Some(3));
    }

    #[test]
    fn what_the_last_attempt_held_is_known_by_the_beginning_of_its_digest() {
        let mut sends = SendTable::default();
        let content = |number: u8| content_prefix(&[number; 32]);
        sends.record_with_content(key(1), SendState::Intent, 1, Some((1, "A")), content(7));
        sends.record(key(1), SendState::NotSent, 1, None);
        assert_eq!(sends.get(&key(1)).unwrap().content, content(7));
        sends.record_with_content(key(1), SendState::Intent, 2, Some((2, "A")), content(8));
        assert_eq!(sends.get(&key(1)).unwrap().content, content(8));
        // A ledger that does not tell says nothing of an earlier one.
        sends.record(key(1), SendState::Intent, 3, Some((3, "A")));
        assert_eq!(sends.get(&key(1)).unwrap().content, None);
        sends.set_content(&key(1), content(9));
        sends.set_content(&key(2), content(9));
        assert_eq!((sends.get(&key(1)).unwrap().content, sends.len()), (content(9), 1));
    }

    #[test]
    fn asked_for_in_any_order_sends_are_found_and_others_are_not() {
        let mut sends = SendTable::default();
        for number in 0..100 {
            sends.record(key(number), SendState::Intent, 1, Some((1, &format!("CODE{number}"))));
        }
        let in_order: Vec<u32> = (0..100).collect();
        let with_gaps_and_strangers = vec![3, 4, 9, 500, 10, 11, 501, 502, 12, 99, 600];
        let back_and_forth = vec![99, 0, 99, 0, 50, 49, 48, 48, 48];
        for asked in [in_order, with_gaps_and_strangers, back_and_forth] {
            let mut cursor = sends.cursor();
            for number in asked {
                assert_eq!(cursor.get(&key(number)), sends.get(&key(number)), "{number}");
            }
        }
    }

    #[test]
    fn a_code_may_be_of_any_script() {
        let mut sends = SendTable::default();
        sends.record(key(1), SendState::Intent, 1, Some((1, "दीवाली")));
        sends.record(key(2), SendState::Intent, 1, Some((1, "😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀")));
        assert_eq!(sends.get(&key(1)).unwrap().coupon, "दीवाली");
        assert_eq!(sends.get(&key(2)).unwrap().coupon.chars().count(), 15);
    }

    #[test]
    fn a_run_number_that_no_ledger_gives_is_no_panic() {
        let mut sends = SendTable::default();
        for (number, run) in [(1, i64::MAX), (2, -1), (3, 7)] {
            sends.record(key(number), SendState::Intent, 1, Some((run, "CODE")));
        }
        let run = |number| sends.get(&key(number)).unwrap().run;
        assert_eq!((run(1), run(2), run(3)), (i64::from(u32::MAX), i64::from(u32::MAX), 7));
    }
}
