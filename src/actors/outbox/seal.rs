//! Sealing one mail for its receivers: the sealed mail, its manifest and the sealed ns, durable in this order. Blocking; it
//! never announces anything.

use std::fs::File;
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::Tools;
use super::fresh::FreshNotices;
use crate::actors::directory::{Directory, Snapshot};
use crate::actors::identity::Identity;
use crate::actors::sealed_file::Sealing;
use crate::actors::spool::{Spool, SpoolError, read_mail};
use crate::clock::Clock;
use crate::core::outbox::events::Facts;
use crate::core::outbox::{Input, OwnerNote, RecoverJob, SealFailure, SealJob, SealedReceiver};
use crate::fragment::{Codec, MailName, ManifestBuilder};
use crate::model::dht::value_hash;
use crate::model::manifest::Manifest;
use crate::model::msglist::MailEntry;
use crate::model::notification::Ns;
use crate::model::structure::Structure;
use crate::model::{Address, Digest, Fingerprint, MailId, PeerId, Secret, SubmissionId, WallTime};
use crate::seal::{Certificate, SealError, seal_for_owner, seal_ns};
use crate::store::files::{
    DurableWriter, FILE_MODE, FileError, commit_together, link_again, remove_all, remove_known, staged, write_durable,
};
use crate::store::home::Home;
use crate::store::manifests;
use crate::wire::{decode, encode};

/// Largest file of sealed ns: 100 receivers with 48 KiB of headers each, and slack.
const NOTICES_MAX: u64 = 8 * 1024 * 1024;

/// The sealed ns of one receiver, as they are kept behind the manifest.
#[derive(Serialize, Deserialize)]
pub(super) struct SealedNotice {
    #[serde(rename = "r")]
    receiver: Address,
    #[serde(rename = "n")]
    sealed: ByteBuf,
}

/// Sealed ns, and the name in the DHT of each receiver's.
pub(super) type NamedNotices = (Vec<SealedNotice>, Vec<(Address, Digest)>);

fn again(error: impl std::fmt::Display) -> SealFailure {
    SealFailure::Again(error.to_string())
}

/// What sealing needs.
pub(super) struct Sealer {
    pub(super) home: Home,
    address: Address,
    pub(super) identity: Identity,
    spool: Spool,
    pub(super) directory: Directory,
    pub(super) codec: Arc<Codec>,
    clock: Clock,
    pub(super) fresh: FreshNotices,
}

/// What of a clear mail its ns carry.
pub(super) struct Opened {
    pub(super) header_block: Vec<u8>,
    pub(super) structure: Structure,
}

impl Sealer {
    pub(super) fn of(tools: &Tools) -> Self {
        Self {
            home: tools.home.clone(),
            address: tools.address.clone(),
            identity: tools.identity.clone(),
            spool: tools.spool.clone(),
            directory: tools.directory.clone(),
            codec: tools.codec.clone(),
            clock: tools.clock.clone(),
            fresh: FreshNotices::default(),
        }
    }

    /// The ns of a mail that is sealed already, made anew, and the name in the DHT of each. Blocking.
    pub(super) fn notices(&self, job: &RecoverJob, opened: &Opened) -> Result<NamedNotices, SealFailure> {
        let snapshot = self.directory.snapshot();
        let to: Vec<_> = job.receivers.iter().map(|(address, key, peer, _)| (address.clone(), *key, *peer)).collect();
        let certificates = certificates(&snapshot, &to)?;
        let group_key = snapshot.groups.get(self.address.group()).map(|group| group.key);
        let group_key = group_key.ok_or_else(|| again("this peer has no group yet; create or join one"))?;
        let mail = (job.submission, job.facts.h, job.facts.length, job.facts.digest);
        let (mut notices, mut names) = (Vec::new(), Vec::new());
        for ((address, _, _, secret), certificate) in job.receivers.iter().zip(&certificates) {
            let ns = self.ns(mail, (address, secret), (group_key, job.expiry), opened);
            let sealed = seal_ns(&ns, &self.identity.openpgp, certificate, self.clock.now().wall).map_err(again)?;
            names.push((address.clone(), value_hash(&sealed)));
            notices.push(SealedNotice { receiver: address.clone(), sealed: ByteBuf::from(sealed) });
        }
        Ok((notices, names))
    }

    fn ns(
        &self,
        (submission, h, length, digest): (SubmissionId, MailId, u64, Digest),
        (to, secret): (&Address, &Secret),
        (group_key, expiry): (Fingerprint, WallTime),
        opened: &Opened,
    ) -> Ns {
        Ns {
            submission,
            h,
            length,
            digest,
            to: to.clone(),
            from: self.address.clone(),
            from_fingerprint: self.identity.openpgp.fingerprint(),
            owner: self.identity.peer_id(),
            group: self.address.group().clone(),
            group_key,
            expiry,
            header_block: opened.header_block.clone(),
            structure: opened.structure.clone(),
            secret: secret.clone(),
        }
    }

