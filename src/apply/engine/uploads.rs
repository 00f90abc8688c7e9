//! Files that are being uploaded. The gateway says how many bytes of them may be in flight together, and
//! the engine claims no send whose file would be one too many. A send that waits for its turn waits without
//! an intent, so that it is not unknown if this process dies.

use super::QueuedSend;
use crate::domain::message::Message;

/// The requests with a file that are in flight.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Uploads {
    /// Whether any message of this run has a file.
    any: bool,
    requests: usize,
    bytes: u64,
}

impl Uploads {
    /// A message is queued.
    pub(super) fn queued(&mut self, message: &Message) {
        self.any = self.any || message.upload_bytes() > 0;
    }

    /// A request with this message starts.
    pub(super) fn started(&mut self, message: &Message) {
        let bytes = message.upload_bytes();
        self.requests += usize::from(bytes > 0);
        self.bytes += bytes;
    }

    /// A request with this message is over.
    pub(super) fn ended(&mut self, message: &Message) {
        let bytes = message.upload_bytes();
        self.requests -= usize::from(bytes > 0);
        self.bytes -= bytes;
    }

    /// How many of these sends may start without more bytes in flight than `budget`, if one request carries
    /// up to `batch` of them. One request with a file may always be in flight.
    pub(super) fn within_budget<'a>(
        &self,
        sends: impl ExactSizeIterator<Item = &'a QueuedSend>,
        batch: usize,
        budget: impl FnOnce() -> u64,
    ) -> usize {
        let all = sends.len();
        if !self.any || all == 0 {
            return all;
        }
        let budget = budget();
        let mut then = *self;
        // As the engine groups them into requests.
        let mut request = None;
        for (position, send) in sends.enumerate() {
            request = match request {
                Some((digest, carried)) if digest == send.desired.digest && carried < batch => {
                    Some((digest, carried + 1))
                }
                _ => {
                    then.started(&send.desired.message);
                    if send.desired.message.upload_bytes() > 0 && then.requests > 1 && then.bytes > budget {
                        return position;
                    }
                    Some((send.desired.digest, 1))
                }
            };
        }
        all
    }
}
