//! The key-value store: one redb file, opened, read and committed to.

use super::known::Known;
use super::pages::{CheckedPages, DamageFlag};
use super::{Overlay, Pair, Reserve, Table};
use crate::error::{Error, Result};
use crate::fault;
use crate::limits::{META_CACHE_BYTES, META_COUNT_BYTES_MAX, META_TRIM_BYTES_MAX, META_TRIM_BYTES_MIN};
use crate::media::{Media, MediaDir, MemoryMedia};
use parking_lot::Mutex;
use redb::{Database, ReadOnlyTable, ReadableDatabase, StorageError, TableDefinition};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

type Bytes = &'static [u8];

fn definition(table: Table) -> TableDefinition<'static, Bytes, Bytes> {
    TableDefinition::new(table.name())
}

const OBJECT: &str = "the metadata (meta.redb)";

/// The open database.
pub struct Kv {
    media: Mutex<Arc<dyn Media>>,
    reserve: Option<Arc<Reserve>>,
    damaged: DamageFlag,
    database: Mutex<Option<Database>>,
}

impl Kv {
    /// Makes a new, empty database.
    pub fn create(media: Arc<dyn Media>, reserve: Option<Arc<Reserve>>) -> Result<Kv> {
        let kv = Kv::open_database(media, reserve)?;
        kv.commit(&Overlay::default())?;
        Ok(kv)
    }

    /// Opens a database that exists.
    pub fn open(media: Arc<dyn Media>, reserve: Option<Arc<Reserve>>) -> Result<Kv> {
        if media.len().map_err(|error| Error::media(OBJECT, error))? == 0 {
            return Err(Error::corrupt(OBJECT, "the file is empty"));
        }
        Kv::open_database(media, reserve)
    }

    fn open_database(media: Arc<dyn Media>, reserve: Option<Arc<Reserve>>) -> Result<Kv> {
        let damaged = DamageFlag::default();
        let database = build(&media, &reserve, &damaged)?;
        Ok(Kv { media: Mutex::new(media), reserve, damaged, database: Mutex::new(Some(database)) })
    }

    fn media(&self) -> Arc<dyn Media> {
        self.media.lock().clone()
    }

    /// Whether a read met a damaged page; from then on nothing is read until [`Kv::reopen`].
    pub fn met_damage(&self) -> bool {
        self.damaged.load(Ordering::Acquire)
    }

    /// Makes the undamaged pages readable again after a read met a damaged one.
    pub fn reopen(&self) -> Result<()> {
        let mut database = self.database.lock();
        // The old handle has to be gone before the new one reads the file.
        self.let_go(&mut database);
        self.damaged.store(false, Ordering::Release);
        // A disk that still fails may be asked again.
        let again = build(&self.media(), &self.reserve, &self.damaged);
        *database = Some(again.inspect_err(|_| self.damaged.store(true, Ordering::Release))?);
        Ok(())
    }

    /// Ends all use of the file. Whoever opens it next finds that it was closed, and has nothing to look through first.
    pub fn close(&self) {
        self.let_go(&mut self.database.lock());
    }

    /// The database writes what it may need to know when it is opened next, and looks into its pages for that.
    fn let_go(&self, database: &mut Option<Database>) {
        let database = database.take();
        let ended = contained(&self.damaged, || {
            drop(database);
            Ok(())
        });
        if let Err(error) = ended {
            log::error!("closing the metadata: {error}");
        }
    }

    /// The tables as the last durable commit left them.
    pub fn tables(&self) -> Result<Stored> {
        let guard = self.database.lock();
        let database = guard.as_ref().ok_or_else(closed)?;
        contained(&self.damaged, || stored(database, &self.damaged))
    }

    /// Writes one overlay, whole and durably.
    pub fn commit(&self, overlay: &Overlay) -> Result<()> {
        let guard = self.database.lock();
        let database = guard.as_ref().ok_or_else(closed)?;
        contained(&self.damaged, || {
            let mut transaction = database.begin_write().map_err(|error| failed(error.into()))?;
            // Keeps recovery instant: the allocator's state is part of each commit.
            transaction.set_quick_repair(true);
            for table in Table::ALL {
                let mut changes = overlay.table(table).peekable();
                if changes.peek().is_none() && !overlay.is_empty() {
                    continue;
                }
                let mut open = transaction.open_table(definition(table)).map_err(|error| failed(error.into()))?;
                for (key, value) in changes {
                    match value {
                        Some(value) => open.insert(key.as_slice(), value.as_slice()).map_err(storage_failed)?,
                        None => open.remove(key.as_slice()).map_err(storage_failed)?,
                    };
                }
            }
            transaction.commit().map_err(|error| failed(error.into()))
        })
    }

