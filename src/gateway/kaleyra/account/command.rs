//! A command that prints a secret, within bounds: on its time, its output, and what it leaves behind.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How long a command may take. Asking a password manager over the network takes a few seconds.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(30);

/// The most bytes that a command may print. Keys have a few dozen.
const MAX_OUTPUT: u64 = 16 * 1024;

/// How often it is seen whether the command has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Runs a command and returns what it prints. The error says what is wrong and nothing of the output.
///
/// The command gets a process group of its own, so that with it everything ends that it has started.
/// It cannot ask at the terminal.
pub(super) fn output_of(words: &[String], limit: Duration) -> Result<Vec<u8>, String> {
    let (program, arguments) = words.split_first().ok_or("names no program")?;
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot be run: {error}"))?;
    let mut group = Group { child, ended: false };
    let Some(stdout) = group.child.stdout.take() else { return Err("has no output to read".to_owned()) };
    let deadline = Instant::now() + limit;
    let late = || format!("took longer than {} seconds and was killed", limit.as_secs());

    // Reading has a thread of its own: a process that the command has left behind may keep the pipe open.
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut output = Vec::new();
        let read = stdout.take(MAX_OUTPUT + 1).read_to_end(&mut output);
        // Nobody listens any more if the time was up.
        let _ = sender.send(read.map(|_| output));
    });
    let output = match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("printed output that cannot be read: {error}")),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Err(late()),
    };
    if output.len() as u64 > MAX_OUTPUT {
        return Err(format!("printed more than {MAX_OUTPUT} bytes and was killed"));
    }
    let status = group.wait_until(deadline)?.ok_or_else(late)?;
    if !status.success() {
        return Err(format!("failed with {status}"));
    }
    Ok(output)
}

/// A process and its group. Unless the process has ended and was waited for, all of it ends when this is dropped.
struct Group {
    child: Child,
    ended: bool,
}

impl Group {
    fn wait_until(&mut self, deadline: Instant) -> Result<Option<ExitStatus>, String> {
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < deadline => std::thread::sleep(POLL_INTERVAL),
                Ok(status) => {
                    self.ended = status.is_some();
                    return Ok(status);
                }
                Err(error) => return Err(format!("cannot be waited for: {error}")),
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // The process was not waited for, so its number, which is the group's, is nobody else's.
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> Result<Vec<u8>, String> {
        let script = format!("PATH=/usr/bin:/bin; {script}");
        output_of(&["/bin/sh".to_owned(), "-c".to_owned(), script], limit)
    }

    #[test]
    fn a_command_that_does_not_end_is_ended_with_all_that_it_started() {
        let directory = tempfile::tempdir().unwrap();
        let pid = directory.path().join("pid");
        let began = Instant::now();
        let script = format!("sleep 600 & echo $! > '{}'; sleep 600", pid.display());
        let error = sh(&script, Duration::from_secs(1)).unwrap_err();
        assert_eq!(error, "took longer than 1 seconds and was killed");
        assert!(began.elapsed() < Duration::from_secs(60));
        let started = std::fs::read_to_string(&pid).unwrap();
        let status = format!("/proc/{}/status", started.trim());
        let lives = || std::fs::read_to_string(&status).is_ok_and(|status| !status.contains("State:\tZ"));
        let ended = (0..1_000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            !lives()
        });
        assert!(ended, "the process that the command started still runs");
    }

    #[test]
    fn a_process_that_keeps_the_output_open_does_not_hold_up_longer_than_the_limit() {
        let error = sh("sleep 600 & echo key", Duration::from_secs(1)).unwrap_err();
        assert!(error.contains("took longer"), "{error}");
    }

    #[test]
    fn endless_output_is_cut() {
        let error = sh("yes", Duration::from_secs(60)).unwrap_err();
        assert_eq!(error, "printed more than 16384 bytes and was killed");
        // Nothing of the output is told.
        let error = sh("echo secret; exit 3", Duration::from_secs(60)).unwrap_err();
        assert!(error.starts_with("failed with exit status: 3"), "{error}");
    }
}
