//! What Kaleyra's answers mean.
//!
//! | answer | meaning |
//! |---|---|
//! | 2xx, an id for each recipient, no error, whatever stands in fields that are not documented as either | accepted |
//! | 429 | provably not sent, slow down |
//! | 4xx or 2xx with an account-level code, 401, 402, 403 with an error body | provably not sent, stop the run |
//! | 4xx or 2xx with an error body and no id | rejected |
//! | anything else: 5xx, 3xx, 408, a body that cannot be read, an id *and* an error | unknown |
//!
//! Sources: the send-LTO page (bodies, `RBC201`), `docs/whatsapp-error-codes` (statuses, 429),
//! `docs/whatsapp-api-v2-error-codes-for-send-message` (`RBC001`, `E110`, `WAV2101`). Whether a
//! refusal of credentials comes with status 200 is not documented, so the code decides.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::gateway::{NotSent, Outcome, Reply};

/// Codes that refuse the account, so that every further request would be refused as well:
/// credentials (v1, v2), balance, the daily limit.
const ACCOUNT_CODES: [&str; 4] = ["RBC201", "RBC001", "E110", "WAV2101"];

/// The longest reason that is kept, in characters.
const MAX_REASON: usize = 300;

/// Reads an answer to a request for `recipients` recipients.
///
/// `hidden` is what must not be repeated: secrets, and what belongs to the recipient.
pub fn read(
    status: u16,
    retry_after: Option<std::time::Duration>,
    body: &[u8],
    recipients: usize,
    hidden: &[&str],
) -> Reply {
    if matches!(status, 200..300)
        && let Some(ids) = documented_success(body)
    {
        return accepted(&ids, recipients);
    }
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let error_text = |body: &Value| error_text(body, hidden);
    if status == 429 {
        let reason = parsed.as_ref().and_then(&error_text).unwrap_or_else(|| "too many requests (429)".to_owned());
        return Reply::NotSent(NotSent::Throttled { reason, retry_after });
    }
    let unknown = |reason: String| Reply::Settled(vec![Outcome::Unknown { reason }; recipients]);
    let success = (200..300).contains(&status);
    if !success && (!(400..500).contains(&status) || status == 408) {
        return unknown(format!("the provider answered with status {status}"));
    }
    let Some(body) = parsed else {
        return unknown(format!("the answer (status {status}) is not readable"));
    };
    let ids = message_ids(&body);
    match (error_text(&body), ids.is_empty()) {
        (Some(reason), true) => {
            let code = body.get("code").and_then(Value::as_str).unwrap_or_default();
            if ACCOUNT_CODES.contains(&code) || matches!(status, 401..=403) {
                Reply::NotSent(NotSent::Account { reason })
            } else {
                Reply::Settled(vec![Outcome::Rejected { reason }; recipients])
            }
        }
        (None, false) if success => accepted(&ids, recipients),
        (Some(reason), false) => unknown(format!("the answer holds an id and an error: {reason}")),
        (None, _) => unknown(format!("the answer (status {status}) holds neither an id nor an error")),
    }
}

/// An object of which only some fields are looked into.
type Fields<'a> = BTreeMap<&'a str, &'a RawValue>;

/// The ids of a success as it is documented, which nearly every answer is: a tree of its ten fields
/// takes three times as long. Nothing for any other answer. Fields that say nothing of success or
/// failure are read for their form alone: a broken `createdDateTime` puts nothing in doubt.
fn documented_success(body: &[u8]) -> Option<Vec<String>> {
    fn read<'a, T: serde::Deserialize<'a>>(value: &'a RawValue) -> Option<T> {
        serde_json::from_str(value.get()).ok()
    }
    let fields: Fields<'_> = serde_json::from_slice(body).ok()?;
    let error = match fields.get("error") {
        Some(error) => !read::<Fields<'_>>(error)?.is_empty(),
        None => false,
    };
    if error || fields.contains_key("code") || fields.contains_key("message") {
        return None;
    }
    let entries: Vec<Fields<'_>> = read(fields.get("data")?)?;
    let id = |entry: &Fields<'_>| read::<String>(entry.get("message_id")?).filter(|id| !id.is_empty());
    entries.iter().map(id).collect::<Option<Vec<_>>>().filter(|ids| !ids.is_empty())
}

