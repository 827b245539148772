//! What a proxy becomes: two files for each daemon, and lines of `/etc/environment`.

use edict_core::config::proxy::{DROP_IN, ENVIRONMENT, FOLDER};
use edict_core::config::{Config, ProxyUser};
use edict_core::resource::{self, Keys};

use super::is_visible;

const NAMES: [&str; 3] = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];

pub fn are_those_asked_for(config: &Config, files: &[&resource::File], keys: Option<&Keys>) {
    let users = config.proxy.as_ref().map(|proxy| &proxy.applies_to);
    let users: Vec<_> = users.into_iter().flatten().collect();
    let open = users.contains(&&ProxyUser::Environment);
    assert_eq!(keys.is_some(), open);
    assert_eq!(files.len(), 2 * (users.len() - usize::from(open)));
    for file in files {
        let text = std::str::from_utf8(&file.content).expect("it is text");
        if file.path.ends_with(DROP_IN) {
            let named = text.strip_prefix("[Service]\nEnvironmentFile=-");
            let named = named.and_then(|rest| rest.strip_suffix('\n'));
            let named = named.expect("it names a file and nothing else");
            assert!(files.iter().any(|other| other.path == named), "{named}");
            continue;
        }
        assert!(file.path.starts_with(FOLDER), "{}", file.path);
        assert!(file.mode.is_some(), "{}", file.path);
        let mut names: Vec<_> = text.lines().map(assignment).collect();
        names.dedup();
        assert_eq!(names.len(), text.lines().count(), "{text:?}");
    }
    for (key, value) in keys.into_iter().flat_map(|keys| &keys.values) {
        let name = key.to_string().to_uppercase();
        assert!(NAMES.contains(&name.as_str()), "{key}");
        let value = value.as_str().expect("it is a text");
        assert!(value.chars().all(is_visible), "{value:?}");
    }
    assert!(keys.is_none_or(|keys| keys.path == ENVIRONMENT));
}

/// The name in a line that says one thing.
fn assignment(line: &str) -> &str {
    let (name, value) = line.split_once('=').expect("it is an assignment");
    assert!(NAMES.contains(&name), "{line:?}");
    let quoted = value.starts_with('"') && value.ends_with('"') && value.len() > 1;
    let plain = !value.contains(['"', '\'', '\\', ' ']);
    assert!(
        value.chars().all(is_visible) && (quoted || plain),
        "{line:?}"
    );
    name
}
