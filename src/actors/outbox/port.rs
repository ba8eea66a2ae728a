//! The outbox as the routes reach it: takes sealed nr, opens and checks them, and asks the brain.

use std::sync::Arc;
use std::time::Duration;

use super::Tools;
use crate::actors::beside::beside;
use crate::actors::shell::{Handle, Stopped};
use crate::core::outbox::{Input, NrFrom, Outbox, OutboxRefusal, Reply};
use crate::model::notification::Nr;
use crate::model::{Address, Fingerprint, PeerId};
use crate::net::peer_api::ApiError;
use crate::seal::{Certificate, decrypt_nr};

/// When a peer whose nr cannot be checked now may come again.
const RETRY: Duration = Duration::from_secs(10);

/// Why an nr is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NrError {
    /// It cannot be opened, or its signature does not fit.
    #[error("this receive notification is not taken: {why}")]
    Bad {
        /// What does not fit.
        why: String,
    },
    /// The reader's certificate is not here now.
    #[error("the certificate of {reader} is not here now")]
    NoCertificate {
        /// Who gave the word.
        reader: Address,
    },
}

/// Opens and checks an nr. Work of the processor.
pub(super) fn open_nr(tools: &Tools, sealed: &[u8]) -> Result<(Nr, Fingerprint), NrError> {
    let bad = |e: crate::seal::SealError| NrError::Bad { why: e.to_string() };
    let unverified = decrypt_nr(sealed, &tools.identity.openpgp).map_err(bad)?;
    let reader = unverified.reader().clone();
    let own = (reader == tools.address).then(|| tools.identity.openpgp.certificate().clone());
    let known = || {
        let bytes = tools.directory.snapshot().at(&reader).and_then(|peer| peer.certificate.clone())?;
        Certificate::parse(&bytes).ok()
    };
    let certificate = own.or_else(known).ok_or(NrError::NoCertificate { reader })?;
    let nr = unverified.verify(&certificate).map_err(bad)?;
    Ok((nr, certificate.fingerprint()))
}

/// Takes nr for the outbox.
#[derive(Clone)]
pub struct OutboxPort {
    pub(super) tools: Arc<Tools>,
    pub(super) handle: Handle<Outbox>,
}

impl OutboxPort {
    /// The brain.
    pub fn handle(&self) -> &Handle<Outbox> {
        &self.handle
    }

    /// `POST /notify` with an nr; `Ok` once it is on disk (R1).
    ///
    /// # Errors
    /// [`ApiError`] says why it is not taken, and whether it may be later.
    pub async fn take_nr(&self, caller: PeerId, to: Address, sealed: Vec<u8>) -> Result<(), ApiError> {
        if to != self.tools.address {
            return Err(ApiError::BadRequest { why: format!("{to} does not live here") });
        }
        let unavailable = |why: String| ApiError::Unavailable { why, retry_after: RETRY };
        let tools = self.tools.clone();
        let opened = beside(sealed.len(), move || open_nr(&tools, &sealed)).await;
        let (nr, signer) = opened.map_err(|e| unavailable(e.to_string()))?.map_err(|e| match e {
            NrError::Bad { .. } => {
                tracing::warn!(%caller, error = %e, "a receive notification is refused");
                ApiError::BadRequest { why: e.to_string() }
            }
            NrError::NoCertificate { .. } => unavailable(e.to_string()),
        })?;
        let ask = move |token| Input::Nr { from: NrFrom::Direct(token), nr, signer };
        match self.handle.ask(ask).await {
            Ok(Reply::NrTaken) => Ok(()),
            Ok(Reply::Refused(why @ OutboxRefusal::NotYet)) => Err(unavailable(why.to_string())),
            Ok(Reply::Refused(why)) => Err(ApiError::BadRequest { why: why.to_string() }),
            Ok(_) => Err(unavailable("this peer made a mistake; ask again later".to_owned())),
            Err(Stopped) => Err(unavailable(Stopped.to_string())),
        }
    }
}
