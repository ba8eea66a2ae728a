//! The postbox brain: local mailboxes, stubs, requests, and the word about each mail that goes back to its sender.

pub mod access;