    /// Writes the file of this name in `dir`, which this database is in, anew if much of it holds nothing, and it is not
    /// so large that it takes long.
    pub fn trim(&self, dir: &dyn MediaDir, name: &str) -> Result<()> {
        let len = self.file_bytes()?;
        let room = dir.room().map_err(|error| Error::media(OBJECT, error))?;
        let taken = self.taken_bytes()?;
        if len > META_TRIM_BYTES_MAX || room.available < len * 2 || taken <= META_TRIM_BYTES_MIN {
            return Ok(());
        }
        let mut guard = self.database.lock();
        let database = guard.as_ref().ok_or_else(closed)?;
        let is_wasteful = contained(&self.damaged, || {
            let transaction = database.begin_write().map_err(|error| failed(error.into()))?;
            let stored = transaction.stats().map_err(storage_failed)?.stored_bytes();
            transaction.abort().map_err(storage_failed)?;
            Ok(taken > stored + stored / 2 + META_TRIM_BYTES_MIN)
        })?;
        if !is_wasteful {
            return Ok(());
        }
        let image = contained(&self.damaged, || image_of(&stored(database, &self.damaged)?))?;
        self.let_go(&mut guard);
        let replaced = dir.replace(name, &image).and_then(|()| dir.open(name, false));
        let replaced = replaced.map(|media| *self.media.lock() = media);
        *guard = Some(build(&self.media(), &self.reserve, &self.damaged)?);
        replaced.map_err(|error| Error::media(format!("moving {OBJECT} together"), error))
    }

    /// Bytes of the database file.
    pub fn file_bytes(&self) -> Result<u64> {
        self.media().len().map_err(|error| Error::media(OBJECT, error))
    }

    /// Bytes that the file takes on the disk, at most: of a small one, what was ever written.
    fn taken_bytes(&self) -> Result<u64> {
        match self.file_bytes()? {
            len if len > META_COUNT_BYTES_MAX => Ok(len),
            _ => CheckedPages::written_bytes(&*self.media()).map_err(|error| Error::media(OBJECT, error)),
        }
    }

    /// Fills the reserve up where there is room again.
    pub fn refill_reserve(&self) -> Result<()> {
        self.scale_reserve(Reserve::refill)
    }

    /// Gives back what the reserve has beyond what the metadata asks for.
    pub fn trim_reserve(&self) -> Result<()> {
        self.scale_reserve(Reserve::trim)
    }

    fn scale_reserve(&self, then: fn(&Reserve) -> io::Result<()>) -> Result<()> {
        if let Some(reserve) = &self.reserve {
            reserve.scale(self.taken_bytes()?);
        }
        self.ask_reserve((), then)
    }

    /// Bytes that the reserve may still come to take.
    pub fn reserve_to_come(&self) -> Result<u64> {
        self.ask_reserve(0, Reserve::to_come)
    }

    /// Whether all of the reserve is there: if not, the disk is full and nothing may grow.
    pub fn reserve_is_whole(&self) -> Result<bool> {
        self.ask_reserve(true, Reserve::is_whole)
    }

    fn ask_reserve<T>(&self, without: T, ask: fn(&Reserve) -> io::Result<T>) -> Result<T> {
        let answer = self.reserve.as_deref().map_or(Ok(without), ask);
        answer.map_err(|error| Error::media("the reserve", error))
    }
}

impl Drop for Kv {
    fn drop(&mut self) {
        self.close();
    }
}

