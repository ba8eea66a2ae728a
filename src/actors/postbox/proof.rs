//! Proof of who wrote a kept mail: checks its signed packet again, with the certificate that was kept when it came. It never
//! asks another peer, and changes nothing.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::files::{body_path, signed_path};
use crate::core::postbox::access::MessageKey;
use crate::model::{Address, Fingerprint, WallTime};
use crate::seal::{Certificate, verify_signed};
use crate::store::files::{FILE_MODE, write_durable};
use crate::store::home::Home;

/// Bytes that are compared at a time.
const CHUNK: usize = 64 * 1024;
/// The signed packet in an exported proof.
const SIGNED_NAME: &str = "mail.signed";
/// The certificate in it.
const CERTIFICATE_NAME: &str = "sender.pgp";

/// What the signed packet of a mail proves.
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
    /// The packet is not what that certificate signed.
    #[error("the kept packet is not what {fingerprint} signed, so nothing is proven: {why}")]
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

/// Checks the signed packet of a message, and whether `mail` (its own body when none is named) is to the byte what was signed.
/// Blocking.
pub(super) fn verify(
    home: &Home,
    key: MessageKey,
    certificate: &Certificate,
    mail: Option<&Path>,
) -> Result<Proof, ProofError> {
    let own = body_path(home, key);
    check(&signed_path(home, key), certificate, mail.unwrap_or(&own))
}

fn check(signed: &Path, certificate: &Certificate, mail: &Path) -> Result<Proof, ProofError> {
    let fingerprint = certificate.fingerprint();
    let packet = match File::open(signed) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(ProofError::Stub),
        other => other.map_err(file_error(signed))?,
    };
    let cap = packet.metadata().map_err(file_error(signed))?.len().saturating_mul(1100).max(1 << 20);
    let mut compare = Compare { with: BufReader::new(File::open(mail).map_err(file_error(mail))?), same: true };
    let opened = verify_signed(BufReader::new(packet), certificate, cap, &mut compare);
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

/// Writes what a third person needs to check the mail with any OpenPGP program: the signed packet and the certificate.
/// Blocking.
pub(super) fn export(
    home: &Home,
    key: MessageKey,
    certificate: &Certificate,
    folder: &Path,
) -> Result<Vec<PathBuf>, ProofError> {
    fs::create_dir_all(folder).map_err(file_error(folder))?;
    let (signed, public) = (folder.join(SIGNED_NAME), folder.join(CERTIFICATE_NAME));
    fs::copy(signed_path(home, key), &signed).map_err(file_error(&signed))?;
    let failed = |e: crate::store::files::FileError| ProofError::File { path: public.clone(), why: e.to_string() };
    write_durable(&public, certificate.as_bytes(), FILE_MODE).map_err(failed)?;
    Ok(vec![signed, public])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::{SecretIdentity, seal_mail, strip_encryption};

    const MAIL: &[u8] = b"From: alice@acme\r\n\r\nthe words that count\r\n";

    #[test]
    fn a_kept_mail_proves_its_writer_and_one_changed_byte_or_another_certificate_proves_nothing() {
        let (dir, now) = (tempfile::tempdir().unwrap(), WallTime(1_700_000_000_000));
        let home = Home::at(dir.path());
        home.create().unwrap();
        let identity = |address: &str| SecretIdentity::generate(&address.parse().unwrap(), now).unwrap();
        let (alice, rita) = (identity("alice@acme"), identity("rita@readers"));
        let mut sealed = Vec::new();
        seal_mail(MAIL, &alice, &[rita.certificate().clone()], &mut sealed, now).unwrap();
        let key = MessageKey(1);
        let check = |certificate| verify(&home, key, certificate, None);
        assert!(matches!(check(alice.certificate()), Err(ProofError::Stub)));
        fs::create_dir_all(signed_path(&home, key).parent().unwrap()).unwrap();
        strip_encryption(&sealed[..], &rita, File::create(signed_path(&home, key)).unwrap()).unwrap();
        fs::write(body_path(&home, key), MAIL).unwrap();
        let proof = check(alice.certificate()).unwrap();
        assert_eq!((proof.from, proof.same), (Some("alice@acme".parse().unwrap()), true));
        assert_eq!((proof.fingerprint, proof.size), (alice.fingerprint(), u64::try_from(MAIL.len()).unwrap()));
        assert!(matches!(check(rita.certificate()), Err(ProofError::Broken { .. })));
        for other in [&MAIL[..MAIL.len() - 1], &MAIL.to_ascii_uppercase(), &[MAIL, b"x"].concat()] {
            fs::write(body_path(&home, key), other).unwrap();
            assert!(!check(alice.certificate()).unwrap().same);
        }
        let out = dir.path().join("proof");
        let files = export(&home, key, alice.certificate(), &out).unwrap();
        let certificate = Certificate::parse(&fs::read(&files[1]).unwrap()).unwrap();
        fs::write(body_path(&home, key), MAIL).unwrap();
        assert!(super::check(&files[0], &certificate, &body_path(&home, key)).unwrap().same);
    }
}
