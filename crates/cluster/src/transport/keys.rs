//! TLS between nodes: a node's Ed25519 key is all there is, as a raw public key (RFC 7250) instead of a
//! certificate. Whoever holds the key is the node; whether the node may come in is the gate's to say.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::ring::default_provider;
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    PeerIncompatible, ServerConfig, SignatureScheme,
};

use crate::id::NodeId;

/// What comes before the 32 bytes of an Ed25519 private key in PKCS #8 (RFC 8410, section 7).
const PRIVATE: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// What comes before the 32 bytes of an Ed25519 public key (RFC 8410, section 4).
const PUBLIC: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// What a node shows to its peers.
#[derive(Debug)]
pub(super) struct Keys {
    /// Whose they are.
    pub(super) node: NodeId,
    own: Arc<CertifiedKey>,
    provider: Arc<CryptoProvider>,
}

impl Keys {
    /// From the secret key.
    ///
    /// # Errors
    /// The library does not take it.
    pub(super) fn new(secret: [u8; 32]) -> Result<Self, Error> {
        let mut pkcs8 = PRIVATE.to_vec();
        pkcs8.extend(secret);
        let key = any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8))?;
        let public = key.public_key();
        let public = public.ok_or_else(|| Error::General("no public key".to_owned()))?;
        let node = node_of(&public).ok_or(CertificateError::BadEncoding)?;
        let shown = CertificateDer::from(public.to_vec());
        Ok(Self {
            node,
            own: Arc::new(CertifiedKey::new(vec![shown], key)),
            provider: Arc::new(default_provider()),
        })
    }

    /// How a certain peer is called.
    pub(super) fn client(&self, peer: NodeId, protocol: &[u8]) -> Result<ClientConfig, Error> {
        let verifier = Arc::new(Verifier(Some(peer), Arc::clone(&self.provider)));
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
                Arc::clone(&self.own),
            )));
        config.alpn_protocols = vec![protocol.to_vec()];
        // Both sides show their keys each time.
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// How calls are answered.
    pub(super) fn server(&self, protocols: &[&[u8]]) -> Result<ServerConfig, Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(Verifier(None, Arc::clone(&self.provider))))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(
                Arc::clone(&self.own),
            )));
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

/// The node whose key was shown.
pub(super) fn node_of(shown: &[u8]) -> Option<NodeId> {
    let key = shown.strip_prefix(&PUBLIC)?;
    key.try_into().ok().map(NodeId)
}

/// Sees that a peer has the key that it shows, and that it is the peer that was called.
#[derive(Debug)]
struct Verifier(Option<NodeId>, Arc<CryptoProvider>);

impl Verifier {
    fn look(&self, shown: &CertificateDer<'_>) -> Result<(), Error> {
        let node = node_of(shown).ok_or(CertificateError::BadEncoding)?;
        match self.0 {
            Some(called) if called != node => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(()),
        }
    }

    fn signed(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        by: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(shown.as_ref());
        let known = &self.1.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, by, known)
    }
}

/// TLS 1.2 is not spoken: QUIC has none (RFC 9001, section 4.2).
fn too_old() -> Error {
    PeerIncompatible::ServerDoesNotSupportTls12Or13.into()
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.look(end_entity)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.look(end_entity)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
