use std::collections::BTreeSet;
use std::path::Path;

use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::manifest::{self, Given};

/// Uses as few fields as a manifest can.
const SMALL: &str = r#"apiVersion: sendform/v1
kind: Campaign
name: small
gateway:
  kaleyra:
    domain: in
    sid: { env: KALEYRA_SID }
    api_key: { env: KALEYRA_API_KEY }
    from: "+919900112233"
templates:
  en:
    name: small_offer
    offer: { text: Now, has_expiration: true }
    body: { text: Hello }
    url_button: { label: Shop, url: "https://shop.example.com" }
audience:
  sources: [{ csv: people.csv }]
  phone: mobile
coupons: { pool: { csv: codes.csv } }
expiry: { after: 14d }
"#;

/// A directory with the files that the manifests of these tests name.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("people.csv", &b"mobile,id,city\n+919876543210,1,Pune\n"[..]),
        ("other.csv", b"mobile,id,city\n+919876543211,2,Delhi\n"),
        ("stop.csv", b"mobile\n+919876543219\n"),
        ("codes.csv", b"code\nA1\n"),
        ("two.csv", b"code,other\nA1,B1\n"),
        ("a.png", b"\x89PNG\r\n\x1a\n1"),
        ("b.png", b"\x89PNG\r\n\x1a\n2"),
        ("media/a.png", b"\x89PNG\r\n\x1a\n1"),
    ] {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    directory
}

fn load(directory: &Path, manifest: &str, given: &Given) -> Fingerprint {
    let path = directory.join("campaign.yaml");
    std::fs::write(&path, manifest).unwrap();
    let now: Timestamp = "2026-11-24T00:00:00Z".parse().unwrap();
    let checked = manifest::load(&path, given, now);
    Fingerprint::of(&checked.unwrap_or_else(|problems| panic!("{manifest}\n{problems:#?}")).campaign).unwrap()
}

#[track_caller]
fn replaced(manifest: &str, old: &str, new: &str) -> String {
    assert!(manifest.contains(old), "the manifest has no `{old}`");
    manifest.replace(old, new)
}

/// What no approval may forget: each property of the manifest's schema is covered, or left out for a reason.
#[test]
fn each_field_of_the_manifest_is_covered_or_left_out_for_a_reason() {
    let schema = manifest::schema::for_editors("campaign").unwrap();
    let mut seen = BTreeSet::new();
    let mut forgotten = Vec::new();
    visit(&schema, &schema, &mut Vec::new(), &mut seen, &mut forgotten);
    assert_eq!(forgotten, Vec::<String>::new(), "neither in RULES nor in LEFT_OUT");
    let named = RULES.iter().map(|(pattern, _)| *pattern).chain(LEFT_OUT.iter().map(|(pattern, _)| *pattern));
    let stale: Vec<_> = named.filter(|pattern| !seen.contains(pattern)).collect();
    assert_eq!(stale, Vec::<&str>::new(), "the schema has no such field");
    assert!(LEFT_OUT.iter().all(|(_, reason)| !reason.is_empty()));
}

fn visit(
    schema: &Value,
    node: &Value,
    path: &mut Vec<String>,
    seen: &mut BTreeSet<&'static str>,
    forgotten: &mut Vec<String>,
) {
    if let Some(reference) = node["$ref"].as_str() {
        // A block in a file of its own is the block.
        if reference != "#/$defs/Use" {
            visit(schema, schema.pointer(&reference[1..]).unwrap(), path, seen, forgotten);
        }
        return;
    }
    let rule = RULES.iter().find(|(pattern, _)| matches(pattern, path));
    let left_out = LEFT_OUT.iter().find(|(pattern, _)| matches(pattern, path));
    seen.extend(rule.map(|(pattern, _)| *pattern));
    seen.extend(left_out.map(|(pattern, _)| *pattern));
    assert!(rule.is_none() || left_out.is_none(), "{path:?} is covered and left out");
    if left_out.is_some() || rule.is_some_and(|(_, form)| *form != Form::Present) {
        return;
    }
    let mut deeper: Vec<(Option<&str>, &Value)> = Vec::new();
    for alternatives in ["oneOf", "anyOf"] {
        deeper.extend(node[alternatives].as_array().into_iter().flatten().map(|one| (None, one)));
    }
    deeper.extend(node["properties"].as_object().into_iter().flatten().map(|(key, one)| (Some(key.as_str()), one)));
    for many in ["additionalProperties", "items"] {
        deeper.extend(node.get(many).filter(|node| node.is_object()).map(|one| (Some("*"), one)));
    }
    if deeper.is_empty() && node["type"] != "null" {
        forgotten.push(pointer(path));
    }
    for (step, node) in deeper {
        path.extend(step.map(str::to_owned));
        visit(schema, node, path, seen, forgotten);
        if step.is_some() {
            path.pop();
        }
    }
}

