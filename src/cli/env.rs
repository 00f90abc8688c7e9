//! Every environment variable that the program reads, and nothing else reads the environment.
//!
//! The manifest may name further variables for secrets, with `env: NAME`.

#![expect(clippy::disallowed_methods, reason = "the environment is read here and nowhere else")]

use std::ffi::OsString;
use std::path::PathBuf;

/// The ledger, where `--ledger` names none.
pub(super) const LEDGER: &str = "SENDFORM_LEDGER";

/// The ledger's key, as 64 hexadecimal digits; a ledger in a database needs it, one in a file has it beside it.
pub(super) use crate::ledger::key::KEY_VARIABLE as KEY;

/// Directories outside the project that may hold CSV files, separated by colons.
pub(super) const DATA_DIR: &str = "SENDFORM_DATA_DIR";

/// A head that `apply` must find in the ledger; the same as `--ledger-head`.
pub(super) const LEDGER_HEAD: &str = "SENDFORM_LEDGER_HEAD";

/// How long an applier may be silent before others take over; the same as `--lease`.
pub(super) const LEASE: &str = "SENDFORM_LEASE";

/// In a pipeline: the local ledger outlives the job; the same as `--ledger-is-durable`.
pub(super) const LEDGER_IS_DURABLE: &str = "SENDFORM_LEDGER_IS_DURABLE";

/// The ledger that the environment names, if it does.
pub(super) fn ledger() -> Option<String> {
    std::env::var(LEDGER).ok().filter(|url| !url.trim().is_empty())
}

/// The ledger's key that the environment holds, if it does.
pub(super) fn key() -> Option<String> {
    std::env::var(KEY).ok().filter(|value| !value.is_empty())
}

/// The data directories that the environment names.
pub(super) fn data_dirs() -> Vec<PathBuf> {
    let named: OsString = std::env::var_os(DATA_DIR).unwrap_or_default();
    std::env::split_paths(&named).filter(|directory| !directory.as_os_str().is_empty()).collect()
}

/// The person who runs the program: the pipeline's user, else the machine's.
pub(super) fn actor() -> String {
    actor_of(|name| std::env::var(name).ok())
}

/// Variables that name a user, the pipeline's first.
const ACTORS: [&str; 4] = ["GITHUB_ACTOR", "GITLAB_USER_LOGIN", "USER", "LOGNAME"];

fn actor_of(value: impl Fn(&str) -> Option<String>) -> String {
    let named = ACTORS.into_iter().find_map(|name| value(name).filter(|value| !value.is_empty()));
    named.unwrap_or_else(|| "an unnamed user".to_owned())
}

/// The machine that the program runs on.
pub(super) fn host() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

/// The variables by which pipelines say that they are one.
const PIPELINES: [&str; 4] = ["TF_BUILD", "JENKINS_URL", "CODEBUILD_BUILD_ID", "TEAMCITY_VERSION"];

/// The variable by which this environment says that it is a pipeline.
///
/// Most set `CI`, and some people switch that off. Azure Pipelines, Jenkins, AWS CodeBuild and TeamCity have variables
/// of their own.
pub(super) fn pipeline() -> Option<&'static str> {
    pipeline_of(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
}

fn pipeline_of(value: impl Fn(&str) -> Option<String>) -> Option<&'static str> {
    let off = |value: &str| matches!(value.trim().to_ascii_lowercase().as_str(), "" | "0" | "false");
    if value("CI").is_some_and(|value| !off(&value)) {
        return Some("CI");
    }
    PIPELINES.into_iter().find(|name| value(name).is_some_and(|value| !value.trim().is_empty()))
}

/// A variable that the manifest names, for a secret.
pub(super) fn lookup(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pipelines_user_comes_before_the_machines_and_an_empty_name_does_not_count() {
        let of = |set: &'static [(&str, &str)]| {
            actor_of(|name| set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(of(&[("USER", "runner"), ("GITHUB_ACTOR", "anna")]), "anna");
        assert_eq!(of(&[("USER", "runner"), ("GITHUB_ACTOR", "")]), "runner");
        assert_eq!(of(&[]), "an unnamed user");
    }

    #[test]
    fn each_pipeline_is_recognised_and_ci_can_be_switched_off() {
        let of = |name: &'static str, value: &'static str| {
            pipeline_of(move |asked| (asked == name).then(|| value.to_owned()))
        };
        for (name, value) in [
            ("CI", "true"),
            ("CI", "1"),
            ("CI", "woodpecker"),
            ("TF_BUILD", "True"),
            ("JENKINS_URL", "https://jenkins.example.com/"),
            ("CODEBUILD_BUILD_ID", "x:1"),
            ("TEAMCITY_VERSION", "2026.1"),
        ] {
            assert_eq!(of(name, value), Some(name), "{name}={value}");
        }
        for (name, value) in
            [("CI", ""), ("CI", "false"), ("CI", "False"), ("CI", "0"), ("TF_BUILD", ""), ("OTHER", "1")]
        {
            assert_eq!(of(name, value), None, "{name}={value}");
        }
    }
}
