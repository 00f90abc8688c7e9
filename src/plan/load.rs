//! Opens the files that a plan is made from.
//!
//! Reading a large pool takes as long as reading the ledger, so it begins on a thread of its own as soon as the inputs
//! are opened. The suppression lists are read on the caller's thread: the library for phone numbers is quickest on the
//! thread that used it first, and the pass that follows reads numbers too.

use super::Prepared;
use crate::audience::Audience;
use crate::coupons::{PendingPool, Pool};
use crate::domain::diagnostic::Diagnostics;

/// The files of a campaign, which are being read. To drop it stops nothing and waits for nothing.
#[derive(Debug)]
pub struct Inputs {
    pool: Option<PendingPool>,
}

impl Inputs {
    /// Begins to read.
    pub fn open(prepared: &Prepared) -> Self {
        Self { pool: prepared.pool.as_ref().map(PendingPool::start) }
    }

    /// Waits until everything is read that must be read as a whole.
    pub(super) fn finish(self, prepared: &Prepared) -> Result<(Audience, Option<Pool>), Diagnostics> {
        let audience = Audience::open(&prepared.audience)?;
        let pool = self.pool.map(PendingPool::wait).transpose()?;
        Ok((audience, pool))
    }
}
