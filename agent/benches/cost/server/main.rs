//! Serves TLS, and has nothing to say. Never ends.
//!
//! `server ADDRESS FOLDER`; the folder has `tls.crt` and `tls.key`.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address: SocketAddr = arguments.next().ok_or("no address")?.parse()?;
    let folder = PathBuf::from(arguments.next().ok_or("no folder")?);
    let certificate = CertificateDer::from_pem_file(folder.join("tls.crt"))?;
    let key = PrivateKeyDer::from_pem_file(folder.join("tls.key"))?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            let accepting = acceptor.accept(stream);
            tokio::spawn(async move { drop(accepting.await) });
        }
    })
}
