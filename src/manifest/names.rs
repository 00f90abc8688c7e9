//! Finding campaigns below a directory, and those that share a name.
//!
//! Two campaigns of one name have one record: whoever got the first would never get the second. This looks at the
//! beginning of lines only and parses nothing, so it takes as long as reading the files, whatever is in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::domain::diagnostic::{Code, Diagnostic};
use crate::project;

/// How many files and directories are looked at below a project's root.
const MAX_ENTRIES: usize = 5_000;

/// How many bytes of a manifest are read for its name.
const MAX_BYTES: u64 = 256 * 1024;

/// A campaign's file, and its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// The file.
    pub path: PathBuf,
    /// The name in it.
    pub name: String,
}

/// The campaigns below a directory, in the order of their paths. What is hidden, what links elsewhere and other projects
/// below are passed over.
pub fn below(root: &Path) -> Vec<Named> {
    let mut found = Vec::new();
    let mut entries_left = MAX_ENTRIES;
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        let mut entries: Vec<_> = entries.flatten().take(entries_left).collect();
        entries_left -= entries.len();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let (path, name) = (entry.path(), entry.file_name());
            let Ok(kind) = entry.file_type() else { continue };
            if name.to_string_lossy().starts_with('.') || name == "node_modules" || name == "target" {
                continue;
            }
            if kind.is_dir() {
                if !path.join(project::FILE).exists() && !path.join(".git").exists() {
                    directories.push(path);
                }
            } else if kind.is_file()
                && path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
            {
                found.extend(name_of(&path).map(|name| Named { path, name }));
            }
        }
    }
    found.sort();
    found
}

/// The name of a campaign, if a file holds one.
pub fn name_of(path: &Path) -> Option<String> {
    use std::io::Read;
    let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    if metadata.len() > MAX_BYTES {
        return None;
    }
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    let value = |key: &str| {
        text.lines().find_map(|line| {
            let value = line.strip_prefix(key)?.strip_prefix(':')?;
            let value = value.split(" #").next().unwrap_or_default().trim();
            Some(value.trim_matches(['"', '\'']).to_owned())
        })
    };
    let is_campaign = value("apiVersion")?.starts_with("sendform/") && value("kind")? == "Campaign";
    value("name").filter(|name| is_campaign && !name.is_empty())
}

/// Tells of campaigns among `asked`, and below the roots of their projects, that share a name with one that was asked for.
pub fn shared(asked: &[PathBuf]) -> Vec<Diagnostic> {
    let current = std::env::current_dir().unwrap_or_default();
    let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut by_name: BTreeMap<String, Vec<(PathBuf, PathBuf)>> = BTreeMap::new();
    let mut add = |path: &Path, name: String, only_if_known: bool| {
        let file = canonical(path);
        let known = by_name.entry(name).or_default();
        if !(only_if_known && known.is_empty()) && known.iter().all(|(other, _)| *other != file) {
            known.push((file, path.strip_prefix(&current).unwrap_or(path).to_owned()));
        }
    };
    let mut roots = Vec::new();
    for path in asked {
        if let Some(name) = name_of(path) {
            add(path, name, false);
            roots.extend(project::find(path, &current).ok().map(|project| project.root));
        }
    }
    roots.sort();
    roots.dedup();
    for named in roots.iter().flat_map(|root| below(root)) {
        add(&named.path, named.name, true);
    }
    let mut found = Vec::new();
    for (name, paths) in by_name.iter().filter(|(_, paths)| paths.len() > 1) {
        let (_, first) = &paths[0];
        for (_, path) in &paths[1..] {
            let problem = Diagnostic::error(
                Code::DuplicateCampaignName,
                format!("`{}` and `{}` are both called `{name}`", first.display(), path.display()),
            );
            found.push(
                problem
                    .hint("whoever got the one would not get the other: give each campaign a name of its own")
                    .in_file(first, None, None),
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_campaign_is_found_by_its_name_and_other_files_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let campaign = |name: &str| format!("# A comment\napiVersion: sendform/v1\nkind: Campaign\nname: {name}\n");
        write("b/one.yaml", &campaign("one"));
        write("a/two.yml", &campaign("\"two\"  # quoted").replace('\n', "\r\n"));
        write("gateway.yaml", "kaleyra:\n  name: three\n");
        write("deployment.yaml", "apiVersion: apps/v1\nkind: Campaign\nname: four\n");
        write("notes.txt", &campaign("five"));
        write(".hidden/six.yaml", &campaign("six"));
        write("other/sendform.yaml", "");
        write("other/seven.yaml", &campaign("seven"));
        write("binary.yaml", "\u{0}");
        std::os::unix::fs::symlink("b", directory.path().join("link")).unwrap();
        let found: Vec<_> = below(directory.path())
            .into_iter()
            .map(|named| (named.path.strip_prefix(directory.path()).unwrap().display().to_string(), named.name))
            .collect();
        let expected = [("a/two.yml", "two"), ("b/one.yaml", "one")];
        assert_eq!(found, expected.map(|(path, name)| (path.to_owned(), name.to_owned())));
    }
}
