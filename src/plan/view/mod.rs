//! How a plan is shown.

pub mod json;
pub mod text;
