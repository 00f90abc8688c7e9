//! Small helpers that know nothing of campaigns.

pub mod fs;
pub mod hex;
pub mod human;
pub mod net;
pub mod pipeline;
pub mod yaml;
