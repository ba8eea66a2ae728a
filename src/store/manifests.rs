//! The manifests of one mail that lie on this disk: the first one, and those of encodings that came later. It reads and checks them,
//! and never decides which encoding a mail is kept in. Blocking.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::files::{FileError, read_bounded};
use super::home::Home;
use super::listing::later_manifests;
use super::tailed::{self, Mark};
use crate::fragment::{MailName, check_manifest};
use crate::model::manifest::Manifest;
use crate::model::{Encoding, MailId, Part};
use crate::wire::Signed;

/// Largest manifest that is read: that of a mail of 32 GiB.
const MANIFEST_MAX: u64 = 64 * 1024 * 1024;

/// The version of what stands behind an own mail's first manifest in its file, and that it is sealed send notifications.
const NOTICES: Mark = [1, b'N'];

/// A file with the first manifest of an own mail, and its sealed send notifications behind it.
///
/// # Errors
/// When there are more than 4 GiB of them.
pub fn with_notices(manifest: &[u8], notices: &[u8]) -> io::Result<Vec<u8>> {
    let mut file = manifest.to_vec();
    tailed::write_second(&mut file, notices, NOTICES)?;
    Ok(file)
}

/// The sealed send notifications of an own mail; an earlier version had them in a file of their own.
///
/// # Errors
/// [`FileError`] when they are missing, damaged, or have more than `limit` bytes.
pub fn notices(home: &Home, h: &MailId, limit: u64) -> Result<Vec<u8>, FileError> {
    match read_bounded(&home.outbox_notices_of_version_1(h), limit) {
        Err(e) if e.is_not_found() => tailed::read_second(&home.outbox_manifest(h), NOTICES, limit),
        read => read,
    }
}

/// The manifest in a file, and its length without what may stand behind it.
///
/// # Errors
/// What the operating system says.
pub fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = File::open(path)?;
    let length = tailed::first_length(&file, NOTICES)?;
    Ok((file, length))
}

/// The first of a mail's manifests that is signed, agrees with itself, and is one that `fits`; `first` is the path of the oldest.
pub fn find(first: &Path, fits: impl Fn(&Manifest) -> bool) -> Option<(PathBuf, Signed<Manifest>)> {
    let read = |path: PathBuf| {
        let bytes = read_bounded(&path, MANIFEST_MAX).ok()?;
        let first = tailed::first_of(&bytes, NOTICES);
        let manifest = Signed::<Manifest>::verify(first).or_else(|_| Signed::verify(&bytes)).ok()?;
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
        let alone = made(old).as_bytes().len();
        write_durable(&first, &with_notices(made(old).as_bytes(), b"sealed").unwrap(), FILE_MODE).unwrap();
        assert_eq!(open(&first).unwrap().1, u64::try_from(alone).unwrap());
        assert_eq!(notices(&home, &h, 100).unwrap(), b"sealed");
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
