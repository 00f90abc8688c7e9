//! The documentation: its links lead somewhere, and its commands exist.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Markdown file of the repository but the changelog.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md", "benches/README.md"].map(|name| root().join(name)).into();
    for directory in ["docs", "docs/internals"] {
        let entries = std::fs::read_dir(root().join(directory)).unwrap();
        pages.extend(
            entries
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.extension().is_some_and(|extension| extension == "md")),
        );
    }
    assert!(pages.len() > 10, "{pages:?}");
    pages
}

/// The anchors of a page, as GitHub makes them from its headings.
fn anchors(page: &Path) -> HashSet<String> {
    let text = std::fs::read_to_string(page).unwrap();
    let slug = |heading: &str| -> String {
        heading
            .trim()
            .to_lowercase()
            .chars()
            .filter(|character| character.is_alphanumeric() || matches!(character, ' ' | '-' | '_'))
            .map(|character| if character == ' ' { '-' } else { character })
            .collect()
    };
    text.lines().filter(|line| line.starts_with('#')).map(|line| slug(line.trim_start_matches('#'))).collect()
}

/// The targets of a page's links.
fn links(text: &str) -> Vec<String> {
    let unwrapped = text.replace('\n', " ");
    unwrapped
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|target| !target.contains("://") && !target.contains(' '))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut broken = Vec::new();
    let mut checked = 0;
    for page in pages() {
        for link in links(&std::fs::read_to_string(&page).unwrap()) {
            let (file, anchor) = link.split_once('#').map_or((&*link, None), |(file, anchor)| (file, Some(anchor)));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let found = target.exists() && anchor.is_none_or(|anchor| anchors(&target).contains(anchor));
            if !found {
                broken.push(format!("{}: {link}", page.display()));
            }
            checked += 1;
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(checked > 30, "only {checked} links were found");
}

/// The `sendform` commands in a page's shell examples, without comments and pipes.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut in_shell = false;
    let mut commands = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_shell = line.trim() == "```sh";
            continue;
        }
        let line = line.split(" #").next().unwrap().split(" > ").next().unwrap().trim();
        let arguments = line.strip_prefix("sendform ").or_else(|| line.strip_prefix("cargo run -- "));
        if let Some(arguments) = arguments.filter(|_| in_shell) {
            // A quoted argument may hold spaces; which words they are does not matter here.
            let mut quoted = false;
            let spread: String = arguments
                .chars()
                .filter_map(|character| match character {
                    '"' => {
                        quoted = !quoted;
                        None
                    }
                    ' ' if quoted => Some('_'),
                    other => Some(other),
                })
                .collect();
            commands.push(spread.split_whitespace().map(str::to_owned).collect());
        }
    }
    commands
}

#[test]
fn every_command_in_the_documentation_is_accepted_by_the_command_line() {
    let mut refused = Vec::new();
    let mut checked = 0;
    for page in pages() {
        for arguments in commands(&std::fs::read_to_string(&page).unwrap()) {
            // With `--help` at the end everything before it is parsed, and nothing is done.
            let output = Command::new(env!("CARGO_BIN_EXE_sendform")).args(&arguments).arg("--help").output().unwrap();
            if !output.status.success() {
                refused.push(format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)));
            }
            checked += 1;
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
    assert!(checked > 15, "only {checked} commands were found");
}
