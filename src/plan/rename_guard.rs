//! Whether people are about to get the words that they had from another campaign already.
//!
//! Send keys differ by campaign and edition, so a campaign that was renamed would send to everybody again. So each plan
//! looks its recipients up under every other campaign of the ledger: those who have no record under this name, and
//! whose message is like the recorded one but for the URL's parameter, the code and the expiry. Other editions of the
//! same campaign are no repeat: somebody raised the edition to send again.
//!
//! A ledger without other campaigns costs nothing. Else the record is read once for the likenesses of other campaigns'
//! messages, which are compared with those of the plan; only campaigns that share some of them are looked at closely.
//! Per recipient this takes 27 bytes. Those whose likeness is found are looked up two million at a time.

use std::collections::hash_map::Entry;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::phone::Identity;
use crate::ledger::{BySend, Ledger, LedgerError, LedgerKey, RunRecord, SendState};

/// How many repeats need no `--allow-repeat`, unless they are most of the messages.
const FEW: u64 = 20;

/// How many send keys are looked up in one reading of the journal.
const MAX_KEYS: usize = 2_000_000;

/// Recipients who had the same message from other campaigns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Repeats {
    /// How many of those to be sent had the same message from another campaign.
    pub people: u64,
    /// How many are to be sent.
    pub of: u64,
    /// The campaign that most of them had it from.
    pub campaign: String,
    /// Its edition.
    pub edition: u32,
    /// How many had it from that campaign.
    pub same: u64,
    /// Whether they are so many that `apply` needs `--allow-repeat`.
    pub need_permission: bool,
}

/// The recipients of a plan who have no record under its campaign's name.
#[derive(Debug, Default)]
pub struct Newcomers {
    people: Vec<Identity>,
    /// What each would get, but for the URL's parameter, code and expiry.
    likenesses: Vec<i64>,
    /// The same as older versions recorded it, where that is something else. Empty, or one for each.
    older: Vec<i64>,
}

impl Newcomers {
    /// Adds a person. `older` must be given for all or for none of them.
    pub fn add(&mut self, person: Identity, likeness: i64, older: Option<i64>) {
        self.people.push(person);
        self.likenesses.push(likeness);
        self.older.extend(older);
    }

    fn likenesses_of(&self, index: usize) -> [i64; 2] {
        let likeness = self.likenesses[index];
        [likeness, self.older.get(index).copied().unwrap_or(likeness)]
    }
}

/// Whether other campaigns than `record` have sent anything, so that repeats must be looked for.
pub fn has_others(runs: &[RunRecord], record: &str) -> bool {
    runs.iter().any(|run| run.campaign != record)
}

/// One edition of another campaign.
struct Other {
    campaign: String,
    edition: u32,
    /// The name that its manifest had last.
    name: String,
    runs: Vec<i64>,
    /// How many of its messages are like one of the plan's.
    alike: u64,
    /// How many people had the same message from it.
    same: u64,
}

/// Looks people up under every campaign but `record`. `of` is how many are to be sent.
pub async fn find(
    ledger: &mut dyn Ledger,
    key: &LedgerKey,
    runs: &[RunRecord],
    record: &str,
    newcomers: Newcomers,
    of: u64,
) -> Result<Option<Repeats>, LedgerError> {
    find_with(ledger, key, runs, record, newcomers, of, MAX_KEYS).await
}

/// The same, with at most `max_keys` send keys in memory at once.
pub async fn find_with(
    ledger: &mut dyn Ledger,
    key: &LedgerKey,
    runs: &[RunRecord],
    record: &str,
    newcomers: Newcomers,
    of: u64,
    max_keys: usize,
) -> Result<Option<Repeats>, LedgerError> {
    if newcomers.people.is_empty() {
        return Ok(None);
    }
    let mut others: Vec<Other> = Vec::new();
    for run in runs.iter().filter(|run| run.campaign != record) {
        let known = others.iter_mut().find(|other| other.campaign == run.campaign && other.edition == run.edition);
        match known {
            Some(other) => {
                other.runs.push(run.id);
                other.name.clone_from(&run.name);
            }
            None => others.push(Other {
                campaign: run.campaign.clone(),
                edition: run.edition,
                name: run.name.clone(),
                runs: vec![run.id],
                alike: 0,
                same: 0,
            }),
        }
    }
    let all_runs: Vec<i64> = others.iter().flat_map(|other| other.runs.iter().copied()).collect();
    if all_runs.is_empty() {
        return Ok(None);
    }

    let mut wanted = Likenesses::of(&newcomers);
    let mut alike: std::collections::HashMap<i64, u64> = std::collections::HashMap::new();
    ledger
        .similarity_digests(&all_runs, &mut |run, likeness| {
            if wanted.mark(likeness) {
                *alike.entry(run).or_default() += 1;
            }
        })
        .await?;
    for other in &mut others {
        other.alike = other.runs.iter().filter_map(|run| alike.get(run)).sum();
    }
    others.retain(|other| other.alike > 0);
    let suspects: Vec<usize> = (0..newcomers.people.len())
        .filter(|index| newcomers.likenesses_of(*index).iter().any(|likeness| wanted.is_marked(*likeness)))
        .collect();
    if others.is_empty() || suspects.is_empty() {
        return Ok(None);
    }

    let mut repeated = vec![false; suspects.len()];
    for (suspects, repeated) in suspects.chunks(max_keys).zip(repeated.chunks_mut(max_keys)) {
        for batch in others.chunks_mut(max_keys / suspects.len()) {
            look_up(ledger, key, batch, &newcomers, suspects, repeated).await?;
        }
    }
    let people = repeated.iter().filter(|repeated| **repeated).count() as u64;
    Ok(others.into_iter().max_by_key(|other| other.same).filter(|_| people > 0).map(|most| Repeats {
        people,
        of,
        campaign: most.name,
        edition: most.edition,
        same: most.same,
        need_permission: people > FEW.max(of / 20) || people * 2 > of,
    }))
}

