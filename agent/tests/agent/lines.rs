//! Files of lines that several NodeConfigs, and others, share: `/etc/hosts`, limits and modules.

use edict_core::layer::Layer;
use edict_core::wire::Outcome;
use serde_json::json;

use crate::node::{Node, Say as _, layer};
use crate::services::Services;

const HOSTS: &str = "/etc/hosts";
const MODULES: &str = "/etc/modules-load.d/zz-edict.conf";
const LOADER: &str = "systemd-modules-load.service";

fn host(layer: Layer, address: &str, name: &str) -> Layer {
    layer.block("hosts", json!([{"address": address, "names": [name]}]))
}

#[test]
fn a_name_has_one_owner_and_lines_of_others_stay() {
    let node = Node::new();
    let by_hand = "127.0.0.1\tlocalhost # ours\n10.9.9.9 mirror  # old\n";
    node.write(HOSTS, by_hand);
    let tree = node.tree();
    let a = host(layer("a"), "10.0.0.1", "mirror");
    let b = host(layer("b").priority(-1), "10.0.0.2", "Mirror");
    let c = host(layer("c"), "10.0.0.3", "registry");
    let report = node.push(&[&a, &b, &c]);
    assert_eq!(report.layers[2].conflicts[0].winner_name, "a");
    assert_eq!(
        node.read(HOSTS),
        "127.0.0.1\tlocalhost # ours\n10.0.0.1 mirror  # old\n10.0.0.3 registry\n"
    );
    for layer in [a, c, b] {
        node.release(&layer);
    }
    assert_eq!(node.tree(), tree);
}

