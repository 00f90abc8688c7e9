//! The table of the module, case by case.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// The success of the send-LTO page.
const SUCCESS: &str = r#"{"id":"08a72b9e-9e0e-46af-a41b-2d87bf30e036","type":"mediatemplate","body":null,
    "createdDateTime":"2024-01-12 07:08:43+00:00","totalCount":1,
    "data":[{"message_id":"08a72b9e-9e0e-46af-a41b-2d87bf30e036:0","recipient":"xx9986xx70xx"}],"error":{}}"#;
const REFUSED: &str = r#"{"code":"RBC201","message":"Incorrect SID or API key.","data":[],"error":{"error":"Incorrect SID or API key."}}"#;
/// The same as the page prints it.
const PRINTED: &str = r#"{
"code": "RBC201",
"message": "Incorrect SID or API key.",
"data": \[],
"error": {
"error": "Incorrect SID or API key."
}
}"#;

fn numbers(numbers: &[&str]) -> Vec<E164> {
    numbers.iter().map(|number| E164::parse_exact(number).unwrap()).collect()
}

fn to(recipients: &[E164], status: u16, body: &str) -> Reply {
    read(status, None, body.as_bytes(), &Private { numbers: recipients, ..Private::default() })
}

/// To the number that the page's mask fits.
fn one(status: u16, body: &str) -> Reply {
    to(&numbers(&["+919986997011"]), status, body)
}

/// A reply in short: `accepted a:0`, `rejected`, `unknown`, one for each recipient; `slow down`,
/// `stop`, `stop, unknown`.
fn short(reply: &Reply) -> String {
    let outcomes = |outcomes: &[Outcome]| {
        let words: Vec<String> = outcomes
            .iter()
            .map(|outcome| match outcome {
                Outcome::Accepted { message_id } => format!("accepted {message_id}"),
                Outcome::Rejected { .. } => "rejected".to_owned(),
                Outcome::Unknown { .. } => "unknown".to_owned(),
            })
            .collect();
        words.join(", ")
    };
    match reply {
        Reply::Settled(list) => outcomes(list),
        Reply::NotSent(NotSent::Throttled { .. }) => "slow down".to_owned(),
        Reply::NotSent(NotSent::Account { .. }) => "stop".to_owned(),
        Reply::NotSent(other) => format!("{other:?}"),
        Reply::Refused { outcomes: list, .. } => format!("stop, {}", outcomes(list)),
    }
}

#[track_caller]
fn hold(cases: &[(u16, &str, &str)]) {
    for (status, body, meaning) in cases {
        assert_eq!(short(&one(*status, body)), *meaning, "{status} {body}");
    }
}

