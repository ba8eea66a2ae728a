//! Connections between peers: libp2p finds, HTTPS moves. It carries and authenticates; it never decides what a peer may have.

mod answer;
pub mod body_source;
pub mod console_server;
mod dht_codec;
mod dht_links;
mod dht_streams;
pub mod dial;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzed;
pub mod https_client;
pub mod https_server;
pub mod identity;
pub mod interfaces;
pub mod locate;
pub mod peer_answer;
pub mod peer_api;
pub mod ports;
mod priority;
pub mod range;
pub mod reach;
mod request_body;
pub mod routes;
mod stall;
pub mod swarm;
mod swarm_build;
mod swarm_gate;
pub mod tap;
pub mod tls;
pub mod upload_limit;

#[cfg(test)]
mod https_tests;
