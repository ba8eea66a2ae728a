//! What `POST /notify` carries: a batch of ns, nr and tombstones. Each is opaque and proves itself.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::model::Address;

/// Most items in one `POST /notify`.
pub const NOTIFY_BATCH_MAX: usize = 256;
/// Most bytes of one `POST /notify`.
pub const NOTIFY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One notification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notice {
    /// A sealed ns (see `seal::notice`) for the reader `to`.
    Ns {
        /// The reader.
        to: Address,
        /// The sealed bytes, as they would lie in the DHT.
        sealed: ByteBuf,
    },
    /// A sealed nr for the sender `to`.
    Nr {
        /// The sender.
        to: Address,
        /// The sealed bytes, as they would lie in the DHT.
        sealed: ByteBuf,
    },
    /// A signed tombstone.
    Tombstone(ByteBuf),
    /// "I am here again": open ns and nr with this peer may be sent now.
    Hello,
}
