//! The manifests of one mail that lie on this disk: the first one, and those of encodings that came later. It reads and checks them,
//! and never decides which encoding a mail is kept in. Blocking.

use std::path::{Path, PathBuf};

use super::files::read_bounded;
use super::listing::later_manifests;
use crate::fragment::{MailName, check_manifest};
use crate::model::manifest::Manifest;
use crate::model::{Encoding, Part};
use crate::wire::Signed;

/// Largest manifest that is read: that of a mail of 32 GiB.
const MANIFEST_MAX: u64 = 64 * 1024 * 1024;

/// The first of a mail's manifests that is signed, agrees with itself, and is one that `fits`; `first` is the path of the oldest.
pub fn find(first: &Path, fits: impl Fn(&Manifest) -> bool) -> Option<(PathBuf, Signed<Manifest>)> {
    let read = |path: PathBuf| {
        let manifest = Signed::<Manifest>::verify(&read_bounded(&path, MANIFEST_MAX).ok()?).ok()?;
        check_manifest(&manifest, &MailName::of(&manifest)).ok()?;
        fits(&manifest).then_some((path, manifest))
    };
    // Most mails have one; only then the others are looked for.
    read(first.to_owned()).or_else(|| later_manifests(first).ok()?.into_iter().find_map(read))
}

/// Whether a part can be checked by a manifest of this encoding. The whole mail can be by any.
pub fn covers(encoding: Encoding, part: Part) -> bool {
    match (encoding, part) {
        (_, Part::Whole) => true,
        (Encoding::Fragments { k, n }, Part::Fragment { k: of, i }) => k == of && i < n,
        (Encoding::Whole, Part::Fragment { .. }) => false,
    }
}

/// Whether readers that want blocks of fragments any `k` of which are enough can use a manifest of this encoding.
pub fn is_of(encoding: Encoding, k: u8) -> bool {
    encoding.needed() == usize::from(k)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fragment::{Codec, ManifestBuilder};
    use crate::store::files::{FILE_MODE, write_durable};
    use crate::store::home::Home;
    use crate::store::listing::remove_manifests;
    use crate::wire::PeerKey;

    #[test]
    fn a_part_of_an_earlier_encoding_keeps_the_manifest_that_it_is_checked_by() {
        let dir = tempfile::tempdir().unwrap();
        let (home, key) = (Home::at(dir.path()), PeerKey::from_seed(&[1; 32]));
        home.create().unwrap();
        let made = |encoding| {
            let mail = [7_u8; 300_000];
            key.sign(ManifestBuilder::from_reader(&mail[..], key.peer_id(), encoding, &Codec::default()).unwrap())
        };
        let (old, new) = (Encoding::Fragments { k: 3, n: 5 }, Encoding::Fragments { k: 2, n: 4 });
        let h = made(old).h;
        let first = home.outbox_manifest(&h);
        write_durable(&first, made(old).as_bytes(), FILE_MODE).unwrap();
        write_durable(&home.outbox_manifest_as(&h, new), made(new).as_bytes(), FILE_MODE).unwrap();
        let for_part = |part| find(&first, |m| covers(m.encoding, part)).map(|(_, m)| m.encoding);
        assert_eq!(for_part(Part::Fragment { k: 3, i: 4 }), Some(old));
        assert_eq!(for_part(Part::Fragment { k: 2, i: 3 }), Some(new));
        assert_eq!(for_part(Part::Fragment { k: 2, i: 4 }), None);
        assert!(for_part(Part::Whole).is_some());
        assert_eq!(home.outbox_mails().unwrap(), [h].into());
        remove_manifests(&first).unwrap();
        assert!(for_part(Part::Whole).is_none() && home.outbox_mails().unwrap().is_empty());
    }
}
