//! A project in a temporary directory, the program in an empty environment, and a sandbox process.

// Each of the two test binaries uses a part of this.
#![allow(dead_code)]

pub mod hostile;
pub mod postgres;
pub mod recorder;
pub mod snapshot;
pub mod wire;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// A kind of ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

/// A directory with a campaign.
pub struct Project {
    directory: TempDir,
    pub base_url: String,
    /// What else stands in the environment of each command.
    pub environment: Vec<(&'static str, String)>,
    /// The ledgers that were made for it already; `None` if a test makes its own.
    made: Option<RefCell<HashSet<String>>>,
}

impl Project {
    /// An empty one.
    pub fn empty() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            base_url: "http://127.0.0.1:9".to_owned(),
            environment: Vec::new(),
            made: Some(RefCell::default()),
        }
    }

    /// From now on no ledger is made for it: `apply` says that there is none.
    pub fn without_ledger(mut self) -> Self {
        self.made = None;
        self
    }

    /// Makes the ledger that a first real `apply` needs, once. Where it cannot be made, `apply` tells why.
    fn make_ledger(&self, arguments: &[&str]) {
        let real = arguments.first() == Some(&"apply")
            && !arguments.iter().any(|argument| ["--sandbox", "--new-ledger", "--ledger"].contains(argument));
        let Some(made) = self.made.as_ref().filter(|_| real) else { return };
        let named = self.environment.iter().find(|(name, _)| *name == "SENDFORM_LEDGER");
        if made.borrow_mut().insert(named.map(|(_, url)| url.clone()).unwrap_or_default()) {
            let _ = self.bare(&["ledger", "create"]).output();
        }
    }

    /// One with a valid campaign for three people.
    pub fn new() -> Self {
        let project = Self::empty();
        project.people("mobile,first_name\n9876543210,Asha\n9876543211,Ravi\n9876543212,Meera\n");
        project.campaign(&[]);
        project
    }

    /// The same, sending to a running sandbox.
    pub fn with_sandbox(sandbox: &Sandbox) -> Self {
        let mut project = Self::new();
        project.base_url = sandbox.url.clone();
        project.campaign(&[]);
        project
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Records in a database instead of a file.
    pub fn on_postgres(&mut self, url: &str) {
        self.environment = vec![("SENDFORM_LEDGER", url.to_owned()), ("SENDFORM_KEY", "5a".repeat(32))];
    }

    /// People with these numbers.
    pub fn numbered(&self, numbers: std::ops::Range<u64>) {
        let rows: String = numbers.map(|number| format!("98{number:08},Person {number}\n")).collect();
        self.people(&format!("mobile,first_name\n{rows}"));
    }

    /// So many people, with a code of a pool for each.
    pub fn crowd(&self, people: u64, replacements: &[(&str, &str)]) {
        self.numbered(0..people);
        let codes: String = (0..people).map(|row| format!("CODE{row}\n")).collect();
        self.write("codes.csv", format!("code\n{codes}"));
        let pool = ("coupons: { code: HELLO25 }", "coupons: { pool: { csv: codes.csv } }");
        self.campaign(&[&[pool], replacements].concat());
    }

    /// `apply`, under way.
    pub fn start(&self, more: &[&str]) -> Child {
        self.command(&[&["apply", "campaign.yaml", "--auto-approve"], more].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub fn people(&self, csv: &str) {
        self.write("people.csv", csv);
    }

    /// Writes `campaign.yaml`: the valid one, with some texts replaced. Each must be there.
    #[track_caller]
    pub fn campaign(&self, replacements: &[(&str, &str)]) {
        let mut text = CAMPAIGN.replace("BASE_URL", &self.base_url);
        for (old, new) in replacements {
            assert!(text.contains(old), "the campaign has no `{old}`");
            text = text.replace(old, new);
        }
        self.write("campaign.yaml", text);
    }

    /// The program, ready to run, in an environment that holds nothing of the machine's.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.make_ledger(arguments);
        self.bare(arguments)
    }

    fn bare(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sendform"));
        command
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("COLUMNS", "100")
            .env("NO_COLOR", "1")
            .env("KALEYRA_SID", "HXSANDBOX")
            .env("KALEYRA_API_KEY", "sandbox-key")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        output(&mut self.command(arguments))
    }

    /// `apply campaign.yaml --auto-approve` and more.
    pub fn apply(&self, more: &[&str]) -> Output {
        self.run(&[&["apply", "campaign.yaml", "--auto-approve"], more].concat())
    }

    pub fn plan_json(&self) -> Value {
        self.run(&["plan", "campaign.yaml", "--format", "json"]).expect(0).json()
    }

    /// The counts of `status`.
    pub fn counts(&self) -> Counts {
        let status = self.run(&["status", "campaign.yaml", "--format", "json"]).expect(0).json();
        let count = |name: &str| status["counts"][name].as_u64().unwrap();
        Counts {
            accepted: count("accepted"),
            rejected: count("rejected"),
            unknown: count("unknown"),
            pending: count("pending"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub accepted: u64,
    pub rejected: u64,
    pub unknown: u64,
    pub pending: u64,
}

impl Counts {
    pub fn total(self) -> u64 {
        self.accepted + self.rejected + self.unknown + self.pending
    }
}

pub fn output(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// `sendform sandbox` in a process of its own.
pub struct Sandbox {
    child: Child,
    pub url: String,
}

impl Sandbox {
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sendform"))
            .arg("sandbox")
            .args(arguments)
            .env_clear()
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, url: line.trim().to_owned() }
    }

    pub fn host(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    pub fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.host()).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.host()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// What it accepted.
    pub fn messages(&self) -> Vec<Value> {
        serde_json::from_str(&self.get("/sandbox/messages")).unwrap()
    }

    /// A field of everything that it accepted, sorted.
    pub fn accepted(&self, field: &str) -> Vec<String> {
        let mut values: Vec<String> =
            self.messages().iter().map(|message| message[field].as_str().unwrap_or_default().to_owned()).collect();
        values.sort();
        values
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A valid campaign.
pub const CAMPAIGN: &str = r#"apiVersion: sendform/v1
kind: Campaign
name: test-offer
gateway:
  kaleyra:
    base_url: BASE_URL
    sid: { env: KALEYRA_SID }
    api_key: { env: KALEYRA_API_KEY }
    from: "+919900112233"
templates:
  en:
    name: test_offer
    language: en
    header: { image: { url: "https://cdn.example.com/offer.png" } }
    offer: { text: Ends soon!, has_expiration: true }
    body:
      text: "Hi {{1}}."
      params: ["{{ recipient.first_name | default('there') }}"]
    url_button: { label: Shop now, url: "https://shop.example.com/offer" }
audience:
  sources: [{ csv: people.csv }]
  phone: mobile
  default_region: IN
coupons: { code: HELLO25 }
expiry: { at: "2099-12-31T23:59:59", timezone: Asia/Kolkata }
delivery: { rate: 2000/s, concurrency: 20 }
"#;

/// Makes a named pipe.
pub fn pipe(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// Sends a signal to a process.
pub fn signal(child: &Child, signal: i32) {
    // SAFETY: a plain system call, on a process that this test has started and not yet waited for.
    assert_eq!(unsafe { libc::kill(child.id().cast_signed(), signal) }, 0);
}

/// Waits for a process, and for no longer than a minute.
#[track_caller]
pub fn wait(mut child: Child) -> Output {
    let stderr = child.stderr.take();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        if let Some(mut stderr) = stderr {
            stderr.read_to_string(&mut text).unwrap();
        }
        text
    });
    for _ in 0..6_000 {
        if let Some(status) = child.try_wait().unwrap() {
            return Output { code: status.code().unwrap_or(-1), stdout: String::new(), stderr: reader.join().unwrap() };
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let _ = child.kill();
    panic!("it does not end: {}", reader.join().unwrap());
}

/// Waits until something holds, and for no longer than half a minute.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("in vain: {what}");
}

/// Holds that the provider got nothing twice.
#[track_caller]
pub fn nothing_twice(sandbox: &Sandbox) -> u64 {
    let messages = sandbox.messages();
    for field in ["to", "ref", "coupon_code"] {
        let different: std::collections::HashSet<_> =
            messages.iter().map(|message| message[field].as_str().unwrap()).collect();
        assert_eq!(different.len(), messages.len(), "`{field}` was accepted twice");
    }
    messages.len() as u64
}

/// How many messages each recipient got.
pub fn per_recipient(sandbox: &Sandbox) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for to in sandbox.accepted("to") {
        *counts.entry(to).or_default() += 1;
    }
    counts
}

/// Holds that these many people got one message each.
#[track_caller]
pub fn once_each(sandbox: &Sandbox, people: usize) {
    let counts = per_recipient(sandbox);
    assert_eq!(
        (counts.len(), counts.values().max().copied().unwrap_or(0)),
        (people, usize::from(people > 0)),
        "{counts:?}"
    );
}

/// Kills a run in which each answer takes some time, after these many messages.
pub fn kill_after(project: &Project, sandbox: &Sandbox, messages: usize) {
    let mut child: Child = project.start(&[]);
    until("some are sent", || sandbox.messages().len() >= messages);
    signal(&child, libc::SIGKILL);
    child.wait().unwrap();
}

/// A campaign for three people in the directory `b`, with an empty directory `a` beside it.
pub fn two_directories(sandbox: &Sandbox) -> Project {
    let project = Project::with_sandbox(sandbox).without_ledger();
    std::fs::create_dir(project.path().join("a")).unwrap();
    std::fs::create_dir(project.path().join("b")).unwrap();
    for file in ["campaign.yaml", "people.csv"] {
        std::fs::rename(project.path().join(file), project.path().join("b").join(file)).unwrap();
    }
    project
}

/// `apply PATH --auto-approve` and more, in a directory of the project.
pub fn apply_in(project: &Project, directory: &str, path: &str, more: &[&str]) -> Output {
    let arguments = [&["apply", path, "--auto-approve"], more].concat();
    output(project.command(&arguments).current_dir(project.path().join(directory)))
}

/// Copies a directory with everything in it.
pub fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
