//! The plan as JSON.

use crate::plan::PlanFile;

/// The plan as `plan --format json` prints it and `plan --out` writes it.
pub fn render(plan: &PlanFile) -> Result<String, serde_json::Error> {
    Ok(format!("{}\n", serde_json::to_string_pretty(plan)?))
}
