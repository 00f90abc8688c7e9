//! Plays many seeds of the engine's simulation, on all cores.
//!
//! ```text
//! cargo run --release --features simulation --example simulate -- --seeds 1000000
//! cargo run --release --features simulation --example simulate -- --seed 5390     one seed, with all that happens
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr, clippy::exit, reason = "a program for the terminal")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use sendform::apply::sim::{EndingKind, Failure, run};

/// What a thread has seen.
#[derive(Default)]
struct Totals {
    scenarios: u64,
    requests: u64,
    crashes: u64,
    runs: u64,
    endings: BTreeMap<EndingKind, u64>,
    failures: Vec<Failure>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.parse::<u64>().ok()
    };
    if let Some(seed) = value("--seed") {
        match run(seed, true) {
            Ok(report) => println!("{}\nseed {seed} keeps the promise: {:016x}", report.trace, report.digest),
            Err(failure) => {
                println!("{}", failure.trace);
                eprintln!("seed {seed} breaks the promise:\n  {}", failure.problems.join("\n  "));
                std::process::exit(1);
            }
        }
        return;
    }
    let (from, seeds) = (value("--from").unwrap_or(0), value("--seeds").unwrap_or(100_000));
    let next = AtomicU64::new(from);
    let started = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let play = || {
        let mut totals = Totals::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + seeds {
                return totals;
            }
            totals.scenarios += 1;
            match run(seed, false) {
                Ok(report) => {
                    totals.requests += report.requests;
                    totals.crashes += report.crashes;
                    totals.runs += report.runs;
                    report.endings.iter().for_each(|ending| *totals.endings.entry(*ending).or_default() += 1);
                }
                Err(failure) => {
                    eprintln!("seed {seed}: {}", failure.problems.join("; "));
                    totals.failures.push(failure);
                }
            }
        }
    };
    let all: Vec<Totals> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(play)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let sum = |of: fn(&Totals) -> u64| all.iter().map(of).sum::<u64>();
    println!(
        "{} seeds from {from} in {:.0} s on {threads} threads: {} runs, {} requests, {} crashes",
        sum(|totals| totals.scenarios),
        started.elapsed().as_secs_f64(),
        sum(|totals| totals.runs),
        sum(|totals| totals.requests),
        sum(|totals| totals.crashes),
    );
    for ending in EndingKind::ALL {
        let reached: u64 = all.iter().filter_map(|totals| totals.endings.get(&ending)).sum();
        println!("  {:<18}{reached:>10}", format!("{ending:?}"));
    }
    let failures = sum(|totals| totals.failures.len() as u64);
    if failures > 0 {
        eprintln!("{failures} seeds break the promise");
        std::process::exit(1);
    }
}
