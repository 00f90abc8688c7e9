//! From a template and a row to a message.

pub mod compose;
mod language;
