//! Disks that are full, read-only or failing, and what is flushed to them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Project, Sandbox, output, per_recipient};
use crate::torture::{CONCURRENCY, Random, accounted, complete};

/// Runs `apply` where the ledger's directory is a file system of its own, mounted with `options`
/// in a mount namespace that goes with the process.
fn with_ledger_mount(project: &Project, options: &str) -> crate::support::Output {
    std::fs::create_dir_all(project.path().join("disk")).unwrap();
    let program = env!("CARGO_BIN_EXE_sendform");
    // SAFETY: the call has no preconditions.
    let flags = if unsafe { libc::geteuid() } == 0 { "-m" } else { "-rm" };
    let script = format!(
        "mount -t tmpfs -o {options} tmpfs disk && exec {program} apply campaign.yaml --auto-approve --new-ledger --ledger sqlite:disk/ledger.db"
    );
    let mut command = std::process::Command::new("unshare");
    command
        .args([flags, "sh", "-c", &script])
        .current_dir(project.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("KALEYRA_SID", "HXSANDBOX")
        .env("KALEYRA_API_KEY", "sandbox-key");
    output(&mut command)
}

#[test]
fn a_read_only_ledger_directory() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    let output = with_ledger_mount(&project, "ro").expect(1);
    assert!(output.stderr.contains("Read-only file system"), "{}", output.stderr);
    assert!(sandbox.messages().is_empty());
}

#[test]
fn a_full_disk_stops_the_run_and_loses_nothing() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    let rows: String = (0..3_000).map(|row| format!("98{row:08},A\n")).collect();
    project.people(&format!("mobile,first_name\n{rows}"));
    let output = with_ledger_mount(&project, "size=400k");
    assert!([1, 5, 7].contains(&output.code), "{}: {}", output.code, output.stderr);
    assert!(output.stderr.contains("disk is full") || output.stderr.contains("disk I/O"), "{}", output.stderr);
    assert!(output.stderr.contains("nothing more was sent"), "{}", output.stderr);
    assert!(sandbox.messages().len() < 3_000);

    // Too small for a ledger at all: nothing is sent.
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    with_ledger_mount(&project, "size=8k").expect(1);
    assert!(sandbox.messages().is_empty());
}

