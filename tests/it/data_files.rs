//! CSV files and the other files that a manifest names: what is read from them, what is refused, and where
//! they may lie.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{self, Output, Project, Sandbox};

const SUPPRESS: &str = "default_region: IN\n  suppress: [{ csv: out.csv }]";
const REGION: &str = "default_region: IN";
const HEADER: &str = "header: { image: { url: \"https://cdn.example.com/offer.png\" } }";
const CODE: &str = "coupons: { code: HELLO25 }";

fn number(person: u32) -> String {
    format!("98{person:08}")
}

/// How many messages the provider got for each person.
fn messages(sandbox: &Sandbox) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for to in sandbox.accepted("to") {
        *count.entry(to).or_default() += 1;
    }
    count
}

/// A campaign for people 0 to 99 with a suppression list.
fn hundred(sandbox: &Sandbox, list: &str) -> Project {
    let project = Project::with_sandbox(sandbox);
    let rows: String = (0..100).map(|person| format!("{},Person\n", number(person))).collect();
    project.people(&format!("mobile,first_name\n{rows}"));
    project.campaign(&[(REGION, list)]);
    project
}

/// A list of people 0 to 49, whose rows are written by `row`.
fn opted_out(header: &str, row: impl Fn(u32, String) -> String) -> String {
    let rows: String = (0..50).map(|person| row(person, number(person)) + "\n").collect();
    format!("{header}\n{rows}")
}

#[track_caller]
fn refused(project: &Project, sandbox: &Sandbox, words: &[&str]) {
    for command in [&["validate", "campaign.yaml"][..], &["apply", "campaign.yaml", "--auto-approve"]] {
        let output = project.run(command).expect(3);
        for word in words {
            assert!(output.stderr.contains(word), "`{word}` is not in {command:?}:\n{}", output.stderr);
        }
        assert!(!output.stderr.contains("98000000"), "a number is on the screen:\n{}", output.stderr);
    }
    assert_eq!(messages(sandbox), BTreeMap::new(), "something was sent");
}

/// Each list suppressed nobody, or one person of fifty, and the others got the offer.
#[test]
fn a_suppression_list_that_suppresses_nobody_is_refused() {
    let plain = |_: u32, number: String| format!("{number},Asha");
    let unclosed =
        opted_out(
            "mobile,name",
            |person, number| {
                if person == 0 { format!("{number},\"Asha") } else { format!("{number},Asha") }
            },
        );
    let closed_later = opted_out("mobile,name", |person, number| match person {
        0 => format!("{number},\"Asha"),
        49 => format!("{number},\""),
        _ => plain(person, number),
    });
    let text_behind =
        opted_out(
            "mobile,name",
            |person, number| {
                if person == 3 { format!("{number},\"Asha\" B.") } else { plain(person, number) }
            },
        );
    let other_column = opted_out("mobile,number", |_, number| format!(",{number}"));
    let no_header = opted_out("tel:+91 9800000099", |_, number| format!("tel:+91 {number}"));
    let one_without =
        opted_out("mobile,name", |person, number| if person == 7 { ",Asha".to_owned() } else { plain(person, number) });
    for (list, words) in [
        (&unclosed, &["csv-open-quote", "out.csv:2", "never closed"][..]),
        (&closed_later, &["csv-line-break", "out.csv:2", "multiline: true"]),
        (&text_behind, &["csv-text-after-quote", "out.csv:5", "text after its closing quote"]),
        (&other_column, &["empty-column", "the column `mobile` of `out.csv` is empty in every row"]),
        (&no_header, &["csv-no-header", "seven or more digits"]),
        (
            &one_without,
            &["suppression-not-a-number", "out.csv:9", "has no phone number, so it suppresses nobody", "invalid: skip"],
        ),
    ] {
        let sandbox = Sandbox::start(&[]);
        let project = hundred(&sandbox, SUPPRESS);
        project.write("out.csv", list);
        refused(&project, &sandbox, words);
        // The list as it was meant.
        project.write("out.csv", opted_out("mobile,name", plain));
        project.apply(&[]).expect(0);
        let expected = (50..100).map(|person| (format!("+91{}", number(person)), 1)).collect();
        assert_eq!(messages(&sandbox), expected, "{words:?}");
    }
}

