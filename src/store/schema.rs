//! The database: its tables, and how a connection is set up.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::StoreError;

/// `PRAGMA user_version`; grows with each migration.
const FORMAT: i64 = 2;
/// `PRAGMA application_id`: "tide".
const APPLICATION: i64 = 0x7469_6465;
/// Pages of 4 KiB that each connection may hold, as `SQLite` counts: negative is KiB.
const WRITER_CACHE_KIB: i64 = -16_384;
const READER_CACHE_KIB: i64 = -4_096;
/// The write-ahead log is cut back to this after a checkpoint, in bytes.
const WAL_BYTES_MAX: i64 = 64 << 20;
/// Pages in the write-ahead log that start a checkpoint.
const CHECKPOINT_PAGES: i64 = 4_096;
const STATEMENTS_MAX: usize = 64;
/// How long a connection waits for a lock that only a checkpoint or a recovery holds.
const BUSY_WAIT: std::time::Duration = std::time::Duration::from_secs(10);

/// One step from each format to the next. A step runs in the transaction that raises the number.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE journal (number INTEGER PRIMARY KEY, device BLOB NOT NULL UNIQUE);
    CREATE TABLE batch (
        journal INTEGER NOT NULL, seq INTEGER NOT NULL, bytes BLOB NOT NULL,
        PRIMARY KEY (journal, seq)) WITHOUT ROWID;
    CREATE TABLE node (ino INTEGER PRIMARY KEY, record BLOB NOT NULL);
    CREATE TABLE entry (
        parent INTEGER NOT NULL, hash INTEGER NOT NULL, entry INTEGER NOT NULL,
        place INTEGER NOT NULL, ino INTEGER NOT NULL, kind INTEGER NOT NULL, name BLOB NOT NULL,
        PRIMARY KEY (parent, hash, entry)) WITHOUT ROWID;
    CREATE TABLE version (
        file INTEGER NOT NULL, id INTEGER NOT NULL, record BLOB NOT NULL,
        PRIMARY KEY (file, id)) WITHOUT ROWID;
    CREATE TABLE chunk (
        id BLOB PRIMARY KEY, segment INTEGER NOT NULL, offset INTEGER NOT NULL,
        bytes INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE segment (number INTEGER PRIMARY KEY, bytes INTEGER NOT NULL);
",
    "
    CREATE TABLE heard (
        journal INTEGER NOT NULL, of INTEGER NOT NULL, seq INTEGER NOT NULL,
        PRIMARY KEY (journal, of)) WITHOUT ROWID;
    CREATE TABLE folded (journal INTEGER PRIMARY KEY, seq INTEGER NOT NULL);
    CREATE TABLE merged_entry (
        id INTEGER PRIMARY KEY, parent INTEGER NOT NULL, name BLOB NOT NULL,
        removed INTEGER NOT NULL, record BLOB NOT NULL);
    CREATE INDEX merged_child ON merged_entry (parent, name);
    CREATE INDEX merged_removed ON merged_entry (id) WHERE removed;
    CREATE TABLE merged_inode (
        id INTEGER PRIMARY KEY, conflicted INTEGER NOT NULL, record BLOB NOT NULL);
    CREATE INDEX merged_conflicted ON merged_inode (id) WHERE conflicted;
    CREATE TABLE merged_version (
        file INTEGER NOT NULL, id INTEGER NOT NULL, record BLOB NOT NULL,
        PRIMARY KEY (file, id)) WITHOUT ROWID;
    CREATE TABLE move (op INTEGER PRIMARY KEY, record BLOB NOT NULL);
    CREATE TABLE member (op INTEGER PRIMARY KEY, record BLOB NOT NULL);
    CREATE TABLE void (op INTEGER PRIMARY KEY, made INTEGER NOT NULL);
    CREATE TABLE face (file INTEGER PRIMARY KEY, ino INTEGER NOT NULL);
    CREATE INDEX face_ino ON face (ino);
    CREATE TABLE crowded (ino INTEGER PRIMARY KEY);
    CREATE TABLE epoch (
        author BLOB NOT NULL, seq INTEGER NOT NULL, number INTEGER NOT NULL, wrapped BLOB NOT NULL,
        PRIMARY KEY (author, seq)) WITHOUT ROWID;
    CREATE TABLE fork (journal INTEGER PRIMARY KEY, seq INTEGER NOT NULL, bytes BLOB NOT NULL);
    CREATE TABLE wanted (id BLOB PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE base (
        journal INTEGER PRIMARY KEY, seq INTEGER NOT NULL, upto INTEGER NOT NULL);
    CREATE TABLE special (file INTEGER PRIMARY KEY, kind BLOB NOT NULL);
    CREATE TABLE unlisted (ino INTEGER PRIMARY KEY);
    CREATE TABLE passed (id BLOB PRIMARY KEY) WITHOUT ROWID;
",
];

/// Opens the database for writing, makes or migrates its tables.
pub fn open(path: &Path) -> Result<Connection, StoreError> {
    let mut connection = Connection::open(path)?;
    set_up(&connection, WRITER_CACHE_KIB)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_MAX)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    migrate(&mut connection)?;
    Ok(connection)
}

/// Opens the database for reading.
pub fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    set_up(&connection, READER_CACHE_KIB)?;
    connection.pragma_update(None, "query_only", true)?;
    check_format(&connection)?;
    Ok(connection)
}

/// The segments that commits have named chunks in, with their lengths in bytes.
pub fn segments(connection: &Connection) -> Result<Vec<(u64, u64)>, StoreError> {
    let mut statement = connection.prepare("SELECT number, bytes FROM segment ORDER BY number")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn set_up(connection: &Connection, cache_kib: i64) -> Result<(), StoreError> {
    connection.busy_timeout(BUSY_WAIT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.pragma_update(None, "cache_size", cache_kib)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(())
}

fn format(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

fn check_format(connection: &Connection) -> Result<i64, StoreError> {
    let found = format(connection)?;
    if found > FORMAT {
        return Err(StoreError::Version { found, known: FORMAT });
    }
    Ok(found)
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let found = check_format(connection)?;
    let done = usize::try_from(found).unwrap_or(0);
    for (step, migration) in MIGRATIONS.iter().enumerate().skip(done) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", step + 1)?;
        transaction.commit()?;
    }
    Ok(())
}
