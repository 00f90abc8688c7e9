//! Files that ask too much, and pages that are not ours: bounded, refused, told.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::hostile::{MAX_YAML_BYTES, in_time, validated};
use crate::support::{CAMPAIGN, Project, Sandbox};

const CODE: &str = "coupons: { code: HELLO25 }";
const PARAM: &str = "{{ recipient.first_name | default('there') }}";
const AT: &str = "at: \"2099-12-31T23:59:59\", timezone: Asia/Kolkata";

#[test]
fn brackets_in_texts_and_comments_are_no_nesting() {
    let project = Project::new();
    let brackets = "[{".repeat(500);
    let commented = format!("# {brackets}\n{CAMPAIGN}description: |\n  {brackets}\n  it's\n")
        .replace("BASE_URL", "http://127.0.0.1:9")
        .replace("[{", "[ {");
    project.write("campaign.yaml", commented);
    project.run(&["validate", "campaign.yaml"]).expect(0);
}

#[test]
fn files_that_use_files_are_counted() {
    let (before, rest) = CAMPAIGN.split_once("  en:\n").unwrap();
    let (template, after) = rest.split_once("audience:\n").unwrap();
    let template: Vec<&str> = template.lines().map(|line| line.strip_prefix("    ").unwrap_or(line)).collect();
    let uses: String = (0..1_000).map(|key| format!("  t{key}: {{ use: template.yaml }}\n")).collect();
    let project = Project::new();
    project.write("template.yaml", template.join("\n"));
    project.write("campaign.yaml", format!("{before}{uses}audience:\n{after}"));
    let output = in_time("fan-out", &project, &["validate", "campaign.yaml"]).expect(3);
    assert!(output.stderr.contains("made of more than 64 files"), "{}", output.stderr);
    assert_eq!(output.stderr.matches("too-many-files").count(), 1, "{}", output.stderr);
}

#[test]
fn what_a_campaign_opens_and_keeps_is_counted() {
    let (before, rest) = CAMPAIGN.split_once("  en:\n").unwrap();
    let (template, after) = rest.split_once("audience:\n").unwrap();
    let many: String = (0..5_000).map(|key| format!("  t{key}: *t\n")).collect();
    let text = format!("{before}  en: &t\n{template}{many}audience:\n{after}");
    let project = Project::new();
    project.write("campaign.yaml", text);
    let output = in_time("templates", &project, &["validate", "campaign.yaml"]).expect(3);
    assert!(output.stderr.contains("templates; the maximum is 250"), "{:.2000}", output.stderr);
    let sources = format!("sources: [{}]", vec!["{ csv: people.csv }"; 20_000].join(", "));
    let text = CAMPAIGN.replace("sources: [{ csv: people.csv }]", &sources);
    validated("sources", &text, "`audience.sources` has 20000 files; the maximum is 250");
}

/// What doubles in each step makes gigabytes in thirty steps, whatever each step costs.
#[test]
fn expressions_that_double_a_list_are_refused() {
    let doubled = |expression: &str| {
        let project = Project::new();
        project.campaign(&[(&format!("\"{PARAM}\""), &format!("\"{expression}\""))]);
        in_time(expression, &project, &["validate", "campaign.yaml"])
    };
    for expression in [
        "{% set n = namespace(x=[1]) %}{% for i in range(40) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x | length }}",
        "{% set a = [1] %}{% set b = a + a %}{{ b | length }}",
        "{% macro d(x, n) %}{{ d(x + x, n - 1) if n else x | length }}{% endmacro %}{{ d([1], 40) }}",
        "{% for x in [[1]] %}{% for y in [x + x] %}{{ y | length }}{% endfor %}{% endfor %}",
    ] {
        let output = doubled(expression).expect(3);
        assert!(output.stderr.contains("this expression is wrong"), "{expression}: {}", output.stderr);
    }
    // A text that doubles is stopped by what it makes.
    let mut text = "{% set a = 'xxxxxxxxxxxxxxxx' %}".to_owned();
    (0..30).for_each(|_| text.push_str("{% set a = a ~ a %}"));
    let output = doubled(&format!("{text}{{{{ a | length }}}}")).expect(3);
    assert!(output.stderr.contains("produces too much text"), "{}", output.stderr);
    let output = doubled(&format!("{{{{ {} }}}}", vec!["1"; 5_000].join(" + "))).expect(3);
    assert!(output.stderr.contains("can have at most 8192"), "{}", output.stderr);
    doubled(&format!("{{{{ {} }}}}", vec!["1"; 1_900].join(" + "))).expect(0);
}

/// A cell decides over its own row, never over how long the command runs.
#[test]
fn a_long_cell_blocks_its_row_alone() {
    let project = Project::new();
    project.campaign(&[(PARAM, "{{ recipient.first_name | upper }}")]);
    project.people(&format!("mobile,first_name\n9876543210,Asha\n9876543211,{}\n", "x".repeat(MAX_YAML_BYTES)));
    let output = in_time("a long cell", &project, &["plan", "campaign.yaml", "--list-blocked"]).expect(0);
    assert!(output.stdout.contains("has more than 16384 bytes"), "{:.2000}", output.stdout);
}

