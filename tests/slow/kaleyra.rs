//! The v1 API on the wire, held against what `curl` sends for the vendor's own example.

use std::process::Command;

use crate::support::recorder::{Recorded, Recorder, header};
use crate::support::{Project, Sandbox};

/// The parts of a multipart body, each as its bytes on the wire, by name.
fn parts(recorded: &Recorded) -> Vec<(String, Vec<u8>)> {
    let content_type = header(&recorded.head, "content-type").unwrap();
    assert!(content_type.starts_with("multipart/form-data; boundary="), "{content_type}");
    let boundary = format!("--{}", content_type.split("boundary=").nth(1).unwrap());
    let body = &recorded.body;
    let starts: Vec<usize> = body
        .windows(boundary.len())
        .enumerate()
        .filter(|(_, window)| *window == boundary.as_bytes())
        .map(|(at, _)| at)
        .collect();
    assert_eq!(&body[starts[starts.len() - 1]..], format!("{boundary}--\r\n").as_bytes());
    starts
        .windows(2)
        .map(|pair| {
            let part = &body[pair[0] + boundary.len() + 2..pair[1] - 2];
            let text = String::from_utf8_lossy(part);
            let name = text.split("name=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
            (name, part.to_vec())
        })
        .collect()
}

/// The value of a text part as JSON.
fn json_of(part: &[u8]) -> serde_json::Value {
    let text = String::from_utf8(part.to_vec()).unwrap();
    serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// The vendor's second command, as printed, with host, SID, key and media path to be put in.
const PAGE_COMMAND: &str = r#"curl --location 'https://api.kaleyra.io/v1/HXIN1784509XXXXX/messages' \
--header 'api-key: Abf2e77c4d1cfa6854a7423a68e7XXXXX' \
--form 'to="1202XXXXXXX"' \
--form 'type="mediatemplate"' \
--form 'template_name="lto_true_vid_dyan_test"' \
--form 'channel="whatsapp"' \
--form 'from="1202XXXXXXX"' \
--form 'coupon_code="\"happy76\""' \
--form 'limited_time_offer="[
{
\"type\": \"limited_time_offer\",
\"limited_time_offer\": {
\"expiration_time_ms\":1209600000}
}
]"' \
--form 'media=@"/path/to/file"' \
--form 'callback_profile_id="IN_XXXXXXXX-046b-4565-892c-XXXXXXXXXXXX"' \
--form 'param_url="login"' \
--form 'media_url="https://d38vr2u95vsr9f.cloudfront.net/docs/1684759885mp4_file.mp4"'"#;

fn page_command(url: &str, media: &std::path::Path) -> String {
    PAGE_COMMAND
        .replace("https://api.kaleyra.io", url)
        .replace("HXIN1784509XXXXX", "HXSANDBOX")
        .replace("Abf2e77c4d1cfa6854a7423a68e7XXXXX", "sandbox-key")
        .replace("/path/to/file", media.to_str().unwrap())
}

fn shell(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn mp4() -> Vec<u8> {
    let mut content = b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom".to_vec();
    content.extend((0..5_000_u32).map(|byte| (byte % 251) as u8));
    content
}

const HEADER: &str = "header: { image: { url: \"https://cdn.example.com/offer.png\" } }";

#[test]
fn the_bytes_on_the_wire_are_those_of_curl() {
    let server = Recorder::accepting();
    let mut project = Project::new();
    let media = project.write("offer.mp4", mp4());
    project.base_url = server.url();
    project.people("mobile\n+12025550142\n");
    // Media by URL as in the page, then by file.
    for (header_of, keep) in [
        (
            "header: { video: { url: \"https://d38vr2u95vsr9f.cloudfront.net/docs/1684759885mp4_file.mp4\" } }",
            "media_url",
        ),
        ("header: { video: { file: offer.mp4 } }", "media"),
    ] {
        let before = server.count();
        let command = page_command(&server.url(), &media)
            .replace("from=\"1202XXXXXXX\"", "from=\"+12025550100\"")
            .replace("1202XXXXXXX", "+12025550142");
        shell(&command);
        project.campaign(&[
            (HEADER, header_of),
            ("name: test-offer", &format!("name: with-{}", keep.replace('_', "-"))),
            ("name: test_offer\n    language: en", "name: lto_true_vid_dyan_test"),
            ("\"+919900112233\"", "\"+12025550100\"\n    send_ref: false\n    callback: { profile_id: IN_XXXXXXXX-046b-4565-892c-XXXXXXXXXXXX }"),
            ("      text: \"Hi {{1}}.\"\n      params: [\"{{ recipient.first_name | default('there') }}\"]", "      text: Hi."),
            ("url: \"https://shop.example.com/offer\"", "url: \"https://shop.example.com/{{1}}\", param: login"),
            ("HELLO25", "happy76"),
        ]);
        project.apply(&[]).expect(0);
        let requests = server.requests();
        assert_eq!(requests.len(), before + 2);
        let (curl, ours) = (&requests[before], &requests[before + 1]);
        assert_eq!(curl.head.lines().next(), ours.head.lines().next());
        assert_eq!(header(&curl.head, "api-key"), header(&ours.head, "api-key"));
        // The page gives both kinds of media and says that the URL wins; we send the one that is meant.
        let theirs: Vec<_> =
            parts(curl).into_iter().filter(|(name, _)| !name.starts_with("media") || name == keep).collect();
        let ours = parts(ours);
        let names = |parts: &[(String, Vec<u8>)]| parts.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&theirs), names(&ours));
        for ((name, theirs), (_, ours)) in theirs.iter().zip(&ours) {
            if name == "limited_time_offer" {
                // White space and the instant differ: the page's own example lies in 1970.
                let (mut theirs, ours) = (json_of(theirs), json_of(ours));
                assert!(ours[0]["limited_time_offer"]["expiration_time_ms"].as_i64().unwrap() > 4_000_000_000_000);
                theirs[0]["limited_time_offer"]["expiration_time_ms"] =
                    ours[0]["limited_time_offer"]["expiration_time_ms"].clone();
                assert_eq!(theirs, ours);
            } else if name == "media" {
                // `curl` does not know the type of this file by its name; we say what it is.
                let ours = String::from_utf8_lossy(ours).replace("video/mp4", "application/octet-stream");
                assert!(String::from_utf8_lossy(theirs) == ours, "the media differs");
            } else {
                assert_eq!(String::from_utf8_lossy(theirs), String::from_utf8_lossy(ours), "{name}");
            }
        }
    }
}

