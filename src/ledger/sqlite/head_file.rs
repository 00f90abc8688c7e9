//! `ledger.head`: a file beside the ledger that says which file the ledger is and how many entries it has.
//!
//! A ledger that was replaced by an old copy, deleted, or copied to another place looks complete by itself, but
//! lacks sends. The head shows it: it holds the ledger's id, the last link of its chain, the number of its last
//! entry, and device, inode and path of its file.
//!
//! Only the holder of the lease writes it: after each commit without waiting for the disk, and flushed before a
//! run's first claim, once a second, and at the end of the run. It is written after the commit is durable, so
//! after a crash the ledger may be ahead of its head and never behind it. Evidence that is recorded during a run
//! does not change the head, and the ledger is ahead of it.
//!
//! The file has two slots with a checksum each. The slot that was flushed last is not touched until the other
//! one is flushed, so one of them is whole whenever the power fails.
//!
//! The ledger itself notes that it has a head, so a copy without one is refused as well.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension};

use super::rows::{property, set_property};
use super::{Identity, head, position, storage};
use crate::ledger::error::LedgerError;
use crate::ledger::head::Head;
use crate::ledger::location::parent;
use crate::util::hex;

/// The first bytes of a slot: what it is, and its format.
const MAGIC: &[u8; 8] = b"SNDFHD01";

const SLOT: usize = 4_096;

/// The fixed part of a slot, before the path.
const FIXED: usize = 8 + 8 + 16 + 8 + 16 + 8 + 8 + 8 + 4;

const CHECKSUM: usize = 16;

/// How often the head is flushed during a run.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// The property of a ledger that must have a head beside it.
const HEAD_REQUIRED: &str = "head_required";

/// Notes in the ledger that it must have a head beside it from now on.
pub(super) fn require(connection: &Connection) -> Result<(), rusqlite::Error> {
    match is_required(connection)? {
        true => Ok(()),
        false => set_property(connection, HEAD_REQUIRED, Some("yes")),
    }
}

fn is_required(connection: &Connection) -> Result<bool, rusqlite::Error> {
    property(connection, HEAD_REQUIRED).map(|value| value.is_some())
}

/// Refuses a ledger whose head is missing. A ledger that was never used by a version that writes heads has none,
/// and is not refused.
pub(super) fn refuse_a_missing_head(ledger: &Path, connection: &Connection) -> Result<(), LedgerError> {
    if !is_required(connection).map_err(|error| storage(ledger, "read", error))? {
        return Ok(());
    }
    Err(LedgerError::refused(
        format!(
            "the ledger `{}` has no `{}` beside it, so it may be a copy that lacks sends",
            ledger.display(),
            head_path(ledger).display()
        ),
        "if the ledger was moved, move this file along with it; if it is the only copy that is used from now on, and nothing was sent with another copy, `sendform ledger adopt` creates the file again",
    ))
}

/// The contents of a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeadRecord {
    generation: u64,
    /// The ledger's id.
    pub(super) id: [u8; 16],
    /// The last link of its chain.
    pub(super) head: Head,
    /// The number of the last entry of its journal.
    pub(super) seq: i64,
    /// The ledger's file.
    pub(super) identity: Identity,
    /// The path of that file.
    pub(super) path: PathBuf,
}

/// The head, open for the holder of the lease.
#[derive(Debug)]
pub(super) struct HeadFile {
    file: File,
    ledger: PathBuf,
    recorded: HeadRecord,
    /// The slot that is written to until the next flush.
    slot: u64,
    flushed: Instant,
}

/// The path of a ledger's head: beside its file.
pub fn head_path(ledger: &Path) -> PathBuf {
    ledger.with_extension("head")
}

impl HeadRecord {
    fn encode(&self) -> Result<Vec<u8>, std::io::Error> {
        let path = self.path.as_os_str().as_bytes();
        if FIXED + path.len() + CHECKSUM > SLOT {
            return Err(std::io::Error::new(ErrorKind::InvalidFilename, "the path of the ledger is too long"));
        }
        let mut slot = Vec::with_capacity(FIXED + path.len() + CHECKSUM);
        slot.extend_from_slice(MAGIC);
        slot.extend_from_slice(&self.generation.to_le_bytes());
        slot.extend_from_slice(&self.id);
        slot.extend_from_slice(&self.head.number.to_le_bytes());
        slot.extend_from_slice(&self.head.hash);
        slot.extend_from_slice(&self.seq.to_le_bytes());
        slot.extend_from_slice(&self.identity.0.to_le_bytes());
        slot.extend_from_slice(&self.identity.1.to_le_bytes());
        slot.extend_from_slice(&u32::try_from(path.len()).unwrap_or(u32::MAX).to_le_bytes());
        slot.extend_from_slice(path);
        let checksum = blake3::hash(&slot);
        slot.extend_from_slice(&checksum.as_bytes()[..CHECKSUM]);
        Ok(slot)
    }