    /// Manifest with ns, then the mail: each durable before the next, so that a mail that is there has all that belongs to it.
    pub(super) fn keep_again(
        &self,
        writer: DurableWriter,
        manifest: Manifest,
        notices: &[SealedNotice],
    ) -> Result<(), FileError> {
        let h = manifest.h;
        let manifest = self.identity.key.sign(manifest);
        let path = self.home.outbox_manifest(&h);
        let bytes = manifests::with_notices(manifest.as_bytes(), &encode(&notices));
        write_durable(&path, &bytes.map_err(|e| FileError::from_io(&path, "write", &e))?, FILE_MODE)?;
        // Those of an earlier version of this program are not true any more.
        remove_all(&[self.home.outbox_notices_of_version_1(&h)])?;
        writer.commit(&self.home.outbox_blob(&h))
    }

    /// Seals; the answer to [`crate::core::outbox::Action::Seal`]. Blocking.
    pub(super) fn seal(&self, job: &SealJob) -> Input {
        let submission = job.submission;
        match try_seal(self, job) {
            Ok((receivers, entry)) => Input::Sealed { submission, receivers, entry },
            Err(why) => {
                let receivers = job.receivers.iter().map(|(address, _, _)| address.clone()).collect();
                Input::SealFailed { submission, receivers, why }
            }
        }
    }
}

/// A mail that is gone or damaged cannot be sealed, ever; anything else may pass.
fn spool_failure(job: &SealJob, error: &SpoolError) -> SealFailure {
    let submission = job.submission;
    let is_gone = match error {
        SpoolError::File(e) => {
            let is_damaged = matches!(e, FileError::Io { kind: io::ErrorKind::InvalidData, .. });
            e.is_not_found() || is_damaged || matches!(e, FileError::TooLarge { .. })
        }
        SpoolError::Sealed { source: SealError::Io { .. }, .. } => false,
        SpoolError::Envelope { .. } | SpoolError::Sealed { .. } => true,
        SpoolError::Write { .. } | SpoolError::Unavailable { .. } => false,
    };
    if is_gone {
        tracing::error!(%submission, %error, "a mail that was to be sealed is not in the spool");
        SealFailure::NoSpool
    } else {
        tracing::warn!(%submission, %error, "a mail cannot be sealed now");
        again(error)
    }
}

/// The receivers' certificates, as the directory has them; those that it has not, or of another key, are named.
fn certificates(
    snapshot: &Snapshot,
    receivers: &[(Address, Fingerprint, PeerId)],
) -> Result<Vec<Certificate>, SealFailure> {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for (address, fingerprint, peer) in receivers {
        let bytes = snapshot.peers.get(peer).and_then(|known| known.certificate.clone());
        let certificate = bytes.and_then(|bytes| Certificate::parse(&bytes).ok());
        match certificate.filter(|c| c.fingerprint() == *fingerprint) {
            Some(certificate) => found.push(certificate),
            None => missing.push(address.clone()),
        }
    }
    if missing.is_empty() { Ok(found) } else { Err(SealFailure::Certificates(missing)) }
}

fn try_seal(tools: &Sealer, job: &SealJob) -> Result<(Vec<SealedReceiver>, MailEntry), SealFailure> {
    let snapshot = tools.directory.snapshot();
    let certificates = certificates(&snapshot, &job.receivers)?;
    let group_key = snapshot.groups.get(tools.address.group()).map(|group| group.key);
    let group_key = group_key.ok_or_else(|| again("this peer has no group yet; create or join one"))?;
    let envelope = tools.spool.envelope(&job.submission).map_err(|e| spool_failure(job, &e))?;
    let (body, manifest) = match take_presealed(tools, job) {
        Some(manifest) => (Body::InSpool, manifest),
        None => seal_from_spool(tools, job, &certificates)?,
    };
    let h = manifest.h;
    let mut receivers = Vec::with_capacity(job.receivers.len());
    let mut notices = Vec::with_capacity(job.receivers.len());
    let now = tools.clock.now().wall;
    let opened = Opened { header_block: envelope.header_block, structure: envelope.structure };
    for ((address, fingerprint, peer), certificate) in job.receivers.iter().zip(&certificates) {
        let secret = random_secret()?;
        let mail = (job.submission, h, manifest.length, manifest.digest);
        let ns = tools.ns(mail, (address, &secret), (group_key, job.expiry), &opened);
        let sealed = seal_ns(&ns, &tools.identity.openpgp, certificate, now).map_err(again)?;
        let (address, fingerprint, peer, ns) = (address.clone(), *fingerprint, *peer, value_hash(&sealed));
        notices.push(SealedNotice { receiver: address.clone(), sealed: ByteBuf::from(sealed) });
        receivers.push(SealedReceiver { address, fingerprint, peer, secret, ns });
    }
    let facts = Facts {
        size: opened.structure.size,
        at: envelope.at,
        expiry: job.expiry,
        message_id: envelope.message_id.clone(),
    };
    let note = encode(&OwnerNote { submission: job.submission, receivers: receivers.clone(), facts: Some(facts) });
    let for_owner = seal_for_owner(&note, &tools.identity.openpgp).map_err(again)?;
    let entry = MailEntry {
        h,
        length: manifest.length,
        digest: manifest.digest,
        expiry: job.expiry,
        encoding: manifest.encoding,
        for_owner,
    };
    keep(tools, job, body, manifest, &notices).map_err(again)?;
    for notice in notices {
        tools.fresh.put(h, notice.receiver, notice.sealed);
    }
    Ok((receivers, entry))
}

