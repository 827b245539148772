//! The operator's own port, which whoever is in the cluster can reach.
#![expect(
    clippy::unwrap_used,
    reason = "a test states its expectations by failing; .clippy.toml covers test functions only"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use edict_operator::http::{answer, router};
use edict_operator::metrics::Metrics;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

async fn served() -> SocketAddr {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(answer(
        listener,
        router(|| true, Arc::new(Metrics::default())),
    ));
    address
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    let reading = stream.read_to_string(&mut text);
    tokio::time::timeout(Duration::from_secs(20), reading)
        .await
        .unwrap()
        .unwrap();
    text
}

#[tokio::test]
async fn it_says_whether_it_lives_and_what_it_counts() {
    let address = served().await;
    for path in ["/livez", "/readyz", "/metrics"] {
        let text = get(address, path).await;
        assert!(text.starts_with("HTTP/1.1 200 OK"), "{path}: {text}");
    }
    assert!(get(address, "/metrics").await.contains("edict_epoch 0"));
    assert!(get(address, "/else").await.starts_with("HTTP/1.1 404"));
}

/// Connections on which nothing is said, or a request is begun and never ended.
#[tokio::test]
async fn whoever_says_nothing_keeps_no_probe_out() {
    let address = served().await;
    let mut silent = Vec::new();
    for number in 0..300 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if number % 2 == 0 {
            stream
                .write_all(b"GET /livez HTTP/1.1\r\nX: ")
                .await
                .unwrap();
        }
        silent.push(stream);
        if number % 30 == 0 {
            assert!(get(address, "/livez").await.ends_with("alive"));
        }
    }
    assert!(get(address, "/livez").await.ends_with("alive"));
}

#[tokio::test]
async fn a_slow_or_endless_head_ends_the_connection() {
    let address = served().await;
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
    let mut endless = TcpStream::connect(address).await.unwrap();
    endless
        .write_all(b"GET /livez HTTP/1.1\r\nX: ")
        .await
        .unwrap();
    // It is closed before a megabyte of it is read.
    let mut written = 0;
    while written < 1 << 20 {
        match endless.write(&[b'x'; 4096]).await {
            Ok(bytes) => written += bytes,
            Err(_) => break,
        }
    }
    let mut rest = Vec::new();
    let reading = slow.read_to_end(&mut rest);
    let ended = tokio::time::timeout(Duration::from_secs(30), reading).await;
    assert!(ended.is_ok(), "it is still open after 30 s");
    let mut rest = Vec::new();
    let reading = endless.read_to_end(&mut rest);
    let ended = tokio::time::timeout(Duration::from_secs(30), reading).await;
    assert!(ended.is_ok(), "it is still open after {written} bytes");
}