    /// Reads a slot, unless it is empty, torn or damaged.
    fn decode(slot: &[u8]) -> Option<Self> {
        let mut rest = slot;
        let mut take = |many: usize| -> Option<&[u8]> {
            let (taken, left) = rest.split_at_checked(many)?;
            rest = left;
            Some(taken)
        };
        if take(8)? != MAGIC {
            return None;
        }
        let generation = u64::from_le_bytes(take(8)?.try_into().ok()?);
        let id = take(16)?.try_into().ok()?;
        let number = u64::from_le_bytes(take(8)?.try_into().ok()?);
        let hash = take(16)?.try_into().ok()?;
        let seq = i64::from_le_bytes(take(8)?.try_into().ok()?);
        let device = u64::from_le_bytes(take(8)?.try_into().ok()?);
        let inode = u64::from_le_bytes(take(8)?.try_into().ok()?);
        let length = usize::try_from(u32::from_le_bytes(take(4)?.try_into().ok()?)).ok()?;
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(take(length)?));
        let checksum = take(CHECKSUM)?;
        let expected = blake3::hash(slot.get(..FIXED + length)?);
        (checksum == &expected.as_bytes()[..CHECKSUM]).then_some(Self {
            generation,
            id,
            head: Head { number, hash },
            seq,
            identity: Identity(device, inode),
            path,
        })
    }

    /// Reads the head of a ledger. `None` if there is none. Must be called before the ledger is read: a run may
    /// continue in between, and the ledger may be ahead of its head and never behind it.
    pub(super) fn read(ledger: &Path) -> Result<Option<Self>, LedgerError> {
        let path = head_path(ledger);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LedgerError::io(&path, "read", error)),
        };
        let slots = bytes.chunks(SLOT).take(2).filter_map(Self::decode);
        match slots.max_by_key(|slot| slot.generation) {
            Some(newest) => Ok(Some(newest)),
            None => Err(LedgerError::Refused {
                problem: format!("`{}` beside the ledger is damaged", path.display()),
                hint: "the file shows whether the ledger lacks sends; if you know that this is the right ledger and no older copy, `sendform ledger adopt` writes the file again",
            }),
        }
    }

    /// Whether the file at this path is the one that the head was written for. A file keeps its inode when it is
    /// renamed; the number of its device may change when the machine starts.
    pub(super) fn is_for(&self, ledger: &Path, found: Identity) -> bool {
        self.identity.1 == found.1 && (self.identity.0 == found.0 || self.path == ledger)
    }

    /// Refuses a ledger that this head does not belong to, or that lacks entries.
    pub(super) fn check(&self, ledger: &Path, connection: &Connection) -> Result<(), LedgerError> {
        self.check_id(ledger, connection)?;
        self.check_progress(ledger, connection)?;
        self.check_file(ledger)
    }

    /// Refuses a copy of the file that the head was written for.
    pub(super) fn check_file(&self, ledger: &Path) -> Result<(), LedgerError> {
        let found = Identity::of(ledger).map_err(|error| LedgerError::io(ledger, "found", error))?;
        if self.is_for(ledger, found) {
            return Ok(());
        }
        let problem = if self.path == ledger {
            format!("the ledger `{}` was replaced by a copy of itself", ledger.display())
        } else {
            format!("the ledger `{}` is a copy of `{}`", ledger.display(), self.path.display())
        };
        Err(LedgerError::Refused {
            problem,
            hint: "if both go on, people get the same offer twice; use the original, or make this one the ledger with `sendform ledger adopt` and never use the other again",
        })
    }

    /// Refuses a ledger that lacks entries.
    pub(super) fn check_progress(&self, ledger: &Path, connection: &Connection) -> Result<(), LedgerError> {
        let fail = |error: rusqlite::Error| storage(ledger, "read", error);
        let link = connection
            .query_row("SELECT hash FROM link WHERE number = ?1", [self.head.number.cast_signed()], |row| {
                row.get::<_, [u8; 16]>(0)
            })
            .optional()
            .map_err(fail)?;
        if link == Some(self.head.hash) && position(connection).map_err(fail)? >= self.seq {
            return Ok(());
        }
        let shown = ledger.display();
        let problem = match link {
            Some(hash) if hash != self.head.hash => {
                format!(
                    "link {} of the ledger `{shown}` differs from the one that was written before: it is a copy that was used separately",
                    self.head.number
                )
            }
            _ => format!(
                "the ledger `{shown}` is behind: according to `{}` beside it, it had link {} and entry {} before",
                head_path(ledger).display(),
                self.head.number,
                self.seq
            ),
        };
        Err(LedgerError::Refused {
            problem,
            hint: "it is an older copy and lacks sends, so their recipients would get the offer again; put the right file back, with its `-wal` file, or see `sendform ledger restore --help`",
        })
    }

    /// Refuses a ledger with another id.
    pub(super) fn check_id(&self, ledger: &Path, connection: &Connection) -> Result<(), LedgerError> {
        if ledger_id(ledger, connection)? == self.id {
            return Ok(());
        }
        Err(LedgerError::Refused {
            problem: format!(
                "the ledger `{}` is not the one that `{}` beside it was written for",
                ledger.display(),
                head_path(ledger).display()
            ),
            hint: "it does not hold the sends of that one; put the right file back, or use this ledger in its own directory",
        })
    }

    /// Where there is no ledger, refuses to start a new one if there is a head.
    pub(super) fn refuse_a_missing_ledger(ledger: &Path) -> Result<(), LedgerError> {
        let Some(found) = Self::read(ledger)? else { return Ok(()) };
        Err(LedgerError::Refused {
            problem: format!(
                "the ledger `{}` is missing; according to `{}` beside it, it had {} entries",
                ledger.display(),
                head_path(ledger).display(),
                found.seq
            ),
            hint: "a new ledger would send everything again; put the file back, or a copy of it with `sendform ledger restore FILE`",
        })
    }
}

