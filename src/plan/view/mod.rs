//! How a plan is shown.

pub mod text;