#[test]
fn an_id_and_no_error_is_accepted() {
    let accepted = "accepted 08a72b9e-9e0e-46af-a41b-2d87bf30e036:0";
    hold(&[
        (200, SUCCESS, accepted),
        (202, SUCCESS, accepted),
        (200, r#" {"data" : [ {"message_id":"a\u003a\u0030", "to": [1]} ]} "#, "accepted a:0"),
        // An index that is none of a single recipient's, and an id without one.
        (200, r#"{"data":[{"message_id":"a:7"}],"error":{}}"#, "accepted a:7"),
        (200, r#"{"data":[{"message_id":"a"}]}"#, "accepted a"),
        // Nothing that denies it.
        (
            200,
            r#"{"data":[{"message_id":"a:0","error":{}}],"error":null,"code":null,"message":"Queued"}"#,
            "accepted a:0",
        ),
        (
            200,
            r#"{"data":[{"message_id":"a:0"}],"error":false,"errors":[],"success":true,"status":"sent"}"#,
            "accepted a:0",
        ),
        (200, r#"{"data":[{"message_id":"a:0"}],"error":[],"code":""}"#, "accepted a:0"),
        (200, r#"{"data":[{"message_id":"a:0"}],"error":"","code":200}"#, "accepted a:0"),
        (202, r#"{"data":[{"message_id":"a:0"}],"code":"202"}"#, "accepted a:0"),
        (200, r#"{"data":[{"message_id":"a:0"}],"code":"WA200"}"#, "accepted a:0"),
        (201, r#"{"data":[{"message_id":"a:0"}],"code":"WS201"}"#, "accepted a:0"),
    ]);
}

#[test]
fn what_stands_in_other_fields_puts_nothing_in_doubt() {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    hold(&[
        (200, r#"{"data":[{"message_id":"a:0","recipient":"cut \ud83d"}],"error":{}}"#, "accepted a:0"),
        (200, &format!(r#"{{"body":{deep},"data":[{{"message_id":"a:0"}}],"error":{{}}}}"#), "accepted a:0"),
        // But an answer that breaks off is none.
        (200, r#"{"data":[{"message_id":"a:0"}],"error":{},"body":"#, "unknown"),
    ]);
}

#[test]
fn an_id_in_a_refusal_is_never_not_sent_nor_rejected() {
    for holder in [
        r#""data":[{"message_id":"a:0"}]"#,
        r#""data":{"message_id":"a:0"}"#,
        r#""data":["a:0"]"#,
        r#""data":[["a:0"]]"#,
        r#""data":"a:0""#,
        r#""data":7"#,
        r#""data":[null]"#,
        r#""data":[{}]"#,
        r#""data":[{"recipient":"xx9986xx70xx"}]"#,
        r#""id":"r0:0""#,
        r#""id":7"#,
        r#""ID":"r0:0""#,
        r#""message_id":"a:0""#,
        r#""messageId":"a:0""#,
        r#""messages":[{"id":"a"}]"#,
        r#""messages":{"a":"b"}"#,
        r#""response":{"data":[{"message_id":"a:0"}]}"#,
        r#""result":[{"id" : "a"}]"#,
    ] {
        for status in [429, 400, 422, 401, 402, 403, 404, 405, 411, 413, 415] {
            for rest in ["", r#","error":{}"#, r#","error":{"to":"invalid"}"#, r#","code":"E13001","message":"no""#] {
                let body = format!("{{{holder}{rest}}}");
                assert_eq!(short(&one(status, &body)), "unknown", "{status} {body}");
            }
            let body = format!(r#"{{"code":"RBC201",{holder},"error":{{"error":"Incorrect SID or API key."}}}}"#);
            assert_eq!(short(&one(status, &body)), "stop, unknown", "{status} {body}");
        }
    }
    // Where nothing is held, nothing is in doubt.
    for empty in [
        r#""data":[]"#,
        r#""data":[ ]"#,
        r#""data":{}"#,
        r#""data":null"#,
        r#""data":"""#,
        r#""id":null"#,
        r#""id":"","messages":[]"#,
    ] {
        for (status, meaning) in [(429, "slow down"), (400, "rejected"), (403, "stop"), (200, "rejected")] {
            let body = format!(r#"{{{empty},"error":{{"to":"invalid"}}}}"#);
            assert_eq!(short(&one(status, &body)), meaning, "{status} {body}");
        }
    }
}

#[test]
fn an_id_beside_anything_that_denies_it_is_no_acceptance() {
    let id = r#""data":[{"message_id":"a:0"}]"#;
    for denial in [
        r#""error":true"#,
        r#""error":1"#,
        r#""error":0"#,
        r#""error":"bad""#,
        r#""error":" ""#,
        r#""error":["bad"]"#,
        r#""error":[null]"#,
        r#""error":{"to":"bad"}"#,
        r#""error":{"to":null}"#,
        r#""error":{"params":"cut \ud83d"}"#,
        r#""error":{"x":1e999}"#,
        r#""code":"E13001""#,
        r#""code":7"#,
        r#""code":201"#,
        r#""code":"400""#,
        r#""code":"WA500""#,
        r#""code":true"#,
        r#""code":{"a":1}"#,
        r#""errors":["bad"]"#,
        r#""success":false"#,
        r#""status":"failed""#,
        r#""totalCount":0"#,
        r#""totalCount":"0""#,
        r#""totalCount":2"#,
        r#""totalCount":1e999"#,
    ] {
        hold(&[
            (200, &format!("{{{id},{denial}}}"), "unknown"),
            (200, &format!("{{{denial},{id}}}"), "unknown"),
            (200, &format!(r#"{{"id":"a:0",{denial}}}"#), "unknown"),
        ]);
    }
    hold(&[
        (200, &format!(r#"{{{id},"code":"RBC201"}}"#), "stop, unknown"),
        (200, r#"{"data":[{"message_id":"a:0","error":{"to":"bad"}}],"error":{}}"#, "unknown"),
        (200, r#"{"data":[{"message_id":"a:0","error":"bad"}],"error":{}}"#, "unknown"),
        (200, r#"{"data":[{"message_id":"a:0","error":true}],"error":{}}"#, "unknown"),
        (200, r#"{"data":[{"message_id":"a:0","status":"failed"}],"error":{}}"#, "unknown"),
        (200, r#"{"data":[{"message_id":"a:0","code":"E13001"}],"error":{}}"#, "unknown"),
        (200, r#"{"data":[{"message_id":"a:0"}],"Error":{"to":"bad"}}"#, "unknown"),
        (200, r#"{"data":[{"message_id":"a:0","code":200}],"error":{}}"#, "accepted a:0"),
        // A count that says nothing.
        (200, &format!(r#"{{{id},"totalCount":1}}"#), "accepted a:0"),
        (200, &format!(r#"{{{id},"totalCount":null}}"#), "accepted a:0"),
        (200, &format!(r#"{{{id},"totalCount":"many"}}"#), "accepted a:0"),
    ]);
}

#[test]
fn a_key_that_is_given_twice_makes_the_answer_unreadable() {
    hold(&[
        (200, r#"{"data":[],"data":[{"message_id":"a:0"}]}"#, "unknown"),
        (200, r#"{"data":[{"message_id":"a:0"}],"error":{"to":"bad"},"error":{}}"#, "unknown"),
        (200, r#"{"data":[{"message_id":"a:0"}],"\u0065rror":{"to":"bad"},"error":{}}"#, "unknown"),
        (200, r#"{"data":[{"message_id":"a","message_id":"b"}],"error":{}}"#, "unknown"),
        (200, r#"{"data":[{"message_id":"a:0"}],"x":1,"x":2}"#, "unknown"),
        (200, r#"{"id":"a:0","id":"b:0"}"#, "unknown"),
        (400, r#"{"error":{"to":"bad"},"error":{}}"#, "unknown"),
        (400, r#"{"error":{"to":"bad","to":"worse"}}"#, "unknown"),
        (400, r#"{"code":"E13001","error":{"to":"bad","to":"worse"}}"#, "unknown"),
        (429, r#"{"data":[],"data":[{"message_id":"a:0"}]}"#, "unknown"),
        (429, r#"{"data":[{"message_id":"a:0"}],"data":[]}"#, "unknown"),
        (429, r#"{"message":"slow","message":"down"}"#, "slow down"),
        (403, r#"{"message":"Forbidden","message":"Forbidden"}"#, "stop"),
    ]);
    let many: String = (0..40).map(|number| format!(r#""k{number}":1,"#)).collect();
    hold(&[
        (200, &format!(r#"{{{many}"data":[{{"message_id":"a:0"}}]}}"#), "accepted a:0"),
        (200, &format!(r#"{{{many}"data":[{{"message_id":"a:0"}}],"k7":1}}"#), "unknown"),
    ]);
}

#[test]
fn an_id_at_the_top_alone_is_accepted_for_one_recipient() {
    hold(&[
        (200, r#"{"id":"58f86fab-85c5-4f7c-9b68-9c323248afc4:0"}"#, "accepted 58f86fab-85c5-4f7c-9b68-9c323248afc4:0"),
        (
            202,
            r#"{"id":"58f86fab","type":"mediatemplate","totalCount":1,"error":{},"code":"WA200"}"#,
            "accepted 58f86fab",
        ),
        (200, r#"{"id":"a:0","message":null,"recipient":"xx9986xx70xx"}"#, "accepted a:0"),
        (200, r#"{"id":"a:0","recipient":"xx9985xx70xx"}"#, "unknown"),
        (200, r#"{"id":"a:0","data":[]}"#, "unknown"),
        (200, r#"{"id":"a:0","data":null}"#, "unknown"),
        (200, r#"{"id":"a:0","data":{}}"#, "unknown"),
        (200, r#"{"id":"a:0","totalCount":0}"#, "unknown"),
        (200, r#"{"id":"a:0","totalCount":2}"#, "unknown"),
        (200, r#"{"id":"a:0","message":"Queued"}"#, "unknown"),
        (200, r#"{"id":"a:0","message":""}"#, "unknown"),
        (200, r#"{"id":"a:0","error":{"to":"bad"}}"#, "unknown"),
        (200, r#"{"id":"a:0","code":"E13001"}"#, "unknown"),
        (200, r#"{"id":"a:0","message_id":"b:0"}"#, "unknown"),
        (200, r#"{"id":"a:0","messages":[{"id":"b"}]}"#, "unknown"),
        (200, r#"{"id":7}"#, "unknown"),
        (200, r#"{"id":" "}"#, "unknown"),
        (200, "{\"id\":\"\u{200b}\"}", "unknown"),
        (200, r#"{"message_id":"a:0"}"#, "unknown"),
        (200, r#"{"messages":[{"id":"a"}]}"#, "unknown"),
        (400, r#"{"id":"a:0"}"#, "unknown"),
        (429, r#"{"id":"a:0"}"#, "unknown"),
        (500, r#"{"id":"a:0"}"#, "unknown"),
    ]);
    assert_eq!(short(&to(&numbers(&["+919986997011", "+919986997012"]), 200, r#"{"id":"a:0"}"#)), "unknown, unknown");
}

#[test]
fn a_refusal_that_cannot_be_of_one_message_stops_the_run() {
    for status in [401, 402, 403, 404, 405, 411, 413, 415] {
        for body in [
            "",
            "Forbidden",
            r#""Forbidden""#,
            "<html><body id=\"main\"><h1>403 Forbidden</h1>Request ID: 08a72b9e-9e0e-46af-a41b-2d87bf30e036</body></html>",
            "<html lang=\"fr\">acc\u{e8}s refus\u{e9}</html>",
            "<html><script>var page = {\"id\":\"08a72b9e\",\"data\":[1]}</script></html>",
            "[error] denied",
            r#"{"message":"Forbidden"}"#,
            r#"{"message":"Forbidden","request_id":"08a72b9e"}"#,
            r#"{"error":{"to":"invalid number"}}"#,
            r#"{"data":[],"error":{}}"#,
            r#"{"message":"cut off"#,
            "[]",
            "null",
            "{}",
            REFUSED,
            PRINTED,
        ] {
            assert_eq!(short(&one(status, body)), "stop", "{status} {body}");
        }
        for body in [
            r#"[{"message_id":"a:0"}]"#,
            r#"["a:0"]"#,
            r#"{"data":[{"message_id":"a:0"#,
            r#"{"data": \[{"message_id":"a:0"}],"error":{}}"#,
            r#"{'id': 'a:0'}"#,
            r#"{"m\u0065ssage_id":"a"#,
            "<response><id>a:0</id></response>",
            "message_id=a:0",
            "<html><script>var sent = {\"message_id\":\"a:0\"}</script></html>",
            r#"answer: {"id":"a:0"}"#,
            r#""{\"id\":\"a:0\"}""#,
            "\u{1f}\u{8b}compressed",
        ] {
            assert_eq!(short(&one(status, body)), "unknown", "{status} {body}");
        }
    }
    let latin = b"<html>acc\xe8s refus\xe9</html>";
    let reply = read(403, None, latin, &Private { numbers: &numbers(&["+919986997011"]), ..Private::default() });
    assert_eq!(reply, Reply::NotSent(NotSent::Account { reason: "status 403".into() }));
    assert_eq!(
        one(404, r#"{"message":"no Route matched"}"#),
        Reply::NotSent(NotSent::Account { reason: "status 404: no Route matched".into() })
    );
}

#[test]
fn the_vendors_error_body_is_read_as_it_is_printed() {
    let reason = "RBC201: Incorrect SID or API key.".to_owned();
    for status in [200, 400, 401, 403, 429] {
        for body in [REFUSED, PRINTED] {
            let stop = Reply::NotSent(NotSent::Account { reason: reason.clone() });
            assert_eq!(one(status, body), stop, "{status} {body}");
        }
    }
    hold(&[
        (500, PRINTED, "stop, unknown"),
        (408, REFUSED, "stop, unknown"),
        (400, r#"{"code":"E13001","data":\[],"error":{"to":"a \\[ in a text"}}"#, "rejected"),
        // Never as an acceptance.
        (200, r#"{"data":\[{"message_id":"a:0"}],"error":{}}"#, "unknown"),
        (200, r#"{"data":[{"message_id":"a:0"}],"body":\[],"error":{}}"#, "unknown"),
        (200, r#"{"id":"a:0","body":\[]}"#, "unknown"),
        (200, &format!("\u{feff}{SUCCESS}"), "unknown"),
        (200, r#"{"data":\n[]}"#, "unknown"),
    ]);
}

#[test]
fn account_codes_stop_the_run() {
    for code in ["RBC201", "RBC001", "E110", "WAV2101", "rbc201"] {
        for status in [200, 400, 401, 429] {
            assert_eq!(short(&one(status, &format!(r#"{{"code":"{code}","data":[]}}"#))), "stop");
        }
    }
}

#[test]
fn a_429_is_not_sent_unless_it_may_hold_an_id() {
    for body in
        ["", "slow down", "{}", r#"{"error":{"to":"invalid number"}}"#, "<html>429</html>", r#"{"code":"WA429"}"#]
    {
        assert_eq!(short(&one(429, body)), "slow down", "{body}");
    }
    hold(&[(429, r#"{"data":[{"message_id":"a:0"}],"error":{}}"#, "unknown"), (429, r#"{"id":"r0:0"}"#, "unknown")]);
    let after = Some(Duration::from_secs(7));
    let number = numbers(&["+919986997011"]);
    let reply = read(429, after, b"", &Private { numbers: &number, ..Private::default() });
    assert!(matches!(reply, Reply::NotSent(NotSent::Throttled { retry_after, .. }) if retry_after == after));
}

#[test]
fn a_refusal_of_the_message_is_rejected_and_hides_numbers() {
    let reply = one(400, r#"{"error":{"to":"invalid number 919876543210"}}"#);
    assert_eq!(reply, Reply::Settled(vec![Outcome::Rejected { reason: "to: invalid number •••".into() }]));
    hold(&[
        (400, r#"{"message":"Bad template"}"#, "rejected"),
        (422, r#"{"message":"Bad template"}"#, "rejected"),
        (400, r#"{"message":"Bad template","data":[],"error":{}}"#, "rejected"),
        (422, r#"{"code":"E13001"}"#, "rejected"),
        (400, r#"{"code":400,"error":"bad"}"#, "rejected"),
        (200, r#"{"code":"E13001","message":"x","data":[],"error":{"to":"bad"}}"#, "rejected"),
        (200, r#"{"code":200,"data":[],"totalCount":0,"error":{"to":"bad"}}"#, "rejected"),
        (406, r#"{"error":{"to":"bad"}}"#, "rejected"),
    ]);
}

#[test]
fn a_code_or_an_error_that_says_success_refuses_nothing() {
    for code in [
        r#""OK""#,
        r#""success""#,
        r#""Queued""#,
        "200.0",
        "2e2",
        "0.0",
        r#""WS200""#,
        r#""ws500""#,
        r#""wa500""#,
        "409",
    ] {
        hold(&[
            (200, &format!(r#"{{"code":{code}}}"#), "unknown"),
            (200, &format!(r#"{{"code":{code},"data":[],"error":{{}}}}"#), "unknown"),
            (400, &format!(r#"{{"code":{code}}}"#), "unknown"),
        ]);
    }
    for error in [r#""none""#, r#""No error""#, r#""false""#, r#""0""#, r#"" OK ""#] {
        hold(&[(200, &format!(r#"{{"error":{error}}}"#), "unknown")]);
    }
    hold(&[(200, r#"{"code":"WA400"}"#, "rejected"), (200, r#"{"code":"E13001","error":"none"}"#, "rejected")]);
}

#[test]
fn what_cannot_be_told_is_unknown() {
    hold(&[
        (200, "{", "unknown"),
        (200, "", "unknown"),
        (200, "{}", "unknown"),
        (204, "", "unknown"),
        (200, r#"{"data":[],"error":{}}"#, "unknown"),
        (200, r#"{"message":"Forbidden"}"#, "unknown"),
        (406, r#"{"message":"Not acceptable"}"#, "unknown"),
        (400, "<html>bad request</html>", "unknown"),
        (400, "{}", "unknown"),
        (400, r#"{"message":""}"#, "unknown"),
        (400, r#"{"message":"x","error":0}"#, "unknown"),
        (400, r#"{"message":"x","code":"WA500"}"#, "unknown"),
        (408, r#"{"error":{"to":"bad"}}"#, "unknown"),
        (409, r#"{"error":{"ref":"duplicate"}}"#, "unknown"),
        (499, r#"{"message":"x"}"#, "unknown"),
        (302, "", "unknown"),
        (500, r#"{"code":"WA500","error":{"error":"x"}}"#, "unknown"),
        (502, SUCCESS, "unknown"),
        (400, SUCCESS, "unknown"),
        // The server failed, whatever the status says.
        (200, r#"{"code":"WA500","message":"Internal error","data":[],"error":{"error":"x"}}"#, "unknown"),
        (400, r#"{"code":"503","error":{"error":"x"}}"#, "unknown"),
        // A success code beside an error.
        (400, r#"{"code":"WA200","error":{"to":"bad"}}"#, "unknown"),
        (200, r#"{"code":"WA200","data":[],"error":{"to":"bad"}}"#, "unknown"),
        (200, r#"{"data":[],"totalCount":3,"error":{"to":"bad"}}"#, "unknown"),
        (200, r#"["x","y",[{"message_id":"a:0"}],{}]"#, "unknown"),
        (200, r#"[{"message_id":"a:0"}]"#, "unknown"),
        (200, r#"{"data":[["a:0"]],"error":{}}"#, "unknown"),
        (200, r#"{"data":[null,{"message_id":"a:0"}]}"#, "unknown"),
        (200, r#"{"data":{"message_id":"a:0"},"error":{}}"#, "unknown"),
        (200, r#"{"data":[{"message_id":7}],"error":{}}"#, "unknown"),
        (200, r#"{"data":[{"message_id":""}],"error":{}}"#, "unknown"),
        (200, r#"{"data":[{"message_id":"\ud800"}],"error":{}}"#, "unknown"),
        (200, r#"{"data":[{"message_id":"a:0"},{"message_id":"a:1"}],"error":{}}"#, "unknown"),
        (200, r#"{"data":[{"message_id":"a:0"}],"error":{}} and more"#, "unknown"),
        (200, r#""a:0""#, "unknown"),
    ]);
}

#[test]
fn several_recipients_get_the_ids_that_are_theirs() {
    let people = numbers(&["+919986997011", "+919986997022", "+919986997033"]);
    let entry = |id: &str, mask: &str| match mask {
        "" => format!(r#"{{"message_id":"{id}"}}"#),
        mask => format!(r#"{{"message_id":"{id}","recipient":"{mask}"}}"#),
    };
    let hold = |entries: &[(&str, &str)], meaning: &str| {
        let list: Vec<String> = entries.iter().map(|(id, mask)| entry(id, mask)).collect();
        let body = format!(r#"{{"totalCount":3,"data":[{}],"error":{{}}}}"#, list.join(","));
        assert_eq!(short(&to(&people, 200, &body)), meaning, "{body}");
    };
    // By index, if the indices are 0, 1, 2, each once; else by order.
    hold(&[("r:2", ""), ("r:0", ""), ("r:1", "")], "accepted r:0, accepted r:1, accepted r:2");
    hold(&[("a", ""), ("b", ""), ("c", "")], "accepted a, accepted b, accepted c");
    hold(&[("a:0", ""), ("b:0", ""), ("c:0", "")], "accepted a:0, accepted b:0, accepted c:0");
    hold(&[("r:1", ""), ("r:2", ""), ("r:3", "")], "accepted r:1, accepted r:2, accepted r:3");
    // With fewer, only where each mask fits exactly one.
    hold(&[("r:2", ""), ("r:0", "")], "unknown, unknown, unknown");
    hold(&[("r:0", "91998699xx33"), ("r:1", "91998699xx11")], "accepted r:1, unknown, accepted r:0");
    hold(&[("r:0", "91998699xx33"), ("r:1", "91998699xxxx")], "unknown, unknown, unknown");
    hold(&[("r:0", "91998699xx33"), ("r:1", "919986997033")], "unknown, unknown, unknown");
    hold(&[("r:0", "91998699xx33"), ("r:1", "91998699xx44")], "unknown, unknown, unknown");
    hold(&[("r:0", "xx9986xx70xx")], "unknown, unknown, unknown");
    // A mask that contradicts makes that one unknown; a mask that says nothing does nothing.
    hold(&[("r:0", "919986xx7011"), ("r:1", "919986xx7023"), ("r:2", "033")], "accepted r:0, unknown, accepted r:2");
    // More than there are recipients.
    hold(&[("r:0", ""), ("r:1", ""), ("r:2", ""), ("r:3", "")], "unknown, unknown, unknown");
    // One id for two, and one without an id.
    hold(&[("r", ""), ("r", ""), ("s", "")], "unknown, unknown, accepted s");
    hold(&[("r:0", ""), ("", ""), ("r:2", "")], "accepted r:0, unknown, accepted r:2");
    hold(&[("r:2", ""), ("", ""), ("r:0", "")], "unknown, unknown, unknown");
    let mine = r#"{"data":[{"message_id":"r:0"},{"message_id":"r:1","error":{"to":"bad"}},{"message_id":"r:2"}]}"#;
    assert_eq!(short(&to(&people, 200, mine)), "accepted r:0, unknown, accepted r:2");
    let all = r#"{"totalCount":4,"data":[{"message_id":"r:0"},{"message_id":"r:1"},{"message_id":"r:2"}]}"#;
    assert_eq!(short(&to(&people, 200, all)), "unknown, unknown, unknown");
    let partial = r#"{"data":[{"message_id":"r:0"}],"error":{"919986997022":"invalid"}}"#;
    for status in [200, 400, 429] {
        assert_eq!(short(&to(&people, status, partial)), "unknown, unknown, unknown");
    }
}

#[test]
fn a_refusal_that_names_some_recipients_is_none_of_the_others() {
    let people = numbers(&["+919986997011", "+919986997022", "+5215512345678"]);
    for (body, meaning) in [
        (r#"{"error":{"to":"invalid number"}}"#, "rejected, rejected, rejected"),
        (r#"{"error":{"919986997022":"invalid"}}"#, "unknown, rejected, unknown"),
        (r#"{"error":{"+919986997022":"invalid","to":"see 525512345678."}}"#, "unknown, rejected, rejected"),
        // Not the whole number.
        (r#"{"error":{"to":"9986997022 of 1919986997011"}}"#, "rejected, rejected, rejected"),
    ] {
        assert_eq!(short(&to(&people, 200, body)), meaning, "{body}");
        assert_eq!(short(&to(&people, 400, body)), "rejected, rejected, rejected", "{body}");
    }
}

#[test]
fn what_the_provider_repeats_of_a_secret_is_hidden_whatever_the_answer() {
    let key = "Ab1234567890cdEF";
    let number = numbers(&["+919876543210"]);
    let private = Private { numbers: &number, secrets: vec![key], code: "HAPPY76", values: vec!["Asha"] };
    let words = format!("key {key} and happy76 for ASHA, ９８-７６-５４-３２-１０, 98765 or 43210\u{2028}- send: x");
    for (status, rest) in [
        (429, ""),
        (400, ""),
        (401, ""),
        (403, ""),
        (200, r#""data":[{"message_id":"a:0"}],"#),
        (200, r#""code":"RBC201","id":"a","#),
    ] {
        for holder in ["error", "message"] {
            let body = match holder {
                "error" => format!(r#"{{{rest}"error":{{"x":"{words}","nested":[{{"y":"{words}"}}]}}}}"#),
                _ => format!(r#"{{{rest}"message":"{words}"}}"#),
            };
            let told = format!("{:?}", read(status, None, body.as_bytes(), &private)).to_lowercase();
            for secret in ["cdef", "happy76", "asha", "98765", "43210", "９", "\\u{2028}", "\u{2028}"] {
                assert!(!told.contains(secret), "{secret} in {told}");
            }
        }
    }
    let long = format!(r#"{{"data":[{{"message_id":"{}"}}]}}"#, "x".repeat(5_000));
    match read(200, None, long.as_bytes(), &private) {
        Reply::Settled(outcomes) => match &outcomes[..] {
            [Outcome::Accepted { message_id }] => assert_eq!(message_id.chars().count(), 177),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// A tree of JSON in which no object has a key twice; nothing for any other text.
fn tree(body: &str) -> Option<Value> {
    fn once(value: &RawValue) -> Option<Value> {
        Some(match value.get().as_bytes()[0] {
            b'{' => {
                let fields = read_value::<Object<'_>>(value)?;
                let fields = fields.iter().map(|(key, value)| Some((key.to_owned(), once(value)?)));
                Value::Object(fields.collect::<Option<_>>()?)
            }
            b'[' => Value::Array(read_value::<Vec<&RawValue>>(value)?.into_iter().map(once).collect::<Option<_>>()?),
            _ => read_value(value)?,
        })
    }
    once(serde_json::from_str::<&RawValue>(body).ok()?)
}

/// Who is accepted for one recipient, written down a second time and as simply as possible.
fn accepted_by_the_tree(status: u16, body: &str) -> Option<String> {
    let body = tree(body)?;
    let empty = |value: &Value| {
        [Value::Null, Value::Bool(false), "".into(), Value::Array(Vec::new()), serde_json::json!({})].contains(value)
    };
    let success = ["WA200".into(), "WS201".into(), status.to_string().into(), status.into(), Value::Null, "".into()];
    let count_is_fine = !["0".into(), 0.into(), 2.into(), 3.into()].contains(&body["totalCount"]);
    if !(200..300).contains(&status) || !empty(&body["error"]) || !success.contains(&body["code"]) || !count_is_fine {
        return None;
    }
    let entry = match body.get("data") {
        None if !body["message"].is_null() || body.get("message_id").is_some() => return None,
        None => return body["id"].as_str().filter(|id| !id.is_empty()).map(str::to_owned),
        Some(data) => data.as_array().filter(|list| list.len() == 1)?.first()?,
    };
    let anothers = entry["recipient"] == "xx9985xx70xx";
    let id = entry["message_id"].as_str().filter(|id| !id.is_empty())?;
    (empty(&entry["error"]) && !anothers).then(|| id.to_owned())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn nothing_is_accepted_but_what_a_second_simple_reading_accepts(
        fields in prop::collection::vec(
            prop::sample::select(vec![
                r#""id":"x""#, r#""id":"""#, r#""id":7"#, r#""type":"mediatemplate""#, r#""totalCount":1"#, r#""totalCount":0"#,
                r#""totalCount":"0""#, r#""totalCount":2"#, r#""body":null"#, r#""error":{}"#, r#""error":null"#,
                r#""error":[]"#, r#""error":"""#, r#""error":false"#, r#""error":true"#, r#""error":{"to":"bad"}"#,
                r#""error":{"to":null}"#, r#""error":"bad""#, r#""error":["bad"]"#, r#""\u0065rror":{"to":"bad"}"#,
                r#""code":"RBC201""#, r#""code":"E13001""#, r#""code":"WA200""#, r#""code":200"#, r#""code":"202""#,
                r#""code":null"#, r#""message":"m""#, r#""message":null"#, r#""message_id":"t""#,
                r#""data":[]"#, r#""data":null"#, r#""data":[null]"#, r#""data":[["a:0"]]"#, r#""data":{"message_id":"a"}"#,
                r#""data":[{"message_id":"a:0","recipient":"xx9986xx70xx"}]"#,
                r#""data":[{"message_id":"a:0","recipient":"xx9985xx70xx"}]"#,
                r#""data":[{"message_id":"a:0","error":{"to":"bad"}}]"#, r#""data":[{"message_id":"a:0","error":{}}]"#,
                r#""data":[{"message_id":"a:0"}]"#, r#""data":[{"message_id":"a:1"}]"#,
                r#""data":[{"message_id":"a:0"},{"message_id":"a:1"}]"#, r#""data":[{"message_id":"a:0"},{}]"#,
                r#""data":[{"message_id":"\u0061"}]"#, r#""data":[{"message_id":"a","message_id":"b"}]"#,
                r#""data":[{"message_id":""}]"#, r#""data":[{"message_id":7}]"#,
            ]),
            1..6,
        ),
        status in prop::sample::select(vec![200_u16, 200, 202, 400, 429, 500]),
        cut in prop::sample::select(vec![0_usize, 0, 0, 0, 1, 2]),
    ) {
        let body = format!("{{{}}}", fields.join(","));
        let body = &body[..body.len() - cut.min(body.len())];
        let accepted = match one(status, body) {
            Reply::Settled(outcomes) => match &outcomes[..] {
                [Outcome::Accepted { message_id }] => Some(message_id.clone()),
                [_] => None,
                other => panic!("{other:?}"),
            },
            _ => None,
        };
        prop_assert_eq!(accepted, accepted_by_the_tree(status, body));
    }

    #[test]
    fn nothing_but_a_success_body_is_ever_accepted(status in 100_u16..600, body in "\\PC{0,60}") {
        if let Reply::Settled(outcomes) = one(status, &body) {
            let accepted = outcomes.iter().any(|outcome| matches!(outcome, Outcome::Accepted { .. }));
            prop_assert!(!accepted);
        }
    }

    #[test]
    fn no_id_is_given_to_two_and_every_recipient_has_an_outcome(
        entries in prop::collection::vec(
            prop::sample::select(vec![
                r#"{"message_id":"r:0"}"#, r#"{"message_id":"r:1"}"#, r#"{"message_id":"r:2"}"#, r#"{"message_id":"s"}"#,
                r#"{"message_id":"a","recipient":"919986997011"}"#, r#"{"message_id":"b","recipient":"919986997022"}"#,
                r#"{"message_id":"c","recipient":"91998699xxxx"}"#, r#"{"recipient":"919986997033"}"#, "{}", "null",
            ]),
            0..5,
        ),
        status in prop::sample::select(vec![200_u16, 400, 429]),
    ) {
        let people = numbers(&["+919986997011", "+919986997022", "+919986997033"]);
        let body = format!(r#"{{"data":[{}],"error":{{}}}}"#, entries.join(","));
        match to(&people, status, &body) {
            Reply::Settled(outcomes) => {
                prop_assert_eq!(outcomes.len(), 3);
                let ids: Vec<&str> = outcomes
                    .iter()
                    .filter_map(|outcome| match outcome {
                        Outcome::Accepted { message_id } => Some(message_id.as_str()),
                        _ => None,
                    })
                    .collect();
                prop_assert!(status == 200 || ids.is_empty());
                let mut once = ids.clone();
                once.sort_unstable();
                once.dedup();
                prop_assert_eq!(once.len(), ids.len());
            }
            Reply::NotSent(_) => prop_assert!(status == 429 && entries.is_empty()),
            Reply::Refused { .. } => prop_assert!(false),
        }
    }
}
