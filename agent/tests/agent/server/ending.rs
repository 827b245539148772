//! How the server ends while something is under way.

use std::sync::Mutex;

use edict_core::layer::Layer;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::faults::Failing;
use crate::node::Declared;

/// A node on which nothing is written before `go` is dropped; `begun` hears when something would be.
struct Held {
    served: Served,
    begun: UnboundedReceiver<()>,
    go: std::sync::mpsc::Sender<()>,
}

impl Held {
    async fn new() -> Self {
        let (begins, begun) = unbounded_channel();
        let (go, held) = std::sync::mpsc::channel();
        let held = Mutex::new(held);
        let mut node = Node::prepared();
        let host = Failing {
            watch: Box::new(move || {
                let _ = begins.send(());
                let _ = held.lock().unwrap().recv();
                Ok(())
            }),
            ..Failing::new(node.host(&Declared::default()))
        };
        node.run(host);
        let served = Served::of(node).await;
        Self { served, begun, go }
    }

    fn push(&self, layer: Layer) -> JoinHandle<Outcomes<(StatusCode, Bytes)>> {
        let operator = self.served.operator();
        let push = Push::new(NAME.into(), Policy::default(), vec![layer], vec![]);
        let body = serde_json::to_vec(&push).unwrap();
        tokio::spawn(async move { operator.ask(request(Method::POST, wire::PUSH, body)).await })
    }

    async fn begins(&mut self) {
        let begun = tokio::time::timeout(Duration::from_secs(20), self.begun.recv()).await;
        begun.expect("a push begins in time").unwrap();
    }

    /// Tells the server to end, and returns when it takes no more connections.
    async fn end(&mut self) {
        self.served.end.take().unwrap().send(()).unwrap();
        let gone = async {
            while TcpStream::connect(("::1", self.served.port)).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        let gone = tokio::time::timeout(Duration::from_secs(20), gone).await;
        gone.expect("it takes no more connections");
    }

    /// Lets everything be written, and gives the node when the server has ended.
    async fn ended(mut self) -> Node {
        let serving = self.served.serving.take().unwrap();
        assert!(!serving.is_finished(), "it does not wait for the push");
        drop(self.go);
        let ended = tokio::time::timeout(Duration::from_secs(20), serving).await;
        ended.expect("it ends in time").unwrap();
        self.served.node
    }
}

/// As a kubelet ends an agent that is being replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_done_before_it_ends_and_none_is_begun() {
    let mut held = Held::new().await;
    let first = held.push(layer("a").file("/etc/motd", "hello\n"));
    held.begins().await;
    let second = held.push(layer("b").file("/etc/issue", "late\n"));
    // It waits for its turn, as far as can be told from here.
    for _ in 0..3 {
        held.served.operator().hello().await.unwrap();
    }
    held.end().await;
    let node = held.ended().await;
    let (status, body) = first.await.unwrap().unwrap();
    assert_eq!(status, StatusCode::OK);
    let last = body.trim_ascii_end().rsplit(|byte| *byte == b'\n').next();
    let Event::Done(report) = wire::decode(last.unwrap()).unwrap() else {
        panic!("{body:?}");
    };
    assert_eq!(report.layers[0].outcome, Outcome::Applied, "{report:?}");
    assert_eq!(node.read("/etc/motd"), "hello\n");
    // Or it came too late to be heard at all.
    if let Ok((status, body)) = second.await.unwrap() {
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let refusal: Refusal = wire::decode(&body).unwrap();
        assert_eq!(refusal.reason, "Ending");
    }
    assert!(!node.exists("/etc/issue"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_done_before_it_ends_also_when_nobody_listens() {
    let mut held = Held::new().await;
    let push = held.push(layer("a").file("/etc/motd", "hello\n"));
    held.begins().await;
    push.abort();
    assert!(push.await.unwrap_err().is_cancelled());
    held.end().await;
    assert_eq!(held.ended().await.read("/etc/motd"), "hello\n");
}
