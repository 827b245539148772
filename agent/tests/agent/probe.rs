//! Probes: what does not hold has the node put back.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Instant;

use edict_agent::units::Active;
use edict_core::config::NotifyAction;
use edict_core::layer::{Layer, Restarts};
use edict_core::wire::{LayerReport, Outcome};
use serde_json::{Value, json};

use crate::node::{Node, Say as _, layer};
use crate::services::Services;

const FILE: &str = "/etc/edict/app";
const UNIT: &str = "app.service";

fn probing(probe: &Value) -> Layer {
    layer("a")
        .file(FILE, "new\n")
        .block("probes", json!([probe]))
}

/// What becomes of a node where this is probed: the file is there, or all is as it was.
fn applied(node: &Node, probe: &Value) -> LayerReport {
    let report = node.push(&[&probing(probe)]).layers.remove(0);
    assert_eq!(
        node.exists(FILE),
        report.outcome == Outcome::Applied,
        "{report:?}"
    );
    assert_eq!(report.held, report.outcome == Outcome::Failed, "{report:?}");
    report
}

/// Answers requests with these, the last one over and over, and with each byte by itself where it is `slow`.
fn server(answers: Vec<&'static str>, slow: bool) -> u16 {
    let mut answers = answers.into_iter();
    let (listener, port) = listening();
    thread::spawn(move || {
        let mut answer = "";
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            assert!(
                request.starts_with("GET /healthz?full HTTP/1.1\r\nHost: 127.0.0.1:"),
                "{request}"
            );
            assert!(request.ends_with("\r\n\r\n"), "{request}");
            answer = answers.next().unwrap_or(answer);
            for piece in answer.as_bytes().chunks(if slow { 1 } else { 4096 }) {
                let _ = stream.write_all(piece);
            }
        }
    });
    port
}

/// A port, and who listens on it.
fn listening() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A port that nobody listens on.
fn closed() -> u16 {
    listening().1
}

#[test]
fn a_port_is_listened_on_or_all_is_put_back() {
    let node = Node::new();
    let (_listener, port) = listening();
    let report = applied(&node, &json!({"tcp": {"port": port}}));
    assert_eq!(report.outcome, Outcome::Applied, "{report:?}");
    drop(node);

    let node = Node::new();
    let port = closed();
    let report = applied(&node, &json!({"tcp": {"port": port}, "timeoutSeconds": 1}));
    assert_eq!(
        report.message.split("; held").next().unwrap(),
        format!(
            "the probe of 127.0.0.1:{port} does not hold within 1 s: nobody listens there; what was changed is put back"
        ),
    );
}

#[test]
fn what_takes_a_while_is_waited_for() {
    let node = Node::new();
    let busy = "HTTP/1.1 503 Busy\r\n\r\n";
    let port = server(vec![busy, busy, "HTTP/1.1 200 OK\r\n\r\n"], false);
    let report = applied(
        &node,
        &json!({"http": {"port": port, "path": "/healthz?full"}}),
    );
    assert_eq!(report.outcome, Outcome::Applied, "{report:?}");
}

#[test]
fn a_request_is_answered_as_it_should_be() {
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    // More headers than are read.
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(100));
    for (answer, slow, status, why) in [
        (ok, false, None, None),
        (ok, true, None, None),
        ("HTTP/1.0 404 Not Found\r\n\r\n", false, Some(404), None),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
            true,
            Some(204),
            None,
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            false,
            None,
            None,
        ),
        (
            "HTTP/1.1 503 Busy\r\n\r\n",
            false,
            None,
            Some("it answers with 503"),
        ),
        (many.leak(), false, None, None),
        (
            "HTTP/1.1 200 OK\r\nbad header : x\r\n\r\n",
            false,
            None,
            None,
        ),
        (
            "SSH-2.0-OpenSSH\r\n",
            false,
            None,
            Some("it does not answer in HTTP"),
        ),
        (
            "",
            false,
            None,
            Some("it ends the connection without an answer"),
        ),
        (
            "HTTP/1.1 20",
            false,
            None,
            Some("it ends the connection without an answer"),
        ),
    ] {
        let node = Node::new();
        let port = server(vec![answer], slow);
        let mut http = json!({"port": port, "path": "/healthz?full"});
        if let Some(status) = status {
            http["status"] = json!(status);
        }
        let report = applied(&node, &json!({"http": http, "timeoutSeconds": 1}));
        match why {
            None => assert_eq!(report.outcome, Outcome::Applied, "{report:?}"),
            Some(why) => assert!(report.message.contains(why), "{report:?}"),
        }
    }
}

