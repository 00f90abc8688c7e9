//! Small helpers that do not depend on the domain.

pub mod fs;
pub mod hex;
pub mod human;
pub mod net;
pub mod pipeline;
pub mod yaml;
