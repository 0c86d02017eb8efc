//! Every limit and size in one place, with compile-time checks of how they relate.

pub mod number;

/// The unit in which room inside a segment is handed out.
pub const BLOCK_BYTES: usize = 4096;
/// The addresses of one segment.
pub const SEGMENT_BYTES: u64 = 8 << 20;
pub const SEGMENT_BLOCKS: usize = (SEGMENT_BYTES / BLOCK_BYTES as u64) as usize;
/// The unit in which a volume hands out room: a physical segment.
pub const PSEG_BYTES: u64 = 2 << 20;
pub const PSEGS_IN_SEGMENT: usize = (SEGMENT_BYTES / PSEG_BYTES) as usize;

pub const TRACK_BYTES_MIN: usize = 16 << 10;
pub const TRACK_BYTES_MAX: usize = 1 << 20;
pub const TRACK_BYTES_DEFAULT: usize = 64 << 10;

/// A file of up to this many bytes lives inside its inode record.
pub const INLINE_BYTES_MAX: usize = 1024;

pub const NAME_BYTES_MAX: usize = 255;
/// Jobs that have ended and are still told of.
pub const JOBS_ENDED_KEPT: usize = 64;
/// Reasons for which a snapshot can be held at a time.
pub const HOLD_TAGS_MAX: usize = 32;
pub const SYMLINK_BYTES_MAX: usize = 4095;
pub const LINKS_MAX: u32 = 1 << 20;
pub const XATTR_NAME_BYTES_MAX: usize = 255;
pub const XATTR_VALUE_BYTES_MAX: usize = 64 << 10;
/// All names of one inode's xattrs together, as listxattr(2) can return them.
pub const XATTR_LIST_BYTES_MAX: usize = 64 << 10;
/// And all their values: setting one looks at the others.
pub const XATTR_VALUES_BYTES_MAX: usize = 4 << 20;
/// The largest file offset the kernel passes (signed 64 bits).
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// Inode numbers within a view are below this; the bits above carry the view.
pub const INODE_BITS: u32 = 40;
pub const VIEW_BITS: u32 = 24;
/// Bases that a store can have had; each takes a number of a view.
pub const BASES_MAX: u32 = 1 << 20;
/// What numbers in records can be at most: no disk has so much, and computing with them has an end. A larger one is damage.
pub const BLOCKS_MAX: u64 = 1 << 48;
pub const BYTES_MAX: u64 = BLOCKS_MAX * BLOCK_BYTES as u64;
/// Things that are counted one by one, as commits, holders and entries of the history are.
pub const COUNT_MAX: u64 = 1 << 56;
/// Segments that a store can have had: their numbers have 48 bits in the seeds of checksums.
pub const SEGMENTS_MAX: u64 = 1 << 48;
/// Physical segments of a volume: their numbers have 32 bits.
pub const PSEGS_MAX: u64 = 1 << 32;
/// Tracks of a file.
pub const TRACKS_MAX: u64 = FILE_BYTES_MAX / TRACK_BYTES_MIN as u64 + 1;
/// Snapshots are counted up to here: what ends in the next epoch has a number as well.
pub const EPOCHS_MAX: u32 = u32::MAX - 1;

/// Numbers of views from here on are given out while mounted, for further ways to the same view.
pub const VIEWS_PASSING: u32 = (1 << VIEW_BITS) - (1 << 20);

/// Dirty file data in memory at which writers start to wait for the flusher.
pub const DIRTY_BYTES_MAX: usize = 64 << 20;
/// Dirty file data at which the flusher starts.
pub const DIRTY_BYTES_FLUSH: usize = 4 << 20;
/// Records in the open transaction at which it is committed in the background.
pub const DIRTY_RECORDS_COMMIT: usize = 12_000;
/// Records in the open transaction at which operations start to wait for the commit.
pub const DIRTY_RECORDS_MAX: usize = 400_000;
/// The same two bounds for what records take, keys and values: one may have 64 KiB.
pub const DIRTY_RECORD_BYTES_COMMIT: usize = 16 << 20;
pub const DIRTY_RECORD_BYTES_MAX: usize = 64 << 20;
/// On a disk that gets full operations wait when records take this share of what is free: a commit writes them in pages, up
/// to twice as large, and the next one grows meanwhile. But not for less than the minimum.
pub const DIRTY_RECORD_BYTES_SHARE: u64 = 4;
pub const DIRTY_RECORD_BYTES_MIN: usize = 256 << 10;
/// What is changed is committed after this time at the latest.
pub const COMMIT_INTERVAL: std::time::Duration = std::time::Duration::from_secs(5);

/// Dirty data left after which a commit flushes the rest while operations wait.
pub const FREEZE_BYTES_MAX: usize = 256 << 10;

/// Room that dirty tracks may come to need on the media, at which writers start to wait: each counts whole.
pub const DIRTY_ROOM_MAX: usize = 256 << 20;
/// Room of dirty tracks at which the flusher starts.
pub const DIRTY_ROOM_FLUSH: usize = 64 << 20;

