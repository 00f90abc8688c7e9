//! Arguments that several commands share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::env;
use super::error::CommandError;
use super::exit::Exit;
use crate::domain::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::manifest::Given;
use crate::project::files;
use crate::util::yaml::{self, Refusal};

/// The largest file of variables.
const MAX_VAR_FILE: u64 = yaml::MAX_BYTES;

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Colour {
    Auto,
    Always,
    Never,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
}

/// Values that a campaign takes from the command line.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct VarArgs {
    /// Set a variable of the campaign
    #[arg(long = "var", value_name = "NAME=VALUE")]
    pub vars: Vec<String>,
    /// Set variables from a YAML file; `--var` takes precedence
    #[arg(long, value_name = "FILE")]
    pub var_file: Vec<PathBuf>,
    #[command(flatten)]
    pub data: DataArgs,
}

/// Where files with personal data are.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct DataArgs {
    /// Also look for CSV files in this directory outside the project; may be given several times
    /// [default: the directories in `SENDFORM_DATA_DIR`, separated by colons]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Vec<PathBuf>,
}

/// Which ledger is used.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct LedgerArgs {
    /// The ledger, as `sqlite:PATH` or `postgres://USER@HOST/DATABASE`
    /// [default: `SENDFORM_LEDGER`, then `sendform.yaml`, then `.sendform/ledger.db`]
    #[arg(long, value_name = "URL", conflicts_with = "sandbox")]
    pub ledger: Option<String>,
    /// Use an embedded stand-in provider and a ledger of its own
    #[arg(long)]
    pub sandbox: bool,
}

impl DataArgs {
    /// The directories that `--data-dir`, else `SENDFORM_DATA_DIR`, names.
    pub(super) fn directories(&self) -> Vec<PathBuf> {
        if self.data_dir.is_empty() { env::data_dirs() } else { self.data_dir.clone() }
    }
}

impl VarArgs {
    /// Reads `--var-file` and `--var`, and the data directories.
    pub(super) fn read(&self) -> Result<Given, CommandError> {
        let mut vars = BTreeMap::new();
        for file in &self.var_file {
            let content = files::read_named(file, MAX_VAR_FILE).map_err(|error| {
                CommandError::new(Exit::Invalid, Code::InvalidVarFile, error.to_string())
                    .hint("name the file itself with `--var-file`")
                    .source(error)
            })?;
            vars.extend(variables(file, &content)?);
        }
        for var in &self.vars {
            let (name, value) = var.split_once('=').ok_or_else(|| {
                CommandError::usage(format!("`--var {var}` has no value")).hint("write `--var NAME=VALUE`")
            })?;
            vars.insert(name.trim().to_owned(), serde_json::Value::from(value));
        }
        Ok(Given { vars, data_dirs: self.data.directories() })
    }
}

/// The variables of a file. The file may be something else, so nothing of its content is shown.
fn variables(file: &Path, content: &[u8]) -> Result<BTreeMap<String, serde_json::Value>, CommandError> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let problem = || {
        Diagnostic::error(Code::InvalidVarFile, format!("`{}` is not a list of variables", file.display()))
            .hint("write one `name: value` on each line")
    };
    let fail =
        |problem: Diagnostic, line, column| CommandError::from(Diagnostics::from(problem.in_file(file, line, column)));
    let text = std::str::from_utf8(content).map_err(|_| fail(problem(), None, None))?;
    let vars: BTreeMap<String, serde_json::Value> = yaml::parse_as(text).map_err(|refusal| match refusal {
        Refusal::Yaml(error) => {
            let (line, column) = error.location().map(|at| (at.line() as u64, at.column() as u64)).unzip();
            fail(problem(), line, column)
        }
        // These hold nothing of the content.
        bounds => fail(problem().hint(bounds.to_string()), None, None),
    })?;
    // A line such as `root:$6$…:19000:::` is a key to YAML, and later errors name the keys.
    if vars.keys().all(|name| may_name_a_variable(name)) { Ok(vars) } else { Err(fail(problem(), None, None)) }
}

/// Whether this may be the name of a variable, so that it may be shown.
fn may_name_a_variable(name: &str) -> bool {
    name.chars().count() <= 64
        && name.starts_with(|first: char| first.is_alphabetic() || first == '_')
        && name.chars().all(|character| character.is_alphanumeric() || "_-.".contains(character))
}
