//! Files on their way: the gateway says how many bytes of them may be under way together, and the
//! engine claims no send whose file would be one too many. A send that waits for its turn waits
//! without an intent, so that it is not in doubt if this process dies.

use super::Engine;
use crate::domain::message::Message;

/// The requests with a file that are under way.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Uploads {
    /// Whether any message of this run has a file.
    any: bool,
    requests: usize,
    bytes: u64,
}

impl Uploads {
    /// A message is queued.
    pub(super) fn seen(&mut self, message: &Message) {
        self.any = self.any || message.upload_bytes() > 0;
    }

    /// A request with this message starts.
    pub(super) fn start(&mut self, message: &Message) {
        let bytes = message.upload_bytes();
        self.requests += usize::from(bytes > 0);
        self.bytes += bytes;
    }

    /// A request with this message is over.
    pub(super) fn end(&mut self, message: &Message) {
        let bytes = message.upload_bytes();
        self.requests -= usize::from(bytes > 0);
        self.bytes -= bytes;
    }
}

impl Engine {
    /// How many of the first `messages` in the queue may leave without more bytes of files under way
    /// than the gateway wants. One request with a file may always be under way.
    pub(super) fn within_upload_budget(&self, messages: usize) -> usize {
        if !self.uploads.any || messages == 0 {
            return messages;
        }
        let budget = self.gateway.upload_budget();
        let mut then = self.uploads;
        // As `commit` groups them into requests.
        let mut request = None;
        for (position, waiting) in self.queue.iter().take(messages).enumerate() {
            request = match request {
                Some((digest, carried)) if digest == waiting.desired.digest && carried < self.delivery.batch => {
                    Some((digest, carried + 1))
                }
                _ => {
                    then.start(&waiting.desired.message);
                    let of_files = waiting.desired.message.upload_bytes() > 0;
                    if of_files && then.requests > 1 && then.bytes > budget {
                        return position;
                    }
                    Some((waiting.desired.digest, 1))
                }
            };
        }
        messages
    }
}
