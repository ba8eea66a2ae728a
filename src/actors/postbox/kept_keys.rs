//! The certificates in `keys/`: by which the body of a mail is checked that was announced under them, also after a restart. One that
//! was kept is never replaced by another one of the same fingerprint.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::notices::{NsError, blocking};
use crate::actors::shell::Stopped;
use crate::model::Fingerprint;
use crate::seal::Certificate;
use crate::store::files::{FILE_MODE, FileError, read_bounded, write_durable};
use crate::store::home::Home;

/// Largest certificate that is read, bytes.
const CERTIFICATE_MAX: u64 = 64 * 1024;
/// Most that are remembered beside the files; beyond it all are read again.
const REMEMBERED_MAX: usize = 256;

/// The folder `keys/`, and what was read of it.
#[derive(Clone)]
pub(super) struct KeptKeys {
    home: Home,
    read: Arc<Mutex<BTreeMap<Fingerprint, Certificate>>>,
}

impl KeptKeys {
    pub(super) fn new(home: Home) -> Self {
        Self { home, read: Arc::default() }
    }

    fn remembered(&self) -> MutexGuard<'_, BTreeMap<Fingerprint, Certificate>> {
        // An entry is put in one step, so a panic elsewhere leaves a good map.
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn remember(&self, certificate: Certificate) {
        let mut remembered = self.remembered();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(certificate.fingerprint(), certificate);
    }
    /// Blocking.
    fn load(&self, fingerprint: Fingerprint) -> Option<Certificate> {
        let bytes = read_bounded(&self.home.key_file(&fingerprint), CERTIFICATE_MAX).ok()?;
        let certificate = Certificate::parse(&bytes).ok().filter(|kept| kept.fingerprint() == fingerprint)?;
        self.remember(certificate.clone());
        Some(certificate)
    }

    /// The one with this fingerprint. Blocking.
    pub(super) fn find(&self, fingerprint: Fingerprint) -> Option<Certificate> {
        let known = self.remembered().get(&fingerprint).cloned();
        known.or_else(|| self.load(fingerprint))
    }

    /// The one with this fingerprint.
    pub(super) async fn get(&self, fingerprint: Fingerprint) -> Result<Option<Certificate>, Stopped> {
        let known = self.remembered().get(&fingerprint).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let keys = self.clone();
        blocking(move || keys.load(fingerprint)).await
    }

    /// Keeps it, unless there is one with its fingerprint; durable when this returns.
    pub(super) async fn keep(&self, certificate: Certificate) -> Result<(), NsError> {
        let fingerprint = certificate.fingerprint();
        if self.get(fingerprint).await?.is_some() {
            return Ok(());
        }
        let keys = self.clone();
        let kept = blocking(move || {
            let path = keys.home.key_file(&fingerprint);
            if !path.is_file() {
                write_durable(&path, certificate.as_bytes(), FILE_MODE)?;
            }
            keys.remember(certificate);
            Ok::<_, FileError>(())
        });
        Ok(kept.await??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WallTime;
    use crate::seal::SecretIdentity;

    #[tokio::test]
    async fn what_was_kept_is_there_after_a_restart_and_stays_what_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        home.create().unwrap();
        let alice = SecretIdentity::generate(&"alice@acme".parse().unwrap(), WallTime(1_700_000_000_000)).unwrap();
        let certificate = alice.certificate().clone();
        let fingerprint = certificate.fingerprint();
        let keys = KeptKeys::new(home.clone());
        assert!(keys.get(fingerprint).await.unwrap().is_none());
        keys.keep(certificate.clone()).await.unwrap();
        let again = KeptKeys::new(home.clone());
        for keys in [&keys, &again] {
            assert_eq!(keys.get(fingerprint).await.unwrap().unwrap().as_bytes(), certificate.as_bytes());
        }
        let before = std::fs::metadata(home.key_file(&fingerprint)).unwrap().modified().unwrap();
        again.keep(certificate).await.unwrap();
        assert_eq!(std::fs::metadata(home.key_file(&fingerprint)).unwrap().modified().unwrap(), before);
    }
}
