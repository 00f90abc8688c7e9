//! Files that ask too much: how long a command may take with them.

use std::time::{Duration, Instant};

use super::{Output, Project};

/// The size up to which a file of YAML is read.
pub const MAX_YAML_BYTES: usize = 4 << 20;

/// What a file may take at most. A build for tests on a busy machine is many times slower than a
/// release, and what these files took before was up to ten minutes.
pub const TIME_LIMIT: Duration = Duration::from_secs(25);

#[track_caller]
pub fn in_time(what: &str, project: &Project, arguments: &[&str]) -> Output {
    let began = Instant::now();
    let output = project.run(arguments);
    let took = began.elapsed();
    assert!(took < TIME_LIMIT, "{what} took {took:?}");
    output
}

#[track_caller]
pub fn validated(what: &str, text: &str, words: &str) -> String {
    assert!(text.len() <= MAX_YAML_BYTES, "{what} is not read at all");
    let project = Project::new();
    project.write("campaign.yaml", text);
    let output = in_time(what, &project, &["validate", "campaign.yaml"]).expect(3);
    assert!(output.stderr.contains(words), "{what}: `{words}` is not in:\n{:.2000}", output.stderr);
    assert!(output.stderr.len() < 200_000, "{what}: {} bytes of errors", output.stderr.len());
    output.stderr
}