#[test]
fn a_field_that_no_rule_names_is_covered_as_it_is_written() {
    let directory = directory();
    let path = directory.path().join("campaign.yaml");
    std::fs::write(&path, SMALL).unwrap();
    let campaign = manifest::load(&path, &Given::default(), Timestamp::UNIX_EPOCH).unwrap().campaign;
    let before = Fingerprint::of(&campaign).unwrap();
    let mut fields = serde_json::to_value(&campaign).unwrap();
    fields["delivery"] = json!({ "later": { "b": [1, 2], "a": true } });
    let after = Fingerprint::over(&campaign, &fields);
    assert_ne!(before.digest(Options::default()), after.digest(Options::default()));
    let shown = after.shown(Options::default());
    assert_eq!((&shown["/delivery/later/a"], &shown["/delivery/later/b/1"]), (&json!(true), &json!(2)));
}

#[test]
fn a_default_is_the_same_written_out_or_left_out() {
    let directory = directory();
    let small = load(directory.path(), SMALL, &Given::default());
    let mut full = SMALL.to_owned();
    for (old, new) in [
        ("name: small\n", "name: small\nedition: 1\ndescription: a note\n"),
        ("    from:", "    send_ref: true\n    expiry_encoding: absolute\n    timeout: 30s\n    from:"),
        ("domain: in", "base_url: https://API.in.kaleyra.io:443"),
        ("csv: people.csv", "csv: people.csv, delimiter: \",\""),
        ("csv: codes.csv", "csv: codes.csv, delimiter: \",\""),
        ("after: 14d", "after: 336h, from: plan, at_least: 60m"),
        ("body: { text: Hello }", "body: { text: Hello, params: [] }"),
        ("expiry:", "delivery: { rate: 4800/m, concurrency: 50, batch: 1 }\nlimits: {}\nexpiry:"),
    ] {
        full = replaced(&full, old, new);
    }
    assert_eq!(load(directory.path(), &full, &Given::default()), small);
    let generated = replaced(SMALL, "pool: { csv: codes.csv }", "generate: { length: 8 }");
    let written = "generate: { length: 8, prefix: \"\", alphabet: ABCDEFGHJKLMNPQRSTUVWXYZ23456789 }";
    let written = replaced(SMALL, "pool: { csv: codes.csv }", written);
    assert_eq!(
        load(directory.path(), &written, &Given::default()),
        load(directory.path(), &generated, &Given::default())
    );
}