#[test]
fn an_audience_or_a_pool_that_ends_inside_quotes_is_refused() {
    let sandbox = Sandbox::start(&[]);
    let project = hundred(&sandbox, REGION);
    let rows: String =
        (0..100).map(|person| format!("{},{}Person\n", number(person), if person == 1 { "\"" } else { "" })).collect();
    project.people(&format!("mobile,first_name\n{rows}"));
    refused(&project, &sandbox, &["csv-open-quote", "people.csv:3"]);

    let project = hundred(&sandbox, REGION);
    project.campaign(&[(CODE, "coupons: { pool: { csv: codes.csv, column: code } }")]);
    let codes: String = (0..120).map(|code| format!("C{code},{}x\n", if code == 100 { "\"" } else { "" })).collect();
    project.write("codes.csv", format!("code,note\n{codes}"));
    refused(&project, &sandbox, &["csv-open-quote", "codes.csv:102"]);
}

#[test]
fn the_plan_shows_what_was_read_and_lists_without_effect_first() {
    let sandbox = Sandbox::start(&[]);
    let list =
        "default_region: IN\n  suppress: [{ csv: out.csv, invalid: skip }, { csv: nobody.csv }, { csv: empty.csv }]";
    let project = hundred(&sandbox, list);
    project.write("out.csv", format!("mobile\n{}\nn/a\n{}\n\"\"\n", number(3), number(4)));
    project.write("nobody.csv", "mobile\n9876500000\n9876500001\n");
    project.write("empty.csv", "mobile\n");
    let plan = project.plan_json();
    assert_eq!(plan["sources"], serde_json::json!([{ "file": "people.csv", "rows": 100 }]));
    assert_eq!(
        plan["suppress"],
        serde_json::json!([
            { "file": "out.csv", "rows": 4, "skipped": 2, "matched": 2 },
            { "file": "nobody.csv", "rows": 2, "skipped": 0, "matched": 0 },
            { "file": "empty.csv", "rows": 0, "skipped": 0, "matched": 0 },
        ])
    );
    let warnings: Vec<&str> = plan["warnings"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    assert_eq!(
        warnings[0],
        "nobody in the audience is on the suppression list `nobody.csv` (2 rows), so it excludes nobody"
    );
    assert_eq!(warnings[1], "the suppression list `empty.csv` has no rows, so it excludes nobody");
    let text = project.run(&["plan", "campaign.yaml"]).expect(0).stdout;
    let top = "The suppression list nobody.csv excludes nobody: it has 2 rows\n\
               The suppression list empty.csv excludes nobody: it has 0 rows\n\n";
    assert!(text.starts_with(top), "{text}");
    for line in [
        "Rows      100 of people.csv",
        "Suppress  2 by out.csv (4 rows, 2 without a number passed over)",
        "0 by nobody.csv (2 rows)",
    ] {
        assert!(text.contains(line), "`{line}` is not in:\n{text}");
    }
    let validated = project.run(&["validate", "campaign.yaml"]).expect(0).stderr;
    assert!(validated.contains("suppression list `empty.csv` has no rows"), "{validated}");
    // They stay first when the plan also warns of a campaign under another name.
    project.apply(&[]).expect(0);
    project.campaign(&[(REGION, list), ("name: test-offer", "name: second-offer")]);
    let warnings = project.plan_json()["warnings"].clone();
    assert!(warnings[0].as_str().unwrap().contains("nobody.csv"), "{warnings}");
    // A list of which `skip` passes every row over is none.
    project.write("out.csv", "mobile\nn/a\n\"\"\n");
    let output = project.run(&["plan", "campaign.yaml"]).expect(3);
    assert!(output.stderr.contains("no row of `out.csv` has a valid number"), "{}", output.stderr);
}

#[test]
fn one_person_on_two_lists_counts_for_both() {
    let sandbox = Sandbox::start(&[]);
    let project = hundred(&sandbox, "default_region: IN\n  suppress: [{ csv: a.csv }, { csv: b.csv }]");
    project.write("a.csv", format!("mobile\n{}\n{}\n", number(1), number(2)));
    project.write("b.csv", format!("mobile\n+91{}\n", number(2)));
    let plan = project.plan_json();
    assert_eq!((plan["suppress"][0]["matched"].clone(), plan["suppress"][1]["matched"].clone()), (2.into(), 1.into()));
    assert_eq!(plan["counts"]["send"], 98);
    assert_eq!(plan["warnings"], serde_json::json!([]));
}

#[test]
fn cells_of_several_lines_are_read_where_the_manifest_says_so() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    let multiline = [("csv: people.csv", "csv: people.csv, multiline: true")];
    project.people(
        "mobile,address,first_name\n9876543210,\"5, Hill Road\nMumbai\",Asha\n9876543211,\"a 5\"\" screen\",Ravi\n",
    );
    project.run(&["validate", "campaign.yaml"]).expect(3);
    project.campaign(&multiline);
    let plan = project.plan_json();
    assert_eq!((plan["rows"].clone(), plan["warnings"].clone()), (2.into(), serde_json::json!([])));
    assert_eq!(plan["samples"][1]["row"], "people.csv:4");
    // A quote that is closed too late: the rows between are read as text.
    project.people("mobile,address,first_name\n9876543210,\"x,Asha\n9876543211,y,Ravi\n9876543212,z\",Meera\n");
    let plan = project.plan_json();
    assert_eq!(plan["counts"]["send"], 1);
    assert_eq!(plan["warnings"][0], "1 cell of `people.csv` contains a whole row, the first in line 2");
}

