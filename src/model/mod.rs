//! What the words of the design mean: plain validated types. No IO, no clocks, no randomness, no serialisation format.
//!
//! A value of a type in here is valid by construction; the bytes it travels in are the business of [`crate::wire`].

pub mod address;
pub mod card;
pub mod dht;
pub mod disk;
pub mod group;
pub mod holding;
pub mod ids;
pub mod manifest;
pub mod msglist;
pub mod notification;
pub mod policy;
pub mod pulled_mail;
pub mod size;
pub mod structure;
pub mod time;
pub mod urgency;

pub use address::{Address, AddressError, GroupName, LocalName};
pub use ids::{Digest, Fingerprint, IdError, MailId, PeerId, Secret, SubmissionId};
pub use policy::{Encoding, Mode, Part, Policy, PolicyError};
pub use pulled_mail::PulledMail;
pub use size::{ByteSize, SizeError};
pub use time::{MonoTime, Now, Span, WallTime};
pub use urgency::Urgency;