#[test]
fn the_vendors_own_command_works_against_the_sandbox() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::new();
    let media = project.write("offer.mp4", mp4());
    let answer: serde_json::Value = serde_json::from_str(&shell(&page_command(&sandbox.url, &media))).unwrap();
    assert_eq!(answer["totalCount"], 1);
    assert_eq!(answer["error"], serde_json::json!({}));
    assert!(answer["data"][0]["message_id"].as_str().unwrap().ends_with(":0"));
    let message = &sandbox.messages()[0];
    assert_eq!(message["to"], "1202XXXXXXX");
    assert_eq!(message["coupon_code"], "happy76");
    assert_eq!(message["expiration_time_ms"], 1_209_600_000);
    assert_eq!(message["expiry_ambiguous"], true);
    assert_eq!(message["param_url"], "login");
    assert_eq!(message["media"]["bytes"], mp4().len());
}

#[test]
fn the_sandbox_refuses_what_kaleyra_refuses() {
    let sandbox = Sandbox::start(&[]);
    let media = Project::new().write("offer.mp4", mp4());
    let good = page_command(&sandbox.url, &media).replace("--form 'media=@\"", "--form 'unused=\"");
    let cases = [
        ("sandbox-key", "other-key", "RBC201", "error"),
        ("HXSANDBOX", "HXOTHER", "RBC201", "error"),
        ("to=\"1202XXXXXXX\"", "x=\"\"", "E13001", "to"),
        ("to=\"1202XXXXXXX\"", "to=\"12ab\"", "E13001", "to"),
        ("template_name=", "x=", "E13001", "template_name"),
        ("coupon_code=\"\\\"happy76\\\"\"", "coupon_code=\"happy76\"", "E13001", "coupon_code"),
        ("happy76", "ABCDEFGHIJKLMNOP", "E13001", "coupon_code"),
        ("1209600000}", "1209600000", "E13001", "limited_time_offer"),
        ("1209600000", "1700000000000", "E13001", "limited_time_offer"),
        ("mediatemplate", "template", "E13001", "type"),
    ];
    for (old, new, code, field) in cases {
        assert!(good.contains(old), "{old}");
        let answer: serde_json::Value = serde_json::from_str(&shell(&good.replace(old, new))).unwrap();
        assert_eq!(answer["code"], code, "{new}: {answer}");
        assert!(answer["error"][field].is_string(), "{new}: {answer}");
        assert_eq!(answer["data"], serde_json::json!([]));
    }
    assert!(sandbox.messages().is_empty());
    shell(&good);
    assert_eq!(sandbox.messages().len(), 1);
}