/// Row nine is Ravi's, however lines end and whatever stands between the rows.
#[test]
fn rows_are_found_by_the_line_that_an_editor_shows() {
    let plain: String = (2..12).map(|line| format!("{},Person {line}\n", number(line))).collect();
    let blank = plain.replace(",Person 5\n", ",Person 5\n\n\n");
    let multi = plain.replace(",Person 5\n", ",\"Per\nson\n5\"\n");
    let project = Project::new();
    project.campaign(&[("csv: people.csv", "csv: people.csv, multiline: true")]);
    for (rows, person) in [(&plain, 9), (&blank, 7), (&multi, 7)] {
        for end in ["\n", "\r\n", "\r"] {
            project.people(&format!("mobile,first_name\n{rows}bad,Person\n").replace('\n', end));
            let preview = project.run(&["preview", "campaign.yaml", "--recipient", "people.csv:9"]).expect(0).stdout;
            assert!(preview.contains(&format!("Hi Person {person}.")), "{end:?}:\n{preview}");
            let plan = project.run(&["plan", "campaign.yaml", "--list-blocked", "--format", "json"]).expect(0).json();
            assert_eq!(plan["samples"][0]["row"], "people.csv:2");
            let last = if person == 9 { 12 } else { 14 };
            assert_eq!(plan["blocked"].as_array().unwrap().last().unwrap()["line"], last, "{end:?}");
        }
    }
    // Diagnostics count in the same way.
    for end in ["\r\n", "\r"] {
        project.people(&"mobile,first_name\n9876543210,A\n\n9876543211\n".replace('\n', end));
        let output = project.run(&["plan", "campaign.yaml"]).expect(3);
        assert!(output.stderr.contains("people.csv:4"), "{end:?}: {}", output.stderr);
    }
}

#[test]
fn one_id_with_two_numbers_is_a_warning_with_a_count() {
    let project = Project::new();
    project.campaign(&[("phone: mobile", "phone: mobile\n  id: member")]);
    project.people("member,mobile,first_name\nM1,9876543210,A\nM2,9876543211,B\nM1,+919876543210,A\n");
    assert_eq!(project.plan_json()["warnings"], serde_json::json!([]), "the same number twice is one person");
    project.people("member,mobile,first_name\nM1,9876543210,A\nM2,9876543211,B\nM1,9876543212,A\nM3,9876543213,C\nM3,9876543214,C\nM3,9876543215,C\n,9876543216,D\n,9876543217,E\n");
    assert_eq!(
        project.plan_json()["warnings"],
        serde_json::json!([
            "2 values of the column `member` stand at more than one number: each of these numbers gets a message"
        ])
    );
    project.people("member,mobile,first_name\n,9876543210,A\n,9876543211,B\n");
    let output = project.run(&["plan", "campaign.yaml"]).expect(3);
    assert!(output.stderr.contains("the column `member` of `people.csv` is empty in every row"), "{}", output.stderr);
}

