//! What people and programs on this machine ask a running peer: the control socket (and later the web page). It decides nothing.

mod answers;
mod cancel;
pub mod control;
pub mod login;
mod metrics;
pub mod protocol;
mod report;