#[test]
fn the_same_value_written_in_another_way_is_the_same() {
    let directory = directory();
    let stops = |bound: &str| {
        replaced(SMALL, "expiry:", &format!("delivery: {{ stop_when: {{ rejected: {bound}, within: 200 }} }}\nexpiry:"))
    };
    let rate = |rate: &str| replaced(SMALL, "expiry:", &format!("delivery: {{ rate: {rate} }}\nexpiry:"));
    let at = |expiry: &str| replaced(SMALL, "after: 14d", expiry);
    let image =
        |path: &str| replaced(SMALL, "    offer:", &format!("    header: {{ image: {{ file: {path} }} }}\n    offer:"));
    let pairs = [
        (SMALL.to_owned(), SMALL.replace('\n', "\r\n")),
        (SMALL.to_owned(), format!("# a comment\n{SMALL}# and another\n")),
        (SMALL.to_owned(), replaced(SMALL, "name: small\n", "name: \"small\"\n")),
        (
            SMALL.to_owned(),
            replaced(
                SMALL,
                "label: Shop, url: \"https://shop.example.com\"",
                "url: https://shop.example.com, label: Shop",
            ),
        ),
        (SMALL.to_owned(), replaced(SMALL, "csv: people.csv", "csv: other.csv")),
        (at("after: 90m"), at("after: 1h30m")),
        (at("after: 90m"), at("after: 1h 30m, from: plan")),
        (rate("60/m"), rate("1/s")),
        (rate("3600/h"), rate("\"1 / s\"")),
        (rate("90/m"), rate("5400/h")),
        (stops("5%"), stops("\"5.0%\"")),
        (stops("7"), stops("\"07\"")),
        (at("at: \"2026-12-31T23:59:00Z\""), at("at: \"2027-01-01T05:29:00+05:30\"")),
        (image("a.png"), image("media/a.png")),
    ];
    for (one, other) in pairs {
        let [one_is, other_is] = [&one, &other].map(|text| load(directory.path(), text, &Given::default()));
        assert_eq!(one_is, other_is, "{one}\n---\n{other}");
    }
    // A variable counts by its value, wherever that comes from.
    let declared =
        |default: &str| replaced(SMALL, "audience:\n", &format!("vars: {{ percent: {{ {default} }} }}\naudience:\n"));
    let vars = [("percent".to_owned(), json!("30"))].into();
    let given = Given { vars, ..Given::default() };
    let by_flag = load(directory.path(), &declared("default: 25, description: how much"), &given);
    assert_eq!(by_flag, load(directory.path(), &declared("default: 30"), &Given::default()));
    assert_ne!(by_flag, load(directory.path(), &declared("default: 25"), &Given::default()));
}

#[test]
fn a_block_in_a_file_of_its_own_is_the_block() {
    let directory = directory();
    let (before, rest) = SMALL.split_once("gateway:\n").unwrap();
    let (gateway, after) = rest.split_once("templates:").unwrap();
    std::fs::write(directory.path().join("media/gateway.yaml"), gateway.replace("\n  ", "\n").trim_start()).unwrap();
    let split = format!("{before}gateway: {{ use: media/gateway.yaml }}\ntemplates:{after}");
    assert_eq!(load(directory.path(), &split, &Given::default()), load(directory.path(), SMALL, &Given::default()));
}

#[test]
fn each_change_of_where_and_how_messages_go_changes_the_digest() {
    let directory = directory();
    let deliver = |field: &str| format!("delivery: {{ {field} }}\nexpiry:");
    let kaleyra = |field: &str| format!("    {field}\n    from:");
    let one_code = replaced(SMALL, "pool: { csv: codes.csv }", "code: HELLO");
    let mut variants = vec![SMALL.to_owned(), one_code.clone()];
    for (old, new) in [
        ("domain: in", "domain: sg"),
        ("domain: in", "base_url: http://127.0.0.1:9"),
        ("domain: in", "base_url: https://api.in.kaleyra.io/v1"),
        ("env: KALEYRA_SID", "env: OTHER_SID"),
        ("env: KALEYRA_SID", "file: KALEYRA_SID"),
        ("env: KALEYRA_API_KEY", "exec: [pass, show, one]"),
        ("env: KALEYRA_API_KEY", "exec: [pass, show, two]"),
        ("+919900112233", "+919900112234"),
        ("    from:", &kaleyra("send_ref: false")),
        ("    from:", &kaleyra("expiry_encoding: duration")),
        ("    from:", &kaleyra("timeout: 31s")),
        ("    from:", &kaleyra("callback: { profile_id: one }")),
        ("    from:", &kaleyra("callback: { url: \"https://hooks.example.com/a\" }")),
        ("    from:", &kaleyra("callback: { url: \"https://hooks.example.com/a?token=1\" }")),
        ("    from:", &kaleyra("callback: { url: \"https://hooks.example.com/a?token=2\" }")),
        ("small_offer", "other_offer"),
        ("    offer:", "    language: en\n    offer:"),
        ("    offer:", "    header: { image: { file: a.png } }\n    offer:"),
        ("    offer:", "    header: { image: { file: b.png } }\n    offer:"),
        ("text: Now", "text: Later"),
        ("text: Hello }", "text: \"Hello {{1}}\", params: [\"{{ recipient.city }}\"] }"),
        ("label: Shop", "label: Look"),
        ("  phone: mobile", "  phone: mobile\n  default_region: IN"),
        ("  phone: mobile", "  phone: mobile\n  id: id"),
        ("  phone: mobile", "  phone: mobile\n  where: recipient.city == 'Pune'"),
        ("  phone: mobile", "  phone: mobile\n  suppress: [{ csv: stop.csv, invalid: skip }]"),
        ("pool: { csv: codes.csv }", "pool: { csv: two.csv, column: code }"),
        ("pool: { csv: codes.csv }", "pool: { csv: two.csv, column: other }"),
        ("pool: { csv: codes.csv }", "generate: { length: 8 }"),
        ("pool: { csv: codes.csv }", "generate: { length: 9 }"),
        ("after: 14d", "after: 15d"),
        ("after: 14d", "after: 14d, from: send"),
        ("after: 14d", "after: 14d, at_least: 2h"),
        ("expiry:", &deliver("rate: 81/s")),
        ("expiry:", &deliver("concurrency: 51")),
        ("expiry:", &deliver("stop_when: { rejected: 5%, within: 100 }")),
        ("expiry:", &deliver("stop_when: { rejected: 5%, within: 101 }")),
        ("expiry:", &deliver("stop_when: { unknown: 5%, within: 100 }")),
        ("expiry:", "limits: { recipients: 5 }\nexpiry:"),
        ("name: small\n", "name: other\n"),
        ("name: small\n", "name: small\nedition: 2\n"),
        ("name: small\n", "name: small\nmoved: { from: smaller }\n"),
    ] {
        variants.push(replaced(SMALL, old, new));
    }
    variants.push(replaced(&one_code, "HELLO", "HELLP"));
    variants.push(replaced(&one_code, "expiry:", &deliver("batch: 2")));
    let mut digests = BTreeSet::new();
    for variant in &variants {
        // The lists must tell the variants apart, and so must what the plan shows of them.
        let fingerprint = load(directory.path(), variant, &Given::default());
        assert!(digests.insert(fingerprint.digest(Options::default())), "{variant}");
    }
    let small = load(directory.path(), SMALL, &Given::default());
    for options in [
        Options { sandbox: true, retry_rejected: false },
        Options { sandbox: false, retry_rejected: true },
        Options { sandbox: true, retry_rejected: true },
    ] {
        assert!(digests.insert(small.digest(options)), "{options:?}");
    }
}

