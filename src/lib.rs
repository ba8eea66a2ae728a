//! Roost: e-mail for a team without a mail server. The map of the tree is `src/architecture.md`.

pub mod actors;
pub mod cli;
pub mod clock;
pub mod config;
pub mod console;
pub mod core;
pub mod fragment;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod mail;
pub mod mime;
pub mod model;
pub mod net;
pub mod seal;
pub mod store;
pub mod wire;
