//! Registries of containerd: whether it reads them, and that it never reads half of them.

use std::path::{Path, PathBuf};

use edict_core::wire::Outcome;
use serde_json::json;

use crate::faults::Failing;
use crate::node::{Declared, Node, Say as _, layer};

const CONFIG: &str = "/etc/containerd/config.toml";
const READS: &str = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n";
const CA: &str = include_str!("../../../fixtures/certificates/ca.pem");

fn mirrors(cas: &[bool]) -> serde_json::Value {
    let mirror = |(index, ca): (usize, &bool)| {
        let mut mirror = json!({"url": format!("https://mirror-{index}.example.com")});
        if *ca {
            mirror["ca"] = json!(CA);
        }
        mirror
    };
    let mirrors: Vec<_> = cas.iter().enumerate().map(mirror).collect();
    json!([{"host": "docker.io", "mirrors": mirrors}])
}

/// Every certificate that a `hosts.toml` names is there.
fn assert_whole(etc: &Path) {
    let folder = etc.join("containerd/certs.d/docker.io");
    let Ok(hosts) = std::fs::read_to_string(folder.join("hosts.toml")) else {
        return;
    };
    for named in hosts.split('"').filter(|text| text.starts_with("mirror-")) {
        let text = std::fs::read_to_string(folder.join(named)).unwrap_or_default();
        assert_eq!(text, CA, "{named} is named by\n{hosts}");
    }
}

fn watched() -> Node {
    let mut node = Node::prepared();
    node.write(CONFIG, READS);
    let etc: PathBuf = node.at("/etc");
    let host = node.host(&Declared::default());
    node.run(Failing {
        watch: Box::new(move || {
            assert_whole(&etc);
            Ok(())
        }),
        ..Failing::new(host)
    });
    node
}

/// containerd fails every pull from a registry whose `hosts.toml` names a file that is not there.
#[test]
fn no_moment_names_a_certificate_that_is_not_there() {
    let node = watched();
    let pristine = node.tree();
    let revisions: [&[bool]; 7] = [
        &[true],
        &[true, true],
        &[false, true],
        &[true, false],
        &[],
        &[true, true, true],
        &[false],
    ];
    for cas in revisions {
        node.apply(&layer("a").registries(mirrors(cas)));
        let named = node.read("/etc/containerd/certs.d/docker.io/hosts.toml");
        let count = cas.iter().filter(|ca| **ca).count();
        assert_eq!(named.matches(".pem\"").count(), count, "{named}");
        assert_whole(&node.at("/etc"));
    }
    let last = layer("a").registries(mirrors(&[true, true]));
    node.apply(&last);
    node.release(&last);
    assert_eq!(node.tree(), pristine);
}

#[test]
fn what_containerd_does_not_read_is_said_until_it_does() {
    let node = Node::new();
    let mirror = layer("a").registries(mirrors(&[false]));
    let unread = || {
        let report = node.push(&[&mirror]).layers.remove(0);
        assert_eq!(report.outcome, Outcome::Unread, "{report:?}");
        assert_eq!(report.in_force.as_ref(), Some(&mirror.digest));
        report.message
    };
    assert!(unread().contains("containerd has no /etc/containerd/config.toml"));
    node.write(CONFIG, "version = 2\n");
    assert!(unread().contains("containerd does not read /etc/containerd/certs.d"));
    node.write(CONFIG, &READS.replace("certs.d", "other"));
    assert!(unread().contains("containerd reads /etc/containerd/other"));
    node.write(CONFIG, "version = ");
    assert!(unread().contains("not valid TOML"));
    node.write(CONFIG, "imports = [\"conf.d/*.toml\"]\n");
    assert!(unread().contains("does not read"));
    node.write("/etc/containerd/conf.d/registry.toml", READS);
    node.apply(&mirror);
    // What it imports may be elsewhere in /etc, behind a link.
    node.write("/etc/else/registry.toml", READS);
    let imported = node.at("/etc/containerd/conf.d/registry.toml");
    std::fs::remove_file(&imported).unwrap();
    std::os::unix::fs::symlink("/etc/else/registry.toml", &imported).unwrap();
    node.apply(&mirror);
    std::fs::remove_file(&imported).unwrap();
    unread();
    // A revision that wants nothing of containerd does not ask it.
    node.apply(&layer("a").file("/etc/motd", "x"));
}
