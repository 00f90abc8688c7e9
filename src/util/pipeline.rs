//! A pipeline of two threads: one produces items, the other consumes them in order.

use std::panic::resume_unwind;
use std::sync::mpsc::{IntoIter, SyncSender, sync_channel};

/// How many items may wait between the two threads.
const CHANNEL_CAPACITY: usize = 4;

/// The producer's end.
pub struct Sender<T>(SyncSender<T>);

impl<T> Sender<T> {
    /// Sends an item; waits while the channel is full. Returns false if the consumer has ended.
    pub fn send(&self, item: T) -> bool {
        self.0.send(item).is_ok()
    }
}

/// Runs `produce` on this thread and `consume` on another, and returns both results. The items end when
/// `produce` returns. A panic of either is a panic of the caller.
pub fn run_pipeline<T: Send, A, B: Send>(
    produce: impl FnOnce(&Sender<T>) -> A,
    consume: impl FnOnce(IntoIter<T>) -> B + Send,
) -> (A, B) {
    std::thread::scope(|scope| {
        let (sender, items) = sync_channel(CHANNEL_CAPACITY);
        let consumer = scope.spawn(move || consume(items.into_iter()));
        // The sender is dropped as soon as `produce` returns, which ends the items.
        let produced = produce(&Sender(sender));
        match consumer.join() {
            Ok(consumed) => (produced, consumed),
            Err(panic) => resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_items_arrive_in_order() {
        let (sent, received) = run_pipeline(
            |sender| (0..1_000).filter(|number| sender.send(*number)).count(),
            |items| items.collect::<Vec<i32>>(),
        );
        assert_eq!((sent, received), (1_000, (0..1_000).collect()));
    }

    #[test]
    fn the_producer_learns_that_the_consumer_has_ended() {
        let (failed, first) =
            run_pipeline(|sender| (0..).find(|number| !sender.send(*number)), |mut items| items.next());
        assert_eq!(first, Some(0));
        assert!(failed.is_some());
    }

    #[test]
    fn a_panic_of_either_thread_ends_the_other_and_reaches_the_caller() {
        let of_consumer = std::panic::catch_unwind(|| {
            run_pipeline(|sender| while sender.send(1) {}, |mut items| assert_eq!(items.next(), None, "expected"))
        });
        let of_producer = std::panic::catch_unwind(|| {
            run_pipeline(|sender| assert!(!sender.send(1), "expected"), |items| items.count())
        });
        assert!(of_consumer.is_err() && of_producer.is_err());
    }
}
