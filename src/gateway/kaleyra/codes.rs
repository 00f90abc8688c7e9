//! Kaleyra's result codes.
//!
//! Sources: `docs/whatsapp-error-codes`, and `docs/whatsapp-api-v2-error-codes-for-send-message` (`RBC001`, `E110`,
//! `WAV2101`, `WA500`).

/// Codes that refuse the account, so that every further request would be refused as well:
/// credentials (v1, v2), balance, the daily limit.
const ACCOUNT_CODES: [&str; 4] = ["RBC201", "RBC001", "E110", "WAV2101"];

/// Codes of a success.
const SUCCESS_CODES: [&str; 2] = ["WA200", "WS201"];

/// How other providers report a success. As a code, or as an `error`, they refuse nothing.
const SUCCESS_WORDS: [&str; 10] =
    ["ok", "success", "successful", "accepted", "queued", "sent", "submitted", "created", "none", "no error"];

/// The meaning of a `code`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// There is no code, or it only repeats the status.
    Absent,
    /// The provider took the message.
    Success,
    /// The provider refuses the account.
    Account(String),
    /// The provider refuses this message.
    Refusal(String),
    /// The provider failed (`WA500`), or the code cannot be read.
    Unclear(String),
}

impl Code {
    /// The meaning of a code in a response with this status.
    pub(super) fn of(code: &str, status: u16) -> Self {
        let code = code.trim();
        let is = |known: &&str| code.eq_ignore_ascii_case(known);
        if (200..300).contains(&status) && code.parse() == Ok(status) {
            Code::Absent
        } else if SUCCESS_CODES.iter().any(is) {
            Code::Success
        } else if ACCOUNT_CODES.iter().any(is) {
            Code::Account(code.to_owned())
        } else if code.is_empty() || is_success_word(code) || is_status_without_refusal(code) {
            Code::Unclear(code.to_owned())
        } else {
            Code::Refusal(code.to_owned())
        }
    }
}

/// Whether a text is a word for success, in any letter case.
pub(super) fn is_success_word(text: &str) -> bool {
    SUCCESS_WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Whether a code is the number of a status that does not prove a refusal: of a success, of a failing server, of a
/// client that did not wait, of a conflict. `WA` or `WS` may come before it.
fn is_status_without_refusal(code: &str) -> bool {
    let number = match code.get(..2) {
        Some(prefix) if prefix.eq_ignore_ascii_case("WA") || prefix.eq_ignore_ascii_case("WS") => &code[2..],
        _ => code,
    };
    number.parse::<f64>().is_ok_and(|number| {
        number <= 0.0
            || (200.0..300.0).contains(&number)
            || (500.0..600.0).contains(&number)
            || [408.0, 409.0, 499.0].contains(&number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_code_that_is_nothing_else_refuses_the_message() {
        let own = str::to_owned;
        for (code, status, meaning) in [
            ("202", 202, Code::Absent),
            ("WA200", 200, Code::Success),
            ("ws201", 400, Code::Success),
            ("RBC201", 200, Code::Account(own("RBC201"))),
            (" e110 ", 400, Code::Account(own("e110"))),
            ("E13001", 400, Code::Refusal(own("E13001"))),
            ("400", 200, Code::Refusal(own("400"))),
            ("WA500", 200, Code::Unclear(own("WA500"))),
            ("200", 202, Code::Unclear(own("200"))),
            ("OK", 200, Code::Unclear(own("OK"))),
            ("0", 200, Code::Unclear(own("0"))),
            (" ", 200, Code::Unclear(String::new())),
        ] {
            assert_eq!(Code::of(code, status), meaning, "{code:?} with {status}");
        }
    }
}
