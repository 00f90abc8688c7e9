//! The direction of the imports: which module of the library may use which.
//!
//! The table is the one of `docs/internals/architecture.md`. A module that needs another one than its
//! row allows is in the wrong place, or the thing that it needs is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What each module may use besides itself, from the ground up.
const ALLOWED: &[(&str, &[&str])] = &[
    ("util", &[]),
    ("domain", &["util"]),
    ("project", &["domain", "util"]),
    ("audience", &["domain", "util"]),
    ("coupons", &["audience::source", "domain", "util"]),
    ("render", &["domain", "util"]),
    ("ledger", &["domain", "util"]),
    ("gateway", &["domain", "util"]),
    ("manifest", &["project", "audience", "coupons", "render", "gateway", "domain", "util"]),
    ("plan", &["audience", "coupons", "render", "ledger", "domain", "util"]),
    ("apply", &["plan", "ledger", "gateway", "domain", "util"]),
    ("sandbox", &["gateway::kaleyra::fields", "domain", "util"]),
    ("schemas", &["manifest", "plan", "project"]),
    (
        "cli",
        &[
            "schemas", "sandbox", "apply", "plan", "manifest", "gateway", "ledger", "render", "coupons", "audience",
            "project", "domain", "util",
        ],
    ),
];

#[test]
fn modules_import_only_what_stands_below_them() {
    let mut wrong = Vec::new();
    for (file, uses) in imports() {
        let module = module_of(&file);
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{file}: the module `{module}` is not in the table"));
            continue;
        };
        for used in uses {
            let root = used.split("::").next().unwrap_or_default();
            let fits = |allowed: &&&str| used == **allowed || used.starts_with(&format!("{allowed}::"));
            if root == module || allowed.iter().any(|allowed| fits(&allowed)) {
                continue;
            }
            wrong.push(format!("{file} uses {used}"));
        }
    }
    assert!(wrong.is_empty(), "imports against the direction:\n{}", wrong.join("\n"));
}

#[test]
fn no_command_imports_another_command() {
    let mut wrong = Vec::new();
    for (file, uses) in imports() {
        let Some(command) = file.strip_prefix("cli/commands/").map(|rest| first_part(rest).to_owned()) else {
            continue;
        };
        if command == "mod" {
            continue;
        }
        for used in uses {
            let Some(other) =
                used.strip_prefix("cli::commands::").map(|rest| rest.split("::").next().unwrap_or_default())
            else {
                continue;
            };
            if other != command {
                wrong.push(format!("{file} uses {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "commands that import others:\n{}", wrong.join("\n"));
}

#[test]
fn the_tour_in_lib_rs_names_every_module() {
    let library = std::fs::read_to_string(source().join("lib.rs")).unwrap();
    let tour: String = library.lines().filter(|line| line.starts_with("//!")).collect();
    for (module, _) in ALLOWED {
        assert!(library.contains(&format!("pub mod {module};")), "{module} is in the table, not in lib.rs");
        assert!(tour.contains(&format!("[`{module}`]")), "the tour does not name {module}");
    }
}

#[test]
fn the_import_reader_sees_every_form() {
    let text = "
use crate::plan::{build::{Inputs, build}, Item as Thing};
// use crate::commented::out;
pub(crate) use crate::util::human;
fn f() { let x = crate::ledger::sqlite::open(); }
use super::super::gateway::Reply;
use self::inner::Thing;
use crate::{audience, domain::phone::E164};
#[cfg(test)]
mod tests {
    use crate::cli::tests_may_use_anything;
}
";
    let uses = uses_of(text, &["manifest".to_owned(), "lower".to_owned()]);
    let expected = [
        "audience",
        "domain::phone::E164",
        "gateway::Reply",
        "ledger::sqlite::open",
        "manifest::lower::inner::Thing",
        "plan::Item",
        "plan::build::Inputs",
        "plan::build::build",
        "util::human",
    ];
    assert_eq!(uses.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn first_part(path: &str) -> &str {
    path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
}

fn module_of(file: &str) -> String {
    first_part(file).to_owned()
}

/// Each source file below a module of the library, and the paths that it uses, without its tests.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![source()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "tests") {
                    directories.push(path);
                }
                continue;
            }
            let file = path.strip_prefix(source()).unwrap().to_str().unwrap().to_owned();
            if !file.ends_with(".rs") || file.ends_with("tests.rs") || file == "lib.rs" || file == "main.rs" {
                continue;
            }
            let mut module: Vec<String> = file.trim_end_matches(".rs").split('/').map(ToOwned::to_owned).collect();
            if module.last().is_some_and(|last| last == "mod") {
                module.pop();
            }
            let uses = uses_of(&std::fs::read_to_string(&path).unwrap(), &module);
            found.insert(file, uses);
        }
    }
    assert!(found.len() > 100, "only {} source files were found", found.len());
    found
}

/// The paths within the library that a file uses, without the `crate::` in front.
fn uses_of(text: &str, module: &[String]) -> BTreeSet<String> {
    let code: String = text
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default()
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n");
    let mut uses = BTreeSet::new();
    // Imports: the whole tree of each.
    for statement in code.split("use ").skip(1) {
        let Some((tree, _)) = statement.split_once(';') else { continue };
        let tree = tree.split_whitespace().collect::<Vec<_>>().join(" ");
        if ["crate::", "super::", "self::"].iter().any(|root| tree.starts_with(root)) {
            leaves(&tree, &[], &mut |path| uses.extend(absolute(path, module)));
        }
    }
    // Paths within expressions and types.
    for (position, _) in code.match_indices("crate::") {
        let path: String = code[position..]
            .chars()
            .take_while(|character| character.is_alphanumeric() || matches!(character, '_' | ':'))
            .collect();
        let path = path.trim_end_matches(':');
        let before = code[..position].trim_end();
        if !before.ends_with("use") && path != "crate" && !code[position + path.len()..].starts_with("::{") {
            let parts: Vec<String> = path.split("::").map(ToOwned::to_owned).collect();
            uses.extend(absolute(&parts, module));
        }
    }
    uses
}

/// Calls `visit` with each path of an import's tree.
fn leaves(tree: &str, before: &[String], visit: &mut dyn FnMut(&[String])) {
    let tree = tree.trim();
    if tree.is_empty() {
        return;
    }
    let mut path = before.to_vec();
    if let Some((head, rest)) = tree.split_once('{') {
        path.extend(head.split("::").filter(|part| !part.is_empty()).map(|part| part.trim().to_owned()));
        let inner = &rest[..rest.rfind('}').unwrap_or(rest.len())];
        let (mut depth, mut start) = (0, 0);
        for (position, character) in inner.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    leaves(&inner[start..position], &path, visit);
                    start = position + 1;
                }
                _ => {}
            }
        }
        leaves(&inner[start..], &path, visit);
    } else {
        let name = tree.split(" as ").next().unwrap_or_default();
        path.extend(name.split("::").map(|part| part.trim().to_owned()));
        if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
            path.pop();
        }
        visit(&path);
    }
}

/// A path of the module `module` as seen from the library's root; nothing for other crates.
fn absolute(path: &[String], module: &[String]) -> Option<String> {
    let (first, mut rest) = path.split_first()?;
    let mut base = match first.as_str() {
        "crate" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module[..module.len().checked_sub(1)?].to_vec(),
        _ => return None,
    };
    while rest.first().is_some_and(|part| part == "super") {
        base.pop()?;
        rest = &rest[1..];
    }
    base.extend(rest.iter().cloned());
    (!base.is_empty()).then(|| base.join("::"))
}
