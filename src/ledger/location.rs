//! Where a ledger is: reads ledger URLs, and opens a ledger by its location.
//!
//! A URL may hold a password. Only this module reads ledger URLs, and no text that it makes for people holds
//! any part of a password: neither the display form, nor an error about a URL that cannot be read.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::contract::Ledger;
use super::error::LedgerError;
use super::key::LedgerKey;
use super::postgres::PostgresLedger;
use super::record::Operator;
use super::sqlite::{self, SqliteLedger};

/// The forms of a ledger URL, for hints.
pub const FORMS: &str = "`sqlite:PATH` or `postgres://USER@HOST/DATABASE`";

/// Parameters that a database URL may have, besides `sslmode` and `sslrootcert`, which this program reads
/// itself. The database driver reads these.
const PARAMETERS: [&str; 15] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "host",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "options",
    "password",
    "port",
    "target_session_attrs",
    "user",
];

/// Where a ledger is.
#[derive(Clone, PartialEq, Eq)]
pub enum LedgerLocation {
    /// A file. Its links are followed: see [`canonical_file`].
    File(PathBuf),
    /// A database.
    Database(DatabaseUrl),
}

/// The URL of a database. Its display form shows hosts, ports and database name, and nothing else.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    text: String,
    place: String,
    has_password: bool,
}

/// Why a text does not name a ledger. Contains nothing of the text, because it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LocationError(String);

fn wrong(problem: impl Into<String>) -> LocationError {
    LocationError(problem.into())
}

fn boxed(ledger: impl Ledger + 'static) -> Box<dyn Ledger> {
    Box::new(ledger)
}

impl LedgerLocation {
    /// Reads `sqlite:PATH`, relative to `root`, or `postgres://…`.
    pub fn parse(text: &str, root: &Path) -> Result<Self, LocationError> {
        let text = text.trim();
        if let Some(path) = text.strip_prefix("sqlite:") {
            return file(path.strip_prefix("//").unwrap_or(path), root).map(LedgerLocation::File);
        }
        if is_database(text) {
            return DatabaseUrl::parse(text).map(LedgerLocation::Database);
        }
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        Err(match scheme {
            Some(scheme) if scheme.len() <= 12 && scheme.bytes().all(|byte| byte.is_ascii_lowercase()) => {
                wrong(format!("`{scheme}://…` is not a ledger; write {FORMS}"))
            }
            // It may be a connection string with a password, so nothing of it is shown.
            _ if text.contains('=') => wrong(format!(
                "the ledger is given in a form that is not supported, perhaps as a list of `key=value`; write {FORMS}"
            )),
            _ => wrong(format!("the ledger is given in a form that is not supported; write {FORMS}")),
        })
    }

    /// Whether several appliers on several machines may share it.
    pub fn is_shared(&self) -> bool {
        matches!(self, LedgerLocation::Database(_))
    }

    /// The file, if the ledger is on a disk of this machine.
    pub fn local_file(&self) -> Option<&Path> {
        match self {
            LedgerLocation::File(path) => Some(path),
            LedgerLocation::Database(_) => None,
        }
    }

    /// The directory for files that belong to the ledger: its own if it is a file, else the current one.
    pub fn directory(&self) -> PathBuf {
        self.local_file().map_or_else(|| PathBuf::from("."), |path| parent(path).to_owned())
    }

    /// The same location, with a file's path relative to `directory` if it lies below it.
    pub fn relative_to(self, directory: &Path) -> Self {
        match self {
            LedgerLocation::File(path) => {
                LedgerLocation::File(path.strip_prefix(directory).map(Path::to_owned).unwrap_or(path))
            }
            database => database,
        }
    }

    /// The display form, with a file's path made absolute from `directory`.
    pub fn shown_from(&self, directory: &Path) -> String {
        match self {
            LedgerLocation::File(path) => directory.join(path).display().to_string(),
            LedgerLocation::Database(url) => url.to_string(),
        }
    }

    /// A URL without credentials, with a file's path made absolute. For records and messages.
    pub fn url(&self) -> String {
        match self {
            LedgerLocation::File(path) => {
                format!("sqlite:{}", std::path::absolute(path).unwrap_or_else(|_| path.clone()).display())
            }
            LedgerLocation::Database(url) => url.to_string(),
        }
    }

    /// Whether a password is part of the location. Such a URL must not be written into a file that is
    /// checked in.
    pub fn has_password(&self) -> bool {
        matches!(self, LedgerLocation::Database(url) if url.has_password())
    }

