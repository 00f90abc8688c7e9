//! Signals that ask a run to stop: Ctrl-C, SIGTERM and SIGHUP.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Exit;
use crate::apply::ShutdownRequest;

/// A signal that comes together with a hang-up asks for nothing more. When a terminal closes, its
/// shell and the kernel send SIGHUP each; when a session ends, systemd sends SIGTERM and SIGHUP.
const TOGETHER: Duration = Duration::from_secs(2);

/// The signals, from now on. None is missed between two looks.
pub(super) struct Signals {
    /// None if the handlers could not be installed.
    streams: Option<Streams>,
    last: Last,
}

struct Streams {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// None if it was ignored when this program started.
    hang_up: Option<tokio::signal::unix::Signal>,
}

/// The last signal: when it came, and whether it was a hang-up.
#[derive(Default)]
struct Last(Option<(Instant, bool)>);

impl Last {
    /// Takes a signal in. Whether it asks for something that the one before has not asked for.
    fn counts(&mut self, now: Instant, hang_up: bool) -> bool {
        let before = self.0.replace((now, hang_up));
        !before.is_some_and(|(at, hung_up)| (hang_up || hung_up) && now.duration_since(at) < TOGETHER)
    }
}

impl Signals {
    /// Catches the signals from now on. Takes a runtime's context.
    pub(super) fn new() -> Self {
        Self { streams: Streams::new(), last: Last::default() }
    }

    /// Waits for the next request to stop.
    pub(super) async fn next(&mut self) {
        if let Some(streams) = &mut self.streams {
            loop {
                let hang_up = streams.next().await;
                if self.last.counts(Instant::now(), hang_up) {
                    return;
                }
            }
        }
        let _ = tokio::signal::ctrl_c().await;
    }

    /// Tells a run how urgently it is asked to stop. The first signal asks to stop, the second not to
    /// wait, and the third ends the program.
    #[expect(clippy::disallowed_methods, reason = "the third signal ends the program without waiting for anything")]
    pub(super) async fn tell(mut self, stop: watch::Sender<ShutdownRequest>) {
        self.next().await;
        let _ = stop.send(ShutdownRequest::Graceful);
        self.next().await;
        let _ = stop.send(ShutdownRequest::Immediate);
        self.next().await;
        // What is under way stays in the ledger as an intent without an outcome: unknown.
        std::process::exit(Exit::Interrupted as i32);
    }
}

impl Streams {
    fn new() -> Option<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        // Before anything is caught: what is caught is not ignored.
        let ignored = hang_up_is_ignored();
        let interrupt = signal(SignalKind::interrupt()).ok()?;
        let terminate = signal(SignalKind::terminate()).ok()?;
        let hang_up = if ignored { None } else { signal(SignalKind::hangup()).ok() };
        Some(Self { interrupt, terminate, hang_up })
    }

    /// Waits for a signal. Whether it is a hang-up.
    async fn next(&mut self) -> bool {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => drop(signal.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => false,
            _ = self.terminate.recv() => false,
            () = hang_up => true,
        }
    }
}

/// Whether SIGHUP was ignored when this program started, as `nohup` has it.
fn hang_up_is_ignored() -> bool {
    match std::fs::read_to_string("/proc/self/status").ok().as_deref().and_then(ignores_hang_up) {
        Some(ignored) => ignored,
        // Systems without `/proc`: `nohup` takes the terminal away from standard error.
        None => !std::io::IsTerminal::is_terminal(&std::io::stderr()),
    }
}

/// Whether SIGHUP, which is signal 1, is in the mask of ignored signals of `/proc/self/status`.
fn ignores_hang_up(status: &str) -> Option<bool> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok().map(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        assert_eq!(ignores_hang_up("Name:\tx\nSigIgn:\t0000000000001001\n"), Some(true));
        assert_eq!(ignores_hang_up("SigBlk:\t0000000000000001\nSigIgn:\t0000000000001000\n"), Some(false));
        assert_eq!(ignores_hang_up("Name:\tx\n"), None);
        // The Rust runtime ignores SIGPIPE.
        assert!(
            ignores_hang_up(&std::fs::read_to_string("/proc/self/status").unwrap_or_default()).is_some()
                || cfg!(not(target_os = "linux"))
        );
    }

    #[test]
    fn what_comes_with_a_hang_up_asks_for_nothing_more() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let (hang_up, other) = (true, false);
        let mut last = Last::default();
        assert!(last.counts(at(0), hang_up));
        assert!(!last.counts(at(5), hang_up) && !last.counts(at(9), other));
        assert!(last.counts(at(3_000), hang_up), "another one later is urgent");
        let mut last = Last::default();
        assert!(last.counts(at(0), other));
        assert!(!last.counts(at(3), hang_up));
        let mut last = Last::default();
        assert!(last.counts(at(0), other) && last.counts(at(3), other), "Ctrl-C twice is meant");
    }
}
