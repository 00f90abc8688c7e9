//! Files that ask too much: large, deeply nested, with thousands of mistakes. Each is refused in bounded time.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::support::hostile::{MAX_YAML_BYTES, in_time, validated};
use crate::support::{CAMPAIGN, Project};

#[test]
fn nested_brackets_are_refused_before_they_take_minutes() {
    let full = MAX_YAML_BYTES - 16;
    validated("one line", &format!("a: {}", "[".repeat(full)), "nested more deeply");
    validated("a line each", &format!("a: [\n{}", "[\n".repeat(full / 2 - 8)), "nested more deeply");
    validated("blocks", &"- ".repeat(full / 2), "nested more deeply");
    validated("mappings", &"{a: ".repeat(full / 4), "nested more deeply");
    // As deep as allowed, again and again.
    let unit = format!("{}x{},", "[a,".repeat(14), "]".repeat(14));
    validated(
        "within the bound",
        &format!("a: [{}]", unit.repeat(full / unit.len() - 1)),
        "holds more than a manifest",
    );
    validated("directives", &"%TAG !a! b\n".repeat(full / 11), "lines that start with `%`");
}

#[test]
fn what_aliases_repeat_is_counted() {
    let long = "x".repeat(60_000);
    let text = format!("a: &a {long}\nb: [{}]\n", vec!["*a"; 1_000_000].join(","));
    validated("a large text", &text, "counting what its aliases repeat");
    let text = format!("a: &a {{ k: {long} }}\nb:\n{}", "- <<: *a\n".repeat(400_000));
    validated("merged", &text, "counting what its aliases repeat");
    validated("values", &format!("a:\n{}", "- a\n".repeat(1_000_000)), "holds more than a manifest");
}

#[test]
fn thousands_of_mistakes_take_no_longer_than_a_hundred() {
    let keys: String = (0..8_000).fold(String::new(), |mut keys, key| {
        let _ = writeln!(keys, "x{key}: 1");
        keys
    });
    let told = validated("unknown keys", &format!("{CAMPAIGN}{keys}"), "has no key `x99`");
    assert!(told.contains("there are more errors; the first 100 are shown"), "{told:.3000}");
    assert!(!told.contains("`x100`"));
    // Each with its own line: the first of them stands behind the campaign.
    let line = CAMPAIGN.lines().count() + 100;
    assert!(told.contains(&format!("campaign.yaml:{line}:1")), "{told:.3000}");

    let sources = format!("sources: [{}]", vec!["{ csv: 1 }"; 20_000].join(", "));
    let text = CAMPAIGN.replace("sources: [{ csv: people.csv }]", &sources);
    validated("wrong types", &text, "must be a text");
    let vars: String = (0..40_000).fold("vars:\n".to_owned(), |mut vars, var| {
        let _ = writeln!(vars, "  v{var}: {{ }}");
        vars
    });
    validated("variables", &CAMPAIGN.replace("templates:\n", &format!("{vars}templates:\n")), "has no default");
    validated("empty values", &format!("{CAMPAIGN}rest:\n{}", "- \n".repeat(90_000)), "has no value");
    validated("a long text", &format!("{CAMPAIGN}x: \"{}\"\n", "x".repeat(3 << 20)), "a text has at most 65536");
}

#[test]
fn other_files_are_read_in_bounds() {
    let project = Project::new();
    let campaign = ["validate", "campaign.yaml"];
    let nested = "[".repeat(MAX_YAML_BYTES - 16);
    project.write("vars.yaml", format!("a: {nested}"));
    let output = in_time("variables", &project, &["validate", "campaign.yaml", "--var-file", "vars.yaml"]).expect(3);
    assert!(output.stderr.contains("nested too deeply"), "{:.2000}", output.stderr);
    let many: String = (0..90_000).fold(String::new(), |mut vars, var| {
        let _ = writeln!(vars, "var_{var}: x");
        vars
    });
    project.write("vars.yaml", many);
    let output = in_time("variables", &project, &["validate", "campaign.yaml", "--var-file", "vars.yaml"]).expect(3);
    assert!(output.stderr.contains("has no variable `var_0`"), "{:.2000}", output.stderr);

    let decisions = format!("apiVersion: sendform/v1\nkind: Decisions\nreason: x\ndecisions:\n{}", {
        let decision = |number| format!("  - send: \"{number:032x}\"\n    attempt: 0\n    as: acepted\n");
        (0..20_000).map(decision).collect::<String>()
    });
    project.write("decisions.yaml", decisions);
    let output = in_time("decisions", &project, &["resolve", "--file", "decisions.yaml"]).expect(3);
    assert!(output.stderr.contains("there are more errors"), "{:.2000}", output.stderr);

    let header: String = (0..400_000).fold("mobile,first_name".to_owned(), |mut header, column| {
        let _ = write!(header, ",c{column}");
        header
    });
    project.people(&format!("{header}\n"));
    let output = in_time("a header", &project, &campaign).expect(3);
    assert!(output.stderr.contains("the maximum is 16384"), "{:.2000}", output.stderr);

    project.people(&format!("mobile,first_name\n{},Asha\n9876543210,Ravi\n", "9 ".repeat(MAX_YAML_BYTES / 2)));
    let output = in_time("a number", &project, &["plan", "campaign.yaml", "--list-blocked"]).expect(0);
    assert!(output.stdout.contains("people.csv:2"), "{:.2000}", output.stdout);
    project.people("mobile,first_name\n9876543210,Asha\n");

    project.write("plan.json", format!("{{\"format_version\": {}", "[".repeat(MAX_YAML_BYTES)));
    in_time("a plan", &project, &["apply", "--plan", "plan.json"]).expect(3);
    project.write("sendform.yaml", format!("ledger: {nested}"));
    let output = in_time("the project", &project, &["plan", "campaign.yaml"]).expect(3);
    assert!(output.stderr.contains("nested too deeply"), "{:.2000}", output.stderr);
}

/// Four times the file takes four times as long, not sixteen times.
#[test]
fn what_is_read_takes_linear_time() {
    let decisions = |number: usize| {
        let decision =
            |number| format!("  - {{ send: \"{number:032x}\", attempt: 1, as: accepted, reason: \"[x]\" }}\n");
        let decisions: String = (0..number).map(decision).collect();
        format!("apiVersion: sendform/v1\nkind: Decisions\ndecisions:\n{decisions}")
    };
    let took = |number: usize| {
        let project = Project::new();
        project.write("decisions.yaml", decisions(number));
        let began = Instant::now();
        // It is read to its end, and there is no ledger yet.
        project.run(&["resolve", "--file", "decisions.yaml"]).expect(1);
        began.elapsed()
    };
    let fastest = |number| (0..3).map(|_| took(number)).min().unwrap();
    let (small, large) = (fastest(5_000), fastest(20_000));
    assert!(large < small * 9 + Duration::from_millis(500), "5,000 took {small:?}, 20,000 took {large:?}");
}
