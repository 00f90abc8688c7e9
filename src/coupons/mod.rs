//! Sources of coupon codes: pools in files, and codes computed from the recipient.

pub mod codes;
pub mod generator;
pub mod pool;

pub use codes::CodeTable;
pub use generator::Generator;
pub use pool::{PendingPool, Pool};
