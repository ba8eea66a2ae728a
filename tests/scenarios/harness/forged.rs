//! Records in somebody else's name: what the program itself refuses to make.

use std::io::Write as _;

use roost::model::notification::{NS_PADDING, Ns};
use roost::seal::Certificate;
use roost::wire;
use sequoia_openpgp as openpgp;

use openpgp::cert::CertBuilder;
use openpgp::parse::Parse as _;
use openpgp::policy::StandardPolicy;
use openpgp::serialize::stream::{Compressor, Encryptor, LiteralWriter, Message, Recipient, Signer};
use openpgp::types::{AEADAlgorithm, CompressionAlgorithm, HashAlgorithm, SymmetricAlgorithm};

/// An ns as it is, in the name of the sender that it names, sealed to `reader` and signed by a key that is not the sender's.
pub(crate) fn forged_ns(ns: &Ns, reader: &Certificate) -> Vec<u8> {
    let record = [&b"ns\0"[..], &wire::encode(ns)].concat();
    let deflated = miniz_oxide::deflate::compress_to_vec(&record, 6);
    seals(&framed(&deflated), reader, false)
}

/// Something sealed to `reader` as an ns is, in the name of dave, that is far larger once `record` is inflated.
pub(crate) fn bomb_ns(record: &[u8], reader: &Certificate) -> Vec<u8> {
    seals(&framed(&miniz_oxide::deflate::compress_to_vec(&[&b"ns\0"[..], record].concat(), 9)), reader, false)
}

/// The same, but it is OpenPGP's own compression that hides how large it is.
pub(crate) fn compressed_ns(content: &[u8], reader: &Certificate) -> Vec<u8> {
    seals(content, reader, true)
}

fn framed(deflated: &[u8]) -> Vec<u8> {
    let mut frame = [&u32::try_from(deflated.len()).unwrap().to_be_bytes()[..], deflated].concat();
    frame.resize(frame.len().next_multiple_of(NS_PADDING), 0);
    frame
}

/// Signed by a key that nobody knows.
fn seals(content: &[u8], reader: &Certificate, compress: bool) -> Vec<u8> {
    let policy = StandardPolicy::new();
    let reader = openpgp::Cert::from_bytes(reader.as_bytes()).unwrap();
    let (forger, _) = CertBuilder::new().add_userid("dave@acme").add_signing_subkey().generate().unwrap();
    let to = reader.keys().with_policy(&policy, None).supported().for_transport_encryption().next().unwrap();
    let by = forger.keys().with_policy(&policy, None).secret().for_signing().next().unwrap();
    let mut sealed = Vec::new();
    let mut message = Encryptor::for_recipients(
        Message::new(&mut sealed),
        [Recipient::new(None, None, to.key().role_as_unspecified())],
    )
    .symmetric_algo(SymmetricAlgorithm::AES256)
    .aead_algo(AEADAlgorithm::OCB)
    .build()
    .unwrap();
    if compress {
        message = Compressor::new(message).algo(CompressionAlgorithm::Zip).build().unwrap();
    }
    let message = Signer::new(message, by.key().clone().into_keypair().unwrap()).unwrap();
    let message = message.hash_algo(HashAlgorithm::SHA256).unwrap().build().unwrap();
    let mut message = LiteralWriter::new(message).build().unwrap();
    message.write_all(content).unwrap();
    message.finalize().unwrap();
    sealed
}
