//! `sendform init`

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::cli::ui::Ui;
use crate::domain::diagnostic::Code;

/// The files that are written: the campaign and its audience.
const FILES: [(&str, &str); 2] =
    [("campaign.yaml", include_str!("init/campaign.yaml")), ("people.csv", include_str!("init/people.csv"))];

/// Write a campaign that can be planned and applied in the sandbox right away
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendform init my-offer
  sendform apply my-offer/campaign.yaml --sandbox")]
pub(crate) struct InitArgs {
    /// Directory to create the files in
    #[arg(default_value = ".")]
    directory: PathBuf,
}

pub(crate) fn run(ui: &Ui, args: &InitArgs) -> Result<Exit, CommandError> {
    let shown = args.directory.display();
    let existing: Vec<&str> =
        FILES.iter().map(|(name, _)| *name).filter(|name| args.directory.join(name).exists()).collect();
    if !existing.is_empty() {
        return Err(CommandError::new(
            Exit::Error,
            Code::WouldOverwrite,
            format!("{} in `{shown}` would be overwritten; nothing was written", existing.join(" and ")),
        )
        .hint("pass another directory"));
    }
    let fail = |error: std::io::Error| {
        CommandError::new(Exit::Error, Code::CannotWrite, format!("cannot write to `{shown}`: {error}"))
    };
    std::fs::create_dir_all(&args.directory).map_err(fail)?;
    let campaign_name = name(&args.directory);
    for (file, text) in FILES {
        let text = text.replace("name: my-offer", &format!("name: {campaign_name}"));
        // Never over a file that has appeared since.
        std::fs::File::create_new(args.directory.join(file))
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(fail)?;
    }
    let campaign = args.directory.join("campaign.yaml");
    ui.say(&format!(
        "Wrote {} and {}.\n\nTry it:\n  sendform plan {} --sandbox\n  sendform apply {} --sandbox",
        campaign.display(),
        args.directory.join("people.csv").display(),
        campaign.display(),
        campaign.display()
    ));
    Ok(Exit::Done)
}

/// A campaign name made from the directory's name, so that two campaigns of a project have different names.
fn name(directory: &Path) -> String {
    let full = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let last = full.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let fits = |character: char| if character.is_ascii_alphanumeric() { character } else { '-' };
    let name: String = last.chars().take(64).map(fits).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "my-offer".to_owned() } else { name.to_owned() }
}
