//! The system's clock. Only this file reads it; everything below the command line is given the time.

use jiff::Timestamp;

/// The current time.
#[expect(clippy::disallowed_methods, reason = "the time is read here and in `SystemClock`")]
pub(super) fn now() -> Timestamp {
    Timestamp::now()
}