/// Where the sealed mail is that is to be kept.
enum Body {
    /// Written now.
    New(DurableWriter),
    /// Sealed while it came in, and durable in the spool.
    InSpool,
}

/// The manifest of what was sealed while it came in, if that is for exactly these receivers; for the encoding that is wanted now.
fn take_presealed(tools: &Sealer, job: &SealJob) -> Option<Manifest> {
    let presealed = tools.spool.presealed(&job.submission)?;
    let receivers = job.receivers.iter().map(|(address, fingerprint, _)| (address.clone(), *fingerprint));
    let manifest = Some(presealed.manifest()).filter(|_| presealed.is_for(receivers))?;
    let encoding = job.policy.encoding_for(manifest.length, job.others);
    if manifest.encoding == encoding {
        return Some(manifest.clone());
    }
    let sealed = File::open(tools.home.spool_sealed(&job.submission)).ok()?;
    let named = ManifestBuilder::from_reader(sealed, manifest.owner, encoding, &tools.codec).ok()?;
    Some(named).filter(|named| MailName::of(named) == MailName::of(manifest))
}

fn seal_from_spool(
    tools: &Sealer,
    job: &SealJob,
    certificates: &[Certificate],
) -> Result<(Body, Manifest), SealFailure> {
    let clear = read_mail(&tools.home, &tools.identity.openpgp, &job.submission);
    let sealing = Sealing {
        folder: &tools.home.outbox_dir(),
        identity: &tools.identity,
        codec: &tools.codec,
        policy: &job.policy,
        others: job.others,
        certificates,
        now: tools.clock.now().wall,
    };
    let (file, manifest) = sealing.write(clear.map_err(|e| spool_failure(job, &e))?).map_err(again)?;
    Ok((Body::New(file), manifest))
}

/// Blob, and manifest with the ns behind it (DESIGN.md section 5.3): they get their names in this order, and are durable together.
fn keep(
    tools: &Sealer,
    job: &SealJob,
    body: Body,
    manifest: Manifest,
    notices: &[SealedNotice],
) -> Result<(), FileError> {
    let (home, h) = (&tools.home, manifest.h);
    let (manifest, path) = (tools.identity.key.sign(manifest), home.outbox_manifest(&h));
    let manifest = manifests::with_notices(manifest.as_bytes(), &encode(&notices));
    let manifest = manifest.map_err(|e| FileError::from_io(&path, "write", &e))?;
    let manifest = staged(&path, &manifest)?;
    match body {
        Body::New(file) => commit_together(vec![(file, home.outbox_blob(&h)), manifest]),
        // The spool's name of it goes only once the journal has this mail: a blob that no record names is removed at the start.
        Body::InSpool => {
            let blob = home.outbox_blob(&h);
            link_again(&home.spool_sealed(&job.submission), &blob)?;
            commit_together(vec![manifest]).inspect_err(|_| {
                // Nobody may come back to it. What cannot be removed goes at the next start, as what no record names.
                let _ = remove_known(&blob);
            })
        }
    }
}

fn random_secret() -> Result<Secret, SealFailure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(again)?;
    Ok(Secret::new(bytes))
}

/// The sealed ns of one receiver of a mail. Blocking.
///
/// # Errors
/// When the file is missing or damaged, or has none for that receiver.
pub(super) fn sealed_notice(home: &Home, h: &MailId, receiver: &Address) -> Result<ByteBuf, String> {
    let bytes = manifests::notices(home, h, NOTICES_MAX).map_err(|e| e.to_string())?;
    let notices: Vec<SealedNotice> = decode(&bytes).map_err(|e| e.to_string())?;
    let found = notices.into_iter().find(|notice| notice.receiver == *receiver);
    found.map(|notice| notice.sealed).ok_or_else(|| format!("mail {h} has no send notification for {receiver}"))
}

#[cfg(test)]
mod tests;
