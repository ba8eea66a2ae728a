//! How soon bytes are needed. It says nothing of who may have them.

/// How soon the bytes of a pull are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Urgency {
    /// Somebody waits: a reader, or a new mail that is not mirrored yet.
    #[default]
    Prompt,
    /// Nobody waits: repair, a change of placement or of the policy. It gets a share of a sender's uplink while others want
    /// theirs, and asks for no block twice only to be done sooner.
    Background,
}
