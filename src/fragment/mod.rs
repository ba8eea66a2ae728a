//! Stripes, blocks and fragments of a sealed mail: geometry, Reed-Solomon, manifests, streams. Never the network, never a
//! choice of who holds what. The only place that names the Reed-Solomon crate.
//!
//! A sealed mail is cut in stripes of k full blocks (64 KiB). Fragment i is the run of the i-th blocks of all stripes; the
//! first k fragments are the mail itself, the others parity. Work goes stripe by stripe, so memory does not grow with length.

pub mod code;
pub mod layout;
pub mod manifest;
pub mod stream;

use crate::model::disk::what_helps;
use crate::model::{Digest, MailId};

pub use code::{Code, Codec};
pub use layout::Layout;
pub use manifest::{MailName, ManifestBuilder, check_manifest, verify_block};
pub use stream::{Assembler, FragmentReader, check_part, write_fragment_block};

/// Why something cannot be done with the fragments of a mail.
#[derive(Debug, thiserror::Error)]
pub enum FragmentError {
    /// k = 0, k > n, or n above 100.
    #[error("any {k} of {n} fragments is impossible: 1 <= k <= n <= 100 must hold; nothing of this mail is used")]
    KOfN {
        /// k as given.
        k: u8,
        /// n as given.
        n: u8,
    },
    /// A mail longer than any that is cut in stripes.
    #[error("a sealed mail of {length} bytes is too long, at most {limit} are kept; refuse it")]
    TooLong {
        /// Its bytes.
        length: u64,
        /// The bound.
        limit: u64,
    },
    /// A block that the layout does not have.
    #[error("there is no block {i} in stripe {stripe} of this mail; ask for one that its manifest lists")]
    NoSuchBlock {
        /// Which stripe.
        stripe: u64,
        /// Which index.
        i: u8,
    },
    /// Too few or unequal blocks, or an index twice.
    #[error("{found} usable blocks of a stripe are not the {needed} that rebuild it; fetch others")]
    Blocks {
        /// Usable ones.
        found: usize,
        /// k.
        needed: usize,
    },
    /// The bytes are not those of the manifest (R6).
    #[error(
        "block {i} of stripe {stripe} of mail {h} is not what its manifest says; drop it, and do not ask its source again"
    )]
    WrongBlock {
        /// The mail.
        h: MailId,
        /// Which stripe.
        stripe: u64,
        /// Which index.
        i: u8,
    },
    /// Every block fits, the whole does not: the manifest is a lie or the disk changed.
    #[error("the rebuilt mail {h} has BLAKE3 {found}, not {expected}; nothing of it is used")]
    WrongWhole {
        /// The mail.
        h: MailId,
        /// What was announced.
        expected: Digest,
        /// What is there.
        found: Digest,
    },
    /// A manifest that contradicts itself or what was announced of the mail.
    #[error("the manifest of mail {h} is refused: {why}; ask another peer for it")]
    Manifest {
        /// The mail it names.
        h: MailId,
        /// What does not fit.
        why: &'static str,
    },
    /// Not every block is there yet.
    #[error("{missing} blocks of mail {h} are still missing; fetch them first")]
    Incomplete {
        /// The mail.
        h: MailId,
        /// Data blocks not yet written.
        missing: u64,
    },
    /// Parity of too many unfinished stripes.
    #[error(
        "parity of unfinished stripes takes {limit} bytes, the most that is kept; finish stripes that are begun first"
    )]
    TooManyInFlight {
        /// The bound.
        limit: usize,
    },
    /// The code itself refused; with checked input that is a bug.
    #[error("Reed-Solomon ({k} of {n}) failed: {why}; this is a defect, please report it")]
    Code {
        /// k.
        k: u8,
        /// n.
        n: u8,
        /// What the crate says.
        why: String,
    },
    /// The disk.
    #[error("reading or writing a part of a mail failed: {source}; {}", what_helps(source))]
    Io {
        /// What the system says.
        #[from]
        source: std::io::Error,
    },
}
