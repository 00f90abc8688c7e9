//! What the program prints, in a form that is the same on every machine and at any time.

use super::{Output, Project};

/// Replaces what differs from run to run: directories, ports, instants, hashes, who and where.
pub fn stable(project: &Project, text: &str) -> String {
    let mut text = text.to_owned();
    let root = project.path().canonicalize().unwrap();
    for path in [root.as_path(), project.path()] {
        text = text.replace(path.to_str().unwrap(), "[PROJECT]");
    }
    let host = gethostname::gethostname().into_string().unwrap();
    for (before, after) in [("user on ", ""), ("\"host\": \"", "\""), ("\"host\":\"", "\"")] {
        text = text.replace(&format!("{before}{host}{after}"), &format!("{before}[HOST]{after}"));
    }
    text
}

/// The command, its exit code, and what it printed on both streams.
pub fn transcript(project: &Project, arguments: &[&str]) -> String {
    transcript_of(project, arguments, &project.run(arguments))
}

/// The same, of a command that has run already.
pub fn transcript_of(project: &Project, arguments: &[&str], output: &Output) -> String {
    let mut text = format!("$ sendform {}\n[exit code {}]\n", arguments.join(" "), output.code);
    for (stream, content) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        if !content.is_empty() {
            text += &format!("--- {stream}\n{content}");
            if !content.ends_with('\n') {
                text.push('\n');
            }
        }
    }
    stable(project, &text)
}

/// Compares with the snapshot of this name in `tests/it/snapshots`. `INSTA_UPDATE=always cargo test` writes
/// those that have changed.
#[track_caller]
pub fn check(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for (pattern, replacement) in [
        (r"v2:[0-9a-f]{8,64}", "v2:[HASH]"),
        (r"\b[0-9a-f]{64}\b", "[DIGEST]"),
        (r"\b(\d+):[0-9a-f]{32}\b", "$1:[HEAD]"),
        (r"\b[0-9a-f]{32}\b", "[ID]"),
        (r"\b[0-9a-f]{16}\b", "[ACCOUNT]"),
        (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(:\d+)?\b", "[MESSAGE]"),
        (r"\b20[23]\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "[INSTANT]"),
        (r"\b20[23]\d-\d\d-\d\d \d\d:\d\d(:\d\d)?", "[INSTANT]"),
        (
            r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun) \d+ \w{3} 20[23]\d, \d\d:\d\d(:\d\d)?( \w+)?( \(\d\d:\d\d(:\d\d)? UTC\))?",
            "[TIME]",
        ),
        (r"replaced-\d{8}T\d{6}Z", "replaced-[INSTANT]"),
        (r"127\.0\.0\.1:\d{2,5}", "127.0.0.1:[PORT]"),
        (r"\b(in|after|took|for) \d+(\.\d+)? ?(ms|s|min|seconds?)\b", "$1 [DURATION]"),
        (r"\b(process|pid) \d+", "$1 [PID]"),
        (r#""pid": ?\d+"#, r#""pid": "[PID]""#),
        (r#"("(sendform_)?version": ?")[^"]*""#, r#"$1[VERSION]""#),
        (r"sendform \d+\.\d+\.\d+", "sendform [VERSION]"),
        (r"\[DURATION\], [\d.,]+/s", "[DURATION], [RATE]"),
        (r"(messages|campaign) [0-9a-f]{8}\b", "$1 [DIGEST]"),
        (r"hidden [0-9a-f]{4}\b", "hidden [DIGEST]"),
        (r#"("message_id": ?)"[^"]*""#, "$1\"[MESSAGE]\""),
        (r"message id +\S+", "message id [MESSAGE]"),
    ] {
        settings.add_filter(pattern, replacement);
    }
    settings.bind(|| insta::assert_snapshot!(name, text));
}