#[test]
fn codes_that_differ_by_case_alone_are_warned_of_and_invisible_ones_refused() {
    let project = Project::new();
    let pool = [(CODE, "coupons: { pool: { csv: codes.csv } }")];
    project.campaign(&pool);
    project.write("codes.csv", "code\r\nGOLD1\r\nGOLD2\r\ngold1\r\nGold2\r\nGOLD3\r\n");
    let words = "2 codes of `codes.csv` differ from another code only in case, the first in line 4";
    assert_eq!(project.plan_json()["warnings"][0], words);
    let validated = project.run(&["validate", "campaign.yaml"]).expect(0).stderr;
    assert!(validated.contains(words), "{validated}");
    project.write("codes.csv", "code\nGOLD1\nGOLD2\nGO\u{ad}LD3\n\u{202e}GOLD4\n");
    let output = project.run(&["validate", "campaign.yaml"]).expect(3);
    for words in ["codes.csv:4", "codes.csv:5", "invisible character"] {
        assert!(output.stderr.contains(words), "{}", output.stderr);
    }
    for code in ["GO\u{2060}LD", "GOLD\u{e0020}"] {
        project.campaign(&[(CODE, &format!("coupons: {{ code: \"{code}\" }}"))]);
        let output = project.run(&["validate", "campaign.yaml"]).expect(3);
        assert!(output.stderr.contains("invisible character"), "{}", output.stderr);
    }
    for generate in ["prefix: \"A\u{ad}\", length: 8", "alphabet: \"AB\u{2062}C\", length: 8"] {
        project.campaign(&[(CODE, &format!("coupons: {{ generate: {{ {generate} }} }}"))]);
        let output = project.run(&["validate", "campaign.yaml"]).expect(3);
        assert!(output.stderr.contains("invisible character"), "{}", output.stderr);
    }
}

/// Files outside a project: a key, a list of people, an image.
struct Outside {
    directory: tempfile::TempDir,
}

/// What must never be on the screen.
const SECRET: &str = "hunter2-top-secret";

impl Outside {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("key.yaml"), format!("password: {SECRET}\n")).unwrap();
        std::fs::write(directory.path().join("key"), format!("{SECRET}\n")).unwrap();
        std::fs::write(directory.path().join("members.csv"), "mobile,first_name\n9876543219,Lakshmi\n").unwrap();
        std::fs::write(directory.path().join("offer.png"), b"\x89PNG\r\n\x1a\n0123456789").unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }
}

/// Everything that `validate` prints, in each of its forms.
#[track_caller]
fn all_faces(project: &Project, path: &str) -> String {
    let mut all = String::new();
    for format in ["text", "json", "github", "sarif"] {
        let output = project.run(&["validate", path, "--format", format]).expect(3);
        all.push_str(&output.stdout);
        all.push_str(&output.stderr);
    }
    all
}

#[test]
fn manifests_and_media_lie_below_the_root() {
    let outside = Outside::new();
    let project = Project::new();
    symlink(outside.path("key.yaml"), project.path().join("link.yaml")).unwrap();
    symlink(outside.directory.path(), project.path().join("inside")).unwrap();
    symlink(outside.path("offer.png"), project.path().join("link.png")).unwrap();
    let relative = format!("../{}/key.yaml", outside.directory.path().file_name().unwrap().to_str().unwrap());
    for path in
        [outside.path("key.yaml"), relative, "link.yaml".into(), "inside/key.yaml".into(), "inside/nothing.yaml".into()]
    {
        project.campaign(&[(CODE, &format!("coupons: {{ use: \"{path}\" }}"))]);
        let all = all_faces(&project, "campaign.yaml");
        assert!(all.contains("is outside"), "{path}: {all}");
        // A Git repository marks no root, so the hint must not send anybody there.
        assert!(all.contains("an empty `sendform.yaml` marks the root") && !all.contains(".git"), "{path}: {all}");
        assert!(!all.contains(SECRET), "{path}: {all}");
    }
    for path in [outside.path("offer.png"), "link.png".into(), "inside/offer.png".into()] {
        project.campaign(&[(HEADER, &format!("header: {{ image: {{ file: \"{path}\" }} }}"))]);
        let all = all_faces(&project, "campaign.yaml");
        assert!(all.contains("is outside"), "{path}: {all}");
    }
    // A link that stays inside is fine.
    project.write("blocks/real.yaml", "code: HELLO25\n");
    symlink("blocks/real.yaml", project.path().join("coupons.yaml")).unwrap();
    project.campaign(&[(CODE, "coupons: { use: coupons.yaml }")]);
    project.run(&["validate", "campaign.yaml"]).expect(0);
}