    /// Whether the ledger exists.
    pub async fn exists(&self, operator: &Operator) -> Result<bool, LedgerError> {
        match self {
            LedgerLocation::File(path) => exists(path),
            LedgerLocation::Database(_) => Ok(self.open(operator, None).await?.is_some()),
        }
    }

    /// Opens the ledger for reading and for evidence, without taking its lease. `None` if there is none.
    pub async fn open(
        &self,
        operator: &Operator,
        key: Option<&LedgerKey>,
    ) -> Result<Option<Box<dyn Ledger>>, LedgerError> {
        Ok(match self {
            LedgerLocation::File(path) => SqliteLedger::open_existing(path, operator, key)?.map(boxed),
            LedgerLocation::Database(url) => {
                PostgresLedger::open_existing(url.expose(), operator, key).await?.map(boxed)
            }
        })
    }

    /// Opens the ledger for a run: takes the lease where there is one. Never creates a ledger.
    pub async fn open_for_run(&self, operator: &Operator, key: &LedgerKey) -> Result<Box<dyn Ledger>, LedgerError> {
        let found = match self {
            LedgerLocation::File(path) => SqliteLedger::open_leased(path, operator, key)?.map(boxed),
            LedgerLocation::Database(url) => {
                PostgresLedger::open_existing(url.expose(), operator, Some(key)).await?.map(boxed)
            }
        };
        found.ok_or_else(|| LedgerError::no_ledger(self.to_string()))
    }

    /// Creates the ledger, unless there is one.
    pub async fn create(&self, operator: &Operator, key: &LedgerKey) -> Result<(), LedgerError> {
        match self {
            LedgerLocation::File(path) => SqliteLedger::open_or_create(path, operator, key).map(drop),
            LedgerLocation::Database(url) => {
                PostgresLedger::open_or_create(url.expose(), operator, key).await.map(drop)
            }
        }
    }

    /// Refuses a ledger that another process holds, without opening it. Where runs share the ledger,
    /// [`Ledger::check_can_begin`] decides.
    pub fn check_not_held(&self) -> Result<(), LedgerError> {
        match self.local_file().and_then(sqlite::lease_holder) {
            Some(holder) => Err(LedgerError::Held { holder }),
            None => Ok(()),
        }
    }

    /// The ledger's key: `given`, or the one that is kept beside the ledger; nothing if there is neither.
    pub fn existing_key(&self, given: Option<&str>) -> Result<Option<LedgerKey>, LedgerError> {
        match (given, self.key_file()) {
            (Some(given), _) => LedgerKey::parse(given).map(Some),
            (None, Some(path)) => LedgerKey::in_file(&path),
            (None, None) => Ok(None),
        }
    }

    /// The ledger's key: `given`, or the one that is kept beside the ledger. If there is neither a key nor a
    /// ledger, creates a key, unless the ledger is shared: all its appliers must be given the same key.
    pub fn key(&self, given: Option<&str>) -> Result<LedgerKey, LedgerError> {
        match (self, given) {
            (_, Some(given)) => LedgerKey::parse(given),
            (LedgerLocation::File(path), None) => LedgerKey::of(path, None),
            (LedgerLocation::Database(_), None) => Err(LedgerError::KeyNotGiven),
        }
    }

    /// The file that the ledger's key is kept in if it is not given; nothing if it must be given.
    pub fn key_file(&self) -> Option<PathBuf> {
        self.local_file().map(LedgerKey::path)
    }

    /// Keeps the key beside the ledger, if that is where its key belongs.
    pub fn keep_key(&self, key: &LedgerKey) -> Result<(), LedgerError> {
        match self {
            LedgerLocation::File(path) => key.clone().keep_beside(path),
            LedgerLocation::Database(_) => Err(LedgerError::KeyNotGiven),
        }
    }

    /// Writes a copy of the ledger to a file that must not exist, and its key beside it if one is given.
    pub fn backup(&self, operator: &Operator, target: &Path, key: Option<&LedgerKey>) -> Result<(), LedgerError> {
        let hint = "back it up with the database's own tools, such as `pg_dump --schema=sendform`";
        sqlite::backup(self.file_or("backed up to a file", hint)?, operator, target, key)
    }

    /// Compares a backup with the ledger, before [`Restore::finish`](sqlite::Restore::finish) puts it in the
    /// ledger's place. Changes nothing.
    pub fn prepare_restore(
        &self,
        operator: &Operator,
        backup: &Path,
        key: &LedgerKey,
    ) -> Result<sqlite::Restore, LedgerError> {
        sqlite::Restore::prepare(self.restorable()?, operator, backup, key)
    }