/// That the regions of the file are as this program makes them. The database believes what its first page says of them,
/// which has no checksum, and takes memory for each: many small ones would take all there is.
fn check_head(media: &dyn Media) -> Result<()> {
    /// Where the sizes of pages, heads of regions and regions are, and what they are: 4 KiB, none, 4 GiB.
    const SIZES: [(usize, u32); 3] = [(12, 4096), (16, 0), (20, 1 << 20)];
    let mut head = [0; 24];
    match CheckedPages::read_head(media, &mut head) {
        Err(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(Error::corrupt(OBJECT, "the file is shorter than it should be"));
        }
        read => read.map_err(|error| Error::media(OBJECT, error))?,
    }
    let size = |at: usize| head[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    match SIZES.into_iter().find(|(at, expected)| size(*at) != *expected) {
        None => Ok(()),
        Some((at, expected)) => {
            let problem = format!("its first page says {} at byte {at}, where {expected} has to be", size(at));
            Err(Error::corrupt(OBJECT, problem))
        }
    }
}

fn closed() -> Error {
    Error::Stopped("the metadata is closed, or could not be reopened".into())
}

fn stored(database: &Database, damaged: &DamageFlag) -> Result<Stored> {
    let transaction = database.begin_read().map_err(|error| failed(error.into()))?;
    let open = |table| transaction.open_table(definition(table)).map_err(|error| failed(error.into()));
    let tables = Tables::Open(Table::ALL.into_iter().map(open).collect::<Result<_>>()?);
    Ok(Stored { tables, damaged: damaged.clone(), known: Known::default() })
}

/// The bytes of a database file with the same content.
fn image_of(stored: &Stored) -> Result<Vec<u8>> {
    let memory = Arc::new(MemoryMedia::default());
    let copy = build(&(memory.clone() as Arc<dyn Media>), &None, &DamageFlag::default())?;
    let transaction = copy.begin_write().map_err(|error| failed(error.into()))?;
    for table in Table::ALL {
        let mut open = transaction.open_table(definition(table)).map_err(|error| failed(error.into()))?;
        let Some(stored) = stored.table(table)? else { continue };
        for pair in stored.range::<&[u8]>(..).map_err(storage_failed)? {
            let (key, value) = pair.map_err(storage_failed)?;
            open.insert(key.value(), value.value()).map_err(storage_failed)?;
        }
    }
    transaction.commit().map_err(|error| failed(error.into()))?;
    drop(copy);
    Ok(memory.take())
}

fn build(media: &Arc<dyn Media>, reserve: &Option<Arc<Reserve>>, damaged: &DamageFlag) -> Result<Database> {
    if media.len().map_err(|error| Error::media(OBJECT, error))? > 0 {
        check_head(&**media)?;
    }
    let pages = CheckedPages::new(media.clone(), reserve.clone(), damaged.clone());
    let mut builder = Database::builder();
    builder.set_cache_size(META_CACHE_BYTES);
    contained(damaged, || builder.create_with_backend(pages).map_err(|error| failed(error.into())))
}

/// The database's own checks end in a panic here and there, and it believes what pages with right checksums say; damaged
/// bytes must not end the program. All that looks into its pages is done in here, also the look at a value that it gave out.
/// After a panic the database may refuse all further work: it is to be reopened.
fn contained<T>(damaged: &DamageFlag, action: impl FnOnce() -> Result<T>) -> Result<T> {
    fault::contained(action).unwrap_or_else(|what| {
        damaged.store(true, Ordering::Release);
        Err(Error::corrupt(OBJECT, format!("its structure does not hold together: {what}")))
    })
}

/// The same for what looks at records: any damage is remembered. That a table is missing is none.
fn looking<T>(damaged: &DamageFlag, action: impl FnOnce() -> Result<T>) -> Result<T> {
    let result = contained(damaged, action);
    if let Err(Error::Corrupt { .. }) = result {
        damaged.store(true, Ordering::Release);
    }
    result
}

fn storage_failed(error: StorageError) -> Error {
    failed(error.into())
}

fn failed(error: redb::Error) -> Error {
    match error {
        redb::Error::Io(source) if source.kind() == std::io::ErrorKind::InvalidData => {
            Error::corrupt(OBJECT, source.to_string())
        }
        redb::Error::Io(source) if source.kind() == std::io::ErrorKind::UnexpectedEof => {
            Error::corrupt(OBJECT, "the file is shorter than it should be")
        }
        redb::Error::Io(source) => Error::media(OBJECT, source),
        // What it has not read says nothing about what is there.
        redb::Error::PreviousIo => Error::media(OBJECT, io::Error::other("an earlier read or write failed")),
        redb::Error::DatabaseClosed => closed(),
        redb::Error::Corrupted(problem) => Error::corrupt(OBJECT, problem),
        other => Error::corrupt(OBJECT, other.to_string()),
    }
}

/// One durable state of all tables, for reading.
#[derive(Default)]
pub struct Stored {
    tables: Tables,
    damaged: DamageFlag,
    known: Known,
}

#[derive(Default)]
enum Tables {
    #[default]
    Closed,
    /// Of what was never stored.
    Nothing,
    Open(Vec<ReadOnlyTable<Bytes, Bytes>>),
}

impl Stored {
    /// Tables without a record and without a file.
    pub(super) fn nothing() -> Stored {
        Stored { tables: Tables::Nothing, ..Stored::default() }
    }

    /// `None` where nothing is stored.
    fn table(&self, table: Table) -> Result<Option<&ReadOnlyTable<Bytes, Bytes>>> {
        match &self.tables {
            Tables::Closed => Err(closed()),
            Tables::Nothing => Ok(None),
            Tables::Open(tables) => tables.get(table as usize).map(Some).ok_or_else(closed),
        }
    }

    pub fn with<R>(&self, table: Table, key: &[u8], read: impl FnOnce(&[u8]) -> Result<R>) -> Result<Option<R>> {
        let Some(stored) = self.table(table)? else { return Ok(None) };
        if let Some(value) = self.known.get(table, key) {
            return value.map(|value| read(&value)).transpose();
        }
        let found = looking(&self.damaged, || stored.get(key).map_err(storage_failed))?;
        let value = found.as_ref().map(|found| looking(&self.damaged, || Ok(found.value()))).transpose()?;
        self.known.note(table, key, value);
        value.map(read).transpose()
    }

    /// The pairs with `from <= key < to`, in order: where they are in no order, or others, the pages are damaged.
    pub fn range(&self, table: Table, from: &[u8], to: &[u8]) -> Result<impl Iterator<Item = Result<Pair>> + use<>> {
        let mut is_over = from >= to;
        let to = if is_over { from } else { to }.to_vec();
        let (mut least, damaged) = (from.to_vec(), self.damaged.clone());
        let stored = self.table(table)?;
        let mut range = looking(&damaged, || {
            stored.map(|stored| stored.range(from..to.as_slice())).transpose().map_err(storage_failed)
        })?;
        Ok(std::iter::from_fn(move || {
            let range = range.as_mut().filter(|_| !is_over)?;
            let next = looking(&damaged, || {
                let next = range.next().transpose().map_err(storage_failed)?;
                let Some((key, value)) = next else { return Ok(None) };
                let (key, value) = (key.value(), value.value());
                if key < least.as_slice() || key >= to.as_slice() {
                    return Err(out_of_order(table));
                }
                least.clear();
                least.extend_from_slice(key);
                least.push(0);
                Ok(Some((key.to_vec(), value.to_vec())))
            });
            is_over = !matches!(next, Ok(Some(_)));
            next.transpose()
        }))
    }

    pub(super) fn last(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Vec<u8>>> {
        if from >= to {
            return Ok(None);
        }
        let Some(stored) = self.table(table)? else { return Ok(None) };
        looking(&self.damaged, || {
            let mut range = stored.range(from..to).map_err(storage_failed)?;
            let Some((key, _)) = range.next_back().transpose().map_err(storage_failed)? else { return Ok(None) };
            let key = key.value();
            if key < from || key >= to { Err(out_of_order(table)) } else { Ok(Some(key.to_vec())) }
        })
    }
}

fn out_of_order(table: Table) -> Error {
    Error::corrupt(OBJECT, format!("the keys of table {} are not in order", table.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    /// Reads fail while that is said.
    #[derive(Debug)]
    struct Failing(MemoryMedia, Arc<AtomicBool>);

    impl Media for Failing {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }

        fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            match self.1.load(Ordering::SeqCst) {
                true => Err(io::Error::from_raw_os_error(5)),
                false => self.0.read_at(offset, out),
            }
        }

        fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.0.write_at(offset, data)
        }

        fn sync(&self) -> io::Result<()> {
            self.0.sync()
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.set_len(len)
        }

        fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
            self.0.allocate(offset, len)
        }

        fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
            self.0.punch(offset, len)
        }
    }

    #[test]
    fn what_could_not_be_read_is_not_damaged() {
        let fails = Arc::new(AtomicBool::new(false));
        let media: Arc<dyn Media> = Arc::new(Failing(MemoryMedia::default(), fails.clone()));
        let kv = Kv::create(media.clone(), None).unwrap();
        let mut overlay = Overlay::default();
        for number in 0..4000u32 {
            overlay.put(Table::Inode, &number.to_be_bytes(), vec![number as u8; 100]);
        }
        kv.commit(&overlay).unwrap();
        drop(kv);
        let kv = Kv::open(media, None).unwrap();
        let tables = kv.tables().unwrap();
        let read = |number: u32| tables.with(Table::Inode, &number.to_be_bytes(), |value| Ok(value[0]));
        fails.store(true, Ordering::SeqCst);
        let failed = |result: Result<Option<u8>>| matches!(result, Err(Error::Media { .. }));
        assert!(failed(read(7)));
        fails.store(false, Ordering::SeqCst);
        // It has to be opened again, and that says nothing about what is there.
        assert!(kv.met_damage() && failed(read(7)) && failed(read(3999)));
        kv.reopen().unwrap();
        let again = kv.tables().unwrap();
        assert_eq!(again.with(Table::Inode, &7u32.to_be_bytes(), |value| Ok(value[0])).unwrap(), Some(7));
    }
}
