//! Many seeds, on two threads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{EndingKind, Failure, Report, run};

/// How many broken seeds are shown.
const MAX_SHOWN: usize = 12;

fn fail(failures: &[Failure]) -> ! {
    let failure = &failures[0];
    let others: Vec<String> = failures
        .iter()
        .skip(1)
        .map(|other| format!("seed {}: {}", other.seed, other.problems.first().map_or("", String::as_str)))
        .collect();
    let again = run(failure.seed, true).err().map_or_else(String::new, |failure| failure.trace);
    let tail: Vec<&str> = again.lines().rev().take(200).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    panic!(
        "seed {} breaks the promise:\n  {}\n\nthe end of what happened:\n{}\n\n{}",
        failure.seed,
        failure.problems.join("\n  "),
        tail.join("\n"),
        others.join("\n")
    );
}

/// Plays the first seeds: the promise holds for each, and every ending is reached by some.
fn play_all(seeds: u64) {
    let next = AtomicU64::new(0);
    let play = || {
        let (mut reports, mut failures): (Vec<Report>, Vec<Failure>) = (Vec::new(), Vec::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return (reports, failures);
            }
            match run(seed, false) {
                Ok(report) => reports.push(report),
                Err(failure) => {
                    failures.push(failure);
                    if failures.len() == MAX_SHOWN {
                        next.store(seeds, Ordering::Relaxed);
                    }
                }
            }
        }
    };
    let results = std::thread::scope(|scope| {
        let threads = [scope.spawn(play), scope.spawn(play)];
        threads.map(|thread| thread.join().expect("the simulation itself does not panic"))
    });
    let mut reached: BTreeMap<EndingKind, u64> = BTreeMap::new();
    let mut failures = Vec::new();
    for (reports, failed) in results {
        for ending in reports.iter().flat_map(|report| &report.endings) {
            *reached.entry(*ending).or_default() += 1;
        }
        failures.extend(failed);
    }
    failures.sort_by_key(|failure| failure.seed);
    if !failures.is_empty() {
        fail(&failures);
    }
    for ending in EndingKind::ALL {
        assert!(reached.contains_key(&ending), "no seed of {seeds} reaches {ending:?}: {reached:?}");
    }
}

#[test]
fn the_promise_holds_and_every_ending_is_reached() {
    play_all(2_000);
}

#[test]
#[ignore = "takes half a minute; `tests/run` runs it"]
fn the_promise_holds_for_ten_thousand_seeds() {
    play_all(10_000);
}

#[test]
fn one_seed_is_one_run_byte_for_byte() {
    for seed in 0..100 {
        let traces = [true, true].map(|keep| match run(seed, keep) {
            Ok(report) => report.trace,
            Err(failure) => fail(&[failure]),
        });
        let [text, other] = traces;
        assert!(!text.is_empty());
        let different = text.lines().zip(other.lines()).find(|(line, other)| line != other);
        assert_eq!(different, None, "seed {seed}");
        assert_eq!(text, other, "seed {seed}");
    }
}
