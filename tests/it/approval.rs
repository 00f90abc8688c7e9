//! What an approval covers: nothing but the approved plan is sent, to the approved place, at the approved pace.

use serde_json::Value;

use crate::support::{CAMPAIGN, Project, Sandbox};

/// A manifest that uses few fields, one that uses nearly all, and one that is put together from blocks and variables.
/// Their hashes stay for as long as hashes begin with `v2:`. If one of them changes, every approval in the world does.
const GOLDEN: [(&str, &str, &str, &str); 3] = [
    (
        SMALL,
        "v2:87474944eda28702de14005df1e00c7ff14e314968d52531e3018e7e85b4d2d0",
        "9f7f7ba8f7b4a0729af6b6d12b880f68eea952d742a2db470be5a3e5d5780e14",
        "d3fe32cb8ce5524dba30b3e2806ae0622953eab1a945c35fed9936c70778b52c",
    ),
    (
        FULL,
        "v2:fe383057cfa76ef03448e0b482448b8cd1662873dc192aab058c3e241a94293d",
        "00c927c3bfa0c145d0b9bdf318f6c7742c5ca4e2b4b4698f2649ce5eb25f86fe",
        "cc7701a63a433f6d5fad08e29f6e898eb85b25d596e80a68ec8e2cd6b6c63a4f",
    ),
    (
        BLOCKS,
        "v2:64a89c05d91884ae68edb7e4ccf077a1276dfd3ad3e1b6cd1eb70241e0e1f820",
        "c668950bc6798a81f35b3a162d366797d70c8e958a20e6962f7f1266c9757b68",
        "93d0bb603e772a72b05de048c51c4ab298ccfbc69e3347e6339f5a2125878e8f",
    ),
];

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
    offer: { text: Now, has_expiration: false }
    body: { text: Hello }
    url_button: { label: Shop, url: "https://shop.example.com" }
audience:
  sources: [{ csv: people.csv }]
  phone: mobile
coupons: { code: HELLO }
"#;

const FULL: &str = r#"apiVersion: sendform/v1
kind: Campaign
name: full
moved: { from: fuller }
edition: 3
description: uses nearly every field
gateway:
  kaleyra:
    base_url: https://whatsapp.example.com/api
    sid: { file: /run/secrets/sid }
    api_key: { exec: [pass, show, kaleyra] }
    from: "+919900112233"
    callback: { url: "https://hooks.example.com/whatsapp?token=s3cret" }
    send_ref: false
    expiry_encoding: duration
    timeout: 45s
vars:
  percent: { default: 25, description: how much }
  brand: { default: Lucky Shrub }
templates:
  en:
    name: full_offer
    language: en_US
    header: { image: { file: offer.png } }
    offer: { text: Ends soon!, has_expiration: true }
    body:
      text: "Hi {{1}}, {{2}}% off."
      params: ["{{ recipient.first_name | default('there') }}", "{{ vars.percent }}"]
    url_button: { label: Shop now, url: "https://shop.example.com/{{1}}", param: "{{ recipient.id }}" }
  hi:
    name: full_offer
    language: hi
    header: { video: { url: "https://cdn.example.com/offer.mp4" } }
    offer: { text: जल्दी, has_expiration: true }
    body: { text: "नमस्ते" }
    url_button: { label: Shop, url: "https://shop.example.com/" }
audience:
  sources: [{ csv: people.csv }, { csv: more.csv, delimiter: ";" }]
  phone: mobile
  default_region: IN
  id: id
  where: recipient.consent == 'yes'
  template: "{{ 'hi' if recipient.lang == 'hi' else 'en' }}"
  suppress: [{ csv: stop.csv, phone: number, delimiter: "|", invalid: skip }]
coupons: { generate: { prefix: FU, alphabet: ABCDEFGHJK23456789, length: 8 } }
expiry: { at: "2099-12-31T23:59:59", timezone: Asia/Kolkata, at_least: 90m }
delivery: { rate: 600/m, concurrency: 10, stop_when: { rejected: 5%, unknown: 3, within: 100 } }
limits: { recipients: 10 }
"#;

const BLOCKS: &str = r#"apiVersion: sendform/v1
kind: Campaign
name: blocks
gateway: { use: shared/gateway.yaml }
vars:
  percent: { default: 25 }
templates:
  en: { use: shared/template.yaml }
audience:
  sources: [{ csv: people.csv }]
  phone: mobile
  default_region: IN
coupons: { pool: { csv: codes.csv, column: code } }
expiry: { at: "2099-12-31T23:59:59+05:30" }
delivery: { rate: 20/s }
"#;

