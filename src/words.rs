//! Figures as a person reads them.

use std::time::Duration;

/// A duration as a person writes it.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (amount, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7_200 if !seconds.is_multiple_of(3_600) => (seconds / 60, "minute"),
        120..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    count(usize::try_from(amount).unwrap_or(usize::MAX), unit)
}

/// `1 row`, `2 rows`.
pub fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// A number with its thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of bytes in millions.
pub fn megabytes(bytes: u64) -> String {
    match bytes {
        0..100_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{} MB", grouped(bytes / 1_000_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_as_a_person_writes_them() {
        let seconds = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!(seconds(1), "1 second");
        assert_eq!(seconds(90), "90 seconds");
        assert_eq!(seconds(600), "10 minutes");
        assert_eq!(seconds(7_200), "2 hours");
        assert_eq!(seconds(14 * 86_400), "14 days");
        assert_eq!(count(1, "code"), "1 code");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(0), "0");
        assert_eq!(megabytes(160_000), "0.2 MB");
        assert_eq!(megabytes(1_500_000_000), "1,500 MB");
    }
}
