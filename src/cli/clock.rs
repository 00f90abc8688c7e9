//! The system's clock. Only this file reads it; everything below the command line is given the time.

use jiff::Timestamp;

/// The current time.
pub fn now() -> Timestamp {
    Timestamp::now()
}
