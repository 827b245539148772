//! `probes`: what has to hold on a node once a `NodeConfig` is in force there. No block by itself: it
//! changes nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::guard::{Findings, rule, value};

/// The name of the field, as an agent's hello says that it is known.
pub const NAME: &str = "probes";
/// The most of them: each is tried at the same time.
const LIST_MAX: usize = 8;
/// The longest path of a request, in bytes.
const PATH_MAX: usize = 512;
/// How long a probe is tried where it does not say, in seconds.
const TIMEOUT: u32 = 30;
/// The status that is meant where none is given.
const OK: u32 = 200;

/// What has to hold on a node once this NodeConfig is in force there, and the units that it concerns run
/// again. What does not hold in time has the node put back, and the NodeConfig Held there. Where units have yet
/// to be restarted for it (restarts: Never) nothing is probed, nor is what is in force already.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("x-kubernetes-list-type" = "atomic"))]
pub struct Probes(#[schemars(length(max = 8))] pub Vec<Probe>);

/// Something that has to hold: exactly one of unit, tcp and http.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "[has(self.unit), has(self.tcp), has(self.http)].exists_one(given, given)", "message": "give exactly one of unit, tcp and http"},
]))]
pub struct Probe {
    /// This unit of systemd is active, for example "nginx.service": a service, socket, timer or path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub unit: Option<String>,
    /// Somebody listens on this port of the node's own address. What listens on its loopback address only
    /// can't be probed: agents run in a network of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Tcp>,
    /// A request to this port of the node's own address is answered with this status. The same holds for
    /// its loopback address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    /// How many seconds it may take until it holds, from when the files are written and the units run again.
    /// 30 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 60))]
    pub timeout_seconds: Option<u32>,
}

/// A port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tcp {
    /// Its number.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u32,
}

/// A request: GET, without TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Http {
    /// The port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u32,
    /// The path, "/" if left out. What is not visible ASCII is written in percent-encoding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = "^/[!-~]*$"))]
    pub path: Option<String>,
    /// The final status that it is answered with, 200 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 200, max = 599))]
    pub status: Option<u32>,
}

impl Probes {
    /// Reports everything that is wrong with them.
    pub(super) fn check(&self, found: &mut Findings) {
        if self.0.len() > LIST_MAX {
            found.add("", &rule::LENGTH, &format!("{} probes", self.0.len()));
        }
        for (index, probe) in self.0.iter().enumerate() {
            found.within(&format!("[{index}]"), |found| probe.check(found));
        }
    }
}

impl Probe {
    fn check(&self, found: &mut Findings) {
        let Self {
            unit,
            tcp,
            http,
            timeout_seconds,
        } = self;
        let given = [unit.is_some(), tcp.is_some(), http.is_some()];
        let given = given.into_iter().filter(|given| *given).count();
        if given != 1 {
            let excerpt = format!("{given} of unit, tcp and http");
            found.add("", &rule::PROBE, &excerpt);
        }
        if let Some(unit) = unit {
            found.one("unit", unit, value::unit);
        }
        if let Some(tcp) = tcp {
            found.number("tcp.port", Some(tcp.port), 1..=65535);
        }
        if let Some(http) = http {
            found.number("http.port", Some(http.port), 1..=65535);
            found.number("http.status", http.status, 200..=599);
            let path = http.path();
            let plain = |byte: u8| byte.is_ascii_graphic();
            if !path.starts_with('/') || !path.bytes().all(plain) {
                found.add("http.path", &rule::PROBE_PATH, path);
            }
            if path.len() > PATH_MAX {
                found.add("http.path", &rule::LENGTH, path);
            }
        }
        found.number("timeoutSeconds", *timeout_seconds, 1..=60);
    }

    /// How long it is tried, in seconds.
    pub fn seconds(&self) -> u32 {
        self.timeout_seconds.unwrap_or(TIMEOUT)
    }
}

impl Http {
    /// The path of the request.
    pub fn path(&self) -> &str {
        self.path.as_deref().unwrap_or("/")
    }

    /// The status that it is to be answered with.
    pub fn status(&self) -> u32 {
        self.status.unwrap_or(OK)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::tests::said;

    #[test]
    fn honest_probes_make_sense() {
        let probes = json!({"probes": [
            {"unit": "nginx.service"},
            {"tcp": {"port": 1}, "timeoutSeconds": 60},
            {"http": {"port": 65535, "path": "/healthz?verbose&x=%20", "status": 599}},
        ]});
        assert_eq!(said(&probes), [""; 0]);
        let probes: Probes = serde_json::from_value(probes["probes"].clone()).unwrap();
        let seconds: Vec<_> = probes.0.iter().map(Probe::seconds).collect();
        assert_eq!(seconds, [30, 60, 30]);
        let http = Http::default();
        assert_eq!((http.path(), http.status()), ("/", 200));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (probe, violations) in [
            (json!({}), vec!["probes[0] probe"]),
            (
                json!({"unit": "a.service", "tcp": {"port": 1}}),
                vec!["probes[0] probe"],
            ),
            (json!({"unit": "a"}), vec!["probes[0].unit unit"]),
            (
                json!({"tcp": {"port": 0}}),
                vec!["probes[0].tcp.port range"],
            ),
            (
                json!({"http": {"port": 65536, "status": 600}}),
                vec!["probes[0].http.port range", "probes[0].http.status range"],
            ),
            (
                json!({"http": {"port": 1, "path": "a"}}),
                vec!["probes[0].http.path probe-path"],
            ),
            (
                json!({"http": {"port": 1, "path": "/ HTTP/1.1\r\nHost: x"}}),
                vec!["probes[0].http.path probe-path"],
            ),
            (
                json!({"http": {"port": 1, "path": format!("/{}", "a".repeat(512))}}),
                vec!["probes[0].http.path length"],
            ),
            (
                json!({"unit": "a.service", "timeoutSeconds": 61}),
                vec!["probes[0].timeoutSeconds range"],
            ),
        ] {
            assert_eq!(said(&json!({"probes": [probe]})), violations, "{probe}");
        }
    }
}
