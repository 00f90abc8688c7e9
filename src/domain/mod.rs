//! The vocabulary that all modules share. No I/O, nothing asynchronous.

pub mod clock;
