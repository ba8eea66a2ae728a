//! The bodies of the fuzz targets: what foreign bytes meet, as plain functions that panic when a law is broken. It is in no
//! ordinary build, and never in the program.
//!
//! `fuzz/` calls them under libFuzzer (its README says how); the tests here replay `fuzz/corpus/` through them.
//! Where one target has several doors, the first byte of its input chooses: `0` is the first.

#![allow(clippy::unwrap_used, reason = "a panic is how a target says that a law is broken")]

mod brains;
mod mail;
mod records;
mod sealed;
mod text;

#[cfg(test)]
mod seeds;
#[cfg(test)]
mod tests;

pub use crate::net::fuzzed::http;
pub use brains::journal;
pub use mail::{imap, smtp, splitter};
pub use records::{dht, manifest, msglist};
pub use sealed::{gd, nr, ns, openpgp, peer_descriptor};
pub use text::{cards, cluster_config, config, names};

/// A target: bytes from outside go in, and nothing comes back.
pub type Target = fn(&[u8]);

/// Every target under its name in `fuzz/fuzz_targets/` and `fuzz/corpus/`.
pub const TARGETS: [(&str, Target); 17] = [
    ("cards", cards),
    ("cluster_config", cluster_config),
    ("config", config),
    ("dht", dht),
    ("gd", gd),
    ("http", http),
    ("imap", imap),
    ("journal", journal),
    ("manifest", manifest),
    ("msglist", msglist),
    ("names", names),
    ("nr", nr),
    ("ns", ns),
    ("openpgp", openpgp),
    ("peer_descriptor", peer_descriptor),
    ("smtp", smtp),
    ("splitter", splitter),
];
