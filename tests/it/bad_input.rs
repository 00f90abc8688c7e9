//! Rubbish in: a clear error out, nothing sent.

use crate::support::{Project, Sandbox, output};

/// Applies what is wrong, and holds the exit code, the words, and that nothing was sent.
#[track_caller]
fn refused(project: &Project, sandbox: &Sandbox, code: i32, words: &[&str]) {
    let output = project.apply(&[]).expect(code);
    for word in words {
        assert!(output.stderr.contains(word), "`{word}` is not in:\n{}", output.stderr);
    }
    assert!(sandbox.messages().is_empty(), "something was sent");
}

/// One mistake in the campaign's text.
#[track_caller]
fn campaign(replacements: &[(&str, &str)], words: &[&str]) {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.campaign(replacements);
    refused(&project, &sandbox, 3, words);
}

/// The whole file is something else.
#[track_caller]
fn text(text: &str, words: &[&str]) {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.write("campaign.yaml", text);
    refused(&project, &sandbox, 3, words);
}

/// The audience is something else.
#[track_caller]
fn people(csv: impl AsRef<[u8]>, words: &[&str]) {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.write("people.csv", csv);
    refused(&project, &sandbox, 3, words);
}

const CODE: &str = "coupons: { code: HELLO25 }";
const AT: &str = "at: \"2099-12-31T23:59:59\", timezone: Asia/Kolkata";
const PARAM: &str = "{{ recipient.first_name | default('there') }}";
const HEADER: &str = "header: { image: { url: \"https://cdn.example.com/offer.png\" } }";

#[test]
fn no_file() {
    let output = Project::new().run(&["apply", "campain.yaml", "--auto-approve"]).expect(3);
    assert!(output.stderr.contains("there is no file `campain.yaml`"));
    assert!(output.stderr.contains("did you mean `campaign.yaml`?"));
}

#[test]
fn an_empty_file() {
    text("", &["`campaign.yaml` is empty"]);
    text("# only a comment\n", &["`campaign.yaml` is empty"]);
}

#[test]
fn a_tab() {
    text("name: x\n\tkind: Campaign\n", &["campaign.yaml:2", "does not allow tabs"]);
}

#[test]
fn a_duplicate_key() {
    campaign(
        &[("phone: mobile", "phone: mobile\n  phone: other")],
        &["duplicate-key", "campaign.yaml:23:3", "phone: other"],
    );
}

#[test]
fn an_alias_bomb() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let list = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{list}]\n"));
    }
    text(&bomb, &["alias-bomb"]);
}

#[test]
fn two_documents() {
    text("name: a\n---\nname: b\n", &["several-documents", "campaign.yaml:2"]);
}

#[test]
fn wrong_types() {
    campaign(
        &[("phone: mobile", "phone: [mobile]")],
        &["`audience.phone` must be a text, but this is a list", "campaign.yaml:22:10"],
    );
    campaign(&[(CODE, "coupons: HELLO25")], &["`coupons` must be a mapping with one of `code`, `pool`, `generate`"]);
    campaign(&[("concurrency: 20", "concurrency: lots")], &["`delivery.concurrency` must be a whole number"]);
    text("- a\n- b\n", &["must be a mapping, but this is a list"]);
}

#[test]
fn a_phone_number_that_yaml_made_a_number() {
    campaign(&[("\"+919900112233\"", "+919900112233")], &["quote it: \"+919900112233\"", "campaign.yaml:9:11"]);
}

#[test]
fn a_template_that_names_an_absent_column() {
    campaign(
        &[(PARAM, "{{ recipient.frist_name | default('there') }}")],
        &["no column `frist_name`", "did you mean `first_name`?", "campaign.yaml:18"],
    );
    campaign(&[(PARAM, "{{ recipient['First name'] }}")], &["no column `First name`"]);
    campaign(&[("phone: mobile", "phone: mobil")], &["no column `mobil`", "did you mean `mobile`?"]);
}

#[test]
fn an_unterminated_expression() {
    campaign(&[(PARAM, "{{ recipient.first_name")], &["this expression is wrong", "campaign.yaml:18"]);
    campaign(
        &[("default_region: IN", "default_region: IN\n  where: \"recipient.first_name ==\"")],
        &["this expression is wrong"],
    );
}

#[test]
fn an_endless_loop_in_a_template() {
    campaign(
        &[(PARAM, "{% for i in range(9999) %}{% for j in range(9999) %}x{% endfor %}{% endfor %}")],
        &["takes too long"],
    );
}

#[test]
fn a_ragged_row() {
    people(
        "mobile,first_name\n9876543210,Asha\n9876543211\n9876543212,Meera,x\n",
        &["people.csv:3", "people.csv:4", "has 1 cells, but the header has 2"],
    );
}

#[test]
fn invalid_utf_8() {
    people(b"mobile,first_name\n9876543210,Asha\n9876543211,R\xe4vi\n", &["people.csv:3", "not UTF-8"]);
}

#[test]
fn no_header() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.people("9876543210,Asha\n9876543211,Ravi\n");
    let output = project.apply(&[]).expect(3);
    assert!(output.stderr.contains("it is not a header"), "{}", output.stderr);
    assert!(!output.stderr.contains("9876543210"), "a number is on the screen");
    people("", &["no header row"]);
}

#[test]
fn no_rows_or_only_duplicates() {
    people("mobile,first_name\n", &["a header but no rows"]);
    people(
        "mobile,first_name\n9876543210,Asha\n+919876543210,Asha\n098765 43210,A\n",
        &["all 3 rows of the audience have the same phone number"],
    );
}

