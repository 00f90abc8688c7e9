//! The audience: rows in, people out.
//!
//! [`Audience::open`] reads the suppression lists; [`Audience::rows`] then streams the sources once, in
//! order. Each row either becomes a [`Recipient`] or is excluded. The checks run in this order: does `where`
//! select the row, does it have a valid phone number, is the person on a suppression list, did the person
//! appear before. So every row of every source is accounted for.
//!
//! * [`source`] reads rows, from CSV files.
//! * `stream` runs the checks; `suppress` and `dedupe` remember people, with a few bytes for each.
//! * `report` counts what was read and warns about files that contribute nothing.

mod dedupe;
mod item;
mod report;
pub mod source;
mod stream;
mod suppress;

pub use item::{AudienceItem, Excluded, Exclusion, Recipient};
pub use report::{ListReport, ReadReport, SourceReport};
pub use stream::{Audience, check_files};
pub use suppress::{MAX_LISTS, phone_column as suppression_column};
