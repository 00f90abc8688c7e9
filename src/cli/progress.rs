//! What a run shows while it works: a bar in a terminal, plain lines elsewhere.

use std::fmt::Write;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use tokio::sync::{mpsc, watch};

use super::ui::Ui;
use crate::apply::{Event, Progress};
use crate::util::human::{self, grouped};

/// How often a plain line is printed.
const EVERY: Duration = Duration::from_secs(5);

/// How often the bar moves.
const LOOK: Duration = Duration::from_millis(100);

/// How many refused or doubtful sends are told one by one.
const MOST_TOLD: u32 = 5;

/// Shows what happens in a run until it ends.
pub(super) async fn show(
    ui: &Ui,
    total: u64,
    mut events: mpsc::UnboundedReceiver<Event>,
    figures: watch::Receiver<Progress>,
) {
    let bar = ui.is_terminal().then(|| {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{wide_bar:.green} {pos}/{len}  {rate}  {eta} left  {msg}");
        let rate = |state: &ProgressState, out: &mut dyn Write| {
            let _ = match state.per_sec() {
                slow if slow < 10.0 => write!(out, "{slow:.1}/s"),
                fast => write!(out, "{fast:.0}/s"),
            };
        };
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).with_key("rate", rate));
        bar
    });
    let say = |text: &str| match &bar {
        Some(bar) => bar.suspend(|| ui.say(text)),
        None => ui.say(text),
    };
    let started = Instant::now();
    let mut last = Instant::now();
    let mut told = 0;
    let mut shown = Progress::default();
    let mut look = tokio::time::interval(LOOK);
    loop {
        let event = tokio::select! {
            event = events.recv() => match event {
                Some(event) => event,
                None => break,
            },
            _ = look.tick() => {
                let progress = *figures.borrow();
                match &bar {
                    _ if progress == shown => {}
                    Some(bar) => {
                        bar.set_position(done(&progress));
                        bar.set_message(notes(&progress));
                        shown = progress;
                    }
                    None if last.elapsed() >= EVERY => {
                        last = Instant::now();
                        ui.say(&line(&progress, total, started.elapsed()));
                        shown = progress;
                    }
                    None => {}
                }
                continue;
            }
        };
        match event {
            Event::Started { run, head, warnings } => {
                for warning in warnings {
                    say(&format!("warning: {warning}"));
                }
                say(&format!("Run {run} started; ledger head {head}"));
            }
            Event::Waiting { reason, pause } => say(&format!("  waiting {}: {reason}", words_short(pause))),
            Event::Reserved { until, pause } => say(&format!(
                "  waiting {} for the sender number's rate: reserved until {until:.0}",
                words_short(pause)
            )),
            Event::Trouble { to, outcome, reason } => {
                told += 1;
                if told <= MOST_TOLD {
                    say(&format!("  {outcome}  {to}  {reason}"));
                } else if told == MOST_TOLD + 1 {
                    say("  further ones are counted; the ledger holds each with its reason");
                }
            }
            Event::Others(others) => match &bar {
                Some(bar) => {
                    bar.set_message(format!("waiting for {} of {} other appliers", others.open, others.appliers))
                }
                None if last.elapsed() >= EVERY => {
                    last = Instant::now();
                    ui.say(&format!("  done; waiting for {} sends of {} other appliers", others.open, others.appliers));
                }
                None => {}
            },
            Event::Notice(text) => say(&format!("  {text}")),
            Event::StoppingItself { in_flight } => say(&format!(
                "Stopping by itself: no further messages; waiting for {} under way. Ctrl-C twice to stop at once.",
                grouped(in_flight)
            )),
            Event::Stopping => {
                say("Stopping: no further messages; waiting for those under way. Again to stop at once.")
            }
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

fn done(progress: &Progress) -> u64 {
    progress.accepted + progress.rejected + progress.unknown + progress.held
}

fn notes(progress: &Progress) -> String {
    let mut notes = Vec::new();
    if progress.rejected > 0 {
        notes.push(format!("{} rejected", progress.rejected));
    }
    if progress.unknown > 0 {
        notes.push(format!("{} unknown", progress.unknown));
    }
    notes.join(", ")
}

fn line(progress: &Progress, total: u64, elapsed: Duration) -> String {
    let done = done(progress);
    let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
    let left = if rate > 0.0 {
        human::duration(Duration::from_secs_f64((total.saturating_sub(done)) as f64 / rate))
    } else {
        "unknown time".to_owned()
    };
    let notes = notes(progress);
    let notes = if notes.is_empty() { notes } else { format!(", {notes}") };
    format!("  {} of {} ({rate:.0}/s, {left} left){notes}", grouped(done), grouped(total))
}

fn words_short(pause: Duration) -> String {
    if pause < Duration::from_secs(2) { format!("{} ms", pause.as_millis()) } else { human::duration(pause) }
}
