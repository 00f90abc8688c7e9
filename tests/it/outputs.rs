//! Snapshots of what people and pipelines see. A change of output is a change of a file in `snapshots`:
//! `INSTA_UPDATE=always cargo test --test it` writes them anew, and the review shows the difference.

use clap::CommandFactory;

use crate::support::snapshot::{check, transcript, transcript_of};
use crate::support::{Project, Sandbox, output};

/// A project whose ledger has a key that is the same in every run, so that send keys are as well.
fn project(sandbox: Option<&Sandbox>) -> Project {
    let mut project = match sandbox {
        Some(sandbox) => Project::with_sandbox(sandbox),
        None => Project::new(),
    };
    project.environment = vec![("SENDFORM_KEY", "5a".repeat(32))];
    project
}

/// The paths of a command and of all below it.
fn commands(command: &clap::Command, path: &[String]) -> Vec<Vec<String>> {
    let mut all = vec![path.to_vec()];
    for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
        all.extend(commands(subcommand, &[path, &[subcommand.get_name().to_owned()]].concat()));
    }
    all
}

#[test]
fn help_of_every_command() {
    let project = Project::empty();
    let all = commands(&sendform::cli::Cli::command(), &[]);
    assert!(all.len() > 20, "{all:?}");
    for path in all {
        let arguments: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let name = ["help", &path.join("_")].join("_");
        check(name.trim_end_matches('_'), &transcript(&project, &arguments));
    }
}

#[test]
fn a_plan_as_text_and_as_json() {
    let project = project(None);
    project.write("out.csv", "mobile\n9876543212\n");
    project.people("mobile,first_name\n9876543210,Asha\n9876543211,Ravi\n9876543212,Meera\nn/a,Dev\n9876543210,Asha\n");
    project.campaign(&[("default_region: IN", "default_region: IN\n  suppress: [{ csv: out.csv }]")]);
    check("plan_text", &transcript(&project, &["plan", "campaign.yaml", "--list-blocked"]));
    check("plan_json", &transcript(&project, &["plan", "campaign.yaml", "--list-blocked", "--format", "json"]));
    check("preview", &transcript(&project, &["preview", "campaign.yaml"]));
}

#[test]
fn what_was_recorded() {
    // One is accepted, one unknown.
    let sandbox = Sandbox::start(&["--fault", "500-after=+919876543211"]);
    let project = project(Some(&sandbox));
    project.people("mobile,first_name\n9876543210,Asha\n9876543211,Ravi\n");
    let apply = ["apply", "campaign.yaml", "--auto-approve"];
    check("status_before", &transcript(&project, &["status"]));
    let applied = project.run(&apply);
    check("apply_unknown", &transcript_of(&project, &apply, &applied));
    check("apply_nothing_to_send", &transcript(&project, &apply));
    for (name, arguments) in [
        ("status_text", &["status", "campaign.yaml"][..]),
        ("status_all_text", &["status"]),
        ("status_json", &["status", "campaign.yaml", "--format", "json"]),
        ("sends_list_unknown_text", &["sends", "list", "campaign.yaml", "--state", "unknown"]),
        ("sends_list_unknown_json", &["sends", "list", "campaign.yaml", "--state", "unknown", "--format", "json"]),
        (
            "sends_list_unknown_decisions",
            &["sends", "list", "campaign.yaml", "--state", "unknown", "--format", "decisions"],
        ),
        ("ledger_check_text", &["ledger", "check"]),
        ("ledger_check_json", &["ledger", "check", "--format", "json"]),
        ("ledger_export", &["ledger", "export"]),
        ("ledger_backup", &["ledger", "backup", "backup.db"]),
        ("ledger_restore_refused", &["ledger", "restore", "backup.db"]),
        ("ledger_copy_onto_itself", &["ledger", "copy", "sqlite:.sendform/ledger.db", "sqlite:.sendform/ledger.db"]),
        ("ledger_unlock", &["ledger", "unlock"]),
    ] {
        check(name, &transcript(&project, arguments));
    }
    let list = project.run(&["sends", "list", "--state", "unknown", "--format", "json"]).json();
    let send = list["sends"][0]["send"].as_str().unwrap();
    check("sends_show_text", &transcript(&project, &["sends", "show", send]));
    check("sends_show_json", &transcript(&project, &["sends", "show", send, "--format", "json"]));
    let decide = ["resolve", send, "--as", "accepted", "--reason", "in the console", "--actor", "asha"];
    check("resolve", &transcript(&project, &[&decide[..], &["--format", "json"]].concat()));
    check("resolve_again", &transcript(&project, &decide));
}

#[test]
fn findings_of_a_manifest_in_every_format() {
    let project = project(None);
    project.campaign(&[("phone: mobile", "phon: mobile"), ("text: Ends soon!", "text: This ends very soon!")]);
    for format in ["text", "json", "github", "sarif"] {
        let name = format!("validate_{format}");
        check(&name, &transcript(&project, &["validate", "campaign.yaml", "--format", format]));
    }
    project.campaign(&[]);
    check("validate_valid_json", &transcript(&project, &["validate", "campaign.yaml", "--format", "json"]));
    check("validate_valid_text", &transcript(&project, &["validate", "campaign.yaml"]));
}

#[test]
fn errors_of_the_command_line() {
    let project = project(None).without_ledger();
    let apply = ["apply", "campaign.yaml", "--auto-approve"];
    for (name, arguments) in [
        ("error_no_ledger", &apply[..]),
        ("error_not_a_terminal", &["apply", "campaign.yaml"]),
        ("error_no_such_file", &["plan", "campain.yaml"]),
        ("error_no_campaign", &["plan"]),
        ("error_wrong_option", &["plan", "campaign.yaml", "--fromat", "json"]),
        ("error_ledger_url", &["status", "--ledger", "mysql://db"]),
        ("error_no_ledger_to_read", &["sends", "list"]),
        ("error_send_key", &["sends", "show", "nonsense"]),
    ] {
        check(name, &transcript(&project, arguments));
    }
    project.run(&["ledger", "create"]).expect(0);
    let old = format!("v2:{}", "0".repeat(64));
    check("error_another_plan", &transcript(&project, &["apply", "campaign.yaml", "--plan-hash", &old]));
    let unreachable = project.run(&apply);
    check("error_provider_unreachable", &transcript_of(&project, &apply, &unreachable));
    let wrong_key = output(project.command(&["plan", "campaign.yaml"]).env("SENDFORM_KEY", "6b".repeat(32)));
    check("error_wrong_ledger_key", &transcript_of(&project, &["plan", "campaign.yaml"], &wrong_key));
    let no_secret = output(project.command(&apply).env_remove("KALEYRA_API_KEY"));
    check("error_no_secret", &transcript_of(&project, &apply, &no_secret));
    let lock = std::fs::OpenOptions::new().write(true).open(project.path().join(".sendform/ledger.db.lock")).unwrap();
    lock.lock().unwrap();
    check("error_ledger_held", &transcript(&project, &apply));
}

#[test]
fn an_apply_with_the_sandbox() {
    let project = project(None);
    let apply = ["apply", "campaign.yaml", "--sandbox", "--auto-approve"];
    check("apply_sandbox", &transcript(&project, &apply));
}