/// Gives each recipient the id that is theirs. In a request for several, `<request>:<index>` tells
/// whose it is; those without one are unknown, since partial failure is not documented.
fn accepted(ids: &[String], recipients: usize) -> Reply {
    let mut outcomes: Vec<Option<Outcome>> = vec![None; recipients];
    for (position, id) in ids.iter().enumerate() {
        let index = match recipients {
            1 => Some(0),
            _ => id
                .rsplit_once(':')
                .and_then(|(_, index)| index.parse().ok())
                .or((ids.len() == recipients).then_some(position)),
        };
        if let Some(slot) = index.and_then(|index: usize| outcomes.get_mut(index)) {
            slot.get_or_insert(Outcome::Accepted { message_id: id.clone() });
        }
    }
    let missing = || Outcome::Unknown { reason: "the answer holds no id for this recipient".to_owned() };
    Reply::Settled(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(missing)).collect())
}

fn message_ids(body: &Value) -> Vec<String> {
    let entries = body.get("data").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    entries
        .iter()
        .filter_map(|entry| entry.get("message_id")?.as_str())
        .filter(|id| !id.is_empty())
        .map(str::to_owned)
        .collect()
}

/// What an error body says, without numbers that may be somebody's. `None` if it holds no error.
fn error_text(body: &Value, hidden: &[&str]) -> Option<String> {
    let code = body.get("code").and_then(Value::as_str).filter(|code| !code.is_empty());
    let details: Vec<String> = match body.get("error") {
        Some(Value::Object(map)) => map
            .iter()
            .map(|(field, problem)| {
                let problem = problem.as_str().map_or_else(|| problem.to_string(), str::to_owned);
                if field == "error" { problem } else { format!("{field}: {problem}") }
            })
            .collect(),
        Some(Value::String(text)) if !text.is_empty() => vec![text.clone()],
        Some(Value::Array(list)) if !list.is_empty() => list.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    };
    let message = body.get("message").and_then(Value::as_str).filter(|message| !message.is_empty()).map(str::to_owned);
    // A v2 success carries the code `WA200`; v1 carries none.
    if details.is_empty() && (code.is_none() || code == Some("WA200")) {
        return None;
    }
    let words = if details.is_empty() { message.unwrap_or_default() } else { details.join("; ") };
    let text = match code {
        Some(code) if words.is_empty() => code.to_owned(),
        Some(code) => format!("{code}: {words}"),
        None => words,
    };
    // Before anything else is cut or masked, which could leave half a secret standing.
    let text = hidden.iter().filter(|part| part.len() >= 3).fold(text, |text, part| text.replace(part, "•••"));
    Some(without_numbers(&text))
}