/// Bytes that one request copies from file to file; the caller asks again for the rest.
pub const COPY_BYTES_MAX: u64 = 32 << 20;
/// Tracks that one transaction removes or shares: others wait for it.
pub const STEP_TRACKS: u64 = 256;
/// Inodes that one transaction removes.
pub const STEP_INODES: usize = 64;
/// How long inodes that are let go one by one wait for others, to be removed with them; in all; and how many do.
pub const REST_BEFORE_REAPING: std::time::Duration = std::time::Duration::from_millis(20);
pub const REST_BEFORE_REAPING_MAX: std::time::Duration = std::time::Duration::from_secs(1);
pub const REAPING_AT: usize = 1 << 15;
/// Xattrs that one transaction removes with their inode.
pub const STEP_XATTRS: usize = 64;

/// Patches that a stored track collects before it is written anew, in the background.
pub const TRACK_PATCHES_MAX: usize = 8;
/// Patches that it collects while operations wait.
pub const TRACK_PATCHES_HURRIED: usize = 32;

pub const META_CACHE_BYTES: usize = 64 << 20;
/// Metadata is written anew when it is closed if its file takes more than one and a half times what it holds, and this;
/// not in files so large that it takes long (measured: 6 ms a MiB).
pub const META_TRIM_BYTES_MIN: u64 = 1 << 20;
pub const META_TRIM_BYTES_MAX: u64 = 32 << 20;
/// Of metadata up to this size it is counted what it takes on the disk; of larger the length of its file stands for that.
pub const META_COUNT_BYTES_MAX: u64 = 64 << 20;
/// Tracks kept in memory because a part of them was read.
pub const TRACK_CACHE_BYTES: usize = 8 << 20;

/// The journal: bounds and share of the file system.
pub const JOURNAL_BYTES_MIN: u64 = 1 << 20;
pub const JOURNAL_BYTES_MAX: u64 = 32 << 20;
pub const JOURNAL_SHARE: u64 = 64;
/// Data of one file that fsync journals; with more, a commit is better.
pub const JOURNAL_DATA_MAX: u64 = 256 << 10;
/// A commit that is made durable by the journal: bytes at most, and changed records.
pub const JOURNAL_COMMIT_MAX: usize = 64 << 10;
pub const JOURNAL_COMMIT_RECORDS_MAX: usize = 512;
/// Places in a file, written since, that are remembered for fsync.
pub const JOURNAL_RANGES_MAX: usize = 64;

/// Room set aside so that a full store can still delete: bounds and share of the file system.
pub const RESERVE_BYTES_MIN: u64 = 2 << 20;
pub const RESERVE_BYTES_MAX: u64 = 32 << 20;
pub const RESERVE_SHARE: u64 = 20;
/// What copies in the background leave of the room to everybody else: bounds and share of the file system.
pub const COPY_SPARE_MIN: u64 = 8 << 20;
pub const COPY_SPARE_MAX: u64 = 256 << 20;
pub const COPY_SPARE_SHARE: u64 = 20;
/// How often a write of metadata is tried again on a full disk when nothing is left of the reserve, and what it waits
/// longer each time: 0, 10, 20 … ms, 1.2 s in all.
pub const FULL_DISK_TRIES: u32 = 16;
pub const FULL_DISK_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// An archive's increments: the MessagePack header at the start of the file.
pub const ARCHIVE_HEADER_BYTES_MAX: usize = 16 << 10;
/// Increments that are merged at a time, each open, and snapshots within that the result can name.
pub const ARCHIVE_MERGE_MAX: usize = 64;
pub const ARCHIVE_MERGED_MAX: usize = 512;
/// A block before compression: what a reader is willing to allocate.
pub const ARCHIVE_BLOCK_BYTES_MAX: usize = 4 << 20;
pub const ARCHIVE_KEY_BYTES_MAX: usize = 1024;
pub const ARCHIVE_VALUE_BYTES_MAX: usize = 1 << 20;
/// Levels of the index.
pub const ARCHIVE_LEVELS_MAX: usize = 12;
/// Blocks of one increment that are kept in memory.
pub const ARCHIVE_CACHE_BYTES: usize = 4 << 20;
pub const ARCHIVE_CACHE_BLOCKS: usize = 64;
/// Increments that are kept open for reading.
pub const ARCHIVE_READERS_MAX: usize = 64;