/// The ledger's id, as bytes.
pub(super) fn ledger_id(ledger: &Path, connection: &Connection) -> Result<[u8; 16], LedgerError> {
    let id = property(connection, "ledger_id").map_err(|error| storage(ledger, "read", error))?;
    id.as_deref().and_then(hex::decode).ok_or_else(|| LedgerError::NotALedger(ledger.display().to_string()))
}

impl HeadFile {
    /// Writes the head of a ledger as it is now, and flushes it. Only the holder of the lease may call this.
    pub(super) fn write_now(ledger: &Path, connection: &Connection) -> Result<Self, LedgerError> {
        let fail = |error: rusqlite::Error| storage(ledger, "read", error);
        let path = head_path(ledger);
        let written = |error: std::io::Error| LedgerError::io(&path, "written", error);
        let before = HeadRecord::read(ledger).ok().flatten();
        let recorded = HeadRecord {
            generation: before.as_ref().map_or(0, |before| before.generation),
            id: ledger_id(ledger, connection)?,
            head: head(connection).map_err(fail)?,
            seq: position(connection).map_err(fail)?,
            identity: Identity::of(ledger).map_err(|error| LedgerError::io(ledger, "found", error))?,
            path: ledger.to_owned(),
        };
        if before.is_none() {
            create(&path, &recorded).map_err(written)?;
        }
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(written)?;
        let newest = newest_slot(&file).map_err(written)?;
        let mut opened = Self { file, ledger: ledger.to_owned(), recorded, slot: 1 - newest, flushed: Instant::now() };
        opened.write().and_then(|()| opened.flush())?;
        Ok(opened)
    }

    /// Writes the number of the journal's last entry after a commit. Flushes once a second.
    pub(super) fn advance(&mut self, seq: i64) -> Result<(), LedgerError> {
        self.recorded.seq = seq;
        self.write()?;
        if self.flushed.elapsed() >= FLUSH_INTERVAL { self.flush() } else { Ok(()) }
    }

    /// Writes the last link of the chain at the end of a run, and flushes.
    pub(super) fn end(&mut self, head: Head) -> Result<(), LedgerError> {
        self.recorded.head = head;
        self.write().and_then(|()| self.flush())
    }

    fn write(&mut self) -> Result<(), LedgerError> {
        self.recorded.generation += 1;
        let slot = self.recorded.encode();
        slot.and_then(|slot| self.file.write_all_at(&slot, self.slot * SLOT as u64)).map_err(|error| self.failed(error))
    }

    fn flush(&mut self) -> Result<(), LedgerError> {
        self.file.sync_data().map_err(|error| self.failed(error))?;
        self.flushed = Instant::now();
        self.slot = 1 - self.slot;
        Ok(())
    }

    fn failed(&self, error: std::io::Error) -> LedgerError {
        LedgerError::io(&head_path(&self.ledger), "written", error)
    }
}

/// Creates a head with both slots, so that no later write needs more space on the disk. It appears whole or not
/// at all.
fn create(path: &Path, recorded: &HeadRecord) -> std::io::Result<()> {
    let directory = parent(path);
    let mut bytes = recorded.encode()?;
    bytes.resize(2 * SLOT, 0);
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()
}

