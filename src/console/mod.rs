//! What people and programs on this machine ask a running peer: the control socket, the web page, the metrics. It decides nothing.

mod answers;
mod cancel;
mod conflicts;
mod consent;
pub mod control;
mod full;
mod listing;
pub mod login;
mod membership;
mod metrics;
mod page;
mod proof;
pub mod protocol;
mod reach;
mod refused_parts;
mod report;
mod seen;
mod standing;
pub mod web;