    /// The file that a backup can be restored to.
    pub fn restorable(&self) -> Result<&Path, LedgerError> {
        let hint = "restore it with the database's own tools, and give `apply` the last head that was printed with `--ledger-head`";
        self.file_or("restored from a file", hint)
    }

    /// Makes a copied file the ledger. Databases need nothing of the kind.
    pub fn adopt(&self, operator: &Operator) -> Result<(), LedgerError> {
        self.local_file().map_or(Ok(()), |path| sqlite::adopt(path, operator))
    }

    /// Adopts a ledger if it is a copy: for the ledger of a sandbox, which holds no real sends.
    pub fn adopt_copy(&self, operator: &Operator) -> Result<(), LedgerError> {
        self.local_file().map_or(Ok(()), |path| sqlite::adopt_copy(path, operator))
    }

    fn file_or(&self, action: &str, hint: &'static str) -> Result<&Path, LedgerError> {
        self.local_file().ok_or_else(|| LedgerError::Unsupported {
            problem: format!("the ledger `{self}` is a database and cannot be {action}"),
            hint,
        })
    }
}

impl fmt::Display for LedgerLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LedgerLocation::File(path) => write!(f, "{}", path.display()),
            LedgerLocation::Database(url) => fmt::Display::fmt(url, f),
        }
    }
}

impl fmt::Debug for LedgerLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether a text is meant as the URL of a database.
pub fn is_database(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

impl DatabaseUrl {
    /// Reads `postgres://USER:PASSWORD@HOST:PORT/DATABASE?PARAMETERS`.
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        let text = text.trim();
        let rest = text.split_once("://").map(|(_, rest)| rest).filter(|_| is_database(text));
        let rest = rest.ok_or_else(|| wrong(format!("the text is not the URL of a database; write {FORMS}")))?;
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        // A password with one of these characters would end in the host, the path or a parameter, and
        // from there on a screen.
        if authority.matches('@').count() > 1 || tail.contains(['@', '#']) || text.contains(char::is_whitespace) {
            return Err(wrong(
                "the ledger's URL is wrong: write `@` as `%40`, `/` as `%2F`, `?` as `%3F`, `#` as `%23` and a space as `%20` in its user name, password and parameters",
            ));
        }
        let mut plain = Vec::new();
        for pair in tail.split_once('?').map_or("", |(_, query)| query).split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode" | "sslrootcert", _)) => {}
                Some(("hostaddr", _)) => {
                    return Err(wrong(
                        "the ledger's URL is wrong: `hostaddr` is not supported, because the host's name decides about certificate and encryption; give the host alone",
                    ));
                }
                Some((name, _)) if PARAMETERS.contains(&name) => plain.push(pair),
                _ => {
                    return Err(wrong(format!(
                        "the ledger's URL is wrong: it has an unknown parameter; the known ones are `sslmode`, `sslrootcert`, `{}`",
                        PARAMETERS.join("`, `")
                    )));
                }
            }
        }
        let base = text.split('?').next().unwrap_or(text);
        // The driver's error may quote the URL, so it is not shown.
        let config: Config = with_query(base, &plain).parse().map_err(|_| {
            wrong("the ledger's URL is wrong: its host, its port, or the value of a parameter cannot be read")
        })?;
        if config.get_hosts().is_empty() {
            return Err(wrong("the ledger's URL is wrong: it names no host"));
        }
        let place = place(&config);
        Ok(Self { text: text.to_owned(), place, has_password: config.get_password().is_some() })
    }

    /// The whole URL with its password, for the database driver alone.
    pub(crate) fn expose(&self) -> &str {
        &self.text
    }

    /// Whether it holds a password. Such a URL must not be written into a file that is checked in.
    pub fn has_password(&self) -> bool {
        self.has_password
    }

    /// The URL with its user name and parameters and without its password, as a user types it.
    pub fn without_password(&self) -> String {
        let (base, query) = self.text.split_once('?').unwrap_or((&self.text, ""));
        let base = match base.split_once('@') {
            Some((before, host)) => {
                let (scheme, user) = before.split_once("://").unwrap_or(("postgres", before));
                format!("{scheme}://{}@{host}", user.split(':').next().unwrap_or_default())
            }
            None => base.to_owned(),
        };
        let kept: Vec<&str> =
            query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("password=")).collect();
        with_query(&base, &kept)
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

/// Splits a URL into the URL without `sslmode` and `sslrootcert`, and the values of these two.
pub(super) fn split_tls(url: &DatabaseUrl) -> (String, Option<&str>, Option<&str>) {
    let (base, query) = url.text.split_once('?').unwrap_or((&url.text, ""));
    let (mut mode, mut root, mut rest) = (None, None, Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sslmode", value)) => mode = Some(value),
            Some(("sslrootcert", value)) => root = Some(value),
            _ => rest.push(pair),
        }
    }
    (with_query(base, &rest), mode, root)
}

