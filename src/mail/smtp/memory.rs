//! The port [`Submit`] in memory, for tests. Never writes to a disk, so its yes is worth nothing elsewhere.

#![allow(clippy::unwrap_used, reason = "it is for tests and fuzz targets")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::{Accepted, AuthError, ReceiverError, Spool, Submit, SubmitError, Submitted};
use crate::model::{Address, ByteSize, SubmissionId};

/// A mail as the port was given it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Envelope, header block and structure.
    pub mail: Submitted,
    /// Its submission id.
    pub submission: SubmissionId,
}

/// What the port does, to be set by a test.
#[derive(Debug, Default)]
pub struct Script {
    /// Mails that were committed.
    pub taken: Vec<Taken>,
    /// Mails that were begun.
    pub begun: u8,
    /// Mails that were begun and neither committed nor dropped.
    pub open: usize,
    /// What [`Submit::begin`] says.
    pub begin_error: Option<SubmitError>,
    /// What [`Spool::write`] says.
    pub write_error: Option<SubmitError>,
    /// What [`Spool::commit`] says.
    pub commit_error: Option<SubmitError>,
    /// What [`Submit::max_mail`] says; 1 MiB when it is not set.
    pub max_mail: Option<ByteSize>,
    /// Receivers that are unknown.
    pub unknown: BTreeSet<Address>,
}

/// The port of `alice@acme`, password `secret`.
#[derive(Debug, Clone, Default)]
pub struct MemoryPort(Arc<Mutex<Script>>);

impl MemoryPort {
    /// Reads or changes the script.
    pub fn with<R>(&self, f: impl FnOnce(&mut Script) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A mail on its way into memory.
#[derive(Debug)]
pub struct MemorySpool {
    port: MemoryPort,
    bytes: Vec<u8>,
    submission: SubmissionId,
}

impl Drop for MemorySpool {
    fn drop(&mut self) {
        self.port.with(|s| s.open -= 1);
    }
}

impl Submit for MemoryPort {
    type Spool = MemorySpool;

    fn own_address(&self) -> Address {
        "alice@acme".parse().unwrap()
    }
    async fn authenticate(&self, login: &str, password: &str) -> Result<(), AuthError> {
        if matches!(login, "alice" | "alice@acme") && password == "secret" { Ok(()) } else { Err(AuthError::Refused) }
    }
    async fn check_receiver(&self, receiver: &Address) -> Result<(), ReceiverError> {
        if self.with(|s| s.unknown.contains(receiver)) {
            return Err(ReceiverError::Unknown { address: receiver.clone() });
        }
        if receiver.group().as_str().contains('.') {
            return Err(ReceiverError::Outside { address: receiver.to_string() });
        }
        Ok(())
    }
    fn max_mail(&self) -> ByteSize {
        self.with(|s| s.max_mail).unwrap_or(ByteSize::mib(1))
    }
    async fn begin(&self, _receivers: &[Address]) -> Result<MemorySpool, SubmitError> {
        let n = self.with(|s| {
            if let Some(error) = &s.begin_error {
                return Err(error.clone());
            }
            s.begun = s.begun.wrapping_add(1);
            s.open += 1;
            Ok(s.begun)
        })?;
        Ok(MemorySpool { port: self.clone(), bytes: Vec::new(), submission: SubmissionId::new([n; 16]) })
    }
}

impl Spool for MemorySpool {
    fn submission(&self) -> SubmissionId {
        self.submission
    }
    async fn write(&mut self, chunk: Bytes) -> Result<(), SubmitError> {
        self.bytes.extend_from_slice(&chunk);
        self.port.with(|s| s.write_error.clone()).map_or(Ok(()), Err)
    }
    async fn abandon(self) {}

    async fn commit(mut self, mail: Submitted) -> Result<Accepted, SubmitError> {
        let (bytes, submission) = (std::mem::take(&mut self.bytes), self.submission);
        self.port.with(|s| match s.commit_error.clone() {
            Some(error) => Err(error),
            None => {
                s.taken.push(Taken { bytes, mail, submission });
                Ok(Accepted { submission, text: format!("accepted as {submission}") })
            }
        })
    }
}
