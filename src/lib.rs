//! Roost: e-mail for a team without a mail server. The map of the tree is `src/architecture.md`.

pub mod model;
pub mod wire;