#[test]
fn a_name_among_others_is_left_to_people() {
    let node = Node::new();
    let by_hand = "10.0.0.1 mirror registry\n";
    node.write(HOSTS, by_hand);
    let said = node.fail(&host(layer("a"), "10.0.0.2", "registry"));
    for word in [HOSTS, "registry.ipv4 stands in line 1 together with others"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert_eq!(node.read(HOSTS), by_hand);
}

#[test]
fn modules_of_two_are_loaded_by_one_unit() {
    let mut node = Node::prepared();
    let services = Services::default().with(LOADER, &[node.at(MODULES)]);
    node.serve(&services);
    let tree = node.tree();
    let module = |name: &str, module: &str| layer(name).block("modules", json!([{"name": module}]));
    let (a, b) = (module("a", "br-netfilter"), module("b", "nf_conntrack"));
    node.apply(&a);
    node.push(&[&a, &b]);
    assert_eq!(node.read(MODULES), "br_netfilter\nnf_conntrack\n");
    let restart = format!("restart {LOADER}");
    assert_eq!(services.told(), [restart.clone(), restart.clone()]);
    // One that the kernel does not have.
    let bad = module("c", crate::services::BROKEN);
    let report = node.push(&[&a, &b, &bad]).layers.remove(2);
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(report.message.contains(LOADER), "{}", report.message);
    assert_eq!(node.read(MODULES), "br_netfilter\nnf_conntrack\n");
    // One that it does not have is found out before anything is written.
    let absent = module("d", "no_such_module");
    let report = node.push(&[&a, &b, &absent]).layers.remove(2);
    assert_eq!((report.outcome, report.held), (Outcome::Failed, false));
    let said = "this node's kernel has no module no_such_module";
    assert!(report.message.contains(said), "{}", report.message);
    assert_eq!(node.read(MODULES), "br_netfilter\nnf_conntrack\n");
    for (layer, name) in [(a, "br_netfilter"), (b, "nf_conntrack")] {
        let message = node.release(&layer).message;
        let said = "PendingReboot: these modules stay loaded until the node is started again: ";
        assert_eq!(message, format!("{said}{name}"));
    }
    assert_eq!(node.tree(), tree);
}

#[test]
fn a_line_that_somebody_spoils_holds_up_no_other_layer() {
    let node = Node::new();
    let (a, b) = (
        host(layer("a"), "10.0.0.1", "mirror"),
        host(layer("b"), "10.0.0.2", "registry"),
    );
    node.push(&[&a, &b]);
    for spoiled in [
        "10.0.0.1 mirror alias\n10.0.0.2 registry\n",
        "10.0.0.1 mirror\n10.0.0.2 registry\n9.9.9.9 mirror\n",
    ] {
        node.write(HOSTS, spoiled);
        let newer = host(layer("b"), "10.0.0.3", "registry");
        let report = node.push(&[&a.clone().retry(spoiled), &newer]);
        let ended: Vec<_> = report.layers.iter().map(|layer| layer.outcome).collect();
        assert_eq!(ended, [Outcome::Failed, Outcome::Applied], "{report:?}");
        assert_eq!(node.read(HOSTS), spoiled.replace("0.2", "0.3"));
        node.push(&[&b]);
        assert_eq!(node.read(HOSTS), spoiled);
    }
    assert!(node.release(&b).done);
    assert!(node.release(&a).done);
}

#[test]
fn what_two_trust_or_load_is_no_conflict() {
    let node = Node::new();
    let module = |name: &str| layer(name).block("modules", json!([{"name": "overlay"}]));
    let report = node.push(&[&module("a"), &module("b")]);
    assert_eq!(report.layers[1].conflicts, []);
    node.release(&module("a"));
    assert_eq!(node.read(MODULES), "overlay\n");
    node.release(&module("b"));
    assert!(!node.exists(MODULES));
}

#[test]
fn other_parameters_wait_for_the_next_start() {
    let mut node = Node::prepared();
    let services = Services::default().with(LOADER, &[node.at(MODULES)]);
    node.serve(&services);
    let module = |value: &str| {
        let modules = json!([{"name": "a", "parameters": {"x": value}}]);
        layer("a").block("modules", modules)
    };
    assert_eq!(node.push(&[&module("1")]).layers[0].message, "");
    let message = node.push(&[&module("2")]).layers.remove(0).message;
    let said =
        "PendingReboot: these modules have their parameters once the node is started again: a";
    assert_eq!(message, said);
}

#[test]
fn a_setting_that_is_none_for_a_unit_is_put_back() {
    let mut node = Node::prepared();
    let services = Services::default().with("app.service", &[]);
    node.serve(&services);
    let tree = node.tree();
    // As systemd does with Restart=always where a unit is Type=oneshot.
    services.breaks("app.service");
    let unit = json!([{"unit": "app.service", "settings": {"Restart": "always"}}]);
    let report = node
        .push(&[&layer("a").block("units", unit)])
        .layers
        .remove(0);
    assert_eq!((report.outcome, report.held), (Outcome::Failed, true));
    let said = "app.service can't be run by systemd any more: it is bad-setting";
    assert!(report.message.contains(said), "{}", report.message);
    assert_eq!(node.tree(), tree);
}

#[test]
fn limits_are_lines_of_a_file_that_goes_again() {
    let node = Node::new();
    let tree = node.tree();
    let limit = |name: &str, item: &str| {
        let limit = json!([{"domain": "*", "type": "Both", "item": item, "value": "7"}]);
        layer(name).block("limits", limit)
    };
    let (a, b) = (limit("a", "nofile"), limit("b", "nproc"));
    node.push(&[&a, &b]);
    assert_eq!(
        node.read("/etc/security/limits.d/zz-edict.conf"),
        "* hard nofile 7\n* soft nofile 7\n* hard nproc 7\n* soft nproc 7\n"
    );
    node.release(&a);
    node.release(&b);
    assert_eq!(node.tree(), tree);
}

#[test]
fn settings_of_a_service_disturb_it_no_more_than_they_have_to() {
    let mut node = Node::prepared();
    let services = Services::default().with("app.service", &[]);
    node.serve(&services);
    let tree = node.tree();
    let setting = |name: &str, value: &str| {
        let unit = json!([{"unit": "app.service", "settings": {name: value}}]);
        layer("a").block("units", unit)
    };
    for (name, value, told) in [
        ("MemoryMax", "1G", vec!["daemon-reload"]),
        (
            "LimitNOFILE",
            "9",
            vec!["daemon-reload", "restart app.service"],
        ),
    ] {
        node.apply(&setting(name, value));
        assert_eq!(services.told_all(), told, "{name}");
        let path = format!("/etc/systemd/system/app.service.d/zz-edict-{name}.conf");
        assert_eq!(node.read(&path), format!("[Service]\n{name}={value}\n"));
        node.release(&setting(name, value));
        assert_eq!(services.told_all(), told, "{name} given back");
        assert_eq!(node.tree(), tree);
    }
}
