//! Agents that behave badly: each is an error in a sentence, in time, and with bounded memory.
#![expect(
    clippy::unwrap_used,
    reason = "a test states its expectations by failing; .clippy.toml covers test functions only"
)]

#[path = "agent/tls.rs"]
mod tls;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use edict_core::guard::Policy;
use edict_core::wire::{self, Fence, Push, Refusal, Report};
use edict_operator::agent::{Agent, Error};
use edict_operator::pki::{self, Holder, Identity};
use futures::{StreamExt as _, stream};
use http::{Response, StatusCode};
use k8s_openapi::jiff::Timestamp;
use tls::Pieces;
use tokio::net::TcpListener;

/// What an agent of these tests answers, to whatever it is asked.
#[derive(Clone)]
enum Answer {
    /// Nothing, ever.
    Nothing,
    /// This status and these bytes, a piece of them at a time.
    Pieces(StatusCode, Vec<Bytes>),
    /// These bytes over and over.
    Endless(Bytes),
    /// These bytes, and then nothing more.
    Stops(Bytes),
}

async fn answer(answer: Answer) -> Result<Response<Pieces>, Infallible> {
    let (status, body) = match answer {
        Answer::Nothing => std::future::pending().await,
        Answer::Pieces(status, all) => (status, tls::pieces(stream::iter(all))),
        Answer::Endless(piece) => (StatusCode::OK, tls::pieces(stream::repeat(piece))),
        Answer::Stops(first) => {
            let rest = stream::iter([first]).chain(stream::pending());
            (StatusCode::OK, tls::pieces(rest))
        }
    };
    Ok(Response::builder().status(status).body(body).unwrap())
}

/// An agent that answers so; gives its address and how to talk to it.
async fn agent(answers: Answer) -> (SocketAddr, Arc<rustls::ClientConfig>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let now = Timestamp::now();
    let authority = pki::authority(now).unwrap();
    let operator = pki::issue(&authority, Holder::Operator, now).unwrap();
    let identity = Identity::new(&authority.certificate, &operator).unwrap();
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(tls::serve(listener, authority, move |_| {
        answer(answers.clone())
    }));
    (address, identity.client)
}

async fn connected(answers: Answer) -> Agent {
    let (address, tls) = agent(answers).await;
    Agent::connect(address, tls).await.unwrap()
}

fn push() -> Push {
    let push = Push::new("n".to_owned(), Policy::default(), vec![], vec![]);
    push.fenced(wire::VERSION, Fence::default())
}

async fn hello(answers: Answer) -> String {
    let mut agent = connected(answers).await;
    agent.hello().await.unwrap_err().to_string()
}

async fn pushed(answers: Answer) -> Result<Report, Error> {
    connected(answers).await.push(&push(), |_| {}).await
}

fn whole(text: &str) -> Answer {
    Answer::Pieces(StatusCode::OK, vec![text.to_owned().into()])
}

#[tokio::test]
async fn one_that_accepts_and_never_speaks() {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let (_, tls) = agent(Answer::Nothing).await;
    let error = Agent::connect(listener.local_addr().unwrap(), tls).await;
    let error = error.err().unwrap().to_string();
    assert_eq!(error, "the agent does not answer within 3 s");
}

#[tokio::test]
async fn one_that_is_somebody_else() {
    let (address, _) = agent(Answer::Nothing).await;
    let (_, other) = agent(Answer::Nothing).await;
    let error = Agent::connect(address, other).await.err().unwrap();
    assert!(matches!(error, Error::Connection(_)), "{error}");
}

#[tokio::test]
async fn one_that_never_answers() {
    assert_eq!(
        hello(Answer::Nothing).await,
        "the agent does not answer within 5 s"
    );
    // A part of an answer is none.
    let part = Answer::Stops("{\"wire\":".into());
    assert_eq!(hello(part).await, "the agent does not answer within 5 s");
}

#[tokio::test]
async fn one_that_answers_what_makes_no_sense() {
    for text in ["", "{}", "null", "\u{0}", "[[[[", "{\"wire\": -1}"] {
        let said = hello(whole(text)).await;
        assert!(
            said.starts_with("the agent's answer can't be read"),
            "{said}"
        );
    }
    // An empty line is said while nothing happens.
    let error = pushed(whole("\n")).await.unwrap_err();
    assert!(matches!(error, Error::Connection(_)), "{error}");
    for text in ["{}\n", "nothing\n", "{\"done\": 1}\n"] {
        let error = pushed(whole(text)).await.unwrap_err();
        assert!(matches!(error, Error::Garbled(_)), "{text:?}: {error}");
    }
    // Very deep is no reason to overflow a stack.
    let said = hello(whole(&"[".repeat(1 << 20))).await;
    assert!(
        said.starts_with("the agent's answer can't be read"),
        "{said}"
    );
}

#[tokio::test]
async fn one_that_refuses() {
    let refusal = |status, refusal: &Refusal| {
        Answer::Pieces(status, vec![serde_json::to_vec(refusal).unwrap().into()])
    };
    let plain = Refusal::new("WrongNode", "this is another one");
    let error = pushed(refusal(StatusCode::MISDIRECTED_REQUEST, &plain)).await;
    assert_eq!(
        error.unwrap_err().to_string(),
        "the agent refuses the request: WrongNode: this is another one"
    );
    let seen = Fence {
        epoch: 7,
        sequence: 1,
    };
    let fenced = wire::refuse_fence(None, seen).unwrap();
    let error = pushed(refusal(StatusCode::CONFLICT, &fenced))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Fenced(7)), "{error}");
    let page = Answer::Pieces(StatusCode::BAD_GATEWAY, vec!["<html>".into()]);
    assert_eq!(
        pushed(page).await.unwrap_err().to_string(),
        "the agent refuses the request: HTTP status 502 Bad Gateway"
    );
}

#[tokio::test]
async fn one_that_never_stops_talking() {
    let piece = Bytes::from(vec![b'x'; 16 * 1024]);
    let said = hello(Answer::Endless(piece.clone())).await;
    assert!(said.contains("length limit exceeded"), "{said}");
    let error = pushed(Answer::Endless(piece)).await.unwrap_err();
    assert!(
        error.to_string().contains("length limit exceeded"),
        "{error}"
    );
    // Many lines that all make sense are too many as well.
    let event = wire::Event::Released(wire::ReleaseReport {
        uid: "u".into(),
        name: "n".into(),
        done: true,
        message: String::new(),
        foreign: Vec::new(),
    });
    let mut line = serde_json::to_vec(&event).unwrap();
    line.push(b'\n');
    let error = pushed(Answer::Endless(line.repeat(500).into()))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("length limit exceeded"),
        "{error}"
    );
}

#[tokio::test]
async fn one_that_breaks_off() {
    let done = serde_json::to_string(&wire::Event::Done(Report::default())).unwrap();
    for cut in [0, 1, done.len() / 2, done.len()] {
        let error = pushed(whole(&done[..cut])).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "no connection to the agent: it ended before the report was complete"
        );
    }
    // And one whose line comes byte by byte is understood.
    let bytes = format!("{done}\n").into_bytes();
    let pieces = bytes.chunks(1).map(Bytes::copy_from_slice).collect();
    let report = pushed(Answer::Pieces(StatusCode::OK, pieces)).await;
    assert_eq!(report.unwrap(), Report::default());
}
