//! TLS before a gateway: private authorities, and a port with a certificate of one of them that passes everything on.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// Who vouches for certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// A new one of this name. Another one of the same name has another key.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, key()).expect("should be able to sign itself"))
    }

    /// Its certificate, as PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// How a server on loopback shows itself with a certificate of this authority.
    fn server(&self) -> ServerConfig {
        let key = key();
        let params = CertificateParams::new([Ipv4Addr::LOCALHOST.to_string()]).expect("should be an address");
        let certificate = params.signed_by(&key, &self.0).expect("should be able to sign");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("should be a key");
        ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.into()], key)
            .expect("should be the key of the certificate")
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("should make a key")
}

/// A port that speaks TLS, before one that does not. It ends when it is dropped, with all its connections.
pub struct TlsFront {
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl TlsFront {
    /// Starts one before the server at this url, with a certificate of this authority.
    pub async fn start(url: &str, authority: &Authority) -> Self {
        let inner = url.strip_prefix("http://").and_then(|address| address.parse().ok());
        let inner: SocketAddr = inner.expect("should be the url of a port");
        let acceptor = TlsAcceptor::from(Arc::new(authority.server()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("should listen");
        let address = listener.local_addr().expect("should have an address");
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                connections.spawn(pass_on(acceptor.clone(), connection, inner));
            }
        });
        Self { address, server }
    }

    /// Its base url, without a slash at the end.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A client that does not trust the certificate ends it before anything is passed on.
async fn pass_on(acceptor: TlsAcceptor, connection: TcpStream, inner: SocketAddr) -> std::io::Result<()> {
    let mut outside = acceptor.accept(connection).await?;
    let mut inside = TcpStream::connect(inner).await?;
    copy_bidirectional(&mut outside, &mut inside).await?;
    Ok(())
}
