//! What a run has told the ledger lately, in case the ledger forgets it.
//!
//! A database that fails over to a standby may lose commits that it had called durable. The run
//! still knows them: it offers them again after each loss of the connection, and keeps those of
//! which the ledger holds nothing for the person who has to repair the record.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::ledger::{Batch, Intent, SendKey, Settlement};

/// How many claims a run remembers where others may be: seconds at the highest rates, a quarter of
/// an hour at the usual one.
const MAX_SHARED: usize = 100_000;

/// The same where the ledger is a file: enough for what is under way.
const MAX_ALONE: usize = 4_096;

/// An outcome of which the ledger holds no intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostOutcome {
    /// What the run saw.
    pub settlement: Settlement,
    /// The intent, as it was recorded before the request started.
    pub intent: Option<Intent>,
}

#[derive(Debug, Default)]
pub(super) struct Recent {
    batches: VecDeque<Arc<Batch>>,
    len: usize,
    max: usize,
}

impl Recent {
    /// For a run that may have this many sends under way.
    pub(super) fn new(shared: bool, concurrency: usize) -> Self {
        let max = if shared { MAX_SHARED } else { MAX_ALONE };
        Self { max: max.max(4 * concurrency), ..Self::default() }
    }

    /// Remembers what was committed.
    pub(super) fn add(&mut self, batch: Arc<Batch>) {
        let len = |batch: &Batch| batch.claim.len().max(batch.settle.len());
        self.len += len(&batch);
        self.batches.push_back(batch);
        while self.len > self.max {
            let Some(oldest) = self.batches.pop_front() else { break };
            self.len -= len(&oldest);
        }
    }

    /// The last word on each attempt.
    pub(super) fn settlements(&self) -> Vec<Settlement> {
        let mut seen: HashSet<(SendKey, u32)> = HashSet::new();
        let newest_first = self.batches.iter().rev().flat_map(|batch| batch.settle.iter().rev());
        let mut last: Vec<Settlement> =
            newest_first.filter(|settlement| seen.insert((settlement.key, settlement.attempt))).cloned().collect();
        last.reverse();
        last
    }

    /// An outcome that the ledger has lost, with its intent if it is remembered.
    pub(super) fn lost(&self, settlement: Settlement) -> LostOutcome {
        let mut claims = self.batches.iter().rev().flat_map(|batch| &batch.claim);
        let intent =
            claims.find(|intent| intent.key == settlement.key && intent.attempt == settlement.attempt).cloned();
        LostOutcome { settlement, intent }
    }
}
