//! A firewall on probation, as the operator sees it over the wire.

use std::net::SocketAddr;

use edict_core::config::firewall::PATH;
use edict_core::wire::{Fence, LayerReport, Probation};
use hyper::body::Incoming;

use super::*;
use crate::firewall::firewall;

/// A push that has come as far as a probation.
struct Trial {
    served: Served,
    services: Services,
    probation: Probation,
    answer: Incoming,
    /// The connection that it came by, for as long as this is there.
    connection: (SendRequest<Full<Bytes>>, JoinHandle<()>),
}

impl Trial {
    async fn new() -> Self {
        let services = Services::default();
        let mut node = Node::prepared();
        node.services = Some(services.clone());
        node.restart();
        let served = Served::of(node).await;
        let (sender, answer, connection) = begun(&served).await;
        let mut trial = Self {
            served,
            services,
            probation: Probation {
                name: String::new(),
                mark: String::new(),
                seconds: 0,
            },
            answer,
            connection: (sender, connection),
        };
        trial.probation = asked(trial.next().await).unwrap();
        trial
    }

    async fn next(&mut self) -> Event {
        let line = async {
            loop {
                let frame = self.answer.frame().await.unwrap().unwrap();
                let line = frame.into_data().unwrap();
                if !line.trim_ascii().is_empty() {
                    return line;
                }
            }
        };
        let line = tokio::time::timeout(Duration::from_secs(40), line).await;
        wire::decode(line.unwrap().split(|byte| *byte == b'\n').next().unwrap()).unwrap()
    }

    async fn layer(&mut self) -> LayerReport {
        let event = self.next().await;
        applied(event).unwrap()
    }

    /// Says something of this probation, by a connection of its own. Whether the agent waits for it.
    async fn says(&self, why_not: Option<&str>) -> bool {
        let path = format!("{}/{}", wire::CONFIRM, self.probation.mark);
        let body = serde_json::to_vec(&why_not).unwrap();
        let said = request(Method::POST, &path, body);
        let (status, body) = self.served.operator().ask(said).await.unwrap();
        assert_eq!(status, StatusCode::OK);
        serde_json::from_slice(&body).unwrap()
    }

    /// Waits until everything is as it was before.
    async fn is_put_back(&self) {
        let put_back = async {
            while self.services.loaded().is_some() || self.served.node.exists(PATH) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let put_back = tokio::time::timeout(Duration::from_secs(10), put_back).await;
        put_back.expect("long before the probation is over");
    }
}

fn asked(event: Event) -> Option<Probation> {
    match event {
        Event::Probation(probation) => Some(probation),
        _ => None,
    }
}

fn applied(event: Event) -> Option<LayerReport> {
    match event {
        Event::Layer(layer) => Some(layer),
        _ => None,
    }
}

async fn begun(served: &Served) -> (SendRequest<Full<Bytes>>, Incoming, JoinHandle<()>) {
    let push = Push::new(
        NAME.into(),
        Policy::default(),
        vec![firewall(22)],
        Vec::new(),
    );
    let push = push.fenced(wire::VERSION, Fence::default());
    let body = serde_json::to_vec(&push).unwrap();
    let (mut sender, connection) = served.operator().connect().await.unwrap();
    let asked = sender.send_request(request(Method::POST, wire::PUSH, body));
    let answer = asked.await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    (sender, answer.into_body(), connection)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reaches_the_node_says_so_and_it_stays() {
    let mut trial = Trial::new().await;
    assert_eq!((&*trial.probation.name, trial.probation.seconds), ("a", 15));
    assert!(trial.services.loaded().is_some());
    // Not yet is not no.
    assert!(trial.says(Some("the node is not Ready")).await);
    assert!(trial.says(None).await);
    assert_eq!(trial.layer().await.outcome, Outcome::Applied);
    assert!(trial.services.loaded().is_some());
    assert!(!trial.says(None).await, "nothing is waited for any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missing_is_said_in_the_end() {
    let mut trial = Trial::new().await;
    assert!(
        trial
            .says(Some("the kubelet's port is not reached any more"))
            .await
    );
    let layer = trial.layer().await;
    assert!(layer.held, "{layer:?}");
    let why = "the firewall keeps the cluster out: 15 s later the kubelet's port is not reached any more; what was \
        changed is put back";
    assert!(layer.message.starts_with(why), "{layer:?}");
    assert_eq!(trial.services.loaded(), None);
}

/// As an operator that dies, or leads no more.
#[tokio::test(flavor = "multi_thread")]
async fn who_goes_away_meanwhile_has_it_put_back_and_not_held() {
    let Trial {
        served,
        services,
        probation,
        answer,
        connection: (sender, connection),
    } = Trial::new().await;
    drop((answer, sender));
    connection.abort();
    let (sender, answer, connection) = begun(&served).await;
    let connection = (sender, connection);
    let mut trial = Trial {
        served,
        services,
        probation,
        answer,
        connection,
    };
    // The next one is not told that it is held, and tries anew.
    asked(trial.next().await).unwrap();
    assert!(trial.says(None).await);
    assert_eq!(trial.layer().await.outcome, Outcome::Applied);
}

/// As an agent that is being replaced: nobody gets a new connection to it any more.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_ends_has_it_put_back_and_not_held() {
    let mut trial = Trial::new().await;
    trial.served.end.take().unwrap().send(()).unwrap();
    trial.is_put_back().await;
    let layer = trial.layer().await;
    assert_eq!(
        (layer.outcome, layer.held),
        (Outcome::Failed, false),
        "{layer:?}"
    );
    let serving = trial.served.serving.take().unwrap();
    drop((trial.answer, trial.connection));
    let ended = tokio::time::timeout(Duration::from_secs(20), serving).await;
    ended.expect("it ends in time").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_says_whether_it_reaches_somebody() {
    let served = Served::new().await;
    let there = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = there.local_addr().unwrap();
    let operator = served.operator();
    let ask = |to: Vec<u8>| operator.ask(request(Method::POST, wire::REACH, to));
    let reaches = async |to: SocketAddr| {
        let (status, body) = ask(serde_json::to_vec(&to).unwrap()).await.unwrap();
        assert_eq!(status, StatusCode::OK);
        serde_json::from_slice::<bool>(&body).unwrap()
    };
    assert!(reaches(at).await);
    drop(there);
    assert!(!reaches(at).await);
    for bad in [&b"\"somewhere\""[..], b"", &[b'1'; 5000]] {
        let (status, _) = ask(bad.to_vec()).await.unwrap();
        assert_eq!(status, StatusCode::BAD_REQUEST);
    }
}
