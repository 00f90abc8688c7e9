//! The stand-in provider.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::Duration;

use crate::support::{Project, Sandbox, output};

#[test]
fn it_lists_what_it_accepted_and_shows_it() {
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.apply(&[]).expect(0);
    let message = &sandbox.messages()[0];
    for field in ["message_id", "to", "ref", "template_name", "coupon_code", "expiration_time_ms", "received_at"] {
        assert!(!message[field].is_null(), "{field}");
    }
    let page = sandbox.get("/");
    assert!(page.contains("Sendform sandbox") && page.contains("/sandbox/messages"));
}

#[test]
fn it_reports_to_a_callback_on_loopback() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let callback = format!("http://{}/status", listener.local_addr().unwrap());
    let receiving = std::thread::spawn(move || {
        let mut lines = Vec::new();
        while lines.len() < 3 {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            lines.push(line);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
        }
        lines
    });
    let sandbox = Sandbox::start(&[]);
    let project = Project::with_sandbox(&sandbox);
    project.people("mobile,first_name\n9876543210,Asha\n");
    project.campaign(&[(
        "    from: \"+919900112233\"",
        &format!("    from: \"+919900112233\"\n    callback: {{ url: \"{callback}\" }}"),
    )]);
    project.apply(&[]).expect(0);
    let lines = receiving.join().unwrap();
    for (line, status) in lines.iter().zip(["sent", "delivered", "read"]) {
        assert!(line.starts_with("GET /status?id=") && line.contains(&format!("status={status}")), "{line}");
    }
}

#[test]
fn it_listens_on_loopback_only_and_explains_its_faults() {
    let project = Project::new();
    output(&mut project.command(&["sandbox", "--listen", "0.0.0.0:0"])).expect(1);
    let wrong = output(&mut project.command(&["sandbox", "--fault", "nothing=1"])).expect(64);
    assert!(wrong.stderr.contains("reset-before, reset-after, 429, 500-before, 500-after, garbled"));
    output(&mut project.command(&["sandbox", "--fault", "429=0.9", "--fault", "garbled=0.9"])).expect(64);
}

#[test]
fn a_trial_never_touches_the_real_ledger() {
    let project = Project::new();
    project.apply(&["--sandbox"]).expect(0);
    assert!(!project.path().join(".sendform/ledger.db").exists());
    assert_eq!(project.plan_json()["counts"]["send"], 3);
    let page = std::fs::read_to_string(project.path().join(".sendform/sandbox/inbox.html")).unwrap();
    assert!(page.contains("HELLO25"));
}
