//! A server such as an agent is: HTTP/2 over TLS 1.3, with a certificate of the installation's CA.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use edict_operator::pki::{self, Holder, Pair};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use http::{Request, Response};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::jiff::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// An answer's body, a piece at a time.
pub type Pieces = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

pub fn pieces(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Pieces {
    StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece))).boxed())
}

/// Answers every request; every connection ends with this.
pub async fn serve<S, F>(listener: TcpListener, authority: Pair, answer: S)
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<Pieces>, Infallible>> + Send + 'static,
{
    let _ = rustls::crypto::ring::default_provider().install_default();
    let own = pki::issue(&authority, Holder::Agent, Timestamp::now()).unwrap();
    let certificate = CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, answer) = (acceptor.clone(), answer.clone());
        connections.spawn(async move {
            // Who trusts another CA goes away here.
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service_fn(answer));
            // The client goes away when it has heard enough.
            drop(serving.await);
        });
    }
}
