//! Bytes to model and back, versioned; the only serialisation between peers and on disk. No IO, no keys but those passed in.

pub mod backup;
pub mod cbor;
pub mod code;
pub mod dht;
pub mod http;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod laws;
pub mod msglist;
pub mod notify;
pub mod signed;

pub use cbor::{WireError, decode, encode};
pub use signed::{PeerKey, Signed, SignedRecord};
