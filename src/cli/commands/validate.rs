//! `sendform validate`

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::audience;
use crate::cli::args::VarArgs;
use crate::cli::clock;
use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::cli::output::diagnostics::{self, ValidateJson};
use crate::cli::ui::Ui;
use crate::coupons::Pool;
use crate::domain::diagnostic::{Code, Diagnostic, Severity};
use crate::manifest::{self, Compiled, names};
use crate::util::human::count;

/// Check campaigns offline: schema, WhatsApp's limits, expressions, CSV files
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendform validate campaign.yaml
  sendform validate campaigns/*.yaml --format github
  sendform validate .                            all campaigns below this directory")]
pub(crate) struct ValidateArgs {
    /// Campaign files, or directories to search for them
    #[arg(required = true, value_name = "CAMPAIGN")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    vars: VarArgs,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Source snippets, on standard error
    Text,
    /// One JSON document on standard output
    Json,
    /// Annotations for GitHub Actions
    Github,
    /// SARIF 2.1.0
    Sarif,
}

pub(crate) fn run(ui: &Ui, args: &ValidateArgs) -> Result<Exit, CommandError> {
    let given = args.vars.read()?;
    let now = clock::now();
    let mut found: Vec<Diagnostic> = Vec::new();
    let paths = campaigns(&args.paths, &mut found);
    for path in &paths {
        match manifest::load(path, &given, now) {
            Ok(checked) => {
                found.extend(checked.warnings);
                found.extend(data_files(&checked.compiled));
            }
            Err(problems) => found.extend(problems.0),
        }
    }
    found.extend(names::shared(&paths));
    let errors = found.iter().filter(|finding| finding.severity == Severity::Error).count();
    match args.format {
        Format::Text => {
            ui.problems(&found);
            let campaigns = count(paths.len(), "campaign");
            if errors == 0 {
                ui.say(&format!("{campaigns} checked, all valid"));
            } else {
                ui.say(&format!("\n{campaigns} checked, {} found", count(errors, "error")));
            }
        }
        Format::Json => ui.json(&ValidateJson::new(&found))?,
        Format::Github => ui.data(&found.iter().map(diagnostics::github).collect::<String>())?,
        Format::Sarif => ui.json(&diagnostics::sarif(&found))?,
    }
    Ok(if errors == 0 { Exit::Done } else { Exit::Invalid })
}

/// Reads every CSV file of a campaign to its end: a file is only valid if all of it can be used.
fn data_files(compiled: &Compiled) -> Vec<Diagnostic> {
    let mut found = audience::check_files(&compiled.audience).unwrap_or_else(|problems| problems.0);
    if let Some(pool) = &compiled.pool {
        match Pool::load(pool) {
            Ok(pool) => found.extend(pool.warnings().iter().cloned()),
            Err(problems) => found.extend(problems.0),
        }
    }
    found
}

/// The campaigns that were asked for, those below directories included.
fn campaigns(paths: &[PathBuf], found: &mut Vec<Diagnostic>) -> Vec<PathBuf> {
    let mut campaigns = Vec::new();
    for path in paths {
        if !path.is_dir() {
            campaigns.push(path.clone());
            continue;
        }
        let below = names::below(path);
        if below.is_empty() {
            found.push(
                Diagnostic::error(Code::NoCampaignFound, format!("there is no campaign below `{}`", path.display()))
                    .hint("a campaign is a YAML file with `apiVersion: sendform/v1` and `kind: Campaign`"),
            );
        }
        // As a user would type them: `.` gives no path its beginning.
        campaigns.extend(below.into_iter().map(|named| match named.path.strip_prefix(".") {
            Ok(short) => short.to_owned(),
            Err(_) => named.path,
        }));
    }
    campaigns
}
