//! Work in two steps on two threads: one gives piece after piece, the other takes them in order.

use std::panic::resume_unwind;
use std::sync::mpsc::{IntoIter, SyncSender, sync_channel};

/// How many pieces may lie between the two.
const BETWEEN: usize = 4;

/// The giving end.
pub struct Giver<T>(SyncSender<T>);

impl<T> Giver<T> {
    /// Hands a piece over; waits while enough lie there. False: nobody takes any more.
    pub fn give(&self, piece: T) -> bool {
        self.0.send(piece).is_ok()
    }
}

/// Runs `give` on this thread, and `take` on another over what is given, until there is no more.
/// What both come to; a panic of either is a panic here.
pub fn hand_over<T: Send, A, B: Send>(
    give: impl FnOnce(&Giver<T>) -> A,
    take: impl FnOnce(IntoIter<T>) -> B + Send,
) -> (A, B) {
    std::thread::scope(|scope| {
        let (sender, pieces) = sync_channel(BETWEEN);
        let taking = scope.spawn(move || take(pieces.into_iter()));
        // The giver is dropped as soon as it has given all, which is what ends the other.
        let gave = give(&Giver(sender));
        match taking.join() {
            Ok(took) => (gave, took),
            Err(panic) => resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_arrives_in_order() {
        let (gave, took) = hand_over(
            |giver| (0..1_000).filter(|number| giver.give(*number)).count(),
            |pieces| pieces.collect::<Vec<i32>>(),
        );
        assert_eq!((gave, took), (1_000, (0..1_000).collect()));
    }

    #[test]
    fn who_gives_learns_that_nobody_takes_any_more() {
        let (gave, took) = hand_over(|giver| (0..).find(|number| !giver.give(*number)), |mut pieces| pieces.next());
        assert_eq!(took, Some(0));
        assert!(gave.is_some());
    }

    #[test]
    fn a_panic_of_either_is_one_here_and_ends_the_other() {
        let taking = std::panic::catch_unwind(|| {
            hand_over(|giver| while giver.give(1) {}, |mut pieces| assert_eq!(pieces.next(), None, "this is meant"))
        });
        let giving = std::panic::catch_unwind(|| {
            hand_over(|giver| assert!(!giver.give(1), "this is meant"), |pieces| pieces.count())
        });
        assert!(taking.is_err() && giving.is_err());
    }
}
