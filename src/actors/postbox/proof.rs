//! Proof of who wrote a kept mail: checks its signature again, with the certificate that was kept when it came. It never
//! asks another peer, and changes nothing.
//!
//! Earlier versions kept the whole signed message as `KEY.signed`; it is checked as it is.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek as _, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::files::{body_path, signed_path};
use crate::core::postbox::access::MessageKey;
use crate::model::{Address, Fingerprint, WallTime};
use crate::seal::{Certificate, SIGNATURE_MAX, SealError, is_signature, signed_message, verify_signed};
use crate::store::files::{DurableWriter, FILE_MODE, FileError, write_durable};
use crate::store::home::Home;

/// Bytes that are compared at a time.
const CHUNK: usize = 64 * 1024;
/// The signed message in an exported proof.
const SIGNED_NAME: &str = "mail.signed";
/// The certificate in it.
const CERTIFICATE_NAME: &str = "sender.pgp";

/// What the signature of a mail proves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Whose certificate it is, by its own word.
    pub from: Option<Address>,
    /// The certificate that signed.
    pub fingerprint: Fingerprint,
    /// When, by the signer's clock.
    pub signed_at: WallTime,
    /// Bytes that were signed.
    pub size: u64,
    /// Whether the mail is to the byte what was signed.
    pub same: bool,
    /// The files of an exported proof.
    pub exported: Vec<PathBuf>,
}

/// Why nothing is proven.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The message is no mail of somebody else.
    #[error(
        "this message came from no other peer (a request's card, a delivery report, or one filed by your mail program), so nobody signed it"
    )]
    NoMail,
    /// Its body was never opened.
    #[error("the body of this mail is not here yet; open it first, with `roost read` or in the mail program")]
    Stub,
    /// The certificate is gone.
    #[error("the certificate {fingerprint} that signed this mail is not in keys/ any more; restore it from a backup")]
    NoCertificate {
        /// Which one.
        fingerprint: Fingerprint,
    },
    /// The mail is not what that certificate signed.
    #[error("what is kept of this mail is not what {fingerprint} signed, so nothing is proven: {why}")]
    Broken {
        /// The certificate.
        fingerprint: Fingerprint,
        /// What OpenPGP says.
        why: String,
    },
    /// A file cannot be read or written.
    #[error("{} cannot be used: {why}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the operating system says.
        why: String,
    },
    /// This peer is stopping.
    #[error("this peer is stopping")]
    Stopped,
}

fn file_error(path: &Path) -> impl Fn(io::Error) -> ProofError + '_ {
    move |e| ProofError::File { path: path.to_owned(), why: e.to_string() }
}

/// Compares what is written to it with what a file holds.
struct Compare {
    with: BufReader<File>,
    same: bool,
}