#[test]
fn data_lies_below_the_root_or_a_data_directory() {
    let outside = Outside::new();
    let sandbox = Sandbox::start(&[]);
    let mut project = Project::with_sandbox(&sandbox);
    let absolute = outside.path("members.csv");
    for path in [&absolute, "link.csv"] {
        let _ = symlink(&absolute, project.path().join("link.csv"));
        project.campaign(&[("csv: people.csv", &format!("csv: \"{path}\""))]);
        let output = project.run(&["validate", "campaign.yaml"]).expect(3);
        assert!(output.stderr.contains("is outside") && output.stderr.contains("--data-dir"), "{}", output.stderr);
        project.run(&["validate", "campaign.yaml", "--data-dir", &outside.path("")]).expect(0);
    }
    // A relative path is looked up beside the manifest, then in the data directories.
    project.campaign(&[("csv: people.csv", "csv: members.csv")]);
    let output = project.run(&["validate", "campaign.yaml"]).expect(3);
    assert!(output.stderr.contains("there is no file") && output.stderr.contains("--data-dir"), "{}", output.stderr);
    let empty = tempfile::tempdir().unwrap();
    let both = [empty.path().to_str().unwrap(), &outside.path("")].join(":");
    let with = |project: &Project, arguments: &[&str]| {
        support::output(project.command(arguments).env("SENDFORM_DATA_DIR", &both))
    };
    let plan = with(&project, &["plan", "campaign.yaml", "--format", "json"]).expect(0).json();
    assert_eq!(plan["counts"]["send"], 1);
    // `--data-dir` replaces the variable, and an approved plan needs it too.
    project.environment.push(("SENDFORM_DATA_DIR", both.clone()));
    project.run(&["plan", "campaign.yaml", "--data-dir", empty.path().to_str().unwrap()]).expect(3);
    project.environment.clear();
    let data = outside.path("");
    project.run(&["plan", "campaign.yaml", "--data-dir", &data, "--out", "plan.json"]).expect(0);
    project.run(&["apply", "--plan", "plan.json"]).expect(3);
    project.run(&["apply", "--plan", "plan.json", "--data-dir", &data]).expect(0);
    assert_eq!(messages(&sandbox), BTreeMap::from([("+919876543219".to_owned(), 1)]));
    // The row of a recorded send is found there too.
    let listed = project.run(&["sends", "list", "campaign.yaml", "--data-dir", &data]).expect(0).stdout;
    assert!(listed.contains("members.csv:2"), "{listed}");
    let listed = project.run(&["sends", "list", "campaign.yaml"]).expect(0);
    assert!(listed.stderr.contains("there is no file") && !listed.stdout.contains(":2"), "{}", listed.stderr);
    // In two places: nobody can tell which one is meant.
    project.write("members.csv", "mobile,first_name\n9876543218,Vikram\n");
    let output = project.run(&["apply", "campaign.yaml", "--auto-approve", "--data-dir", &data]).expect(3);
    assert!(output.stderr.contains("`members.csv` and `") && output.stderr.contains(&absolute), "{}", output.stderr);
    // The same file by two names is one place.
    project.run(&["plan", "campaign.yaml", "--data-dir", "."]).expect(0);
    let output = project.run(&["plan", "campaign.yaml", "--data-dir", "nowhere"]).expect(3);
    assert!(output.stderr.contains("cannot read the data directory `nowhere`"), "{}", output.stderr);
    assert_eq!(messages(&sandbox).len(), 1);
}

