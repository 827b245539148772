//! `units`: settings of systemd services, each in a drop-in of its own, so that it has one owner.

use std::collections::{BTreeMap, HashSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Block;
use crate::content::Contents;
use crate::guard::value::drop_in::{self, Setting};
use crate::guard::{Findings, Policy, rule, value};
use crate::resource::{Place, Resource, Unit};

/// Settings of systemd services, as drop-ins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["unit"]))]
pub struct Units(#[schemars(length(max = 32))] pub Vec<UnitSettings>);

/// Settings of one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnitSettings {
    /// The service, for example "kubelet.service". One that is not on a node is said to be missing.
    #[schemars(length(min = 1, max = 200), extend("x-kubernetes-validations" = [
        {"rule": "self.endsWith('.service')", "message": "must be the whole name of a service, for example kubelet.service"},
    ]))]
    pub unit: String,
    /// Settings by the names that systemd has for them, for example {"LimitNOFILE": "1048576"}: limits of
    /// processes and of memory, weights, times, when it is started again. None that names a program, a
    /// file or a user. What systemd can change while the service runs it changes; for the others the
    /// service is restarted.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 24, "x-kubernetes-validations" = [
        {"rule": "self.all(key, key.matches('^[A-Z][A-Za-z]{1,40}$'))", "message": "each name must be one of systemd's settings, for example LimitNOFILE"},
        {"rule": "self.all(key, self[key].size() <= 64)", "message": "a value has at most 64 characters"},
    ]))]
    pub settings: BTreeMap<String, String>,
}

impl UnitSettings {
    /// The drop-in of a setting, the last one of its kind. Source: systemd.unit(5).
    fn path(&self, setting: &Setting) -> String {
        let Self { unit, .. } = self;
        format!(
            "/etc/systemd/system/{unit}.d/zz-edict-{}.conf",
            setting.name
        )
    }

    fn settings(&self) -> impl Iterator<Item = (&'static Setting, &str)> {
        let settings = self.settings.iter();
        settings.filter_map(|(name, value)| Some((drop_in::setting(name)?, &**value)))
    }
}

impl Block for Units {
    fn check(&self, policy: &Policy, _contents: &Contents, found: &mut Findings) {
        let mut names = HashSet::new();
        for (index, unit) in self.0.iter().enumerate() {
            found.within(&format!("[{index}]"), |found| {
                found.one("unit", &unit.unit, value::unit);
                if !unit.unit.ends_with(".service") {
                    found.add("unit", &rule::UNIT_SERVICE, &unit.unit);
                }
                if !names.insert(&unit.unit) {
                    found.add("unit", &rule::DUPLICATE, &unit.unit);
                }
                for (name, value) in &unit.settings {
                    for rule in drop_in::setting_name(name) {
                        found.add("settings", rule, name);
                    }
                    for rule in drop_in::setting_value(name, value) {
                        found.add(&format!("settings.{name}"), rule, value);
                    }
                }
                for (setting, _) in unit.settings() {
                    found.place("unit", &unit.path(setting), policy);
                }
            });
        }
    }

    fn render(&self, _contents: &Contents) -> Vec<Resource> {
        let mut resources = Vec::new();
        for unit in &self.0 {
            for (setting, value) in unit.settings() {
                let Setting {
                    name,
                    section,
                    action,
                    ..
                } = setting;
                let path = unit.path(setting);
                resources.push(Resource::text(
                    &path,
                    format!("[{section}]\n{name}={value}\n"),
                ));
                resources.push(Resource::Unit(Unit {
                    name: unit.unit.clone(),
                    action: *action,
                    gone: *action,
                    reads: vec![Place::file(&path)],
                }));
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
    fn each_setting_has_a_drop_in() {
        let units = json!({"units": [{"unit": "kubelet.service", "settings": {
            "LimitNOFILE": "1048576", "MemoryMax": "2G", "StartLimitBurst": "3",
        }}]});
        assert_eq!(said(&units), [""; 0]);
        let at = "/etc/systemd/system/kubelet.service.d/zz-edict-";
        assert_eq!(
            rendered(&units),
            [
                format!("{at}LimitNOFILE.conf [Service]\nLimitNOFILE=1048576\n"),
                "kubelet.service restart restart".to_owned(),
                format!("{at}MemoryMax.conf [Service]\nMemoryMax=2G\n"),
                "kubelet.service daemon-reload daemon-reload".to_owned(),
                format!("{at}StartLimitBurst.conf [Unit]\nStartLimitBurst=3\n"),
                "kubelet.service daemon-reload daemon-reload".to_owned(),
            ]
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let unit =
            |unit: &str, name: &str, value: &str| json!({"unit": unit, "settings": {name: value}});
        for (units, violations) in [
            (
                vec![unit("a.service", "ExecStart", "/bin/sh")],
                vec!["units[0].settings unit-setting"],
            ),
            (
                vec![unit("a.service", "Nice", "99")],
                vec!["units[0].settings.Nice unit-value"],
            ),
            (
                vec![unit("a.socket", "Nice", "1")],
                vec!["units[0].unit unit-service"],
            ),
            (
                vec![unit("a", "Nice", "1")],
                vec!["units[0].unit unit", "units[0].unit unit-service"],
            ),
            (
                vec![
                    unit("a.service", "Nice", "1"),
                    unit("a.service", "CPUWeight", "1"),
                ],
                vec!["units[1].unit duplicate"],
            ),
        ] {
            assert_eq!(said(&json!({"units": units})), violations, "{units:?}");
        }
    }
}
