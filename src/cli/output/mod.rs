//! What the program prints: diagnostics as text, GitHub annotations and SARIF.

pub(super) mod diagnostics;
