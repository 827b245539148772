use edict_core::resource::Resource;

use super::*;

fn read(text: &str) -> Result<Wanted, String> {
    let files = [("some.yaml".to_owned(), text.to_owned())];
    Wanted::read(&files).map_err(|error| error.to_string())
}

const WHOLE: &str = "
apiVersion: v1
kind: Secret
metadata: {name: motd, labels: {a: b}}
type: Opaque
stringData: {text: hello}
data: {bytes: aGVs
  bG8=}
---
apiVersion: edict.dev/v1alpha1
kind: NodeConfig
metadata: {name: one, annotations: {a: b}}
spec:
  target: {role: Master}
  priority: 3
  deletionPolicy: Retain
  files:
  - {path: /etc/motd, contentFrom: {secretKeyRef: {name: motd, key: text}}}
  - {path: /etc/issue, contentFrom: {secretKeyRef: {name: motd, key: bytes}}}
---
---
apiVersion: edict.dev/v1alpha1
kind: Fleet
metadata: {name: default}
spec: {agent: {image: some}, paths: {allowed: [/etc/other]}}
";

#[test]
fn a_push_is_what_an_operator_would_make_of_them() {
    let wanted = read(WHOLE).unwrap();
    assert_eq!(wanted.names().collect::<Vec<_>>(), ["one"]);
    assert_eq!(wanted.policy_of("one"), Some(DeletionPolicy::Retain));
    assert_eq!(wanted.policy_of("two"), None);
    let held = Held {
        uid: "uid".to_owned(),
        name: "one".to_owned(),
        digest: String::new(),
        deletion_policy: DeletionPolicy::Restore,
    };
    assert_eq!(
        read(WHOLE).unwrap().push(&[held]).layers[0].uid,
        "uid",
        "a NodeConfig of that name is there"
    );
    let push = wanted.push(&[]);
    assert_eq!(push.policy.allowed, ["/etc/other"]);
    let [layer] = &push.layers[..] else {
        panic!("{push:?}");
    };
    assert_eq!(
        (&*layer.uid, &*layer.name, layer.priority),
        ("one", "one", 3)
    );
    assert_eq!(layer.deletion_policy, DeletionPolicy::Retain);
    assert_eq!(layer.check(&push.policy), []);
    assert_eq!(layer.digest, digest(&layer.config, &layer.contents));
    for resource in layer.resources() {
        let Resource::File(file) = resource else {
            panic!("{resource:?}");
        };
        assert_eq!((&*file.content, file.secret), (&b"hello"[..], true));
    }
}

