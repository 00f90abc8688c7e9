//! Finding the project: the first directory with a marker, from the campaign's directory upwards.
//!
//! A marker is `sendform.yaml`, or a directory `.sendform` that contains a ledger or its head file. It counts
//! only if it belongs to root, to this user, or to the owner of the campaign file, so that somebody who can
//! write to a parent directory cannot choose the ledger. The search stops at the first directory with `.git`.
//! Without a marker, the root is the campaign's own directory, never the current directory.
//!
//! The search runs twice: from the path as it was typed, and from the path with its symbolic links resolved.
//! If the two lead to different projects, the same campaign could be sent with two ledgers, so that is an
//! error.

use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::{DIRECTORY, FILE, LedgerAbove, Project, Search, settings};
use crate::domain::diagnostic::{Code, Diagnostic, Diagnostics};

/// Finds the project of a path: a campaign file, or the directory in which a command starts.
pub fn find(start: &Path, current: &Path) -> Result<Project, Diagnostics> {
    let typed = as_typed(&current.join(start));
    let canonical = typed.canonicalize().unwrap_or_else(|_| typed.clone());
    let owner = if typed.is_dir() { None } else { owner(&typed) };
    let trusted = Trusted { user: rustix::process::geteuid().as_raw(), owner };
    let from_typed = search(directory_of(&typed), &trusted);
    let mut found = search(directory_of(&canonical), &trusted);
    let typed_root = from_typed.0.canonicalize().unwrap_or_else(|_| from_typed.0.clone());
    let root = found.0.canonicalize().unwrap_or(found.0);
    if typed_root != root {
        let problem = format!(
            "`{}` belongs to the project `{}`, but its symbolic links lead to `{}` in the project `{}`",
            start.display(),
            typed_root.display(),
            canonical.display(),
            root.display()
        );
        return Err(Diagnostic::error(Code::TwoProjects, problem)
            .hint("each project has its own ledger, so people would get the campaign twice; use the path without symbolic links")
            .into());
    }
    let file = root.join(FILE);
    let (ledger_url, pinned_id) =
        if !may_exist(&file) || trusted.trusts(&file) { settings(&root)? } else { (None, None) };
    found.1.ledgers_above.extend(ledgers_above(&root));
    if from_typed.0 != root {
        found.1.ledgers_above.extend(ledgers_above(&from_typed.0));
    }
    Ok(Project { root, ledger_url, pinned_id, search: found.1 })
}

/// Resolves `.` and `..` as the file system does, and keeps symbolic links as they were typed.
pub fn as_typed(path: &Path) -> PathBuf {
    let mut typed = PathBuf::new();
    for component in path.components() {
        match component {
            // After a symbolic link, `..` is the parent of the link's target.
            Component::ParentDir => {
                typed = typed.canonicalize().unwrap_or(typed);
                typed.pop();
            }
            Component::CurDir => {}
            other => typed.push(other),
        }
    }
    typed
}

fn directory_of(path: &Path) -> &Path {
    if path.is_dir() { path } else { path.parent().unwrap_or(path) }
}

fn owner(path: &Path) -> Option<u32> {
    std::fs::metadata(path).ok().map(|metadata| metadata.uid())
}

/// The users whose markers count, besides root.
struct Trusted {
    user: u32,
    /// The owner of the campaign file.
    owner: Option<u32>,
}

impl Trusted {
    /// Whether a file, and the target of a symbolic link, belongs to a user whose markers count.
    fn trusts(&self, path: &Path) -> bool {
        let trusts = |uid: u32| uid == 0 || uid == self.user || Some(uid) == self.owner;
        let own = std::fs::symlink_metadata(path).is_ok_and(|metadata| trusts(metadata.uid()));
        own && owner(path).is_none_or(trusts)
    }
}

/// Whether a file exists. A path that cannot be examined counts as existing: opening it then reports why.
pub(super) fn may_exist(path: &Path) -> bool {
    use std::io::ErrorKind;
    match std::fs::symlink_metadata(path) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}

/// The `.sendform` of a directory, if it contains a ledger under its default name.
fn data_directory(directory: &Path) -> Option<PathBuf> {
    let own = directory.join(DIRECTORY);
    let has_ledger = own.is_dir() && ["ledger.db", "ledger.head"].iter().any(|name| may_exist(&own.join(name)));
    has_ledger.then_some(own)
}