#[test]
fn a_link_in_a_data_directory_does_not_lead_out_of_it() {
    let outside = Outside::new();
    let data = tempfile::tempdir().unwrap();
    symlink(outside.path("members.csv"), data.path().join("members.csv")).unwrap();
    let project = Project::new();
    project.campaign(&[(REGION, "default_region: IN\n  suppress: [{ csv: members.csv }]")]);
    let output = project.run(&["validate", "campaign.yaml", "--data-dir", data.path().to_str().unwrap()]).expect(3);
    assert!(output.stderr.contains("is outside"), "{}", output.stderr);
}

/// Runs the program and holds that it ends soon.
#[track_caller]
fn soon(project: &Project, arguments: &[&str]) -> Output {
    let started = Instant::now();
    let output = project.run(&[&["validate"], arguments].concat());
    assert!(started.elapsed() < Duration::from_secs(5), "{arguments:?} took {:?}", started.elapsed());
    output
}

#[test]
fn whatever_a_path_leads_to_is_refused_at_once_and_never_shown() {
    let mut project = Project::new();
    project.environment.push(("SECRET_OF_THE_JOB", SECRET.to_owned()));
    let pipe = project.path().join("pipe");
    support::pipe(&pipe);
    std::fs::File::create(project.path().join("sparse")).unwrap().set_len(5 << 30).unwrap();
    std::fs::create_dir(project.path().join("directory")).unwrap();
    project.write("shadow", format!("root:{SECRET}:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n"));
    project.write(".env", format!("API_KEY={SECRET}\nDB={SECRET}\n"));
    project.write("secrets.yaml", format!("db_password: {SECRET}\napi_token: {SECRET}\nname: x\n"));
    project.write("broken.yaml", format!("db_password: '{SECRET}\napi_token: {SECRET}\n"));
    project.write("twice.yaml", format!("{SECRET}: 1\n{SECRET}: 2\n"));
    project.write("list.yaml", format!("- {SECRET}\n"));
    project.write("kubernetes.yaml", format!("apiVersion: v1\nkind: Secret\nmetadata: {{}}\ndata:\n  key: {SECRET}\n"));
    let files = [
        "/proc/self/environ",
        "/proc/self/cmdline",
        "/dev/zero",
        "/dev/stdin",
        "/etc/passwd",
        "pipe",
        "sparse",
        "directory",
        "shadow",
        ".env",
        "secrets.yaml",
        "broken.yaml",
        "twice.yaml",
        "list.yaml",
        "kubernetes.yaml",
    ];
    for file in files {
        let mut places = vec![file.to_owned()];
        for (old, new) in [
            (CODE, format!("coupons: {{ use: \"{file}\" }}")),
            ("  en:\n", format!("  hi: {{ use: \"{file}\" }}\n  en:\n")),
            (CODE, format!("coupons: {{ pool: {{ csv: \"{file}\", column: code }} }}")),
            ("csv: people.csv", format!("csv: \"{file}\"")),
            (REGION, format!("default_region: IN\n  suppress: [{{ csv: \"{file}\", phone: mobile }}]")),
            (HEADER, format!("header: {{ image: {{ file: \"{file}\" }} }}")),
        ] {
            let name = format!("campaign-{}.yaml", places.len());
            project.campaign(&[(old, &new)]);
            std::fs::rename(project.path().join("campaign.yaml"), project.path().join(&name)).unwrap();
            places.push(name);
        }
        let hidden = |all: &str| {
            for content in [SECRET, "sandbox-key", "root:", "daemon", "validate\0", "/bin/"] {
                assert!(!all.contains(content), "{content:?} of {file} is on the screen:\n{all}");
            }
        };
        for place in &places {
            let output = soon(&project, &[place]);
            assert_eq!(output.code, 3, "{file} in {place}: {}", output.stderr);
            hidden(&format!("{}{}", output.stdout, output.stderr));
        }
        let together: Vec<&str> = places.iter().map(String::as_str).chain(["--format", "json"]).collect();
        let output = soon(&project, &together).expect(3);
        hidden(&format!("{}{}", output.stdout, output.stderr));
    }
}

