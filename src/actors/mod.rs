//! Thin actix shells, one per brain, and what they share. Actors never import each other; `peer` wires them.

pub mod allowance;
pub mod backup;
pub mod beside;
pub mod dht_client;
pub mod dial_back;
pub mod directory;
pub mod event_log;
pub mod fetcher;
pub mod group_master;
pub mod hellos;
pub mod identity;
pub mod neighbours;
pub mod outbox;
pub mod peer;
pub mod peer_api;
pub mod postbox;
pub mod read_entries;
pub mod remover;
pub mod replay;
pub mod replicator;
pub mod serve_parts;
pub mod serve_together;
pub mod shell;
pub mod spool;