/// Where one person's send of another campaign stands.
struct Lookup {
    /// The place in the list of suspects.
    suspect: u32,
    /// The place in the batch.
    other: u32,
    state: SendState,
    /// Whether its last attempt held the same message.
    same: bool,
}

/// Looks suspects up under some campaigns, in one reading of their journal.
async fn look_up(
    ledger: &mut dyn Ledger,
    key: &LedgerKey,
    others: &mut [Other],
    newcomers: &Newcomers,
    suspects: &[usize],
    repeated: &mut [bool],
) -> Result<(), LedgerError> {
    let mut lookups: BySend<Lookup> = BySend::default();
    lookups.reserve(others.len() * suspects.len());
    for (other_place, other) in others.iter().enumerate() {
        let keys = key.send_keys(&other.campaign, other.edition);
        for (suspect_place, index) in suspects.iter().enumerate() {
            let lookup = Lookup {
                suspect: suspect_place as u32,
                other: other_place as u32,
                state: SendState::NotSent,
                same: false,
            };
            lookups.insert(keys.of(newcomers.people[*index]), lookup);
        }
    }
    let runs: Vec<i64> = others.iter().flat_map(|other| other.runs.iter().copied()).collect();
    ledger
        .transitions(&runs, &mut |step| {
            if let Entry::Occupied(mut found) = lookups.entry(step.key) {
                let lookup = found.get_mut();
                lookup.state = step.state;
                if step.state == SendState::Intent {
                    let likenesses = newcomers.likenesses_of(suspects[lookup.suspect as usize]);
                    lookup.same = step.similarity_digest.is_some_and(|likeness| likenesses.contains(&likeness));
                }
            }
        })
        .await?;
    // Whatever may have reached them counts.
    for lookup in lookups.values() {
        if lookup.same && !matches!(lookup.state, SendState::NotSent | SendState::Rejected) {
            repeated[lookup.suspect as usize] = true;
            others[lookup.other as usize].same += 1;
        }
    }
    Ok(())
}

/// A set of likenesses, made to be asked millions of times: nearly all questions end at one bit.
struct Likenesses {
    sorted: Vec<i64>,
    marked: Vec<bool>,
    /// A bit for the last digits of each likeness, which are as good as random.
    filter: Vec<u64>,
}

impl Likenesses {
    fn of(newcomers: &Newcomers) -> Self {
        let mut sorted = [&newcomers.likenesses[..], &newcomers.older].concat();
        sorted.sort_unstable();
        sorted.dedup();
        sorted.shrink_to_fit();
        // Sixteen bits for each: one in sixteen others gets past.
        let words = (sorted.len() / 4).next_power_of_two();
        let mut filter = vec![0; words];
        for likeness in &sorted {
            let (word, bit) = Self::bit(*likeness, words);
            filter[word] |= bit;
        }
        Self { marked: vec![false; sorted.len()], sorted, filter }
    }

    fn bit(likeness: i64, words: usize) -> (usize, u64) {
        let digits = likeness.cast_unsigned();
        ((digits >> 6) as usize & (words - 1), 1 << (digits & 63))
    }

    /// Marks a likeness if it is in the set.
    fn mark(&mut self, likeness: i64) -> bool {
        let (word, bit) = Self::bit(likeness, self.filter.len());
        if self.filter[word] & bit == 0 {
            return false;
        }
        match self.sorted.binary_search(&likeness) {
            Ok(place) => {
                self.marked[place] = true;
                true
            }
            Err(_) => false,
        }
    }

    fn is_marked(&self, likeness: i64) -> bool {
        self.sorted.binary_search(&likeness).is_ok_and(|place| self.marked[place])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_likenesses_marks_what_it_holds_and_nothing_else() {
        let hash =
            |number: u64| i64::from_le_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes().first_chunk().unwrap());
        for count in [1, 2, 5, 64, 1_000] {
            let mut newcomers = Newcomers::default();
            let person = crate::domain::phone::E164::parse_exact("+919876543210").unwrap().identity();
            for number in 0..count {
                newcomers.add(person, hash(number), Some(hash(number + 1_000_000)));
            }
            let mut set = Likenesses::of(&newcomers);
            for number in (0..count).chain(1_000_000..1_000_000 + count) {
                assert!(!set.is_marked(hash(number)));
                assert!(set.mark(hash(number)), "{number} of {count}");
                assert!(set.is_marked(hash(number)));
            }
            for number in 2_000_000..2_010_000 {
                assert!(!set.mark(hash(number)) && !set.is_marked(hash(number)), "{number} of {count}");
            }
        }
    }
}