/// What is a manifest, but broken, is shown as before.
#[test]
fn a_broken_manifest_is_still_shown() {
    let project = Project::new();
    project.write("shared/coupons.yaml", "pool: [csv: codes.csv\n");
    project.campaign(&[(CODE, "coupons: { use: shared/coupons.yaml }")]);
    let output = project.run(&["validate", "campaign.yaml"]).expect(3);
    assert!(
        output.stderr.contains("shared/coupons.yaml:") && output.stderr.contains("pool: [csv: codes.csv"),
        "{}",
        output.stderr
    );
    project.campaign(&[("phone: mobile", "phon: mobile")]);
    let output = project.run(&["validate", "campaign.yaml"]).expect(3);
    assert!(output.stderr.contains("phon: mobile"), "{}", output.stderr);
    // `use:` stands for blocks and templates alone, not for a text.
    project.write("text.yaml", "Hi\n");
    project.campaign(&[("text: \"Hi {{1}}.\"", "text: { use: text.yaml }")]);
    let output = project.run(&["validate", "campaign.yaml"]).expect(3);
    assert!(output.stderr.contains("`use:` cannot stand for `templates.en.body.text`"), "{}", output.stderr);
}

/// A secret's file may lie anywhere, and `apply` alone reads it: the others do not wait for a pipe.
#[test]
fn a_secret_file_is_read_by_apply_alone() {
    let outside = Outside::new();
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    support::pipe(Path::new(&outside.path("pipe")));
    let from = |name: &str| format!("api_key: {{ file: \"{}\" }}", outside.path(name));
    project.campaign(&[("api_key: { env: KALEYRA_API_KEY }", &from("pipe"))]);
    soon(&project, &["campaign.yaml"]).expect(0);
    project.run(&["plan", "campaign.yaml"]).expect(0);
    project.run(&["preview", "campaign.yaml"]).expect(0);
    project.campaign(&[("api_key: { env: KALEYRA_API_KEY }", &from("nothing"))]);
    project.run(&["plan", "campaign.yaml"]).expect(0);
    project.apply(&[]).expect(1);
    // Not a key: told without a word of it.
    std::fs::write(outside.path("key"), format!("{SECRET} and more\n")).unwrap();
    project.campaign(&[("api_key: { env: KALEYRA_API_KEY }", &from("key"))]);
    let output = project.apply(&[]).expect(1);
    assert!(!output.stderr.contains(SECRET), "{}", output.stderr);
    std::fs::File::create(outside.path("sparse")).unwrap().set_len(5 << 30).unwrap();
    project.campaign(&[("api_key: { env: KALEYRA_API_KEY }", &from("sparse"))]);
    let started = Instant::now();
    let output = project.apply(&[]).expect(1);
    assert!(
        output.stderr.contains("has more than 65536 bytes") && started.elapsed() < Duration::from_secs(5),
        "{}",
        output.stderr
    );
    assert_eq!(messages(&sandbox), BTreeMap::new());
    std::fs::write(outside.path("key"), "sandbox-key\n").unwrap();
    project.campaign(&[("api_key: { env: KALEYRA_API_KEY }", &from("key"))]);
    project.apply(&[]).expect(0);
    assert_eq!(messages(&sandbox).len(), 3);
}