fn with_query(base: &str, pairs: &[&str]) -> String {
    if pairs.is_empty() { base.to_owned() } else { format!("{base}?{}", pairs.join("&")) }
}

/// Hosts, ports and database, as a URL.
fn place(config: &Config) -> String {
    let ports = config.get_ports();
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(number, host)| {
            let name = match host {
                Host::Tcp(name) if name.contains(':') => format!("[{name}]"),
                Host::Tcp(name) => name.clone(),
                Host::Unix(path) => path.display().to_string(),
            };
            match ports.get(number).or_else(|| ports.first().filter(|_| ports.len() == 1)) {
                Some(port) => format!("{name}:{port}"),
                None => name,
            }
        })
        .collect();
    let database = config.get_dbname().or(config.get_user()).unwrap_or("postgres");
    format!("postgres://{}/{database}", hosts.join(","))
}

/// Extensions of the files that Sendform keeps beside a ledger.
const RESERVED_EXTENSIONS: [&str; 4] = ["key", "head", "lock", "new"];

fn file(path: &str, root: &Path) -> Result<PathBuf, LocationError> {
    let path = Path::new(path);
    if !matches!(path.components().next_back(), Some(Component::Normal(_))) || path.as_os_str().is_empty() {
        return Err(wrong(
            "the ledger's URL is wrong: `sqlite:` needs the path of a file, such as `sqlite:/var/lib/offers/ledger.db`",
        ));
    }
    if let Some(extension) = path.extension().and_then(|extension| extension.to_str())
        && RESERVED_EXTENSIONS.contains(&extension)
    {
        return Err(wrong(format!(
            "the ledger's URL is wrong: Sendform keeps a file that ends in `.{extension}` beside a ledger; give the ledger's own file, such as `ledger.db`"
        )));
    }
    Ok(canonical_file(&root.join(path)))
}

/// The file that a path leads to, with every symbolic link followed, even if the file does not exist yet.
/// Lock, key and head lie beside that file. If a link cannot be followed, returns the path as it is; opening
/// it then fails with the reason.
pub fn canonical_file(path: &Path) -> PathBuf {
    if let Ok(canonical) = path.canonicalize() {
        return canonical;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if std::fs::symlink_metadata(path).is_err() => canonical_file(parent).join(name),
        _ => path.to_owned(),
    }
}

/// The directory that a path lies in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether a ledger file exists. Only a path without any entry counts as absent: a link to nowhere, or a disk
/// that does not answer, is an error, because a new ledger in its place would know nobody who got an offer.
pub(crate) fn exists(path: &Path) -> Result<bool, LedgerError> {
    let unclear = |error: std::io::Error| LedgerError::io(path, "found", error);
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(unclear(error)),
        Ok(_) => std::fs::metadata(path).map(|_| true).map_err(unclear),
    }
}

