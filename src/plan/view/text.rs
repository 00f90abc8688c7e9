//! The plan as text, for a terminal of 80 columns and for a log.

use std::fmt::Write;
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use crate::domain::expiry::in_zone;
use crate::plan::file::{CouponKind, PlanFile};
use crate::util::human::{self, grouped};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GREEN: Style = AnsiColor::Green.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default();

/// The plan as text, with ANSI styles; the output strips them where they are not wanted.
pub fn render(plan: &PlanFile) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_plan(&mut out, plan);
    out
}

fn write_plan(out: &mut String, plan: &PlanFile) -> std::fmt::Result {
    if plan.recipients == 0 {
        let rows = match plan.rows {
            1 => "the only row is".to_owned(),
            rows => format!("all {} rows are", grouped(rows)),
        };
        writeln!(out, "{YELLOW}Nobody is left to write to{YELLOW:#}: {rows} blocked\n")?;
    }
    // Whoever opted out would get a message, so this stands before everything that looks right.
    let without_effect: Vec<_> = plan.suppress.iter().filter(|list| list.matches_nobody()).collect();
    for list in &without_effect {
        let rows = human::count(usize::try_from(list.rows).unwrap_or(usize::MAX), "row");
        writeln!(out, "{YELLOW}The suppression list {} excludes nobody{YELLOW:#}: it has {rows}", list.file)?;
    }
    if !without_effect.is_empty() {
        writeln!(out)?;
    }
    let sandbox = if plan.sandbox { ", in the sandbox" } else { "" };
    writeln!(out, "{BOLD}{}{BOLD:#}, edition {}{sandbox}\n", plan.campaign, plan.edition)?;
    let counts = plan.counts;
    let mut row = |style: Style, name: &str, number: u64, note: &str| {
        let note = if note.is_empty() { String::new() } else { format!("  {note}") };
        writeln!(out, "  {style}{name:<10}{style:#}{:>11}{note}", grouped(number))
    };
    row(GREEN, "send", counts.send, "")?;
    row(Style::new(), "sent", counts.sent, if counts.sent > 0 { "already; nobody gets it twice" } else { "" })?;
    if counts.drifted > 0 {
        row(YELLOW, "drifted", counts.drifted, "sent with other content; not sent again")?;
    }
    if counts.deferred > 0 {
        row(Style::new(), "deferred", counts.deferred, "a run is under way")?;
    }
    row(
        if counts.unknown > 0 { YELLOW } else { Style::new() },
        "unknown",
        counts.unknown,
        if counts.unknown > 0 { "may have been sent; not sent again" } else { "" },
    )?;
    row(Style::new(), "blocked", counts.blocked, "")?;
    for (reason, number) in &plan.blocked_reasons {
        let words = reason.words();
        writeln!(out, "  {DIM}{:<10}{:>11}  {words}{DIM:#}", "", grouped(*number))?;
    }
    writeln!(out)?;
    for (position, source) in plan.sources.iter().enumerate() {
        let name = if position == 0 { "Rows" } else { "" };
        writeln!(out, "  {name:<10}{} of {}", grouped(source.rows), source.file)?;
    }
    for (position, list) in plan.suppress.iter().enumerate() {
        let name = if position == 0 { "Suppress" } else { "" };
        let skipped = match list.skipped {
            0 => String::new(),
            skipped => format!(", {} without a number passed over", grouped(skipped)),
        };
        let rows = human::count(usize::try_from(list.rows).unwrap_or(usize::MAX), "row");
        writeln!(out, "  {name:<10}{} by {} ({rows}{skipped})", grouped(list.matched), list.file)?;
    }
    let destination = &plan.destination;
    let account = destination.account.as_ref().map(|account| ("Account", format!("from {account}")));
    let callback = destination.callback.as_ref().map(|callback| ("Callback", callback.clone()));
    let host = if plan.sandbox { "the embedded sandbox".to_owned() } else { destination.host.clone() };
    let sender = ("Sender", format!("ending {}", destination.sender));
    for (name, value) in [Some(("Provider", host)), account, Some(sender), callback].into_iter().flatten() {
        writeln!(out, "  {name:<10}{value}")?;
    }
    for (position, (key, number)) in plan.templates.iter().enumerate() {
        let name = if position == 0 { "Template" } else { "" };
        writeln!(out, "  {name:<10}{key}, for {}", grouped(*number))?;
    }
    let coupons = match (plan.coupons.kind, plan.coupons.free) {
        (CouponKind::Pool, Some(free)) => {
            format!("{} of {} free codes in the pool", grouped(plan.coupons.needed), grouped(free))
        }
        (CouponKind::Generate, _) => format!("{} generated codes, one for each", grouped(plan.coupons.needed)),
        _ => "one code for all".to_owned(),
    };
    writeln!(out, "  {:<10}{coupons}", "Coupons")?;
    if let Some(expiry) = &plan.expiry {
        let end = match (expiry.at, expiry.after_send_seconds) {
            (Some(at), _) => in_zone(at, expiry.zone.as_deref()),
            (None, Some(seconds)) => format!("{} after each message", human::duration(Duration::from_secs(seconds))),
            (None, None) => "none".to_owned(),
        };
        writeln!(out, "  {:<10}{end}", "Expiry")?;
    }
    if counts.send > 0 {
        writeln!(
            out,
            "  {:<10}{}, about {}",
            "Rate",
            plan.rate,
            human::duration(Duration::from_secs(plan.estimated_seconds.max(1)))
        )?;
    }
    if plan.upload_bytes > 0 {
        let at = |mbit: u64| human::duration(Duration::from_secs((plan.upload_bytes * 8).div_ceil(mbit * 1_000_000)));
        writeln!(
            out,
            "  {:<10}{} of files: {} at 100 Mbit/s, {} at 5 Mbit/s",
            "Upload",
            human::megabytes(plan.upload_bytes),
            at(100),
            at(5)
        )?;
    }
    if !plan.samples.is_empty() {
        writeln!(out)?;
    }
    for (position, sample) in plan.samples.iter().enumerate() {
        let name = if position == 0 { "Samples" } else { "" };
        writeln!(out, "  {name:<10}{}  {}  {DIM}{}{DIM:#}", sample.to, sample.template, sample.row)?;
    }
    for row in plan.blocked.iter().flatten() {
        let detail = row.detail.as_deref().map_or_else(String::new, |detail| format!(": {detail}"));
        writeln!(out, "  {DIM}{}:{}{DIM:#} {}{detail}", row.file, row.line, row.reason.code())?;
    }
    if !plan.warnings.is_empty() {
        writeln!(out)?;
    }
    for warning in &plan.warnings {
        writeln!(out, "  {YELLOW}warning{YELLOW:#}: {warning}")?;
    }
    writeln!(out, "\nPlan hash {}", plan.hash)?;
    let short = |digest: &str| digest.chars().take(8).collect::<String>();
    writeln!(out, "  covers  messages {}, campaign {}", short(&plan.digests.messages), short(&plan.digests.campaign))?;
    match &plan.ledger_head {
        Some(head) => writeln!(out, "Ledger head {head}"),
        None if plan.compared_with_ledger => Ok(()),
        None => writeln!(out, "Record    none yet: everybody counts as new"),
    }
}
