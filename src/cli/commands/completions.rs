//! `sendform completions`

use clap::Args;

use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::cli::ui::Ui;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sendform completions bash > ~/.local/share/bash-completion/completions/sendform
  sendform completions zsh > ~/.zfunc/_sendform")]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// Prints the script for `command`, the whole command line.
pub(crate) fn run(ui: &Ui, args: &CompletionsArgs, command: &mut clap::Command) -> Result<Exit, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "sendform", &mut script);
    ui.data(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