#[test]
fn a_unit_is_active_or_all_is_put_back() {
    for (active, why) in [
        (Active::Active, None),
        (Active::Inactive, Some("it does not run")),
        (Active::Failed, Some("it has failed")),
        (Active::Changing, Some("it is not ready")),
    ] {
        let mut node = Node::prepared();
        let services = Services::default().with(UNIT, &[]);
        services.set(UNIT, active, false);
        node.serve(&services);
        let report = applied(&node, &json!({"unit": UNIT, "timeoutSeconds": 1}));
        match why {
            None => assert_eq!(report.outcome, Outcome::Applied, "{report:?}"),
            Some(why) => {
                let said = format!(
                    "the probe of {UNIT} does not hold within 1 s: {why}; its journal, newest first: {UNIT}: parse error"
                );
                assert!(report.message.contains(&said), "{report:?}");
            }
        }
    }
    let mut node = Node::prepared();
    node.serve(&Services::default());
    let report = applied(&node, &json!({"unit": UNIT, "timeoutSeconds": 1}));
    let said = "does not hold within 1 s: it is not on this node";
    assert!(report.message.contains(said), "{report:?}");
    // Who can't be asked does not say that it is well, and that does not take long.
    let node = Node::new();
    let report = applied(&node, &json!({"unit": UNIT, "timeoutSeconds": 1}));
    assert!(
        report
            .message
            .contains("within 1 s: nobody can be told here"),
        "{report:?}"
    );
}

#[test]
fn what_is_in_force_is_not_probed_again() {
    let node = Node::new();
    let (listener, port) = listening();
    let probe = json!({"tcp": {"port": port}, "timeoutSeconds": 1});
    applied(&node, &probe);
    drop(listener);
    let report = applied(&node, &probe);
    assert_eq!(report.outcome, Outcome::Applied, "{report:?}");
    // Nor where the same revision counts for more, or somebody has changed its file.
    let mut a = probing(&probe);
    a.priority = 7;
    let report = node.push(&[&a]).layers.remove(0);
    assert_eq!(report.outcome, Outcome::Applied, "{report:?}");
    node.write(FILE, "foreign\n");
    node.agent().look_for_drift(Instant::now());
    assert_eq!(node.read(FILE), "new\n");
    node.write(FILE, "foreign\n");
    let report = node.push(&[&a]).layers.remove(0);
    assert_eq!(report.outcome, Outcome::Applied, "{report:?}");
    assert_eq!(node.read(FILE), "new\n");
    // What is given back, and an image, are not either.
    node.release(&layer("a"));
    assert!(!node.exists(FILE));
    let mut node = Node::prepared();
    node.offline = true;
    node.restart();
    let report = applied(&node, &json!({"tcp": {"port": closed()}}));
    assert_eq!(report.outcome, Outcome::Applied, "{report:?}");
}

/// The agent dies when it tells the unit, and the next one goes on to the probe.
#[test]
fn the_next_agent_probes_what_was_begun() {
    for holds in [true, false] {
        let mut node = Node::prepared();
        let services = Services::default().with(UNIT, &[node.at(FILE)]);
        node.serve(&services);
        let (listener, port) = listening();
        let probe = json!({"tcp": {"port": port}, "timeoutSeconds": 1});
        let a = layer("a")
            .file(FILE, "new\n")
            .notify(UNIT, NotifyAction::Restart)
            .block("probes", json!([probe]));
        services.dies(UNIT, true);
        let died = catch_unwind(AssertUnwindSafe(|| node.push(&[&a])));
        assert!(died.is_err());
        let listener = holds.then_some(listener);
        node.restart();
        assert_eq!(node.exists(FILE), holds);
        // It is the next agent that has found out.
        let held = &node.agent().hello().layers;
        assert_eq!(held.len(), usize::from(holds), "{held:?}");
        services.told_all();
        let report = node.push(&[&a]).layers.remove(0);
        assert_eq!(report.held, !holds, "{report:?}");
        assert_eq!(node.exists(FILE), holds, "{report:?}");
        assert_eq!(services.told_all(), [""; 0], "it was tried again");
        drop(listener);
    }
}

/// A service that takes a connection and says nothing, or interim answers without an end.
#[test]
fn who_never_answers_is_not_waited_for() {
    for said in ["", "HTTP/1.1 100 Continue\r\n\r\n"] {
        let (listener, port) = listening();
        thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                while !said.is_empty() && stream.write_all(said.as_bytes()).is_ok() {}
                open.push(stream);
            }
        });
        let node = Node::new();
        let probe = json!({"http": {"port": port}, "timeoutSeconds": 1});
        let report = applied(&node, &probe);
        let why = "does not hold within 1 s: it does not answer";
        assert!(report.message.contains(why), "{report:?}");
    }
}

#[test]
fn an_agent_without_the_nodes_address_knows_none() {
    let known = |node: &Node| node.agent().hello().blocks.contains(&"probes".to_owned());
    let mut node = Node::new();
    assert!(known(&node));
    node.address = None;
    node.restart();
    assert!(!known(&node));
}

#[test]
fn nothing_is_probed_that_has_yet_to_be_restarted() {
    let mut node = Node::prepared();
    let services = Services::default().with(UNIT, &[node.at(FILE)]);
    node.serve(&services);
    let probe = json!({"tcp": {"port": closed()}, "timeoutSeconds": 1});
    let mut a = probing(&probe).notify(UNIT, NotifyAction::Restart);
    a.restarts = Restarts::Never;
    let report = node.push(&[&a]).layers.remove(0);
    assert_eq!(report.outcome, Outcome::PendingReload, "{report:?}");
    assert!(!report.held && node.exists(FILE), "{report:?}");
}