#[test]
fn a_pool_with_duplicate_or_long_codes() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.campaign(&[(CODE, "coupons: { pool: { csv: codes.csv } }")]);
    project.write("codes.csv", "code\nAAA1\nAAA2\nAAA1\nABCDEFGHIJKLMNOP\n");
    refused(
        &project,
        &sandbox,
        3,
        &["codes.csv:4", "is the same as the one in line 2", "codes.csv:5", "16 characters"],
    );
}

#[test]
fn an_expiry_that_is_none() {
    campaign(&[(AT, "at: \"2020-01-01T00:00:00Z\"")], &["the offer ended at 2020-01-01T00:00:00Z"]);
    campaign(&[(AT, "at: \"1970-01-15T00:00:00Z\"")], &["in 1970"]);
    campaign(&[(AT, "after: 1209600000")], &["write `14d`", "campaign.yaml:25"]);
    campaign(&[(AT, "at: 1209600000")], &["write the instant as text"]);
    campaign(&[(AT, "at: \"1209600000\"")], &["1209600000 milliseconds are `after: 14d`"]);
    campaign(&[(AT, "after: soon")], &["`soon` is not a duration"]);
}

#[test]
fn a_zone_or_a_local_time_that_does_not_exist_or_exists_twice() {
    campaign(
        &[("Asia/Kolkata", "Asia/Calcuta")],
        &["there is no time zone `Asia/Calcuta`", "did you mean `Asia/Calcutta`?"],
    );
    campaign(&[(AT, "at: \"2099-03-29T02:30:00\", timezone: Europe/Berlin")], &["does not exist in Europe/Berlin"]);
    campaign(&[(AT, "at: \"2099-10-25T02:30:00\", timezone: Europe/Berlin")], &["exists twice in Europe/Berlin"]);
}

#[test]
fn a_media_file_that_is_missing_empty_or_something_else() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.campaign(&[(HEADER, "header: { image: { file: offer.png } }")]);
    refused(&project, &sandbox, 3, &["there is no file", "offer.png"]);
    project.write("offer.png", "");
    refused(&project, &sandbox, 3, &["is empty"]);
    project.write("offer.png", b"GIF89a\x01\x00\x01\x00\x00\x00\x00;");
    refused(&project, &sandbox, 3, &["image/gif", "not a PNG or JPEG image"]);
    project.write("offer.png", "just some text that is no image");
    refused(&project, &sandbox, 3, &["unknown type"]);
}

#[test]
fn a_gateway_that_is_not_there() {
    // Port 9 of loopback: nobody listens, and the connection is refused.
    let project = Project::new();
    let output = project.apply(&[]).expect(1);
    assert!(output.stderr.contains("the provider cannot be reached"), "{}", output.stderr);
    let counts = project.counts();
    assert_eq!((counts.accepted, counts.unknown, counts.pending), (0, 0, 3));
}

#[test]
fn a_ledger_from_a_newer_version_or_of_another_kind() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.apply(&[]).expect(0);
    let ledger = project.path().join(".sendform/ledger.db");
    rusqlite::Connection::open(&ledger).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let output = project.apply(&[]).expect(1);
    assert!(output.stderr.contains("format 99") && output.stderr.contains("newer version"), "{}", output.stderr);
    std::fs::write(&ledger, "this is no database at all, only text of some length").unwrap();
    for file in ["ledger.db-wal", "ledger.db-shm"] {
        let _ = std::fs::remove_file(project.path().join(".sendform").join(file));
    }
    let output = project.apply(&[]).expect(1);
    assert!(output.stderr.contains("is not a Sendform ledger"), "{}", output.stderr);
    assert_eq!(sandbox.messages().len(), 3);
}

#[test]
fn a_ledger_without_its_key_or_with_another() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.apply(&[]).expect(0);
    let output = output(project.command(&["plan", "campaign.yaml"]).env("SENDFORM_KEY", "ab".repeat(32))).expect(1);
    assert!(output.stderr.contains("created with another key"), "{}", output.stderr);
    std::fs::remove_file(project.path().join(".sendform/ledger.key")).unwrap();
    let output = project.apply(&[]).expect(1);
    assert!(output.stderr.contains("ledger.key` is missing"), "{}", output.stderr);
    assert_eq!(sandbox.messages().len(), 3);
}

#[test]
fn a_plan_file_edited_by_hand() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.run(&["plan", "campaign.yaml", "--out", "plan.json"]).expect(0);
    let plan = std::fs::read_to_string(project.path().join("plan.json")).unwrap();
    project.write("plan.json", plan.replace("\"send\": 3", "\"send\": 2"));
    let output = project.run(&["apply", "--plan", "plan.json"]).expect(3);
    assert!(output.stderr.contains("changed after it was made"), "{}", output.stderr);
    project.write("plan.json", "{}");
    project.run(&["apply", "--plan", "plan.json"]).expect(3);
    assert!(sandbox.messages().is_empty());
}

#[test]
fn none_is_never_sent() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.campaign(&[(PARAM, "{{ none if recipient.first_name == 'Ravi' else recipient.first_name }}")]);
    project.apply(&[]).expect(0);
    assert_eq!(sandbox.accepted("to"), ["+919876543210", "+919876543212"]);
    let plan = project.run(&["plan", "campaign.yaml", "--list-blocked"]).expect(0).stdout;
    assert!(plan.contains("evaluates to none, which cannot be sent"), "{plan}");
}