/// Hides the password of every URL in a text, and every `password=` value.
pub fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let word = after.find(|character: char| character.is_whitespace() || character == '\'').unwrap_or(after.len());
        // A database's password may hold any character unescaped by mistake; in other addresses an `@`
        // behind the host is part of the path.
        let database = before.ends_with("postgres://") || before.ends_with("postgresql://");
        let bound = if database { word } else { after[..word].find(['/', '?', '#']).unwrap_or(word) };
        match after[..bound].rfind('@') {
            Some(end) => {
                let user = after[..end].split([':', '/', '?', '@']).next().unwrap_or_default();
                out.push_str(user);
                rest = &after[end..];
            }
            None => rest = after,
        }
    }
    out.push_str(rest);
    // `password=` in a query or in a list of `key=value`.
    let mut hidden = String::with_capacity(out.len());
    let mut rest = out.as_str();
    while let Some(at) = rest.find("password=") {
        let (before, after) = rest.split_at(at + "password=".len());
        hidden.push_str(before);
        hidden.push_str("***");
        rest = &after[after.find([' ', '&', '\'']).unwrap_or(after.len())..];
    }
    hidden.push_str(rest);
    hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<LedgerLocation, String> {
        LedgerLocation::parse(text, Path::new("/project")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_location_shows_host_and_database_and_no_credentials() {
        for (url, shown, again) in [
            (
                "postgres://me:secret@db.example.com/offers",
                "postgres://db.example.com:5432/offers",
                "postgres://me@db.example.com/offers",
            ),
            (
                "postgresql://me:s%40cret@db:6432/offers?sslmode=disable",
                "postgres://db:6432/offers",
                "postgresql://me@db:6432/offers?sslmode=disable",
            ),
            (
                "postgres://db/offers?user=me&password=secret",
                "postgres://db:5432/offers",
                "postgres://db/offers?user=me",
            ),
            ("postgres://a,b:7/offers", "postgres://a:5432,b:7/offers", "postgres://a,b:7/offers"),
            (" postgres://me:secret@[::1]/offers\n", "postgres://[::1]:5432/offers", "postgres://me@[::1]/offers"),
        ] {
            let location = parse(url).unwrap();
            assert_eq!(location.to_string(), shown);
            assert_eq!(format!("{location:?}"), shown);
            let LedgerLocation::Database(database) = location else { panic!("{url}") };
            assert_eq!(database.without_password(), again);
            assert_eq!(database.has_password(), url.contains("cret"));
        }
    }

    #[test]
    fn a_url_that_cannot_be_read_is_refused_without_being_shown() {
        for (url, told) in [
            ("postgres://me:sec?ret@db/offers", "`?` as `%3F`"),
            ("postgres://me:sec@ret@db/offers", "`@` as `%40`"),
            ("postgres://me:sec/ret@db/offers", "`/` as `%2F`"),
            ("postgres://me:sec#ret@db/offers", "`#` as `%23`"),
            ("postgres://me:sec ret@db/offers", "a space as `%20`"),
            ("postgres://me:secret@db/offers?hostaddr=10.0.0.1", "`hostaddr` is not supported"),
            ("postgres://localhost/offers?sslmode=disable&hostaddr=10.0.0.1", "`hostaddr` is not supported"),
            ("postgres://me:secret@db/offers?hos%74addr=10.0.0.1", "an unknown parameter"),
            ("postgres://me:secret@db/offers?secret", "an unknown parameter"),
            ("postgres://me:secret@db:port/offers", "its host, its port"),
            ("postgres://me:secret@/offers", "names no host"),
            ("host=db user=me password=secret", "`key=value`"),
            ("host=db password=secret:1 dbname=offers", "`key=value`"),
            ("user=me password='secret://x' host=db", "`key=value`"),
            ("mysql://me:secret@db/offers", "`mysql://…` is not a ledger"),
            ("me:secret@db/offers", "in a form that is not supported"),
            ("secret", "in a form that is not supported"),
        ] {
            let error = parse(url).unwrap_err();
            assert!(error.contains(told), "{url}: {error}");
            for part in ["secret", "sec?", "sec@", "sec/", "sec#", "sec ", "ret@", "10.0.0.1"] {
                assert!(!error.contains(part), "{url}: {error}");
            }
        }
    }

    #[test]
    fn a_file_is_named_relative_to_the_projects_root() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let parse = |text: &str| LedgerLocation::parse(text, &root);
        assert_eq!(parse("sqlite:a/b.db"), Ok(LedgerLocation::File(root.join("a/b.db"))));
        assert_eq!(parse("sqlite://a.db"), Ok(LedgerLocation::File(root.join("a.db"))));
        // Links are followed, so that lock, key and head lie beside the file itself.
        std::fs::create_dir(root.join("real")).unwrap();
        std::os::unix::fs::symlink(root.join("real"), root.join("link")).unwrap();
        assert_eq!(parse("sqlite:link/x/b.db"), Ok(LedgerLocation::File(root.join("real/x/b.db"))));
        std::fs::write(root.join("real/c.db"), "").unwrap();
        std::os::unix::fs::symlink(root.join("real/c.db"), root.join("d.db")).unwrap();
        assert_eq!(parse("sqlite:d.db"), Ok(LedgerLocation::File(root.join("real/c.db"))));
        for wrong in ["sqlite:", "sqlite:..", "sqlite:/", "sqlite:ledger.key", "sqlite:a/ledger.head"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn passwords_are_hidden_in_any_text() {
        assert_eq!(redact("--ledger=postgres://me:se/cr@et@db/x"), "--ledger=postgres://me@db/x");
        assert_eq!(redact("a 'postgres://me:secret@db/x' found"), "a 'postgres://me@db/x' found");
        assert_eq!(redact("postgres://db/x?password=secret&a=1"), "postgres://db/x?password=***&a=1");
        assert_eq!(redact("--var page=https://me:secret@example.com/@us"), "--var page=https://me@example.com/@us");
        assert_eq!(redact("https://example.com/@us?b=c and text"), "https://example.com/@us?b=c and text");
    }
}
