//! The manifest of an own mail for another encoding: read from the sealed mail, signed, and durable beside the first one. It never
//! touches the mail, and takes no manifest away: which one is served is what the msglist says.

use std::fs::File;

use super::seal::Sealer;
use crate::core::outbox::{Input, MailFacts};
use crate::fragment::ManifestBuilder;
use crate::model::Encoding;
use crate::store::files::{FILE_MODE, write_durable};
use crate::store::manifests;

/// The answer to [`crate::core::outbox::Action::Reencode`]. Blocking.
pub(super) fn reencode(sealer: &Sealer, facts: &MailFacts, encoding: Encoding) -> Input {
    let h = facts.h;
    let result = make(sealer, facts, encoding);
    match &result {
        Ok(()) => tracing::info!(mail = %h, ?encoding, "a mail has a manifest for another encoding"),
        Err(why) => tracing::warn!(mail = %h, %why, "a mail cannot be given another encoding now"),
    }
    Input::Reencoded { h, encoding, result }
}

fn make(sealer: &Sealer, facts: &MailFacts, encoding: Encoding) -> Result<(), String> {
    let first = sealer.home.outbox_manifest(&facts.h);
    if manifests::find(&first, |manifest| manifest.encoding == encoding).is_some() {
        return Ok(());
    }
    let path = sealer.home.outbox_blob(&facts.h);
    let sealed = File::open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let made = ManifestBuilder::from_reader(sealed, sealer.identity.peer_id(), encoding, &sealer.codec);
    let made = made.map_err(|e| e.to_string())?;
    if (made.h, made.length, made.digest) != (facts.h, facts.length, facts.digest) {
        return Err("the file in outbox/ is not the mail that was sealed; a member's copy mends it at the next start"
            .to_owned());
    }
    let signed = sealer.identity.key.sign(made);
    let path = sealer.home.outbox_manifest_as(&facts.h, encoding);
    write_durable(&path, signed.as_bytes(), FILE_MODE).map_err(|e| e.to_string())
}
