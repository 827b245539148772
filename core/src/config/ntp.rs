//! `ntp`: whom a node asks for the time.
//!
//! `systemd-timesyncd` has a drop-in, chrony a file of sources. chrony reads such a folder only where its
//! own configuration says so, which Edict does not write: the status says where it does not.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Block;
use crate::content::Contents;
use crate::guard::{Findings, Policy, rule, value};
use crate::resource::{Resource, Unit};
use crate::setting::{Says, Setting};

/// The drop-in of timesyncd; the last one counts. Source: timesyncd.conf(5).
pub const TIMESYNCD: &str = "/etc/systemd/timesyncd.conf.d/zz-edict.conf";
/// The sources of chrony. Source: chrony.conf(5), `sourcedir`.
pub const CHRONY: &str = "/etc/chrony/sources.d/zz-edict.sources";

/// That chrony reads its folder of sources, as it does on Debian and its kin.
const SOURCES: Setting = Setting {
    program: "chrony",
    paths: &["/etc/chrony/chrony.conf", "/etc/chrony.conf"],
    says: Says::Line("sourcedir"),
    contains: "/etc/chrony/sources.d",
    advice: "have chrony's own configuration say \"sourcedir /etc/chrony/sources.d\", on the node or in its image",
};

/// Time servers, and what asks them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.servers) || has(self.pools)", "message": "give servers, pools or both"},
]))]
pub struct Ntp {
    /// What asks them: Timesyncd, which then asks these and no others that its files name; Chrony, which
    /// asks these besides those of its own files. Each is restarted for it, where it is on the node.
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub applies_to: Vec<TimeClient>,
    /// Time servers by name or address, for example "time.example.com".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "atomic"))]
    pub servers: Option<Vec<String>>,
    /// Names behind which there are several servers, for example "pool.ntp.org". To Timesyncd they are
    /// as servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "atomic"))]
    pub pools: Option<Vec<String>>,
}

/// What asks for the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TimeClient {
    /// chrony.
    Chrony,
    /// systemd-timesyncd.
    Timesyncd,
}

impl TimeClient {
    fn path(self) -> &'static str {
        match self {
            Self::Chrony => CHRONY,
            Self::Timesyncd => TIMESYNCD,
        }
    }

    /// chrony's unit has this name everywhere: on Debian as an alias.
    fn unit(self) -> &'static str {
        match self {
            Self::Chrony => "chronyd.service",
            Self::Timesyncd => "systemd-timesyncd.service",
        }
    }
}

impl Ntp {
    fn lists(&self) -> [(&'static str, &[String]); 2] {
        [("server", &self.servers), ("pool", &self.pools)]
            .map(|(word, list)| (word, list.as_deref().unwrap_or_default()))
    }

    fn text(&self, client: TimeClient) -> String {
        let all = self.lists().into_iter();
        match client {
            TimeClient::Chrony => all
                .flat_map(|(word, names)| {
                    names
                        .iter()
                        .map(move |name| format!("{word} {name} iburst\n"))
                })
                .collect(),
            TimeClient::Timesyncd => {
                let names: Vec<_> = all
                    .flat_map(|(_, names)| names)
                    .map(String::as_str)
                    .collect();
                // The first line takes away what other files say.
                format!("[Time]\nNTP=\nNTP={}\n", names.join(" "))
            }
        }
    }
}

impl Block for Ntp {
    fn check(&self, policy: &Policy, _contents: &Contents, found: &mut Findings) {
        let mut clients = HashSet::new();
        for client in &self.applies_to {
            if !clients.insert(client) {
                found.add("appliesTo", &rule::DUPLICATE, client.unit());
            }
            found.place("appliesTo", client.path(), policy);
        }
        if self.lists().iter().all(|(_, names)| names.is_empty()) {
            found.add(
                "servers",
                &rule::CONTENT_SOURCE,
                "neither servers nor pools",
            );
        }
        found.each("servers", self.servers.as_ref(), value::time_server);
        found.each("pools", self.pools.as_ref(), value::time_server);
        let mut names = HashSet::new();
        for name in self.lists().into_iter().flat_map(|(_, names)| names) {
            if !names.insert(name) {
                found.add("servers", &rule::DUPLICATE, name);
            }
        }
    }

    fn render(&self, _contents: &Contents) -> Vec<Resource> {
        let mut resources = Vec::new();
        for client in &self.applies_to {
            resources.push(Resource::text(client.path(), self.text(*client)));
            resources.push(Resource::Unit(Unit::restarted(
                client.unit(),
                &[client.path()],
            )));
            if *client == TimeClient::Chrony {
                resources.push(Resource::Setting(SOURCES));
            }
        }
        resources
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::config::tests::{rendered, said};

    #[test]
    fn each_has_its_own_file() {
        let ntp = json!({"ntp": {
            "appliesTo": ["Chrony", "Timesyncd"],
            "servers": ["time.example.com", "2001:db8::123"],
            "pools": ["pool.ntp.org"],
        }});
        assert_eq!(said(&ntp), [""; 0]);
        assert_eq!(
            rendered(&ntp),
            [
                "/etc/chrony/sources.d/zz-edict.sources server time.example.com iburst\n\
                 server 2001:db8::123 iburst\npool pool.ntp.org iburst\n",
                "chronyd.service restart restart",
                "/etc/chrony/sources.d",
                "/etc/systemd/timesyncd.conf.d/zz-edict.conf [Time]\nNTP=\n\
                 NTP=time.example.com 2001:db8::123 pool.ntp.org\n",
                "systemd-timesyncd.service restart restart",
            ]
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (ntp, violations) in [
            (
                json!({"appliesTo": ["Chrony"]}),
                vec!["ntp.servers content-source"],
            ),
            (
                json!({"appliesTo": ["Chrony"], "servers": []}),
                vec!["ntp.servers content-source"],
            ),
            (
                json!({"appliesTo": ["Chrony", "Chrony"], "servers": ["a"]}),
                vec!["ntp.appliesTo duplicate"],
            ),
            (
                json!({"appliesTo": ["Chrony"], "servers": ["a"], "pools": ["a"]}),
                vec!["ntp.servers duplicate"],
            ),
            (
                json!({"appliesTo": ["Chrony"], "servers": ["a offline"], "pools": ["b\nallow"]}),
                vec![
                    "ntp.servers[0] time-server",
                    "ntp.servers[0] blank",
                    "ntp.pools[0] time-server",
                    "ntp.pools[0] control",
                ],
            ),
        ] {
            assert_eq!(said(&json!({"ntp": ntp})), violations, "{ntp}");
        }
    }
}
