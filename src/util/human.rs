//! Numbers and foreign texts for people.

use std::borrow::Cow;
use std::time::Duration;

/// A duration in words: `90 seconds`, `2 hours`.
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

/// A number with thousands separators.
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

/// A number of bytes in megabytes.
pub fn megabytes(bytes: u64) -> String {
    match bytes {
        0..100_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{} MB", grouped(bytes / 1_000_000)),
    }
}

/// A foreign text on one line: line breaks, other control characters and line or paragraph separators become
/// spaces, and format characters are removed.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Cow::Borrowed(text);
    }
    let shown = |character: char| match character {
        separator if separator.is_control() || matches!(separator, '\u{2028}' | '\u{2029}') => Some(' '),
        format if is_format(format) => None,
        other => Some(other),
    };
    Cow::Owned(text.chars().filter_map(shown).collect())
}

/// Whether a character is a format character (Unicode general category Cf): it is invisible, and may hide or
/// reorder its neighbours.
pub fn is_format(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{600}'..='\u{605}'
            | '\u{61c}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{890}'..='\u{891}'
            | '\u{8e2}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2064}'
            | '\u{2066}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{110bd}'
            | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0001}'
            | '\u{e0020}'..='\u{e007f}'
    )
}

/// A duration rounded up to whole seconds, at least one.
pub fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs((duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1))
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

    #[test]
    fn a_foreign_text_stays_on_its_line() {
        assert_eq!(one_line("plain, as it is"), "plain, as it is");
        assert_eq!(one_line("a\nb\r\u{85}c\u{2028}d\u{2029}e\u{1b}[2Jf"), "a b  c d e [2Jf");
        assert_eq!(one_line("a\u{200b}b\u{202e}c\u{feff}d\u{e0041}e"), "abcde");
        assert_eq!(one_line("नमस्ते, schön"), "नमस्ते, schön");
    }
}