#[test]
fn what_must_not_be_shown_is_hidden_and_still_noticed() {
    let directory = directory();
    let secret = [
        ("pool: { csv: codes.csv }", "code: HELLO25", "HELLO25", "code: HELLO26"),
        ("env: KALEYRA_API_KEY", "exec: [curl, s3cret]", "s3cret", "exec: [curl, s3cres]"),
        (
            "    from:",
            "    callback: { url: \"https://hooks.example.com/a?token=1\" }\n    from:",
            "token",
            "    callback: { url: \"https://hooks.example.com/a?token=2\" }\n    from:",
        ),
        (
            "  phone: mobile",
            "  phone: mobile\n  where: recipient.mobile != '98765 43210'",
            "43210",
            "  phone: mobile\n  where: recipient.mobile != '98765 43211'",
        ),
        ("+919900112233", "+919800112233", "+9198", "+919700112233"),
    ];
    for (old, new, hidden, other) in secret {
        let [shown, changed] = [new, other].map(|new| {
            let manifest = replaced(SMALL, old, new);
            load(directory.path(), &manifest, &Given::default()).shown(Options::default())
        });
        let text = serde_json::to_string(&shown).unwrap();
        assert!(!text.contains(hidden) && !text.contains("word"), "{text}");
        assert_eq!(changes(&shown, &changed).len(), 1, "{text}");
    }
}

#[test]
fn changes_are_named_and_not_too_many_of_them() {
    let list =
        |pairs: &[(&str, Value)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let old: BTreeMap<_, _> = list(&[("/delivery/rate", json!("20/s")), ("/name", json!("a")), ("/edition", json!(2))]);
    let new = list(&[("/delivery/rate", json!("30/s")), ("/name", json!("a"))]);
    assert_eq!(changes(&old, &new), ["`delivery.rate`: 20/s then, 30/s now", "`edition`: 2 then, default now"]);
    assert_eq!(changes(&old, &old), Vec::<String>::new());
    let many: BTreeMap<_, _> = (0..20).map(|number| (format!("/vars/{number:02}"), json!(number))).collect();
    let named = changes(&many, &BTreeMap::new());
    assert_eq!((named.len(), named[12].as_str()), (13, "and 8 more fields"));
}
