//! The objects that a Fleet brings up. Pure.

use std::collections::BTreeMap;

use edict_core::config::firewall;
use edict_core::wire;
use edict_crds::Fleet;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use kube::Resource as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The name of the agents' `DaemonSet`, Service and `ServiceAccount`.
pub const AGENT: &str = "edict-agent";
/// The Secret with the agents' certificate.
pub const AGENT_SECRET: &str = "edict-agent-tls";
/// Where an agent keeps what it has to remember, on the host.
const STATE: &str = firewall::STATE;
/// Where systemd has its own socket, on the host.
const SYSTEMD: &str = "/run/systemd";

/// The labels of everything that belongs to the installation.
pub fn labels(component: &str) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/part-of", "edict"),
        ("app.kubernetes.io/managed-by", "edict-operator"),
        ("app.kubernetes.io/component", component),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// Makes the objects of one Fleet.
pub struct Objects<'a> {
    /// The Fleet.
    pub fleet: &'a Fleet,
    /// Edict's namespace.
    pub namespace: &'a str,
    /// The agent's image, for a Fleet that names none.
    pub default_image: &'a str,
}

impl Objects<'_> {
    /// The agents' own account, which is allowed nothing.
    pub fn service_account(&self) -> ServiceAccount {
        object(json!({"metadata": self.metadata(), "automountServiceAccountToken": false}))
    }

    /// A name for the agents, for people and policies; the operator goes to each pod's address.
    pub fn service(&self) -> Service {
        object(json!({
            "metadata": self.metadata(),
            "spec": {
                "clusterIP": "None",
                "selector": {"app.kubernetes.io/name": AGENT},
                "ports": [{"name": "https", "port": wire::PORT, "targetPort": "https"}],
            },
        }))
    }

    /// One agent on each Linux node, with no more rights than it takes to write files under `/etc`.
    pub fn daemonset(&self) -> DaemonSet {
        let agent = self.fleet.spec.agent.clone().unwrap_or_default();
        let image = agent.image.unwrap_or_else(|| self.default_image.to_owned());
        // A node that keeps other pods off needs its configuration too.
        let tolerations = agent
            .tolerations
            .map_or_else(|| json!([{"operator": "Exists"}]), |given| json!(given));
        let resources = agent.resources.map_or_else(
            || json!({"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "128Mi"}}),
            |given| json!(given),
        );
        let mut env = vec![
            json!({"name": "EDICT_NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}),
            json!({"name": "EDICT_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}),
            json!({"name": "EDICT_ETC", "value": "/host/etc"}),
            json!({"name": "EDICT_STATE", "value": STATE}),
            json!({"name": "EDICT_TLS", "value": "/run/edict/tls"}),
        ];
        let mut mounts = vec![
            // What is mounted below /etc later on is seen as well.
            json!({"name": "etc", "mountPath": "/host/etc", "mountPropagation": "HostToContainer"}),
            json!({"name": "state", "mountPath": STATE}),
            json!({"name": "tls", "mountPath": "/run/edict/tls", "readOnly": true}),
        ];
        let mut volumes = vec![
            json!({"name": "etc", "hostPath": {"path": "/etc", "type": "Directory"}}),
            json!({"name": "state", "hostPath": {"path": STATE, "type": "DirectoryOrCreate"}}),
            json!({"name": "tls", "secret": {"secretName": AGENT_SECRET, "defaultMode": 0o400}}),
        ];
        let restarts = self.fleet.spec.restarts.unwrap_or_default().is_allowed();
        if !restarts && self.fleet.spec.has_commands() {
            env.push(json!({"name": "EDICT_COMMANDS_ONLY", "value": "true"}));
        }
        if restarts || self.fleet.spec.has_commands() {
            // The folder and not the socket: systemd makes that anew when it executes itself anew.
            // Connecting does not write. A host without systemd has no such folder: its agent comes up
            // all the same, and says so.
            env.push(json!({"name": "EDICT_SYSTEMD", "value": SYSTEMD}));
            mounts.push(json!({"name": "systemd", "mountPath": SYSTEMD, "readOnly": true}));
            volumes.push(json!({"name": "systemd", "hostPath": {"path": SYSTEMD, "type": "DirectoryOrCreate"}}));
        }
        let mut labels = labels("agent");
        labels.insert("app.kubernetes.io/name".to_owned(), AGENT.to_owned());
        object(json!({
            "metadata": self.metadata(),
            "spec": {
                "selector": {"matchLabels": {"app.kubernetes.io/name": AGENT}},
                // The fleet controller replaces agents itself, see roll.rs.
                "updateStrategy": {"type": "OnDelete"},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "nodeSelector": {"kubernetes.io/os": "linux"},
                        "tolerations": tolerations,
                        "priorityClassName": "system-node-critical",
                        "serviceAccountName": AGENT,
                        "automountServiceAccountToken": false,
                        "enableServiceLinks": false,
                        "terminationGracePeriodSeconds": 30,
                        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                        "containers": [{
                            "name": "agent",
                            "image": image,
                            "args": ["serve"],
                            "env": env,
                            "ports": [{"name": "https", "containerPort": wire::PORT}],
                            "readinessProbe": {
                                "exec": {"command": ["/edict-agent", "healthy"]},
                                "periodSeconds": 10,
                                "timeoutSeconds": 5,
                            },
                            "startupProbe": {
                                "exec": {"command": ["/edict-agent", "healthy"]},
                                "periodSeconds": 1,
                                // One that goes on where another was interrupted waits for units first.
                                "failureThreshold": 900,
                                "timeoutSeconds": 5,
                            },
                            "resources": resources,
                            "securityContext": {
                                "privileged": false,
                                "allowPrivilegeEscalation": false,
                                "readOnlyRootFilesystem": true,
                                // Root by number only: the files under /etc are root's.
                                "runAsUser": 0,
                                "runAsGroup": 0,
                                "capabilities": {
                                    "drop": ["ALL"],
                                    // Files of other owners are read and replaced, and given back
                                    // to those owners.
                                    "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER"],
                                },
                            },
                            "volumeMounts": mounts,
                        }],
                        "volumes": volumes,
                    },
                },
            },
        }))
    }

    fn metadata(&self) -> Value {
        json!({
            "name": AGENT,
            "namespace": self.namespace,
            "labels": labels("agent"),
            "ownerReferences": self.fleet.controller_owner_ref(&()).map(|owner| vec![owner]),
        })
    }
}

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("the object is written out above and fits its type")
}

#[cfg(test)]
mod tests {
    use super::*;
    use edict_crds::FleetSpec;

    fn fleet(spec: Value) -> Fleet {
        let mut fleet = Fleet::new(
            "default",
            serde_json::from_value::<FleetSpec>(spec).unwrap(),
        );
        fleet.metadata.uid = Some("u".into());
        fleet
    }

    fn daemonset(spec: Value) -> Value {
        let fleet = fleet(spec);
        let objects = Objects {
            fleet: &fleet,
            namespace: "ns",
            default_image: "edict/agent:own",
        };
        let _ = (objects.service(), objects.service_account());
        serde_json::to_value(objects.daemonset()).unwrap()
    }

    /// What an agent sees of its host.
    fn host(daemonset: &Value) -> Vec<String> {
        let volumes = &daemonset["spec"]["template"]["spec"]["volumes"];
        let paths = volumes.as_array().unwrap().iter();
        let paths = paths.filter_map(|volume| volume["hostPath"]["path"].as_str());
        paths.map(ToOwned::to_owned).collect()
    }

    #[test]
    fn systemd_is_out_of_reach_where_no_unit_may_be_restarted() {
        let never = daemonset(json!({"restarts": "Never"}));
        assert_eq!(host(&never), ["/etc", "/var/lib/edict"]);
        assert!(!never.to_string().contains("systemd"), "{never}");
        let allowed = daemonset(json!({"restarts": "Allowed"}));
        assert_eq!(allowed, daemonset(json!({})));
        // Commands need it all the same, and nothing else gets it.
        let commands = json!([{"name": "a", "argv": ["/bin/a"]}]);
        let runs = daemonset(json!({"restarts": "Never", "commands": commands}));
        assert_eq!(host(&runs), ["/etc", "/var/lib/edict", "/run/systemd"]);
        assert!(runs.to_string().contains("EDICT_COMMANDS_ONLY"), "{runs}");
        let both = daemonset(json!({"commands": commands}));
        assert_eq!(both, allowed);
        assert_eq!(
            never,
            daemonset(json!({"restarts": "Never", "commands": []}))
        );
    }

    #[test]
    fn an_agent_has_no_more_rights_than_it_needs() {
        let daemonset = daemonset(json!({}));
        let pod = &daemonset["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        for absent in ["hostNetwork", "hostPID", "hostIPC"] {
            assert_eq!(pod[absent], Value::Null, "{absent}");
        }
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["priorityClassName"], "system-node-critical");
        assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}]));
        assert_eq!(container["securityContext"]["privileged"], false);
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        assert_eq!(
            container["securityContext"]["capabilities"]["drop"],
            json!(["ALL"])
        );
        assert_eq!(container["image"], "edict/agent:own");
        assert_eq!(host(&daemonset), ["/etc", "/var/lib/edict", "/run/systemd"]);
        // Nothing of it outlives a Fleet that somebody frees by hand.
        let owner = &daemonset["metadata"]["ownerReferences"][0];
        assert_eq!(
            (&owner["kind"], &owner["uid"]),
            (&json!("Fleet"), &json!("u"))
        );
    }

    #[test]
    fn only_the_fleet_controller_replaces_agents() {
        let strategy = &daemonset(json!({}))["spec"]["updateStrategy"];
        assert_eq!(strategy, &json!({"type": "OnDelete"}));
    }

    #[test]
    fn the_fleet_has_its_say() {
        let daemonset = daemonset(json!({"agent": {
            "image": "other:1",
            "tolerations": [{"key": "a", "operator": "Exists"}],
            "resources": {"limits": {"memory": "64Mi"}},
        }}));
        let pod = &daemonset["spec"]["template"]["spec"];
        assert_eq!(pod["containers"][0]["image"], "other:1");
        assert_eq!(
            pod["containers"][0]["resources"],
            json!({"limits": {"memory": "64Mi"}})
        );
        assert_eq!(pod["tolerations"][0]["key"], "a");
    }
}