/// Hides runs of seven digits or more, and cuts what is endless.
pub fn without_numbers(text: &str) -> String {
    let mut clean = String::new();
    let mut digits = String::new();
    for character in text.chars().take(MAX_REASON).chain(std::iter::once('\0')) {
        if character.is_ascii_digit() {
            digits.push(character);
            continue;
        }
        if digits.len() >= 7 {
            clean.push_str("•••");
        } else {
            clean.push_str(&digits);
        }
        digits.clear();
        match character {
            '\0' => {}
            control if control.is_control() => clean.push(' '),
            other => clean.push(other),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The success of the send-LTO page.
    const SUCCESS: &str = r#"{"id":"08a72b9e-9e0e-46af-a41b-2d87bf30e036","type":"mediatemplate","body":null,
        "createdDateTime":"2024-01-12 07:08:43+00:00","totalCount":1,
        "data":[{"message_id":"08a72b9e-9e0e-46af-a41b-2d87bf30e036:0","recipient":"xx9986xx70xx"}],"error":{}}"#;
    const REFUSED: &str = r#"{"code":"RBC201","message":"Incorrect SID or API key.","data":[],"error":{"error":"Incorrect SID or API key."}}"#;

    fn one(status: u16, body: &str) -> Reply {
        read(status, None, body.as_bytes(), 1, &[])
    }

    #[test]
    fn an_id_and_no_error_is_accepted() {
        let id = "08a72b9e-9e0e-46af-a41b-2d87bf30e036:0".to_owned();
        assert_eq!(documented_success(SUCCESS.as_bytes()), Some(vec![id.clone()]));
        for status in [200, 202] {
            assert_eq!(one(status, SUCCESS), Reply::Settled(vec![Outcome::Accepted { message_id: id.clone() }]));
        }
    }

    #[test]
    fn an_id_is_what_its_json_says_whatever_stands_around_it() {
        let body = r#" {"data" : [ null, {"message_id":"a\u003a\u0030", "to": [1]} ], "code": 7} "#;
        assert_eq!(one(200, body), Reply::Settled(vec![Outcome::Accepted { message_id: "a:0".into() }]));
    }

    #[test]
    fn wrong_credentials_stop_the_run_whatever_the_status() {
        for status in [200, 400, 401] {
            let reason = "RBC201: Incorrect SID or API key.".to_owned();
            assert_eq!(one(status, REFUSED), Reply::NotSent(NotSent::Account { reason }));
        }
    }

    #[test]
    fn a_refusal_of_the_message_is_rejected_and_hides_numbers() {
        let reply = one(400, r#"{"error":{"to":"invalid number 919876543210"}}"#);
        assert_eq!(reply, Reply::Settled(vec![Outcome::Rejected { reason: "to: invalid number •••".into() }]));
    }

    #[test]
    fn what_the_provider_repeats_of_a_secret_is_hidden_whatever_the_answer() {
        let key = "Ab1234567890cdEF";
        for (status, data) in [(429, ""), (400, ""), (401, ""), (200, r#""data":[{"message_id":"a:0"}],"#)] {
            let body = format!(r#"{{{data}"error":{{"x":"key {key} and HAPPY76 for 9876543210"}}}}"#);
            let told = format!("{:?}", read(status, None, body.as_bytes(), 1, &[key, "HAPPY76"]));
            assert!(told.contains("•••"), "{told}");
            assert!(!told.contains("cdEF") && !told.contains("HAPPY76") && !told.contains("98765"), "{told}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_unknown() {
        for (status, body) in [
            (200, "{"),
            (200, ""),
            (200, "{}"),
            (200, r#"{"data":[],"error":{}}"#),
            (404, "<html>not found</html>"),
            (408, REFUSED),
            (302, ""),
            (500, REFUSED),
            (502, SUCCESS),
            (400, SUCCESS),
            (200, r#"{"data":[{"message_id":"a:0"}],"error":{"to":"bad"}}"#),
            (200, r#"["x","y",[{"message_id":"a:0"}],{}]"#),
            (200, r#"{"data":[["a:0"]],"error":{}}"#),
            (200, r#"{"data":{"message_id":"a:0"},"error":{}}"#),
            (200, r#"{"data":[{"message_id":7},{"message_id":""},null],"error":{}}"#),
            (200, r#"{"data":[{"message_id":"a:0"}],"error":{}} and more"#),
            (200, r#"{"data":[{"message_id":"a:0"}],"error":{"params":"cut \ud83d"}}"#),
            (200, r#"{"data":[{"message_id":"a:0"}],"error":{"x":1e999}}"#),
            (200, r#"{"data":[{"message_id":"a","message_id":"b"}],"error":{"to":"bad"}}"#),
            (200, r#"{"data":[{"message_id":"\ud800"}],"error":{"to":"bad"}}"#),
            (200, r#"{"code":"RBC201","message":"\ud800"}"#),
            (200, r#""a:0""#),
        ] {
            match one(status, body) {
                Reply::Settled(outcomes) => {
                    assert!(matches!(outcomes[..], [Outcome::Unknown { .. }]), "{status} {body}")
                }
                other => panic!("{status} {body}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_stands_in_other_fields_puts_nothing_in_doubt() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for body in [
            r#"{"data":[{"message_id":"a:0","recipient":"cut \ud83d"}],"error":{}}"#,
            r#"{"totalCount":1e999,"data":[{"message_id":"a:0"}],"error":{}}"#,
            &format!(r#"{{"body":{deep},"data":[{{"message_id":"a:0"}}],"error":{{}}}}"#),
        ] {
            assert_eq!(one(200, body), Reply::Settled(vec![Outcome::Accepted { message_id: "a:0".into() }]), "{body}");
        }
        // But an answer that breaks off is none.
        let broken = one(200, r#"{"data":[{"message_id":"a:0"}],"error":{},"body":"#);
        assert!(matches!(&broken, Reply::Settled(outcomes) if matches!(outcomes[..], [Outcome::Unknown { .. }])));
    }

    #[test]
    fn a_429_is_not_sent_with_any_body() {
        for body in ["", REFUSED, "slow down"] {
            assert!(matches!(one(429, body), Reply::NotSent(NotSent::Throttled { .. })));
        }
    }

    #[test]
    fn several_recipients_get_the_ids_that_are_theirs() {
        let body = r#"{"data":[{"message_id":"r:2"},{"message_id":"r:0"}],"error":{}}"#;
        match read(200, None, body.as_bytes(), 3, &[]) {
            Reply::Settled(outcomes) => {
                assert_eq!(outcomes[0], Outcome::Accepted { message_id: "r:0".into() });
                assert!(matches!(outcomes[1], Outcome::Unknown { .. }));
                assert_eq!(outcomes[2], Outcome::Accepted { message_id: "r:2".into() });
            }
            other => panic!("{other:?}"),
        }
    }

    /// What the closer look makes of a body.
    fn ids_by_the_tree(body: &str) -> Option<Vec<String>> {
        let body: Value = serde_json::from_str(body).ok()?;
        Some(message_ids(&body)).filter(|ids| !ids.is_empty() && error_text(&body, &[]).is_none())
    }

    proptest! {
        #[test]
        fn the_quick_look_at_a_success_never_finds_what_the_closer_one_does_not(
            fields in prop::collection::vec(
                prop::sample::select(vec![
                    r#""id":"x""#, r#""totalCount":1"#, r#""body":null"#, r#""error":{}"#, r#""error":null"#,
                    r#""error":[]"#, r#""error":"""#, r#""error":{"to":"bad"}"#, r#""error":"bad""#, r#""error":["bad"]"#,
                    r#""\u0065rror":{"to":"bad"}"#, r#""code":"RBC201""#, r#""code":"WA200""#, r#""code":null"#,
                    r#""message":"m""#, r#""data":[]"#, r#""data":null"#, r#""data":[null]"#, r#""data":[["a:0"]]"#,
                    r#""data":{"message_id":"a"}"#, r#""data":[{"message_id":"a:0","recipient":"xx"}]"#,
                    r#""data":[{"message_id":"a:0"}]"#, r#""data":[{"message_id":"a:1"}]"#,
                    r#""data":[{"message_id":"a:0"},{"message_id":"a:1"}]"#, r#""data":[{"message_id":"a:0"},{}]"#,
                    r#""data":[{"message_id":"\u0061"}]"#, r#""data":[{"message_id":"a","message_id":"b"}]"#,
                    r#""data":[{"message_id":""}]"#, r#""data":[{"message_id":7}]"#,
                ]),
                2..6,
            ),
            cut in prop::sample::select(vec![0_usize, 0, 0, 0, 1, 2]),
        ) {
            let body = format!("{{{}}}", fields.join(","));
            let body = &body[..body.len() - cut.min(body.len())];
            if let Some(ids) = documented_success(body.as_bytes()) {
                prop_assert_eq!(Some(ids), ids_by_the_tree(body));
            }
        }

        #[test]
        fn nothing_but_a_success_body_is_ever_accepted(status in 100_u16..600, body in "\\PC{0,60}") {
            if let Reply::Settled(outcomes) = one(status, &body) {
                let accepted = outcomes.iter().any(|outcome| matches!(outcome, Outcome::Accepted { .. }));
                prop_assert!(!accepted);
            }
        }
    }
}