#[test]
fn an_expression_where_nothing_evaluates_it_never_reaches_a_customer() {
    let sandbox = Sandbox::start(&[]);
    for (old, new, field) in [
        (CODE, "coupons: { code: \"{{vars.c}}\" }", "coupons.code"),
        (CODE, "coupons: { generate: { prefix: \"{%A\", length: 8 } }", "coupons.generate.prefix"),
        ("text: Ends soon!", "text: \"{{vars.c}}\"", "templates.en.offer.text"),
        ("label: Shop now", "label: \"{{ vars.c }}\"", "templates.en.url_button.label"),
        ("name: test_offer", "name: \"{{ vars.c }}\"", "templates.en.name"),
        ("from: \"+919900112233\"", "from: \"{{ vars.c }}\"", "gateway.kaleyra.from"),
        ("csv: people.csv", "csv: \"{{ vars.c }}.csv\"", "audience.sources[0].csv"),
        (AT, "at: \"{{ vars.c }}\"", "expiry.at"),
        ("rate: 2000/s", "rate: \"{{ vars.c }}\"", "delivery.rate"),
        ("{ env: KALEYRA_SID }", "{ env: \"{{ vars.c }}\" }", "gateway.kaleyra.sid.env"),
        ("text: \"Hi {{1}}.\"", "text: \"Hi {{1}}{% if 1 %}.\"", "templates.en.body.text"),
        ("phone: mobile", "phone: \"{# c #}mobile\"", "audience.phone"),
        ("templates:\n", "vars: { d: { default: \"{{ vars.c }}\" } }\ntemplates:\n", "vars.d.default"),
        (CODE, "coupons: { use: \"{{ vars.c }}.yaml\" }", "coupons.use"),
    ] {
        let project = Project::with_sandbox(&sandbox);
        project.campaign(&[(old, new)]);
        let output = project.apply(&[]).expect(3);
        let message = format!("`{field}` holds `{{");
        assert!(output.stderr.contains(&message), "{field}: {}", output.stderr);
        assert!(output.stderr.contains("not evaluated there"), "{field}: {}", output.stderr);
        // In these words alone, not in others as well.
        assert_eq!(output.stderr.matches("error[").count(), 1, "{field}: {}", output.stderr);
    }
    let project = Project::with_sandbox(&sandbox);
    project.campaign(&[("templates:\n", "vars: { c: { default: x } }\ntemplates:\n"), (PARAM, "{{ vars.c }}")]);
    let output = project.apply(&["--var", "c={{ vars.d }}"]).expect(3);
    assert!(output.stderr.contains("`--var c` holds `{{`"), "{}", output.stderr);
    assert!(sandbox.messages().is_empty());
    // The words of a command are the command's own.
    let exec = "{ exec: [printf, '%s', HXSANDBOX, '--output=go-template={{.data}}'] }";
    let project = Project::with_sandbox(&sandbox);
    project.campaign(&[("{ env: KALEYRA_SID }", exec)]);
    project.run(&["validate", "campaign.yaml"]).expect(0);
}

#[test]
fn a_date_alone_and_a_contradicting_zone_are_asked_about() {
    for (end, words) in [
        ("at: 2099-12-01, timezone: Asia/Kolkata", &["`2099-12-01` has no time of day", "`2099-12-01T23:59:59`"][..]),
        (
            "at: \"2099-12-01T23:59:59+02:00[Asia/Kolkata]\"",
            &["its offset is +02, but the time in Asia/Kolkata is +05:30", "remove the offset or the zone"],
        ),
        ("at: \"2099-12-01T23:59:59[Asia/Kolkata]\", timezone: UTC", &["would state it twice"]),
        (
            "at: \"2099-12-01T23:59:59\", timezone: IST",
            &["there is no time zone `IST`", "did you mean `Asia/Kolkata`?", "`Europe/Dublin`"],
        ),
    ] {
        let project = Project::new();
        project.campaign(&[(AT, end)]);
        let output = project.run(&["validate", "campaign.yaml"]).expect(3);
        for word in words {
            assert!(output.stderr.contains(word), "{end}: `{word}` is not in:\n{}", output.stderr);
        }
    }
}

#[test]
fn the_plan_shows_the_end_in_the_campaigns_zone() {
    let project = Project::new();
    let text = project.run(&["plan", "campaign.yaml"]).expect(0).stdout;
    assert!(text.contains("Thu 31 Dec 2099, 23:59:59 IST (18:29:59 UTC)"), "{text}");
    assert_eq!(project.plan_json()["expiry"]["zone"], "Asia/Kolkata");
    project.campaign(&[(AT, "at: \"2099-12-31T23:59:00+02:00\"")]);
    let text = project.run(&["plan", "campaign.yaml"]).expect(0).stdout;
    assert!(text.contains("Thu 31 Dec 2099, 23:59 +02 (21:59 UTC)"), "{text}");
    assert_eq!(project.plan_json()["expiry"]["zone"], "+02");
}

