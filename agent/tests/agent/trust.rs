//! Certificates that a node trusts: in its bundle, wherever that is.

use std::fs;
use std::os::unix::fs::symlink;

use edict_core::config::certificates::BUNDLES;
use edict_core::guard::Policy;
use edict_core::layer::Layer;
use edict_core::wire::Outcome;
use serde_json::json;

use crate::node::{Node, Say as _, layer};

const CA: &str = include_str!("../../../fixtures/certificates/ca.pem");
const OTHERS: &str = "# Others\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

fn trust(name: &str) -> Layer {
    layer(name).block("caCertificates", json!({"certificates": [{"ca": CA}]}))
}

#[test]
fn it_is_added_to_the_bundle_that_is_there() {
    for bundle in BUNDLES {
        let node = Node::new();
        node.write(bundle, OTHERS);
        let tree = node.tree();
        node.apply(&trust("a"));
        let text = node.read(bundle);
        assert!(
            text.starts_with(OTHERS) && text.len() > OTHERS.len() + 500,
            "{bundle}: {text}"
        );
        let report = node.push(&[&trust("a")]);
        assert_eq!(report.resources[0].path, bundle);
        node.release(&trust("a"));
        assert_eq!(node.tree(), tree, "{bundle}");
    }
}

#[test]
fn a_node_without_a_bundle_gets_one() {
    let node = Node::new();
    let tree = node.tree();
    node.apply(&trust("a"));
    assert!(node.read(BUNDLES[0]).starts_with("-----BEGIN"));
    node.release(&trust("a"));
    assert_eq!(node.tree(), tree);
}

#[test]
fn the_first_one_may_be_a_link_to_another() {
    let node = Node::new();
    node.write(BUNDLES[4], OTHERS);
    fs::create_dir_all(node.at("/etc/ssl/certs")).unwrap();
    symlink(BUNDLES[4], node.at(BUNDLES[0])).unwrap();
    node.apply(&trust("a"));
    assert_ne!(node.read(BUNDLES[4]), OTHERS);
    node.release(&trust("a"));
    assert_eq!(node.read(BUNDLES[4]), OTHERS);
}

/// A program that reads the first place would not find it in the second.
#[test]
fn one_that_leads_away_is_not_passed_over() {
    let node = Node::new();
    node.write(BUNDLES[5], OTHERS);
    fs::create_dir_all(node.at("/etc/ssl/certs")).unwrap();
    symlink("/usr/share/bundle.crt", node.at(BUNDLES[0])).unwrap();
    let report = node.push(&[&trust("a")]).layers.remove(0);
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(
        report.message.contains("leads out of /etc"),
        "{}",
        report.message
    );
    assert_eq!(node.read(BUNDLES[5]), OTHERS);
}

#[test]
fn what_is_trusted_already_stays_so() {
    let node = Node::new();
    let both = format!("{CA}{OTHERS}");
    node.write(BUNDLES[1], &both);
    node.apply(&trust("a"));
    assert_eq!(node.read(BUNDLES[1]), both);
    // Somebody writes it anew without it, and it is there again.
    node.write(BUNDLES[1], OTHERS);
    node.apply(&trust("a").retry("1"));
    assert_ne!(node.read(BUNDLES[1]), OTHERS);
    node.release(&trust("a"));
    // It was there before Edict.
    assert_ne!(node.read(BUNDLES[1]), OTHERS);
}

#[test]
fn the_fleet_may_protect_the_one_that_is_meant() {
    let mut node = Node::new();
    node.write(BUNDLES[3], OTHERS);
    node.policy = Policy {
        protected: vec!["/etc/pki/tls".to_owned()],
        ..Policy::default()
    };
    let report = node.push(&[&trust("a")]).layers.remove(0);
    assert_eq!(report.outcome, Outcome::Refused);
    assert_eq!(report.violations[0].rule, "path-protected");
    assert_eq!(node.read(BUNDLES[3]), OTHERS);
}