#[test]
fn what_is_not_read_is_said_with_its_place() {
    let config = |rest: &str| {
        format!(
            "{{apiVersion: edict.dev/v1alpha1, kind: NodeConfig, metadata: {{name: one}}, {rest}}}"
        )
    };
    let files = "spec: {files: [{path: /etc/motd, content: a}]}";
    for (text, expected) in [
        (
            config("spec: {fiels: []}"),
            "some.yaml, object 1: one: spec.fiels: there is no such field",
        ),
        (
            config("spec: {files: [{path: /etc/motd, content: a, mod: '0600'}]}"),
            "some.yaml, object 1: one: spec.files[0].mod: there is no such field",
        ),
        (
            config("spec: {files: [{path: /etc/motd, content: a, mode: true}]}"),
            "some.yaml, object 1: one: spec.files[0].mode: invalid type: boolean `true`, expected a string",
        ),
        (
            config("spec: {priority: high}"),
            "some.yaml, object 1: one: spec.priority: invalid type: string \"high\", expected i32",
        ),
        (
            config("sepc: {}"),
            "some.yaml, object 1: one: spec is missing",
        ),
        (
            config("data: {}").replace("NodeConfig", "Pod"),
            "some.yaml, object 1: edict.dev/v1alpha1 Pod is not read here: NodeConfig and Fleet of \
             edict.dev/v1alpha1 are, and ConfigMap and Secret of v1",
        ),
        (
            config(files).replace("name: one", "name: One"),
            "some.yaml, object 1: metadata.name \"One\" has more than lower case letters, digits, '-' and '.'",
        ),
        (
            format!("{}\n---\n{}", config(files), config(files)),
            "some.yaml, object 2: one: there is another NodeConfig of that name: leave one out",
        ),
        (
            config("spec: {target: {role: All}}"),
            "some.yaml, object 1: one: spec: there is nothing to configure: give one of caCertificates, commands, containerd, dns, docker, files, firewall, hosts, limits, modules, ntp, proxy, sysctl, units",
        ),
        (
            config("spec: {paths: {protect: [/etc/a]}}").replace("NodeConfig", "Fleet"),
            "some.yaml, object 1: one: spec.paths.protect: there is no such field",
        ),
        (
            format!(
                "{0}\n---\n{0}",
                config("spec: {}").replace("NodeConfig", "Fleet")
            ),
            "some.yaml, object 2: one: there is another Fleet of that name",
        ),
        (
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, stringData: {key: a}}"
                .to_owned(),
            "some.yaml, object 1: a: a ConfigMap has data and binaryData, and nothing else",
        ),
        (
            "{apiVersion: v1, kind: Secret, metadata: {name: a}, binaryData: {key: a}}".to_owned(),
            "some.yaml, object 1: a: a Secret has data and stringData, and nothing else",
        ),
        (
            "{apiVersion: v1, kind: Secret, metadata: {name: a}, data: {key: '*'}}".to_owned(),
            "some.yaml, object 1: a: key is not base64",
        ),
        (
            "{apiVersion: v1, kind: Secret}".to_owned(),
            "some.yaml, object 1: missing field `metadata`",
        ),
        (
            config("spec: {}").replace("{name: one}", "{}"),
            "some.yaml, object 1: metadata: missing field `name`",
        ),
    ] {
        assert_eq!(read(&text).unwrap_err(), expected, "{text}");
    }
    assert!(read("a: [").unwrap_err().starts_with("some.yaml: "));
}

#[test]
fn what_a_config_refers_to_and_is_not_there_is_for_the_guard() {
    let without = WHOLE.split_once("---").unwrap().1;
    let push = read(without).unwrap().push(&[]);
    let violations = push.layers[0].check(&push.policy);
    let rules: Vec<_> = violations.iter().map(|one| &*one.rule).collect();
    assert_eq!(rules, ["reference-missing"; 2]);
}

#[test]
fn no_error_quotes_a_secret() {
    for text in [
        "{apiVersion: v1, kind: Secret, metadata: {name: a}, stringData: {pin: 482913}}",
        "{apiVersion: v1, kind: Secret, metadata: {name: a}, data: hunter2482913}",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData:\n  a: x482913\n  b: x: y\n",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData:\n  a: \"x482913\n",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData:\n  a: x482913\n  a: y482913\n",
        "apiVersion: edict.dev/v1alpha1\nkind: NodeConfig\nmetadata: {name: a}\nspec: {docker: {registryMirrors: \"http://u:x482913@h\"}}\n",
    ] {
        let said = read(text).unwrap_err();
        assert!(
            said.starts_with("some.yaml") && !said.contains("482913"),
            "{said}"
        );
    }
}

#[test]
fn what_is_only_to_be_planned_is_not_applied() {
    let with = |mode: &str| WHOLE.replace("priority: 3", &format!("mode: {mode}"));
    assert_eq!(read(&with("Enforce")).unwrap().is_enforced(), Ok(()));
    let planned = read(&with("Plan")).unwrap();
    assert_eq!(
        planned.is_enforced().unwrap_err().to_string(),
        "NodeConfig one: spec.mode is Plan, so it is not applied: take that out, or say plan instead of \
         apply"
    );
    let wrong = read(&with("plan")).unwrap_err();
    assert!(
        wrong.contains("spec.mode: unknown variant `plan`"),
        "{wrong}"
    );
}
