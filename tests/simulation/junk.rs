//! Strangers in the DHT: they put entries back that were deleted, and lay forged ones beside them (R4, R5, R7, R11).

use roost::model::notification::Outcome;
use roost::model::{Digest, Fingerprint, Secret};

use super::checker::Rule;
use super::dht::DhtValue;
use super::disk::{SealedNs, digest_of};
use super::rng::Rng;
use super::users::UserAct;
use super::world::{Happening, World};

/// How often a stranger does something in the DHT of a run.
pub(crate) fn draw(seed: u64) -> u64 {
    let mut rng = Rng::new(seed ^ 0xd417);
    if rng.chance(300) { rng.between(4, 24) } else { 0 }
}

impl World {
    /// Draws when.
    pub(crate) fn plan_junk(&mut self, end: u64) {
        let mut rng = Rng::new(self.params.seed ^ 0xd418);
        for _ in 0..self.params.junk {
            let act = *rng.pick(&[UserAct::PutBack, UserAct::PutForged]);
            self.later(rng.below(end + end / 4), Happening::User(act));
        }
    }

    /// Somebody puts an entry back that was there once, under a password of its own.
    pub(crate) fn put_back(&mut self) {
        let many = self.dht.once.len();
        if many > 0 {
            let which = self.rng.index(many);
            self.dht.put_back(which, Secret::new([0x5a; 32]));
        }
    }

    /// Somebody copies an entry, changes it, and signs it with a key of its own; or leaves it as it is, for another reader.
    pub(crate) fn put_forged(&mut self) {
        let many = self.dht.once.len();
        if many == 0 {
            return;
        }
        let (key, _, mut entry) = self.dht.once[self.rng.index(many)].clone();
        let (stranger, nonce) = (Fingerprint::new([66; 20]), self.fresh());
        let name: Digest = match &mut entry.value {
            DhtValue::Ns(sealed) => {
                (sealed.signer, sealed.nonce) = (stranger, nonce);
                let mut other = *sealed.ns.submission.as_bytes();
                other[15] ^= 0xff;
                sealed.ns.submission = roost::model::SubmissionId::new(other);
                sealed.name()
            }
            DhtValue::Nr(sealed) => {
                sealed.signer = stranger;
                sealed.nr.outcome = Outcome::Received;
                digest_of(&sealed.nr, &sealed.signer)
            }
        };
        entry.password = Secret::new([0x5b; 32]);
        self.dht.lay(key, name, entry);
    }

    /// R11: an ns is believed only with the signature of whom it names.
    pub(crate) fn check_signer(&mut self, p: usize, sealed: &SealedNs) {
        let is_named = !self.has_keys() || sealed.signer == super::world::fingerprint(&sealed.ns.from);
        if sealed.signer != sealed.ns.from_fingerprint || !is_named {
            let why = format!("{} believes an ns in the name of {}, who did not sign it", self.name(p), sealed.ns.from);
            self.violate(Rule::R11, why);
        }
    }
}
