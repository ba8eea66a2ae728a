//! Mutual TLS 1.3 in which each side learns the other's PeerId and nobody needs a CA. It never speaks an older version, never
//! resumes a session (each connection proves both identities afresh) and never logs keys.
//!
//! Certificates are libp2p's: self-signed with a throwaway P-256 key, carrying the identity key's signature over it.

use std::sync::Arc;

use libp2p::identity::Keypair;
use libp2p_tls::certificate;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{ClientConfig, Resumption};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::aws_lc_rs::{self, cipher_suite};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{NoServerSessionStorage, ServerConfig};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{
    self, DigitallySignedStruct, DistinguishedName, NoKeyLog, OtherError, SignatureScheme, version,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::model::PeerId;
use crate::wire::PeerKey;

/// What both sides agree to speak inside.
const ALPN: &[u8] = b"http/1.1";
/// Stands where rustls wants a name; it is not sent, for the PeerId is what is checked.
const NO_NAME: &str = "peer.invalid";

/// Why TLS cannot be set up or a certificate names no peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// No certificate could be made from this peer's key.
    #[error("no TLS certificate can be made from this peer's key: {why}; check identity/ in its home")]
    Identity {
        /// What the library says.
        why: String,
    },
    /// The other side's certificate does not prove a PeerId.
    #[error("the other side's certificate proves no PeerId: {why}")]
    Certificate {
        /// What is wrong with it.
        why: String,
    },
    /// Somebody else answers at the address that was dialled.
    #[error("{answered} answers where {dialled} was dialled")]
    WrongPeer {
        /// Who was meant.
        dialled: PeerId,
        /// Who answered.
        answered: PeerId,
    },
}

/// A peer's side of every connection: its certificate, and how it checks the other's.
#[derive(Debug, Clone)]
pub struct TlsIdentity {
    peer: PeerId,
    provider: Arc<CryptoProvider>,
    certificate: Arc<SingleCertAndKey>,
    server: Arc<ServerConfig>,
}

impl TlsIdentity {
    /// Makes a certificate for `key`.
    ///
    /// # Errors
    /// [`TlsError::Identity`] when the libraries refuse the key.
    pub fn new(key: &PeerKey) -> Result<Self, TlsError> {
        let refused = |why: String| TlsError::Identity { why };
        let mut seed = key.seed();
        let identity = Keypair::ed25519_from_bytes(seed.as_mut_slice()).map_err(|e| refused(e.to_string()))?;
        let (der, private) = certificate::generate(&identity).map_err(|e| refused(e.to_string()))?;
        let provider = Arc::new(CryptoProvider {
            cipher_suites: vec![
                cipher_suite::TLS13_AES_128_GCM_SHA256,
                cipher_suite::TLS13_AES_256_GCM_SHA384,
                cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            ..aws_lc_rs::default_provider()
        });
        let signer = provider.key_provider.load_private_key(private).map_err(|e| refused(e.to_string()))?;
        let certificate = Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![der], signer)));
        let server = server_config(&provider, &certificate).map_err(|e| refused(e.to_string()))?;
        Ok(Self { peer: key.peer_id(), provider, certificate, server: Arc::new(server) })
    }
    /// Who this is.
    pub fn peer_id(&self) -> PeerId {
        self.peer
    }
    /// A connection over `tcp` to `dialled`, for whoever writes requests by hand.
    ///
    /// # Errors
    /// When somebody else answers, or the handshake fails.
    pub async fn connect(
        &self,
        dialled: PeerId,
        tcp: TcpStream,
    ) -> std::io::Result<impl AsyncRead + AsyncWrite + Unpin + use<>> {
        let (connector, name) = self.connector(dialled).map_err(std::io::Error::other)?;
        connector.connect(name, tcp).await
    }
    /// For connections that are accepted: any peer may come, and must prove who it is.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.server))
    }
    /// For one connection to `dialled`; the handshake fails when somebody else answers.
    pub(super) fn connector(&self, dialled: PeerId) -> Result<(TlsConnector, ServerName<'static>), rustls::Error> {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { dialled: Some(dialled) }))
            .with_client_cert_resolver(Arc::clone(&self.certificate) as Arc<_>);
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        config.key_log = Arc::new(NoKeyLog {});
        let name = ServerName::try_from(NO_NAME).map_err(|e| rustls::Error::General(e.to_string()))?;
        Ok((TlsConnector::from(Arc::new(config)), name))
    }
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    certificate: &Arc<SingleCertAndKey>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(Arc::new(Verifier { dialled: None }))
        .with_cert_resolver(Arc::clone(certificate) as Arc<_>);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.key_log = Arc::new(NoKeyLog {});
    Ok(config)
}

