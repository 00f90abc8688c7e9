//! Validation: every error at once, each where it stands, and the checked-in schemas.

use crate::support::Project;

#[test]
fn checked_in_schemas_are_those_of_the_types() {
    let project = Project::empty();
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    for kind in sendform::schemas::KINDS {
        let checked_in = std::fs::read_to_string(directory.join(format!("{kind}.schema.json"))).unwrap();
        let fresh = project.run(&["schema", kind]).expect(0).stdout;
        assert!(
            checked_in == fresh,
            "schema/{kind}.schema.json is stale: sendform schema {kind} > schema/{kind}.schema.json"
        );
    }
    project.run(&["schema", "nothing"]).expect(64);
}

#[test]
fn every_error_is_told_at_once_with_its_place() {
    let project = Project::new();
    project.campaign(&[
        ("phone: mobile", "phone: mobile\n  defualt_region: IN"),
        (
            "offer: { text: Ends soon!, has_expiration: true }",
            "offer: { text: This ends very soon indeed!, has_expiration: true }\n    footer: Reply STOP",
        ),
        ("coupons: { code: HELLO25 }", "coupons: { code: ABCDEFGHIJKLMNOP }"),
        ("name: test_offer", "name: Test-Offer"),
        ("    sid: { env: KALEYRA_SID }\n", ""),
    ]);
    let output = project.run(&["validate", "campaign.yaml", "--format", "json"]).expect(3).json();
    let found: Vec<(String, u64)> = output["diagnostics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| (found["code"].as_str().unwrap().to_owned(), found["line"].as_u64().unwrap()))
        .collect();
    for expected in [
        ("unknown-key", 23),
        ("out-of-bounds", 14),
        ("unknown-key", 15),
        ("out-of-bounds", 25),
        ("out-of-bounds", 11),
        ("missing-key", 5),
    ] {
        assert!(found.contains(&(expected.0.to_owned(), expected.1)), "{expected:?} is not in {found:?}");
    }
    let text = project.run(&["validate", "campaign.yaml"]).expect(3).stderr;
    for words in [
        "did you mean `default_region`?",
        "no footer",
        "1 to 16 characters",
        "`gateway.kaleyra` needs `sid`",
        "6 errors",
    ] {
        assert!(text.contains(words), "`{words}` is not in:\n{text}");
    }
}

/// WhatsApp's limits that are checked offline.
#[test]
fn whatsapps_limits_are_checked() {
    let url = "url: \"https://shop.example.com/offer\"";
    let media = "https://cdn.example.com/offer.png";
    let long_body = format!("text: \"{}\"\n      params: []", "x".repeat(601));
    let cases: Vec<(&str, String, &str)> = vec![
        (url, "url: \"https://shop.example.com/{{1}}/x\", param: a".into(), "at its end"),
        (url, "url: \"https://shop.example.com/{{1}}\"".into(), "no `param` fills it"),
        (url, format!("url: \"{url}\", param: a", url = "https://shop.example.com/"), "`param` is not used"),
        (url, "url: shop".into(), "is not a web address"),
        (media, "https://cdn.example.com/offer".into(), "no file extension"),
        (media, "https://cdn.example.com/offer.mp4".into(), "an image header needs png, jpg, jpeg"),
        (media, "https://localhost/offer.png".into(), "not public"),
        (media, "https://192.168.1.5/offer.png".into(), "not public"),
        ("label: Shop now", "label: This label is far too long for it".into(), "1 to 25 characters"),
        ("image: { url", "document: { url".into(), "no key `document`"),
        ("text: \"Hi {{1}}.\"", "text: \"Hi {{1}} and {{2}}.\"".into(), "2 placeholders but `body.params` has 1"),
        ("text: \"Hi {{1}}.\"", "text: \"Hi {{name}}.\"".into(), "is not a placeholder"),
        (
            "text: \"Hi {{1}}.\"\n      params: [\"{{ recipient.first_name | default('there') }}\"]",
            long_body,
            "1 to 600 characters",
        ),
        ("language: en", "language: english please".into(), "a WhatsApp language code"),
        ("BASE_URL", "http://api.example.com".into(), "API key unencrypted"),
        ("BASE_URL", "\"https://api.example.com\"\n    domain: in".into(), "both state the API"),
        ("default_region: IN", "default_region: XX".into(), "there is no region `XX`"),
        (
            "coupons: { code: HELLO25 }",
            "coupons: { generate: { prefix: TOOLONGPREFIX, length: 8 } }".into(),
            "codes of 21 characters",
        ),
        (
            "coupons: { code: HELLO25 }",
            "coupons: { generate: { alphabet: AAB, length: 8 } }".into(),
            "a character twice",
        ),
        ("rate: 2000/s", "rate: fast".into(), "`fast` is not a rate"),
        ("concurrency: 20", "concurrency: 20, batch: 40".into(), "`concurrency` allows only 20 messages"),
        ("phone: mobile", "phone: mobile\n  where:".into(), "`audience.where` has no value"),
        ("phone: mobile", "phone: mobile\n  where: frist_name == 'x'".into(), "there is no `frist_name` here"),
        ("phone: mobile", "phone: mobile\n  template: de".into(), "there is no template `de`"),
        ("{{ recipient.first_name | default('there') }}", "{{ vars.brand }}".into(), "there is no variable `brand`"),
        (
            "{{ recipient.first_name | default('there') }}",
            "{{ recipient.first_name | nofilter }}".into(),
            "unknown filter",
        ),
    ];
    for (old, new, words) in cases {
        let mut project = Project::new();
        if old == "BASE_URL" {
            project.base_url = new;
            project.campaign(&[]);
        } else {
            project.campaign(&[(old, &new)]);
        }
        let output = project.run(&["validate", "campaign.yaml"]);
        assert!(output.code == 3 && output.stderr.contains(words), "`{words}` is not in:\n{}", output.stderr);
    }
}

#[test]
fn a_literal_secret_is_refused_and_never_shown() {
    let project = Project::new();
    project.campaign(&[("api_key: { env: KALEYRA_API_KEY }", "api_key: Abf2e77c4d1cfa6854a7423a68e7")]);
    for format in ["text", "json", "github", "sarif"] {
        let output = project.run(&["validate", "campaign.yaml", "--format", format]).expect(3);
        let all = output.stdout + &output.stderr;
        assert!(all.contains("holds the secret itself"), "{all}");
        assert!(!all.contains("Abf2e77c"), "the secret is on the screen:\n{all}");
    }
}

#[test]
fn what_the_schema_and_the_checks_find_is_told_together() {
    let project = Project::new();
    project.campaign(&[
        ("text: Ends soon!", "text: This ends very soon!"),
        ("csv: people.csv", "csv: peple.csv"),
        ("rate: 2000/s", "rate: fast"),
    ]);
    let text = project.run(&["validate", "campaign.yaml"]).expect(3).stderr;
    for words in ["1 to 16 characters", "there is no file", "`fast` is not a rate", "3 errors"] {
        assert!(text.contains(words), "`{words}` is not in:\n{text}");
    }
    project.campaign(&[("templates:\n", "templates: {}\nx-rest:\n")]);
    let text = project.run(&["validate", "campaign.yaml"]).expect(3).stderr;
    assert!(text.contains("has no key `x-rest`"), "{text}");
}

#[test]
fn a_block_may_stand_in_a_file_of_its_own_and_errors_point_there() {
    let project = Project::new();
    project.write("shared/coupons.yaml", "pool: { csv: codes.csv }\n");
    project.write("shared/codes.csv", "code\nA1\nA2\nA3\n");
    project.campaign(&[("coupons: { code: HELLO25 }", "coupons: { use: shared/coupons.yaml }")]);
    project.run(&["validate", "campaign.yaml"]).expect(0);
    assert_eq!(project.plan_json()["coupons"]["free"], 3);
    project.write("shared/coupons.yaml", "pool:\n  cvs: codes.csv\n");
    let output = project.run(&["validate", "campaign.yaml"]).expect(3);
    assert!(
        output.stderr.contains("shared/coupons.yaml:2:3") && output.stderr.contains("did you mean `csv`?"),
        "{}",
        output.stderr
    );
    project.write("shared/coupons.yaml", "use: coupons.yaml\n");
    let output = project.run(&["validate", "campaign.yaml"]).expect(3);
    assert!(output.stderr.contains("uses itself"), "{}", output.stderr);
}

#[test]
fn findings_have_faces_for_pipelines() {
    let project = Project::new();
    project.campaign(&[("phone: mobile", "phon: mobile")]);
    let github = project.run(&["validate", "campaign.yaml", "--format", "github"]).expect(3).stdout;
    assert!(github.contains("::error file=campaign.yaml,line=22,col=3,title=unknown-key::"), "{github}");
    let sarif = project.run(&["validate", "campaign.yaml", "--format", "sarif"]).expect(3).json();
    assert_eq!(sarif["version"], "2.1.0");
    assert_eq!(sarif["runs"][0]["results"][0]["level"], "error");
    project.run(&["validate"]).expect(64);
    project.run(&["--help"]).expect(0);
}

#[test]
fn variables_come_from_the_command_line_or_a_file() {
    let project = Project::new();
    project.campaign(&[
        ("templates:\n", "vars:\n  brand: { description: the shop }\n  percent: { default: 25 }\ntemplates:\n"),
        ("{{ recipient.first_name | default('there') }}", "{{ vars.brand }} {{ vars.percent + 1 }}"),
    ]);
    let output = project.run(&["validate", "campaign.yaml"]).expect(3);
    assert!(output.stderr.contains("pass `--var brand=…`"), "{}", output.stderr);
    project.write("vars.yaml", "brand: From file\npercent: 10\n");
    let preview =
        project.run(&["preview", "campaign.yaml", "--var-file", "vars.yaml", "--var", "percent=30"]).expect(0);
    assert!(preview.stdout.contains("Hi From file 31."), "{}", preview.stdout);
    let output = project.run(&["validate", "campaign.yaml", "--var", "brnad=x"]).expect(3);
    assert!(output.stderr.contains("did you mean `brand`?"), "{}", output.stderr);
    project.run(&["validate", "campaign.yaml", "--var", "brand=x", "--var", "percent=many"]).expect(3);
}
