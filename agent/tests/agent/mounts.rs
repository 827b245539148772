//! Files that are mount points are written in their place.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use edict_agent::host::mount::MountInfo;
use edict_agent::host::{Rooted, View as _};

use crate::node::{Declared, Node, Say as _, is_root, layer, resources};

#[test]
fn a_declared_mount_point_keeps_its_inode() {
    let mounts = Declared(vec!["/etc/hosts".into()]);
    let mut node = Node::with(&mounts);
    node.write(
        "/etc/hosts",
        "127.0.0.1 localhost and more than is written later\n",
    );
    let tree = node.tree();
    let inode = fs::metadata(node.at("/etc/hosts")).unwrap().ino();
    let a = layer("a")
        .file_as("/etc/hosts", "short\n", "600", None)
        .file("/etc/motd", "x");
    assert_eq!(
        resources(&node.push(&[&a])),
        ["/etc/hosts a in place", "/etc/motd a replaced"]
    );
    assert_eq!(node.read("/etc/hosts"), "short\n");
    assert_eq!(node.mode("/etc/hosts"), 0o600);
    assert_eq!(fs::metadata(node.at("/etc/hosts")).unwrap().ino(), inode);
    assert!(!node.exists("state/redo.json"));
    node.restart_with(&mounts);
    node.release(&a);
    assert_eq!(node.tree(), tree);
    assert_eq!(fs::metadata(node.at("/etc/hosts")).unwrap().ino(), inode);
}

#[test]
fn what_was_absent_and_is_a_mount_point_now_can_not_go() {
    let mut node = Node::new();
    let a = layer("a").file("/etc/hosts", "x");
    node.apply(&a);
    node.restart_with(&Declared(vec!["/etc/hosts".into()]));
    let release = crate::node::leaving(&a, edict_core::layer::DeletionPolicy::Restore);
    let report = node.push_all(&[], &[release]).releases.remove(0);
    assert!(!report.done);
    assert!(
        report.message.contains("/etc/hosts is a mount point now"),
        "{report:?}"
    );
    node.restart();
    node.release(&a);
    assert!(!node.exists("/etc/hosts"));
}

#[test]
fn an_interrupted_write_in_place_is_finished_at_the_start() {
    let mut node = Node::prepared();
    node.write("/etc/hosts", "half");
    let host = node.host(&Declared::default());
    let whole = edict_agent::host::Whole {
        content: b"whole\n".to_vec(),
        meta: host.look("/etc/hosts").unwrap().found.file().unwrap().meta,
    };
    let store = edict_agent::state::Store::open(&node.at("state")).unwrap();
    store.begin_redo("/etc/hosts", &whole).unwrap();
    drop(store);
    node.restart();
    assert_eq!(node.read("/etc/hosts"), "whole\n");
    assert!(!node.exists("state/redo.json"));
}

/// A real bind mount: the kernel's table shows it, and rename says that it is busy.
#[test]
fn a_real_mount_point() {
    if !is_root() {
        return;
    }
    let mut node = Node::prepared();
    node.write("/etc/hosts", "below");
    node.write("/outside", "mounted");
    let mount = |program: &str, args: &[&std::path::Path]| {
        Command::new(program)
            .args(args)
            .output()
            .is_ok_and(|done| done.status.success())
    };
    let (outside, hosts) = (node.at("/outside"), node.at("/etc/hosts"));
    if !mount("mount", &["--bind".as_ref(), &outside, &hosts]) {
        eprintln!("skipped: no bind mounts here");
        return;
    }
    let etc = node.at("/etc");
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        // Seen beforehand, and, with a table that does not show it, by what rename says.
        for seen in [true, false] {
            if seen {
                node.run(Rooted::open(&etc, MountInfo::new(&etc).unwrap()).unwrap());
            } else {
                node.restart();
            }
            let a = layer("a").file("/etc/hosts", "ours").file("/etc/motd", "x");
            assert_eq!(
                resources(&node.push(&[&a])),
                ["/etc/hosts a in place", "/etc/motd a replaced"]
            );
            assert_eq!(node.read("/outside"), "ours");
            node.release(&a);
            assert_eq!(node.read("/etc/hosts"), "mounted");
        }
    }));
    assert!(mount("umount", &[&hosts]));
    result.unwrap();
    assert_eq!(node.read("/etc/hosts"), "below");
}
