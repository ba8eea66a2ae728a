//! The servers for the user's own mail program: SMTP submission and IMAP. They never talk to other peers.

pub mod imap;
pub mod port;
pub mod smtp;