#[test]
fn a_file_of_variables_is_never_shown_and_no_way_out_of_the_project() {
    let outside = Outside::new();
    let project = Project::new();
    project.write("sendform.yaml", "");
    project.campaign(&[
        ("templates:\n", "vars:\n  password: { default: none }\ntemplates:\n"),
        ("{{ recipient.first_name | default('there') }}", "{{ vars.password }}"),
    ]);
    symlink(outside.path("key.yaml"), project.path().join("vars.yaml")).unwrap();
    symlink(outside.directory.path(), project.path().join("environments")).unwrap();
    for file in ["vars.yaml", "environments/key.yaml"] {
        let output = project.run(&["plan", "campaign.yaml", "--var-file", file, "--format", "json"]).expect(3);
        assert!(output.stderr.contains("is outside") && !output.stdout.contains(SECRET), "{}", output.stderr);
    }
    // A link inside the project is fine.
    project.write("common/real.yaml", "password: mine\n");
    symlink("common/real.yaml", project.path().join("link.yaml")).unwrap();
    project.run(&["plan", "campaign.yaml", "--var-file", "link.yaml"]).expect(0);
    // Named itself, it is the operator's choice.
    let preview = project.run(&["preview", "campaign.yaml", "--var-file", &outside.path("key.yaml")]).expect(0);
    assert!(preview.stdout.contains(SECRET));
    for content in [
        SECRET.to_owned(),
        format!("- {SECRET}\n"),
        format!("'{SECRET}"),
        format!("{SECRET}: 1\n{SECRET}: 2\n"),
        // A line of a password file is a key to YAML.
        format!("root:{SECRET}:19000:0:99999:7:::\n"),
    ] {
        project.write("other.yaml", content);
        let output = project.run(&["plan", "campaign.yaml", "--var-file", "other.yaml"]).expect(3);
        assert!(output.stderr.contains("is not a list of variables"), "{}", output.stderr);
        assert!(!output.stderr.contains(SECRET), "{}", output.stderr);
    }
}

#[test]
fn the_test_of_a_link_is_not_fooled_by_names() {
    // A sibling whose name begins like the root's is not below it.
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("offers");
    std::fs::create_dir(&root).unwrap();
    std::fs::create_dir(parent.path().join("offers-data")).unwrap();
    std::fs::write(parent.path().join("offers-data/people.csv"), "mobile\n9876543210\n").unwrap();
    let project = Project::new();
    let campaign = std::fs::read_to_string(project.path().join("campaign.yaml")).unwrap();
    std::fs::write(root.join("campaign.yaml"), campaign.replace("csv: people.csv", "csv: ../offers-data/people.csv"))
        .unwrap();
    let run =
        |directory: &Path| support::output(project.command(&["validate", "campaign.yaml"]).current_dir(directory));
    let problem = run(&root).expect(3);
    assert!(problem.stderr.contains("is outside"), "{}", problem.stderr);
}

#[test]
fn findings_about_data_point_into_the_file_for_pipelines() {
    let project = Project::new();
    project.people("mobile,first_name\r\n9876543210,Asha\r\n9876543211,\"Ravi\r\n");
    let found: Value = project.run(&["validate", "campaign.yaml", "--format", "json"]).expect(3).json();
    let first = &found["diagnostics"][0];
    assert_eq!(
        (first["code"].clone(), first["file"].clone(), first["line"].clone()),
        ("csv-open-quote".into(), "people.csv".into(), 3.into())
    );
}

/// The list has an effect: without `where`, it would exclude its people.
#[test]
fn a_list_whose_people_where_excludes_already_is_not_reported_as_without_effect() {
    let sandbox = Sandbox::start(&[]);
    let audience = "default_region: IN\n  where: recipient.first_name != 'Person 3'\n  suppress: [{ csv: out.csv }]";
    let project = hundred(&sandbox, audience);
    let rows: String = (0..100).map(|person| format!("{},Person {person}\n", number(person))).collect();
    project.people(&format!("mobile,first_name\n{rows}"));
    project.write("out.csv", format!("mobile\n{}\n", number(3)));
    let plan = project.plan_json();
    let list = serde_json::json!({ "file": "out.csv", "rows": 1, "skipped": 0, "matched": 0, "filtered": 1 });
    assert_eq!(plan["suppress"], serde_json::json!([list]));
    assert_eq!(plan["warnings"], serde_json::json!([]));
    let text = project.run(&["plan", "campaign.yaml"]).expect(0).stdout;
    assert!(!text.contains("excludes nobody"), "{text}");
    assert!(text.contains("Suppress  0 by out.csv (1 row)"), "{text}");
    // A list of strangers is still reported.
    project.write("out.csv", "mobile\n9876500000\n");
    let warnings = project.plan_json()["warnings"].clone();
    assert!(warnings[0].as_str().unwrap().contains("nobody in the audience is on"), "{warnings}");
}