/// Content of a frame of a set, before compression.
pub const SET_FRAME_BYTES_MAX: usize = 4 << 20;
pub const SET_KEY_BYTES_MAX: usize = 1024;
pub const SET_VALUE_BYTES_MAX: usize = 1 << 20;
/// Levels of nodes over the leaves of an index.
pub const SET_LEVELS_MAX: usize = 12;
/// Sets in which one moment can lie.
pub const SET_SETS_MAX: usize = 1 << 16;
/// Bytes of tracks at which a unit is written, and bytes of the keys in its label.
pub const SET_UNIT_BYTES: usize = 8 << 20;
pub const SET_UNIT_TOLD_BYTES: usize = 1 << 20;
/// Bytes of one piece of a stream of sets.
pub const STREAM_CHUNK_BYTES: usize = 8 << 20;
/// Bytes of files after which a part of a backup that takes long is made whole, if it took so long as well: as much is lost where one is
/// killed.
pub const PART_BYTES: u64 = 1 << 30;
pub const PART_TIME: std::time::Duration = std::time::Duration::from_secs(300);
/// Bytes of tracks that are compressed together.
pub const SET_DATA_BYTES: usize = 512 << 10;
/// Bytes that a leaf of an index has, about, and lines that a node over others has.
pub const SET_LEAF_BYTES: usize = 16 << 10;
pub const SET_NODE_LINES: usize = 256;
/// Leaves that wait for a unit at most.
pub const SET_WAITING_LEAVES: usize = 256;
/// What was read of sets, kept in memory: nodes, and frames of tracks; and sets that are open.
pub const SET_NODE_CACHE_BYTES: usize = 16 << 20;
pub const SET_DATA_CACHE_BYTES: usize = 64 << 20;
pub const SET_FILES_MAX: usize = 64;
/// The same of each reverse set.
pub const REVERSE_NODE_CACHE_BYTES: usize = 1 << 20;
pub const REVERSE_DATA_CACHE_BYTES: usize = 3 << 20;

const _: () = assert!(SEGMENT_BLOCKS <= u16::MAX as usize);
const _: () = assert!(BYTES_MAX <= u64::MAX / 8 && COUNT_MAX <= u64::MAX / 8);
const _: () = assert!(TRACK_BYTES_DEFAULT >= TRACK_BYTES_MIN && TRACK_BYTES_DEFAULT <= TRACK_BYTES_MAX);
const _: () = assert!(TRACK_BYTES_MIN.is_multiple_of(BLOCK_BYTES) && TRACK_BYTES_MAX.is_power_of_two());
const _: () = assert!(TRACK_BYTES_MAX as u64 * 2 < SEGMENT_BYTES);
const _: () = assert!(INODE_BITS + VIEW_BITS == 64);
const _: () = assert!(INLINE_BYTES_MAX < BLOCK_BYTES && INLINE_BYTES_MAX < TRACK_BYTES_MIN);
const _: () = assert!(DIRTY_BYTES_FLUSH < DIRTY_BYTES_MAX && TRACK_BYTES_MAX <= DIRTY_BYTES_FLUSH);
const _: () = assert!(DIRTY_RECORDS_COMMIT < DIRTY_RECORDS_MAX);
const _: () = assert!(DIRTY_RECORD_BYTES_COMMIT < DIRTY_RECORD_BYTES_MAX);
const _: () = assert!(XATTR_VALUE_BYTES_MAX < DIRTY_RECORD_BYTES_MIN);
// What is in memory when room is found to have ended fits into the reserve.
const _: () = assert!(DIRTY_RECORD_BYTES_MIN as u64 * 4 <= RESERVE_BYTES_MIN);
const _: () = assert!(JOURNAL_DATA_MAX * 2 < JOURNAL_BYTES_MIN);
const _: () = assert!(RESERVE_BYTES_MIN < RESERVE_BYTES_MAX);
// An id takes 18 bytes, and all else that a header says, with three names, less than 2 KiB.
const _: () = assert!(ARCHIVE_MERGED_MAX * 18 + (2 << 10) <= ARCHIVE_HEADER_BYTES_MAX);
const _: () = assert!(ARCHIVE_MERGE_MAX <= ARCHIVE_MERGED_MAX);
const _: () = assert!(ARCHIVE_BLOCK_BYTES_MAX <= ARCHIVE_CACHE_BYTES && ARCHIVE_BLOCK_BYTES_MAX <= i32::MAX as usize);
const _: () =
    assert!(XATTR_VALUE_BYTES_MAX * 2 <= ARCHIVE_VALUE_BYTES_MAX && NAME_BYTES_MAX * 2 <= ARCHIVE_KEY_BYTES_MAX);
const _: () = assert!(SET_DATA_BYTES + TRACK_BYTES_MAX <= SET_FRAME_BYTES_MAX && SET_LEVELS_MAX < 128);
const _: () = assert!(2 * SET_LEAF_BYTES + SET_KEY_BYTES_MAX + SET_VALUE_BYTES_MAX <= SET_FRAME_BYTES_MAX);
const _: () = assert!(
    SET_SETS_MAX * 48 <= SET_FRAME_BYTES_MAX && SET_NODE_LINES * 2 * (SET_KEY_BYTES_MAX + 32) <= SET_FRAME_BYTES_MAX
);
const _: () = assert!(XATTR_VALUE_BYTES_MAX * 2 <= SET_VALUE_BYTES_MAX && NAME_BYTES_MAX * 2 <= SET_KEY_BYTES_MAX);
const _: () = assert!(ARCHIVE_LEVELS_MAX < 128);

/// A restore that changes little is settled before it returns, if that takes no longer; then the kernel is told of
/// the inodes that changed, so many at most, and of no others.
pub const SETTLE_AT_ONCE: std::time::Duration = std::time::Duration::from_millis(15);
pub const CHANGED_INODES_MAX: usize = 10_000;
/// Entries of directories that are compared to tell the kernel of names that changed; with more, it forgets all names.
pub const NAMES_AT_ONCE: u64 = 20_000;
