//! What blocks become whose values have a closed grammar: lines of files that others share, and files
//! that each have one thing to say.

use edict_core::config::Config;
use edict_core::resource::{self, Keys};

use super::is_visible;

pub const BLOCKS: [&str; 7] = [
    "caCertificates",
    "dns",
    "hosts",
    "limits",
    "modules",
    "ntp",
    "units",
];

/// Each key is one of its file, with that value, beside whatever else is there.
pub fn is_its_own(keys: &Keys) {
    assert!(keys.path.starts_with("/etc/"), "{}", keys.path);
    for before in ["", "# by hand"] {
        let mut text = before.to_owned();
        for (key, value) in &keys.values {
            let set = keys.format.set(&text, key, value);
            text = set.expect("what is let through can be written");
        }
        for (key, value) in &keys.values {
            let read = keys.format.get(&text, key);
            assert_eq!(
                read.expect("it can be read"),
                Some(value.clone()),
                "{text:?}"
            );
            let unset = keys.format.unset(&text, key);
            text = unset.expect("it can be taken out");
        }
        assert_eq!(text.trim_end(), before);
    }
}

/// Files of these blocks say a few words of one line each, and are no more than were asked for.
pub fn are_those_asked_for(config: &Config, files: &[&resource::File]) {
    let clients = config.ntp.as_ref().map_or(0, |ntp| ntp.applies_to.len());
    let units = config.units.iter().flat_map(|units| &units.0);
    let settings: usize = units.map(|unit| unit.settings.len()).sum();
    let modules = config.modules.iter().flat_map(|modules| &modules.0);
    let parameters = modules.filter(|module| module.parameters.is_some()).count();
    let wanted = clients + settings + parameters + usize::from(config.dns.is_some());
    assert_eq!(files.len(), wanted);
    for file in files {
        assert!(file.path.contains("/zz-edict"), "{}", file.path);
        assert!(file.mode.is_none() && !file.secret, "{}", file.path);
        let text = std::str::from_utf8(&file.content).expect("it is text");
        assert!(text.ends_with('\n'), "{text:?}");
        for line in text.lines() {
            assert!(!line.is_empty() && line.chars().all(is_visible), "{text:?}");
            assert!(!line.contains(['$', '`', '\\', '"', ';']), "{text:?}");
        }
    }
}
