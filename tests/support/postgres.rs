//! A PostgreSQL server of the tests' own, from the installed binaries, in a temporary directory.
//!
//! It ends with the process that started it, however that ends: a shell watches over it, and stops
//! it when the other end of its standard input is gone.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Watches over a server: prints `ready`, waits for the end of its input, stops it, tidies up.
const KEEPER: &str = r#"
bin=$1 dir=$2 port=$3 user=$4 settings=$5
drop=()
if [ "$(id -u)" = 0 ]; then
  chown "$user" "$dir"
  drop=(setpriv --reuid="$user" --regid="$user" --clear-groups)
fi
serve() {
  "${drop[@]}" "$bin/postgres" -D "$dir/data" -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
    -c max_connections=200 $settings >>"$dir/server.log" 2>&1 </dev/null &
  pid=$!
  for _ in $(seq 400); do
    "$bin/pg_isready" -q -h 127.0.0.1 -p "$port" -U sendform -d postgres && return
    kill -0 $pid 2>/dev/null || break
    sleep 0.05
  done
  cat "$dir/server.log"
  exit 1
}
[ -e "$dir/data" ] || "${drop[@]}" "$bin/initdb" -D "$dir/data" -U sendform --auth=trust --no-sync -E UTF8 >"$dir/initdb.log" 2>&1 ||
  { cat "$dir/initdb.log"; exit 1; }
serve
echo ready
while read -r line; do
  case $line in
    kill) kill -QUIT $pid; wait $pid; echo killed ;;
    start) serve; echo started ;;
  esac
done
kill -QUIT $pid 2>/dev/null
wait $pid
rm -rf "$dir"
"#;

/// A server.
pub struct Postgres {
    keeper: Child,
    answers: BufReader<std::process::ChildStdout>,
    pub port: u16,
}

/// Where the installed server's programs are.
fn programs() -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(
        std::env::split_paths(&on_path).filter(|bin| bin.join("initdb").exists() && bin.join("postgres").exists()),
    );
    found.sort();
    found.into_iter().next().expect("no PostgreSQL server is installed; `tests/run` installs it")
}

/// A port that nothing listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Postgres {
    /// Starts a server with more settings, such as `-c ssl=on`.
    pub fn start(settings: &str) -> Self {
        let directory = tempfile::tempdir().unwrap().keep();
        Self::start_in(directory, settings)
    }

    pub fn start_in(directory: PathBuf, settings: &str) -> Self {
        let port = free_port();
        let mut keeper = Command::new("bash")
            .args(["-c", KEEPER, "keeper"])
            .arg(programs())
            .arg(&directory)
            .arg(port.to_string())
            .args(["postgres", settings])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut answers = BufReader::new(keeper.stdout.take().unwrap());
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready", "the server does not start");
        Self { keeper, answers, port }
    }

    /// A standby that follows this server asynchronously, for as long as the process lives.
    pub fn standby(&self, directory: &std::path::Path) -> Child {
        Command::new(programs().join("pg_receivewal"))
            .args(["-h", "127.0.0.1", "-U", "sendform", "-p", &self.port.to_string(), "-D"])
            .arg(directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn tell(&mut self, what: &str, answer: &str) {
        use std::io::Write;
        writeln!(self.keeper.stdin.as_mut().unwrap(), "{what}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), answer);
    }

    /// Ends the server at once, as a crash would.
    pub fn kill(&mut self) {
        self.tell("kill", "killed");
    }

    /// Starts it again.
    pub fn restart(&mut self) {
        self.tell("start", "started");
    }

    /// A new, empty database: its URL.
    pub fn database(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("ledger_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst));
        self.query("postgres", &format!("CREATE DATABASE {name}"));
        format!("postgres://sendform@127.0.0.1:{}/{name}", self.port)
    }

    /// What a query answers, as text.
    pub fn query(&self, database: &str, sql: &str) -> String {
        let output = Command::new(programs().join("psql"))
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "sendform"])
            .args(["-p", &self.port.to_string(), "-d", database, "-c", sql])
            .output()
            .unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// The server that tests share which neither stop it nor set it up.
pub fn shared() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| Postgres::start(""))
}