/// Sends a request as it stands and returns the whole answer.
fn raw(sandbox: &Sandbox, request: &str) -> String {
    let mut stream = TcpStream::connect(sandbox.host()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&part[..read]),
            Err(error) => panic!("no end of the answer: {error}: {}", String::from_utf8_lossy(&answer)),
        }
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn a_page_of_another_name_does_not_get_what_was_sent() {
    let sandbox = Sandbox::start(&[]);
    Project::with_sandbox(&sandbox).apply(&[]).expect(0);
    let port = sandbox.host().rsplit(':').next().unwrap();
    let get = |path: &str, host: &str| raw(&sandbox, &format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n"));
    for host in [format!("127.0.0.1:{port}"), format!("localhost:{port}"), "localhost:1".to_owned()] {
        assert!(get("/sandbox/messages", &host).contains("9876543210"), "{host}");
    }
    for path in ["/", "/sandbox/messages", "/sandbox/templates", "/v1/HXSANDBOX/messages"] {
        for host in [format!("evil.example:{port}"), format!("127.0.0.1.evil.example:{port}")] {
            let answer = get(path, &host);
            assert!(answer.starts_with("HTTP/1.0 421") && !answer.contains("98765"), "{path} of {host}: {answer}");
        }
    }
    let absolute = format!(
        "GET http://evil.example:{port}/sandbox/messages HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    );
    assert!(raw(&sandbox, &absolute).starts_with("HTTP/1.1 421"));
    assert!(raw(&sandbox, "GET /sandbox/messages HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 421"));
}

#[test]
fn the_inbox_has_a_policy_and_runs_nothing_else() {
    let sandbox = Sandbox::start(&[]);
    let page = raw(&sandbox, &format!("GET / HTTP/1.0\r\nHost: {}\r\n\r\n", sandbox.host()));
    let policy = page.lines().find_map(|line| line.strip_prefix("content-security-policy: ")).unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'nonce-"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert!(
        page.contains(&format!("<script nonce=\"{nonce}\">")) && page.contains(&format!("<style nonce=\"{nonce}\">"))
    );
    assert_eq!(page.matches("<script").count(), 1);
    // Handlers and styles in attributes would not work, so there are none.
    assert!(!page.contains(" onclick=") && !page.contains(" style="), "{page}");

    // What was sent cannot end the script of the page that is kept.
    let project = Project::new();
    project.people("mobile,first_name\n9876543210,</script><script>alert(1)</script>\n");
    project.apply(&["--sandbox"]).expect(0);
    let kept = std::fs::read_to_string(project.path().join(".sendform/sandbox/inbox.html")).unwrap();
    assert_eq!(kept.matches("</script>").count(), 1);
    assert!(kept.contains("http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'nonce-"));
}

#[test]
fn whoever_has_no_key_is_answered_before_a_body_is_read() {
    let sandbox = Sandbox::start(&[]);
    // A body is announced and never comes.
    let request = format!(
        "POST /v1/HXSANDBOX/messages HTTP/1.1\r\nHost: {}\r\napi-key: wrong\r\nConnection: close\r\n\
         Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 15000000\r\n\r\n",
        sandbox.host()
    );
    let answer = raw(&sandbox, &request);
    assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("RBC201"), "{answer}");
}

#[test]
fn the_inbox_shows_the_text_of_a_messages_own_language() {
    let project = Project::new();
    let other = CAMPAIGN
        .split("  en:\n")
        .nth(1)
        .unwrap()
        .split("audience:\n")
        .next()
        .unwrap()
        .replace("language: en", "language: hi")
        .replace("Hi {{1}}.", "नमस्ते {{1}}।");
    project.campaign(&[
        ("audience:\n", &format!("  hi:\n{other}audience:\n")),
        ("phone: mobile", "phone: mobile\n  template: \"{{ 'hi' if recipient.first_name == 'Ravi' else 'en' }}\""),
    ]);
    project.apply(&["--sandbox"]).expect(0);
    let page = std::fs::read_to_string(project.path().join(".sendform/sandbox/inbox.html")).unwrap();
    let data = page.split("const DATA = ").nth(1).unwrap().split(";\n").next().unwrap();
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    let templates = data["templates"].as_array().unwrap();
    assert_eq!(templates.len(), 2, "{templates:?}");
    for message in data["messages"].as_array().unwrap() {
        let own: Vec<_> = templates
            .iter()
            .filter(|template| {
                template["name"] == message["template_name"] && template["language"] == message["lang_code"]
            })
            .collect();
        let hindi = message["params"][0] == "Ravi";
        assert_eq!(own.len(), 1, "{message}");
        assert_eq!(own[0]["body"], if hindi { "नमस्ते {{1}}।" } else { "Hi {{1}}." }, "{message}");
    }
}
