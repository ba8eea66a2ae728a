//! The disk: files as the truth, the journal of events, sled as an index of what can be rebuilt. It never says yes before
//! the bytes are durable (R1), never decides what they mean, and never runs on an actor thread: its functions block.

pub mod backup;
pub mod cached;
pub mod dht_share;
pub mod files;
pub mod home;
pub mod index;
pub mod journal;
pub mod listing;
pub mod manifests;
pub mod room;
pub mod spool_file;
pub mod tailed;

pub use files::{DurableWriter, FileError};
pub use home::{Home, HomeError, HomeLock};
pub use index::{Index, IndexError};
pub use journal::{Durable, Journal, JournalError, Record, Replay};