/// A project with the files of these manifests.
fn project(manifest: &str, carriage_return: &str) -> Project {
    let mut project = Project::empty();
    project.environment = vec![("SENDFORM_KEY", "5a".repeat(32))];
    let write = |name: &str, text: &str| drop(project.write(name, text.replace('\n', &format!("{carriage_return}\n"))));
    write("campaign.yaml", manifest);
    write(
        "people.csv",
        "mobile,id,first_name,consent,lang\n+919876543210,1,Asha,yes,en\n+919876543211,2,,yes,hi\n+919876543212,3,Dev,yes,en\n",
    );
    write("more.csv", "mobile;id;first_name;consent;lang\n+919876543213;4;Mia;yes;en\n");
    write("stop.csv", "name|number\nDev|+919876543212\nnobody|none\n");
    write("codes.csv", "id,code\n1,A1\n2,A2\n3,A3\n");
    write(
        "shared/gateway.yaml",
        "kaleyra:\n  domain: eu\n  sid: { env: KALEYRA_SID }\n  api_key: { env: KALEYRA_API_KEY }\n  from: \"+919900112233\"\n",
    );
    write(
        "shared/template.yaml",
        "name: blocks_offer\noffer: { text: Now, has_expiration: true }\nbody: { text: \"{{1}}% off\", params: [\"{{ vars.percent }}\"] }\nurl_button: { label: Shop, url: \"https://shop.example.com\" }\n",
    );
    project.write("offer.png", b"\x89PNG\r\n\x1a\nsmall");
    project
}

#[test]
fn the_hashes_of_three_manifests_stay_what_they_are() {
    for (manifest, hash, messages, campaign) in GOLDEN {
        // The same on a machine with other line ends, in another directory.
        for carriage_return in ["", "\r"] {
            let plan = project(manifest, carriage_return).plan_json();
            let found = [&plan["hash"], &plan["digests"]["messages"], &plan["digests"]["campaign"]];
            assert_eq!(found, [hash, messages, campaign], "{}\n{:#}", plan["campaign"], plan["campaign_fields"]);
        }
    }
}

/// A manifest with one field changed after its plan was approved.
struct Change<'a> {
    field: &'a str,
    old: &'a str,
    new: &'a str,
}

#[test]
fn what_changes_after_the_approval_is_refused_and_named() {
    let sandbox = Sandbox::start(&[]);
    let elsewhere = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.run(&["plan", "campaign.yaml", "--out", "plan.json"]).expect(0);
    let hash = project.plan_json()["hash"].as_str().unwrap().to_owned();
    let from = "from: \"+919900112233\"";
    for Change { field, old, new } in [
        Change { field: "gateway.kaleyra.base_url", old: &sandbox.url, new: &elsewhere.url },
        Change {
            field: "gateway.kaleyra.expiry_encoding",
            old: from,
            new: "from: \"+919900112233\"\n    expiry_encoding: duration",
        },
        Change { field: "gateway.kaleyra.timeout", old: from, new: "from: \"+919900112233\"\n    timeout: 1m" },
        Change {
            field: "gateway.kaleyra.callback.url",
            old: from,
            new: "from: \"+919900112233\"\n    callback: { url: \"https://hooks.example.com/?token=1\" }",
        },
        Change { field: "gateway.kaleyra.sid.env", old: "env: KALEYRA_SID", new: "env: OTHER_SID" },
        Change {
            field: "gateway.kaleyra.api_key.exec",
            old: "{ env: KALEYRA_API_KEY }",
            new: "{ exec: [echo, sandbox-key] }",
        },
        Change { field: "delivery.rate", old: "rate: 2000/s", new: "rate: 2001/s" },
        Change { field: "delivery.concurrency", old: "concurrency: 20", new: "concurrency: 21" },
        Change { field: "delivery.batch", old: "concurrency: 20", new: "concurrency: 20, batch: 3" },
        Change { field: "limits.recipients", old: "delivery:", new: "limits: { recipients: 9 }\ndelivery:" },
        Change {
            field: "audience.where",
            old: "default_region: IN",
            new: "default_region: IN\n  where: recipient.first_name is defined",
        },
        Change { field: "edition", old: "name: test-offer", new: "name: test-offer\nedition: 2" },
    ] {
        project.campaign(&[(old, new)]);
        let output = project.run(&["apply", "--plan", "plan.json"]).expect(9);
        assert!(output.stderr.contains(&format!("`{field}`")), "{field}: {}", output.stderr);
        assert!(!output.stderr.contains("token"), "{}", output.stderr);
        // The hash alone does not tell the field, but what to compare.
        let output = project.run(&["apply", "campaign.yaml", "--plan-hash", &hash]).expect(9);
        assert!(output.stderr.contains("the campaign, if it does not say `campaign "), "{}", output.stderr);
    }
    assert_eq!((sandbox.messages().len(), elsewhere.messages().len()), (0, 0));
    project.campaign(&[]);
    project.run(&["apply", "--plan", "plan.json"]).expect(0);
    assert_eq!((sandbox.messages().len(), elsewhere.messages().len()), (3, 0));
}

