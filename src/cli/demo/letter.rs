//! The mail of a demo: a letter with an attachment of random bytes, or the user's own mail. Of that only From and To change.

use std::fs::{self, File};
use std::io::{BufWriter, Read as _, Write as _};
use std::path::Path;

use anyhow::Context as _;

use crate::cli::compose::{self, Letter, random_name};
use crate::clock::system_wall;
use crate::mime::header;
use crate::model::{Address, ByteSize};

/// Bytes that are made at a time.
const CHUNK: usize = 1 << 16;

/// A letter with `size` bytes of attachment, which lies in `folder` for a moment.
pub(in crate::cli) fn made(folder: &Path, from: &Address, to: &Address, size: ByteSize) -> anyhow::Result<Vec<u8>> {
    let path = folder.join("photos.tar");
    random_file(&path, size).with_context(|| path.display().to_string())?;
    let letter = Letter {
        from,
        to: std::slice::from_ref(to),
        cc: &[],
        subject: "The photos you asked for",
        date: system_wall(),
        text: b"Hi Rita,\n\nhere they are. I switch my machine off now; yours will find them all the same.\n\nAlice\n",
        attach: std::slice::from_ref(&path),
    };
    let mut mail = Vec::new();
    let written = letter.write(&mut mail);
    fs::remove_file(&path)?;
    written?;
    Ok(mail)
}

/// Bytes that do not compress: an honest load.
fn random_file(path: &Path, size: ByteSize) -> anyhow::Result<()> {
    let mut random = blake3::Hasher::new().update(random_name()?.as_bytes()).finalize_xof();
    let mut out = BufWriter::new(File::create(path)?);
    let mut chunk = [0; CHUNK];
    let mut left = size.bytes();
    while left > 0 {
        let step = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        random.fill(&mut chunk[..step]);
        out.write_all(&chunk[..step])?;
        left -= u64::try_from(step).unwrap_or(left);
    }
    Ok(out.flush()?)
}

/// The mail in `path` with `from` and `to` in the place of its own, CRLF line breaks as SMTP needs them, and no blind
/// copies, which no receiver ever sees.
pub(in crate::cli) fn own(path: &Path, from: &Address, to: &Address) -> anyhow::Result<Vec<u8>> {
    let mut raw = Vec::new();
    let mut file = File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    file.read_to_end(&mut raw)?;
    let mut mail = Vec::with_capacity(raw.len());
    compose::copy_with_crlf(&mut raw.as_slice(), &mut mail)?;
    mail = header::replace_field(&mail, "From", from.to_string().as_str());
    mail = header::replace_field(&mail, "To", to.to_string().as_str());
    mail = header::remove_bcc(&mail);
    if !mail.ends_with(b"\r\n") {
        mail.extend_from_slice(b"\r\n");
    }
    Ok(mail)
}

/// Whether `got` is `sent`, after whole header fields that submission put on top because they were missing.
pub(in crate::cli) fn is_same(got: &[u8], sent: &[u8]) -> bool {
    let Some(added) = got.strip_suffix(sent) else { return false };
    let allowed = ["Date", "Message-ID"];
    let mut missing = header::fields(added);
    let whole: usize = header::fields(added).map(|field| field.raw.len()).sum();
    whole == added.len()
        && missing.all(|field| allowed.iter().any(|name| field.is(name) && header::count(sent, name) == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn people() -> (Address, Address) {
        ("alice@acme".parse().unwrap(), "rita@readers".parse().unwrap())
    }

    #[test]
    fn a_made_letter_has_its_attachment_and_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let (alice, rita) = people();
        let mail = made(dir.path(), &alice, &rita, ByteSize::kib(100)).unwrap();
        assert!(mail.len() > 136 * 1024 && mail.len() < 142 * 1024, "{}", mail.len());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(header::first(&mail, "Message-ID").is_some() && header::first(&mail, "Date").is_some());
    }

    #[test]
    fn of_ones_own_mail_only_from_and_to_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.eml");
        fs::write(
            &path,
            "X-One: 1\nFrom: me@example.org\nTo: you@example.org,\n me@example.org\nBcc: eve@e\n\nTo: me\n.\nend",
        )
        .unwrap();
        let (alice, rita) = people();
        let mail = String::from_utf8(own(&path, &alice, &rita).unwrap()).unwrap();
        assert_eq!(mail, "X-One: 1\r\nFrom: alice@acme\r\nTo: rita@readers\r\n\r\nTo: me\r\n.\r\nend\r\n");
    }

    #[test]
    fn submission_may_add_only_what_was_missing() {
        let sent = b"From: a@b\r\nDate: x\r\n\r\nbody\r\n";
        assert!(is_same(sent, sent));
        assert!(is_same(&[b"Message-ID: <1@b>\r\n".as_slice(), sent].concat(), sent));
        assert!(!is_same(&[b"Date: y\r\n".as_slice(), sent].concat(), sent));
        assert!(!is_same(&[b"X-Ad: y\r\n".as_slice(), sent].concat(), sent));
        assert!(!is_same(&[b"\r\n".as_slice(), sent].concat(), sent));
        assert!(!is_same(b"From: a@b\r\nDate: x\r\n\r\nbodY\r\n", sent));
    }
}
