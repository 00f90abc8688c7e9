//! What the program prints: diagnostics as text, GitHub annotations and SARIF.

pub mod diagnostics;