/// The PeerId that the certificates of a connection prove, as `peer_certificates()` gives them.
///
/// # Errors
/// [`TlsError::Certificate`] when there is not exactly one, or it proves no Ed25519 PeerId.
pub fn peer_of(certificates: Option<&[CertificateDer<'_>]>) -> Result<PeerId, TlsError> {
    let refused = |why: String| TlsError::Certificate { why };
    let [certificate] = certificates.unwrap_or_default() else {
        return Err(refused("there must be exactly one".to_owned()));
    };
    let parsed = certificate::parse(certificate).map_err(|e| refused(e.to_string()))?;
    PeerId::from_multihash(&parsed.peer_id().to_bytes()).map_err(|e| refused(e.to_string()))
}

/// The reason of ours inside an error of a handshake, if it is one.
pub(super) fn reason_of(error: &std::io::Error) -> Option<&TlsError> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(OtherError(inner))) => inner.downcast_ref(),
        _ => None,
    }
}

/// Checks what libp2p-tls checks, with the suites and the session policy of ours.
#[derive(Debug)]
struct Verifier {
    /// Who must answer; `None` on the accepting side.
    dialled: Option<PeerId>,
}

impl Verifier {
    fn check(&self, end: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let ours = |error: TlsError| {
            rustls::Error::InvalidCertificate(rustls::CertificateError::Other(OtherError(Arc::new(error))))
        };
        if !rest.is_empty() {
            return Err(ours(TlsError::Certificate { why: "there must be exactly one".to_owned() }));
        }
        let answered = peer_of(Some(std::slice::from_ref(end))).map_err(ours)?;
        match self.dialled {
            Some(dialled) if dialled != answered => Err(ours(TlsError::WrongPeer { dialled, answered })),
            _ => Ok(()),
        }
    }

    fn check_tls13(
        message: &[u8],
        end: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        certificate::parse(end)?.verify_signature(signed.scheme, message, signed.signature())?;
        Ok(HandshakeSignatureValid::assertion())
    }

    fn schemes() -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ECDSA_NISTP384_SHA384, SignatureScheme::ED25519]
    }

    fn refuse_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken".to_owned()))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end, rest).map(|()| ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _end: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::refuse_tls12()
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        end: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::check_tls13(message, end, signed)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        true
    }
    fn client_auth_mandatory(&self) -> bool {
        true
    }
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        end: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end, rest).map(|()| ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _end: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::refuse_tls12()
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        end: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::check_tls13(message, end, signed)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

/// How a caller checks the other side, for a test that comes without a certificate of its own.
#[cfg(test)]
pub(super) fn verifier_for_tests(dialled: PeerId) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Verifier { dialled: Some(dialled) })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn identity(seed: u8) -> TlsIdentity {
        TlsIdentity::new(&PeerKey::from_seed(&[seed; 32])).unwrap()
    }

    /// What a client that dials `dialled` and a server with seed 2 make of each other.
    async fn handshake(
        client: TlsIdentity,
        dialled: PeerId,
    ) -> (Result<PeerId, std::io::Error>, Result<PeerId, std::io::Error>) {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let server = tokio::spawn(async move {
            let mut stream = identity(2).acceptor().accept(far).await?;
            stream.write_all(b"x").await?;
            assert_eq!(
                stream.get_ref().1.negotiated_cipher_suite().unwrap().suite(),
                rustls::CipherSuite::TLS13_AES_128_GCM_SHA256
            );
            Ok(peer_of(stream.get_ref().1.peer_certificates()).unwrap())
        });
        let (connector, name) = client.connector(dialled).unwrap();
        let client = async {
            let mut stream = connector.connect(name, near).await?;
            stream.read_u8().await?;
            Ok(peer_of(stream.get_ref().1.peer_certificates()).unwrap())
        };
        (client.await, server.await.unwrap())
    }

    #[tokio::test]
    async fn each_side_knows_the_others_peer_id() {
        let (at_client, at_server) = handshake(identity(1), identity(2).peer_id()).await;
        assert_eq!(at_client.unwrap(), identity(2).peer_id());
        assert_eq!(at_server.unwrap(), identity(1).peer_id());
    }

    #[tokio::test]
    async fn somebody_else_answering_is_refused_and_named() {
        let (at_client, at_server) = handshake(identity(1), identity(3).peer_id()).await;
        let expected = TlsError::WrongPeer { dialled: identity(3).peer_id(), answered: identity(2).peer_id() };
        assert_eq!(reason_of(&at_client.unwrap_err()), Some(&expected));
        assert!(at_server.is_err());
    }

    #[tokio::test]
    async fn a_certificate_with_another_peers_extension_is_refused() {
        // The certificate of peer 1 with the private key of another certificate: the handshake's signature does not fit.
        let (mut forged, other) = (identity(1), identity(1));
        let key = |id: &TlsIdentity| {
            let resolver: &dyn rustls::client::ResolvesClientCert = id.certificate.as_ref();
            resolver.resolve(&[], &[]).unwrap()
        };
        let mixed = CertifiedKey::new(key(&forged).cert.clone(), Arc::clone(&key(&other).key));
        forged.certificate = Arc::new(SingleCertAndKey::from(mixed));
        let (_, at_server) = handshake(forged, identity(2).peer_id()).await;
        assert!(at_server.is_err());
    }

    #[test]
    fn no_or_several_certificates_prove_nobody() {
        assert!(peer_of(None).is_err());
        assert!(peer_of(Some(&[])).is_err());
        assert!(peer_of(Some(&[CertificateDer::from(vec![1, 2, 3])])).is_err());
    }
}