impl Write for Compare {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut expected = vec![0; bytes.len().min(CHUNK)];
        let mut filled = 0;
        while filled < expected.len() {
            match self.with.read(&mut expected[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        let n = expected.len();
        self.same &= filled == n && expected == bytes[..n];
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A signed message, and most bytes that come out of it.
type Message = (Box<dyn Read + Send + Sync>, u64);

/// The signed message that a kept signature and body are, or that an earlier version kept whole.
fn message(signed: &Path, body: &Path) -> Result<Message, ProofError> {
    let mut kept = match File::open(signed) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(ProofError::Stub),
        other => other.map_err(file_error(signed))?,
    };
    let length = kept.metadata().map_err(file_error(signed))?.len();
    let mut signature = Vec::new();
    let most = u64::try_from(SIGNATURE_MAX).unwrap_or(u64::MAX);
    (&mut kept).take(most).read_to_end(&mut signature).map_err(file_error(signed))?;
    if !is_signature(&signature) {
        kept.rewind().map_err(file_error(signed))?;
        return Ok((Box::new(BufReader::new(kept)), length.saturating_mul(1100).max(1 << 20)));
    }
    let body_file = File::open(body).map_err(file_error(body))?;
    let length = body_file.metadata().map_err(file_error(body))?.len();
    let broken = |e: SealError| ProofError::File { path: signed.to_owned(), why: e.to_string() };
    let message = signed_message(&signature, BufReader::with_capacity(CHUNK, body_file), length).map_err(broken)?;
    Ok((Box::new(message), length))
}

/// Checks the signature of a message, and whether `mail` (its own body when none is named) is to the byte what was signed.
/// Blocking.
pub(super) fn verify(
    home: &Home,
    key: MessageKey,
    certificate: &Certificate,
    mail: Option<&Path>,
) -> Result<Proof, ProofError> {
    let own = body_path(home, key);
    check(message(&signed_path(home, key), &own)?, certificate, mail.unwrap_or(&own))
}

fn check((packet, cap): Message, certificate: &Certificate, mail: &Path) -> Result<Proof, ProofError> {
    let fingerprint = certificate.fingerprint();
    let mut compare = Compare { with: BufReader::new(File::open(mail).map_err(file_error(mail))?), same: true };
    let opened = verify_signed(packet, certificate, cap, &mut compare);
    let opened = opened.map_err(|e| ProofError::Broken { fingerprint, why: e.to_string() })?;
    let rest = compare.with.read(&mut [0]).map_err(file_error(mail))?;
    Ok(Proof {
        from: certificate.address().cloned(),
        fingerprint,
        signed_at: opened.signed_at,
        size: opened.length,
        same: compare.same && rest == 0,
        exported: Vec::new(),
    })
}

/// Writes what a third person needs to check the mail with any OpenPGP program: the signed message and the certificate.
/// Blocking.
pub(super) fn export(
    home: &Home,
    key: MessageKey,
    certificate: &Certificate,
    folder: &Path,
) -> Result<Vec<PathBuf>, ProofError> {
    fs::create_dir_all(folder).map_err(file_error(folder))?;
    let (signed, public) = (folder.join(SIGNED_NAME), folder.join(CERTIFICATE_NAME));
    let failed = |path: &Path, e: FileError| ProofError::File { path: path.to_owned(), why: e.to_string() };
    let (mut packet, _) = message(&signed_path(home, key), &body_path(home, key))?;
    let mut file = DurableWriter::create(folder).map_err(|e| failed(&signed, e))?;
    io::copy(&mut packet, &mut file).map_err(file_error(&signed))?;
    file.commit(&signed).map_err(|e| failed(&signed, e))?;
    write_durable(&public, certificate.as_bytes(), FILE_MODE).map_err(|e| failed(&public, e))?;
    Ok(vec![signed, public])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::{SecretIdentity, open_mail, seal_mail, strip_encryption};

    const MAIL: &[u8] = b"From: alice@acme\r\n\r\nthe words that count\r\n";

    #[test]
    fn a_kept_mail_proves_its_writer_and_one_changed_byte_or_another_certificate_proves_nothing() {
        let (dir, now) = (tempfile::tempdir().unwrap(), WallTime(1_700_000_000_000));
        let home = Home::at(dir.path());
        home.create().unwrap();
        let identity = |address: &str| SecretIdentity::generate(&address.parse().unwrap(), now).unwrap();
        let (alice, rita) = (identity("alice@acme"), identity("rita@readers"));
        let (mut sealed, mut whole) = (Vec::new(), Vec::new());
        seal_mail(MAIL, &alice, &[rita.certificate().clone()], &mut sealed, now).unwrap();
        let signature = open_mail(&sealed[..], &rita, alice.certificate(), 1000, io::sink()).unwrap().signature;
        // As an earlier version kept it.
        strip_encryption(&sealed[..], &rita, &mut whole).unwrap();
        let key = MessageKey(1);
        let check = |certificate, mail| verify(&home, key, certificate, mail);
        assert!(matches!(check(alice.certificate(), None), Err(ProofError::Stub)));
        fs::create_dir_all(signed_path(&home, key).parent().unwrap()).unwrap();
        let copy = dir.path().join("copy");
        for (kept, is_whole) in [(&signature, false), (&whole, true)] {
            fs::write(signed_path(&home, key), kept).unwrap();
            fs::write(body_path(&home, key), MAIL).unwrap();
            let proof = check(alice.certificate(), None).unwrap();
            assert_eq!((proof.from, proof.same), (Some("alice@acme".parse().unwrap()), true));
            assert_eq!((proof.fingerprint, proof.size), (alice.fingerprint(), u64::try_from(MAIL.len()).unwrap()));
            assert!(matches!(check(rita.certificate(), None), Err(ProofError::Broken { .. })));
            let out = dir.path().join(format!("proof {is_whole}"));
            let files = export(&home, key, alice.certificate(), &out).unwrap();
            let certificate = Certificate::parse(&fs::read(&files[1]).unwrap()).unwrap();
            let exported = message(&files[0], Path::new("")).unwrap();
            assert!(super::check(exported, &certificate, &body_path(&home, key)).unwrap().same);
            for other in [&MAIL[..MAIL.len() - 1], &MAIL.to_ascii_uppercase(), &[MAIL, b"x"].concat()] {
                fs::write(&copy, other).unwrap();
                fs::write(body_path(&home, key), MAIL).unwrap();
                assert!(!check(alice.certificate(), Some(&copy)).unwrap().same);
                fs::write(body_path(&home, key), other).unwrap();
                match check(alice.certificate(), None) {
                    Ok(proof) => assert!(is_whole && !proof.same),
                    Err(e) => assert!(!is_whole && matches!(e, ProofError::Broken { .. })),
                }
            }
        }
    }
}