fn search(start: &Path, trusted: &Trusted) -> (PathBuf, Search) {
    let mut search = Search { start: start.to_owned(), ..Search::default() };
    for directory in start.ancestors() {
        let own = directory.join(DIRECTORY);
        if !may_exist(&own) || trusted.trusts(&own) {
            search.directories.push(directory.to_owned());
        }
        // A dangling symbolic link counts too: its target may have named another ledger.
        let file = Some(directory.join(FILE)).filter(|file| may_exist(file));
        for marker in [file, data_directory(directory)].into_iter().flatten() {
            if trusted.trusts(&marker) {
                search.marked = true;
                return (directory.to_owned(), search);
            }
            search.ignored.push(marker);
        }
        if may_exist(&directory.join(".git")) {
            search.stopped_at = Some(directory.to_owned());
            break;
        }
    }
    (start.to_owned(), search)
}

/// The ledgers above a project root, regardless of their owners and of `.git` directories in between.
fn ledgers_above(root: &Path) -> impl Iterator<Item = LedgerAbove> {
    root.ancestors().skip(1).filter_map(|directory| {
        if let Some(own) = data_directory(directory) {
            return Some(LedgerAbove::File(own.join("ledger.db")));
        }
        let (url, _) = settings(directory).ok()?;
        url.map(|url| LedgerAbove::Named { root: directory.to_owned(), url })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(files: &[&str]) -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            for file in files {
                tree.write(file, "");
            }
            tree
        }

        fn root(&self) -> PathBuf {
            self.0.path().canonicalize().unwrap()
        }

        fn write(&self, file: &str, text: &str) {
            let path = self.root().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn find(&self, start: &str, current: &str) -> Result<Project, Diagnostics> {
            find(Path::new(start), &self.root().join(current))
        }

        #[track_caller]
        fn leads_to(&self, start: &str, current: &str, root: &str) -> Project {
            let project = self.find(start, current).unwrap();
            assert_eq!(project.root, self.root().join(root).components().collect::<PathBuf>());
            project
        }
    }

    #[test]
    fn without_a_marker_the_root_is_the_campaigns_directory_not_the_current_one() {
        let tree = Tree::new(&["a/x", "b/campaign.yaml"]);
        for (start, current) in
            [("b/campaign.yaml", ""), ("campaign.yaml", "b"), ("../b/campaign.yaml", "a"), ("a/../b/campaign.yaml", "")]
        {
            let project = tree.leads_to(start, current, "b");
            assert_eq!(project.ledger_url, None);
            assert_eq!(project.default_ledger(), tree.root().join("b/.sendform/ledger.db"));
        }
        tree.leads_to(".", "a", "a");
    }

    #[test]
    fn a_data_directory_is_a_marker_only_with_a_ledger_or_a_head_in_it() {
        let tree = Tree::new(&["campaigns/a/campaign.yaml", ".sendform/sandbox/ledger.db", ".sendform/.gitignore"]);
        tree.leads_to("campaigns/a/campaign.yaml", "", "campaigns/a");
        tree.write(".sendform/ledger.head", "");
        tree.leads_to("campaigns/a/campaign.yaml", "", "");
        tree.write("campaigns/.sendform/ledger.db", "");
        tree.leads_to("campaigns/a/campaign.yaml", "", "campaigns");
        tree.write("campaigns/a/sendform.yaml", "");
        let project = tree.leads_to("campaigns/a/campaign.yaml", "", "campaigns/a");
        assert_eq!(
            project.search.ledgers_above.first(),
            Some(&LedgerAbove::File(tree.root().join("campaigns/.sendform/ledger.db")))
        );
    }

    #[test]
    fn the_search_stops_at_a_git_repository() {
        let tree = Tree::new(&[".sendform/ledger.db", "repo/.git/HEAD", "repo/offers/campaign.yaml"]);
        let project = tree.leads_to("repo/offers/campaign.yaml", "", "repo/offers");
        assert_eq!(project.search.stopped_at, Some(tree.root().join("repo")));
        assert_eq!(project.search.ledgers_above, [LedgerAbove::File(tree.root().join(".sendform/ledger.db"))]);
        // A marker in the repository's own directory counts.
        tree.write("repo/sendform.yaml", "ledger: sqlite:record/sends.db\n");
        let project = tree.leads_to("repo/offers/campaign.yaml", "repo/offers", "repo");
        assert_eq!(project.ledger_url.as_deref(), Some("sqlite:record/sends.db"));
    }

    #[test]
    fn a_symbolic_link_to_another_project_is_refused_and_both_are_named() {
        let tree = Tree::new(&["real/sendform.yaml", "real/campaign.yaml", "other/sendform.yaml"]);
        std::os::unix::fs::symlink(tree.root().join("real/campaign.yaml"), tree.root().join("other/campaign.yaml"))
            .unwrap();
        let error = tree.find("other/campaign.yaml", "").unwrap_err().to_string();
        for named in ["real`", "other`"] {
            assert!(error.contains(&tree.root().join(named).display().to_string()), "{error}");
        }
        // A symbolic link to the whole project leads to the same project.
        std::os::unix::fs::symlink(tree.root().join("real"), tree.root().join("link")).unwrap();
        tree.leads_to("link/campaign.yaml", "", "real");
        tree.leads_to("campaign.yaml", "link", "real");
        // After a symbolic link, `..` is the parent of the link's target.
        std::fs::create_dir(tree.root().join("real/sub")).unwrap();
        std::os::unix::fs::symlink(tree.root().join("real/sub"), tree.root().join("sub")).unwrap();
        tree.leads_to("sub/../campaign.yaml", "", "real");
    }

    #[test]
    fn markers_of_other_users_do_not_count() {
        let tree = Tree::new(&["up/campaign.yaml", "sendform.yaml", ".sendform/ledger.db"]);
        let strangers = Trusted { user: u32::MAX, owner: None };
        let (root, search) = search(&tree.root().join("up"), &strangers);
        if std::fs::metadata(tree.root()).unwrap().uid() != 0 {
            assert_eq!(root, tree.root().join("up"));
            assert_eq!(search.ignored, [tree.root().join("sendform.yaml"), tree.root().join(".sendform")]);
        } else {
            // Root's markers always count; an integration test changes owners.
            assert_eq!(root, tree.root());
        }
    }

    #[test]
    fn the_project_file_is_read_strictly_and_never_quoted() {
        let tree = Tree::new(&["campaign.yaml"]);
        for (text, expected) in
            [("ledger: { url: postgres://me:hunter@db/offers }\n", "32 hexadecimal digits"), ("leger: x\n", "leger")]
        {
            tree.write("sendform.yaml", text);
            let error = tree.find("campaign.yaml", "").unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("hunter"), "{error}");
        }
        // It may be a symbolic link to any file, so no error quotes such a file.
        for other in [
            "hunter2",
            "root:hunter2:19000:0:99999:7:::\n",
            "ledger: x\nHUNTER2: 1\n",
            "hunter2: 1\nhunter2: 2\n",
            "[hunter2",
        ] {
            tree.write("other", other);
            std::fs::remove_file(tree.root().join("sendform.yaml")).unwrap();
            std::os::unix::fs::symlink(tree.root().join("other"), tree.root().join("sendform.yaml")).unwrap();
            let error = tree.find("campaign.yaml", "").unwrap_err().to_string();
            assert!(error.contains("the only key is `ledger`") && !error.to_lowercase().contains("hunter"), "{error}");
        }
        std::fs::remove_file(tree.root().join("other")).unwrap();
        let error = tree.find("campaign.yaml", "").unwrap_err().to_string();
        assert!(error.contains("cannot read"), "a dangling symbolic link counts: {error}");
        std::fs::remove_file(tree.root().join("sendform.yaml")).unwrap();
        let pipe = tree.root().join("sendform.yaml");
        crate::util::fs::make_pipe(&pipe);
        let error = tree.find("campaign.yaml", "").unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
        std::fs::remove_file(tree.root().join("sendform.yaml")).unwrap();
        tree.write("sendform.yaml", "ledger: postgres://me@db/offers?sslmode=require\n");
        let url = tree.find("campaign.yaml", "").unwrap().ledger_url;
        assert_eq!(url.as_deref(), Some("postgres://me@db/offers?sslmode=require"));
    }
}
