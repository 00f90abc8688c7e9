//! Whose entry is this? What a masked recipient such as `xx9986xx70xx` says of a number.

use crate::domain::phone::E164;

/// Fewer visible digits say nothing.
const MIN_VISIBLE: usize = 4;

/// What a mask says of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mask {
    /// Nothing: it is no mask of a number of this length, or shows too little.
    Silent,
    /// It may be a mask of this number.
    Fits,
    /// It is a mask of another number.
    Contradicts,
}

/// Compares a mask with a number, in both of its forms where it has two: a mask contradicts only if
/// it has as many characters as a form has digits, and fits none.
pub(super) fn compare(mask: &str, number: E164) -> Mask {
    let mask = mask.strip_prefix('+').unwrap_or(mask);
    let mut length = 0;
    let mut visible = 0;
    for character in mask.chars() {
        length += 1;
        if character.is_ascii_digit() {
            visible += 1;
        } else if character.is_whitespace() || character.is_numeric() || "-().,/".contains(character) {
            // A number with separators is no mask: its characters do not stand for digits.
            return Mask::Silent;
        }
    }
    if visible < MIN_VISIBLE {
        return Mask::Silent;
    }
    let fits = |number: E164| {
        let mut rest = number.digits();
        for character in mask.chars().rev() {
            if rest == 0 {
                return None;
            }
            if character.to_digit(10).is_some_and(|digit| u64::from(digit) != rest % 10) {
                // It differs, if it is as long.
                return (number.digits().ilog10() as usize + 1 == length).then_some(false);
            }
            rest /= 10;
        }
        (rest == 0).then_some(true)
    };
    match (fits(number), number.other_form().and_then(fits)) {
        (Some(true), _) | (_, Some(true)) => Mask::Fits,
        (None, None) => Mask::Silent,
        _ => Mask::Contradicts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_contradicts_only_where_it_could_be_one_of_this_number() {
        let number = |text: &str| E164::parse_exact(text).unwrap();
        let india = number("+919986997011");
        for (mask, says) in [
            ("xx9986xx70xx", Mask::Fits),
            ("919986997011", Mask::Fits),
            ("+919986997011", Mask::Fits),
            ("91********11", Mask::Fits),
            ("91••••••••11", Mask::Fits),
            ("xx9985xx70xx", Mask::Contradicts),
            ("919986997012", Mask::Contradicts),
            // Three visible digits, another length, separators, a name, nothing.
            ("xx998xxxxxxx", Mask::Silent),
            ("xx888xxxxxxx", Mask::Silent),
            ("xx9985xx70xxx", Mask::Silent),
            ("9985xx70xx", Mask::Silent),
            ("99 86 99 70 12", Mask::Silent),
            ("+91 99-86-99", Mask::Silent),
            ("Asha", Mask::Silent),
            ("", Mask::Silent),
        ] {
            assert_eq!(compare(mask, india), says, "{mask}");
        }
        // Sent to the older form, answered in the newer, and the other way round.
        for (sent, other) in [("+552187654321", "5521987654321"), ("+5521987654321", "552187654321")] {
            assert_eq!(compare(other, number(sent)), Mask::Fits);
            let mut wrong = other.to_owned();
            wrong.replace_range(other.len() - 1.., "0");
            assert_eq!(compare(&wrong, number(sent)), Mask::Contradicts);
        }
    }
}