/// The slot that holds the newest head.
fn newest_slot(file: &File) -> std::io::Result<u64> {
    let mut generations = [None, None];
    for (number, generation) in generations.iter_mut().enumerate() {
        let mut slot = vec![0; SLOT];
        let mut read = 0;
        while read < SLOT {
            match file.read_at(&mut slot[read..], (number * SLOT + read) as u64)? {
                0 => break,
                more => read += more,
            }
        }
        *generation = HeadRecord::decode(&slot).map(|recorded| recorded.generation);
    }
    Ok(u64::from(generations[1] > generations[0]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::LedgerKey;
    use crate::ledger::record::operator;
    use crate::ledger::sqlite::SqliteLedger;

    fn recorded(generation: u64) -> HeadRecord {
        HeadRecord {
            generation,
            id: [3; 16],
            head: Head { number: 7, hash: [9; 16] },
            seq: 1_234,
            identity: Identity(1, 2),
            path: PathBuf::from("/a/दीवाली/ledger.db"),
        }
    }

    /// A ledger and its head.
    fn ledger() -> (tempfile::TempDir, PathBuf, Connection) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap().join("ledger.db");
        drop(SqliteLedger::open_or_create(&path, &operator(), &LedgerKey::from_bytes([1; 32])).unwrap());
        let connection = super::super::open(&path).unwrap();
        (directory, path, connection)
    }

    #[test]
    fn a_slot_is_read_as_it_was_written_and_not_if_a_byte_differs() {
        let slot = recorded(5).encode().unwrap();
        assert_eq!(HeadRecord::decode(&slot), Some(recorded(5)));
        for byte in 0..slot.len() {
            let mut torn = slot.clone();
            torn[byte] ^= 1;
            assert_eq!(HeadRecord::decode(&torn), None, "byte {byte}");
            assert_eq!(HeadRecord::decode(&slot[..byte]), None, "{byte} bytes");
        }
    }

    #[test]
    fn a_torn_slot_leaves_the_one_that_was_flushed_before() {
        let (_directory, path, connection) = ledger();
        let mut head = HeadFile::write_now(&path, &connection).unwrap();
        let flushed = head.recorded.clone();
        // However often it is written before the next flush, only the other slot is touched.
        for seq in 1..=5 {
            head.advance(seq).unwrap();
            assert_eq!(HeadRecord::read(&path).unwrap().unwrap().seq, seq);
        }
        let torn = head.slot * SLOT as u64 + 20;
        head.file.write_all_at(b"power fails here", torn).unwrap();
        assert_eq!(HeadRecord::read(&path).unwrap(), Some(flushed));
        // The next one repairs it, and both torn are no head at all.
        head.advance(6).unwrap();
        assert_eq!(HeadRecord::read(&path).unwrap().unwrap().seq, 6);
        for slot in [0, 1] {
            head.file.write_all_at(b"nothing", slot * SLOT as u64).unwrap();
        }
        assert!(matches!(HeadRecord::read(&path), Err(LedgerError::Refused { .. })));
    }

    #[test]
    fn a_ledger_behind_its_head_of_another_id_or_gone_is_refused_and_one_ahead_is_fine() {
        let (_directory, path, connection) = ledger();
        let mut head = HeadFile::write_now(&path, &connection).unwrap();
        let check = || HeadRecord::read(&path).unwrap().unwrap().check(&path, &connection);
        check().unwrap();
        let open = || SqliteLedger::open_existing(&path, &operator(), None).map(|ledger| ledger.is_some());
        // The head of an older moment: evidence was recorded since.
        head.advance(-1).unwrap();
        check().unwrap();
        for (told, change) in [
            ("is behind", (|head: &mut HeadFile| head.recorded.seq = 1) as fn(&mut HeadFile)),
            ("is behind", |head| head.recorded.head.number = 1),
            ("was used separately", |head| head.recorded.head.hash = [0; 16]),
            ("is not the one", |head| head.recorded.id = [0; 16]),
            ("was replaced by a copy of itself", |head| head.recorded.identity.1 += 1),
            ("is a copy of", |head| (head.recorded.identity.0, head.recorded.path) = (77, PathBuf::from("/elsewhere"))),
        ] {
            let before = head.recorded.clone();
            change(&mut head);
            head.write().unwrap();
            let error = open().unwrap_err().to_string();
            assert!(error.contains(told), "{told}: {error}");
            head.recorded = HeadRecord { generation: head.recorded.generation, ..before };
            head.write().unwrap();
            assert!(open().unwrap());
        }
        // A device's number may change when the machine starts, and a file may be renamed.
        head.recorded.identity.0 += 1;
        head.write().unwrap();
        assert!(open().unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(open().unwrap_err().to_string().contains("is missing"));
    }
}