/// A library that stands before the C library's, and fails a disk: each write or flush of the ledger
/// from a given one on says `EIO`.
const FAILING_DISK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int fails(int fd) {
  static long calls;
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n <= 0) return 0;
  path[n] = 0;
  if (!strstr(path, "ledger.db-wal")) return 0;
  const char *from = getenv("FAIL_FROM");
  return from && ++calls >= atol(from);
}
#define FAIL do { errno = EIO; return -1; } while (0)
int fsync(int fd) { if (fails(fd)) FAIL; return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd); }
int fdatasync(int fd) { if (fails(fd)) FAIL; return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) {
  if (fails(fd)) FAIL; return ((ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite"))(fd, b, n, o);
}
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) {
  if (fails(fd)) FAIL; return ((ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64"))(fd, b, n, o);
}
"#;

fn failing_disk(project: &Project) -> PathBuf {
    let source = project.write("disk.c", FAILING_DISK);
    let library = project.path().join("disk.so");
    let compiled = output(
        std::process::Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl"),
    );
    assert_eq!(compiled.code, 0, "{}", compiled.stderr);
    library
}

#[test]
fn a_disk_that_fails_stops_the_run_and_the_next_one_knows() {
    let sandbox = Sandbox::start(&["--latency", "20ms"]);
    let project = Project::with_sandbox(&sandbox);
    project.crowd(800, &[]);
    let library = failing_disk(&project);
    let (mut failures, mut random) = (0, Random::new(3));
    for _ in 0..12 {
        let from = 12 + random.below(60);
        let mut child = project.command(&["apply", "campaign.yaml", "--auto-approve"]);
        child.env("LD_PRELOAD", &library).env("FAIL_FROM", from.to_string());
        let failed = output(child.stdout(Stdio::null()).stderr(Stdio::piped()));
        assert!([0, 1, 5, 7].contains(&failed.code), "{}: {}", failed.code, failed.stderr);
        if failed.stderr.contains("cannot be written") {
            failures += 1;
            assert!(failed.stderr.contains("I/O error"), "{}", failed.stderr);
        }
        let counts = accounted(&project, 800);
        assert!(counts.unknown <= failures * CONCURRENCY, "{counts:?} after {failures} failures");
    }
    assert!(failures > 3, "the disk failed {failures} times only");
    let last = project.apply(&[]);
    assert!([0, 7].contains(&last.code), "{}", last.stderr);
    complete(&project, &sandbox, 800);
}

#[test]
fn a_head_that_cannot_be_written_ends_the_run() {
    let sandbox = Sandbox::start(&["--latency", "20ms"]);
    let project = Project::with_sandbox(&sandbox);
    project.crowd(500, &[("rate: 2000/s", "rate: 300/s")]);
    let library = project.write(
        "head.c",
        r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
static int fails(int fd) {
  static long calls;
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n <= 0) return 0;
  path[n] = 0;
  return strstr(path, "ledger.head") && ++calls > 10;
}
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) {
  if (fails(fd)) { errno = EIO; return -1; }
  return ((ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64"))(fd, b, n, o);
}
"#,
    );
    let shared = project.path().join("head.so");
    let compiled =
        output(Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shared).arg(&library).arg("-ldl"));
    assert_eq!(compiled.code, 0, "{}", compiled.stderr);
    let mut command = project.command(&["apply", "campaign.yaml", "--auto-approve"]);
    let failed = output(command.env("LD_PRELOAD", &shared));
    assert!([5, 7].contains(&failed.code), "{}: {}", failed.code, failed.stderr);
    assert!(failed.stderr.contains("ledger.head` cannot be written"), "{}", failed.stderr);
    assert!(sandbox.messages().len() < 400);
    let resumed = project.apply(&[]);
    assert!([0, 7].contains(&resumed.code), "{}", resumed.stderr);
    assert!(per_recipient(&sandbox).values().all(|messages| *messages == 1));
}

#[test]
fn new_directories_are_flushed_with_their_parents() {
    let project = Project::new().without_ledger();
    let source = project.write(
        "sync.c",
        r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int fsync(int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  FILE *log = fopen(getenv("SYNC_LOG"), "a");
  if (log && n > 0) { path[n] = 0; fprintf(log, "%s\n", path); }
  if (log) fclose(log);
  return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
"#,
    );
    let library = project.path().join("sync.so");
    let compiled =
        output(Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl"));
    assert_eq!(compiled.code, 0, "{}", compiled.stderr);
    let log = project.path().join("synced");
    let mut command = project.command(&["ledger", "create", "--ledger", "sqlite:record/deep/ledger.db"]);
    output(command.env("LD_PRELOAD", &library).env("SYNC_LOG", &log)).expect(0);
    let synced = std::fs::read_to_string(log).unwrap();
    let root = project.path().canonicalize().unwrap();
    for directory in [root.clone(), root.join("record"), root.join("record/deep")] {
        assert!(synced.lines().any(|line| Path::new(line) == directory), "{}: {synced}", directory.display());
    }
}

#[test]
fn a_ledger_that_is_mounted_by_itself_is_refused() {
    let project = Project::new();
    project.apply(&["--new-ledger"]).expect(1);
    std::fs::rename(project.path().join(".sendform"), project.path().join("elsewhere")).unwrap();
    // A file that is mounted by itself leaves its log behind.
    std::fs::create_dir(project.path().join("mounted")).unwrap();
    std::fs::write(project.path().join("mounted/ledger.db"), "").unwrap();
    // SAFETY: the call has no preconditions.
    let flags = if unsafe { libc::geteuid() } == 0 { "-m" } else { "-rm" };
    let script = format!(
        "mount --bind elsewhere/ledger.db mounted/ledger.db && exec {} status --ledger sqlite:mounted/ledger.db",
        env!("CARGO_BIN_EXE_sendform")
    );
    let mut command = Command::new("unshare");
    command.args([flags, "sh", "-c", &script]).current_dir(project.path()).env_clear();
    let refused = output(command.env("PATH", std::env::var_os("PATH").unwrap())).expect(1);
    assert!(refused.stderr.contains("is a mount point itself"), "{}", refused.stderr);
}