#[test]
fn trying_rejected_sends_again_is_part_of_the_approval() {
    let accepted = std::sync::atomic::AtomicU64::new(0);
    let server = crate::support::recorder::Recorder::start(move |request| {
        let rejected = String::from_utf8_lossy(&request.body).contains("+919876543211");
        match rejected {
            true => (400, r#"{"code":"E13001","message":"x","data":[],"error":{"to":"invalid number"}}"#.to_owned()),
            false => {
                let id = accepted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                (200, format!(r#"{{"id":"r{id}","data":[{{"message_id":"r{id}:0"}}],"error":{{}}}}"#))
            }
        }
    });
    let mut project = Project::new();
    project.base_url = server.url();
    project.campaign(&[]);
    project.apply(&[]).expect(5);
    let without = project.plan_json()["hash"].as_str().unwrap().to_owned();
    let output = project.run(&["apply", "campaign.yaml", "--plan-hash", &without, "--retry-rejected"]).expect(9);
    assert!(output.stderr.contains("the approved plan was made without `--retry-rejected`"), "{}", output.stderr);
    project.run(&["plan", "campaign.yaml", "--retry-rejected", "--out", "plan.json"]).expect(0);
    let plan: Value = serde_json::from_slice(&std::fs::read(project.path().join("plan.json")).unwrap()).unwrap();
    let with = plan["hash"].as_str().unwrap();
    let output = project.run(&["apply", "campaign.yaml", "--plan-hash", with]).expect(9);
    assert!(output.stderr.contains("the approved plan was made with `--retry-rejected`"), "{}", output.stderr);
    assert_eq!(server.count(), 3);
    // The file says so itself, so nobody has to repeat it.
    project.run(&["apply", "--plan", "plan.json"]).expect(5);
    assert_eq!(server.count(), 4);
}

#[test]
fn a_plan_for_the_sandbox_is_no_approval_of_a_real_run() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    let plan = project.run(&["plan", "campaign.yaml", "--sandbox", "--format", "json"]).expect(0).json();
    let hash = plan["hash"].as_str().unwrap();
    let output = project.run(&["apply", "campaign.yaml", "--plan-hash", hash]).expect(9);
    assert!(output.stderr.contains("the approved plan was made with `--sandbox`"), "{}", output.stderr);
    assert_eq!(sandbox.messages().len(), 0);
}

#[test]
fn an_approval_of_an_older_version_is_refused_with_what_to_do() {
    let project = Project::new();
    let old = format!("v1:{}", "00".repeat(32));
    let output = project.run(&["apply", "campaign.yaml", "--plan-hash", &old]).expect(9);
    assert!(output.stderr.contains("an older version of Sendform"), "{}", output.stderr);
    assert!(output.stderr.contains("run `sendform plan` again"), "{}", output.stderr);
    project.write("plan.json", r#"{ "format_version": "1.0", "hash": "v1:00" }"#);
    let output = project.run(&["apply", "--plan", "plan.json"]).expect(3);
    assert!(
        output.stderr.contains("it has format 1.0") && output.stderr.contains("make a new one"),
        "{}",
        output.stderr
    );
}

#[test]
fn an_approved_run_may_be_slowed_down_and_never_sped_up() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    let hash = project.plan_json()["hash"].as_str().unwrap().to_owned();
    let output = project.run(&["apply", "campaign.yaml", "--plan-hash", &hash, "--rate", "2001/s"]).expect(64);
    assert!(output.stderr.contains("`--rate 2001/s` is faster than the campaign's 2000/s"), "{}", output.stderr);
    let started = std::time::Instant::now();
    project.run(&["apply", "campaign.yaml", "--plan-hash", &hash, "--rate", "4/s"]).expect(0);
    assert!(started.elapsed() >= std::time::Duration::from_millis(450), "{:?}", started.elapsed());
    assert_eq!(sandbox.messages().len(), 3);
}

#[test]
fn the_plan_shows_where_messages_go_and_hides_the_token_of_the_callback() {
    let project = Project::new();
    let campaign = CAMPAIGN
        .replace("base_url: BASE_URL", "domain: in")
        .replace("    from:", "    callback: { url: \"https://hooks.example.com/whatsapp?token=s3cret\" }\n    from:");
    project.write("campaign.yaml", campaign);
    let text = project.run(&["plan", "campaign.yaml", "--out", "plan.json"]).expect(0).stdout;
    for line in [
        "Provider  api.in.kaleyra.io",
        "Account   from KALEYRA_SID",
        "Sender    ending 2233",
        "Callback  https://hooks.example.com/whatsapp\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let file = std::fs::read_to_string(project.path().join("plan.json")).unwrap();
    for secret in ["s3cret", "word", "9900112233"] {
        assert!(!text.contains(secret) && !file.contains(secret), "`{secret}` is in the plan");
    }
    let plan: Value = serde_json::from_str(&file).unwrap();
    assert!(text.contains(&format!("messages {}", &plan["digests"]["messages"].as_str().unwrap()[..8])), "{text}");
    let preview = project.run(&["preview", "campaign.yaml"]).expect(0).stdout;
    assert!(preview.contains("https://hooks.example.com/whatsapp (the rest is hidden)"), "{preview}");
    assert!(!preview.contains("s3cret"), "{preview}");
    let in_sandbox = project.run(&["plan", "campaign.yaml", "--sandbox"]).expect(0).stdout;
    assert!(in_sandbox.contains("Provider  the embedded sandbox"), "{in_sandbox}");
    assert!(!in_sandbox.contains("KALEYRA_SID"), "{in_sandbox}");
}
