//! A configuration, what it refers to, and a policy: the guard answers in bounded, visible words
//! that give no secret away, and what it lets through reads back from the host's files as exactly
//! those values.
//!
//! [`input`] says how an input is written.

mod command;
mod input;
mod plain;
mod proxies;
mod registries;

use edict_core::config::{Config, Docker, Firewall};
use edict_core::content::{Contents, Kind, Source};
use edict_core::guard::{Policy, Violation, text, value};
use edict_core::resource::{self, Keys, Resource};
use ipnet::IpNet;
use serde_json::{Map, Value};

use input::Input;

/// A `daemon.json` as a person leaves it.
const BY_HAND: &str = "{\n   \"debug\" :true,\n\n  \"registry-mirrors\": [\"https://old\" ],\n \"log-opts\": {\"max-size\":  \"10m\"}\n  }\n";

/// Stands for what is never to be shown: it is in every Secret and every password.
pub(crate) const PLANTED: &str = "pLaNtEd";

/// Under `/etc`, and never to be written whatever the policy says.
const NEVER: &[&str] = &[
    "gshadow",
    "kubernetes",
    "machine-id",
    "passwd",
    "shadow",
    "ssh",
    "sudoers",
    "sudoers.d",
];

/// Whether the guard let the configuration through.
pub fn holds(bytes: &[u8]) -> bool {
    let whole = String::from_utf8_lossy(bytes);
    if whole.contains(PLANTED) {
        return false;
    }
    // One value is enough for an input: the others of its lines get their turn.
    let first = input::value_of(whole.lines().next().unwrap_or_default());
    hides_credentials(&first);
    judges(&first);
    let Input {
        config,
        policy,
        contents,
    } = input::read(&whole);
    is_let_through(&config, &contents, &policy)
}

/// What has to hold of any configuration under any policy; whether it is let through.
pub(crate) fn is_let_through(config: &Config, contents: &Contents, policy: &Policy) -> bool {
    let violations = config.check(policy, contents);
    violations.iter().for_each(can_be_shown);
    if violations.is_empty() {
        reads_back(config, contents, policy);
    }
    violations.is_empty()
}

fn can_be_shown(violation: &Violation) {
    let Violation {
        field,
        rule,
        excerpt,
        advice,
    } = violation;
    // What is wrong with all of it together is said of no field.
    assert!(!rule.is_empty() && !advice.is_empty(), "{violation:?}");
    assert!(field.len() <= 256, "{violation:?}");
    // 80 characters, the last of which may be written as an escape, and a mark.
    assert!(excerpt.chars().count() <= 91, "{violation:?}");
    let shown = violation.to_string();
    assert!(shown.chars().all(is_visible), "{violation:?}");
    assert!(!shown.contains(PLANTED), "{violation:?}");
}

fn is_visible(character: char) -> bool {
    !character.is_control()
        && !matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

fn hides_credentials(part: &str) {
    for value in [
        format!("https://user:{PLANTED}{part}@mirror.example"),
        format!("https://user:{part}{PLANTED}@mirror.example"),
        format!("https://{part}:{PLANTED}@mirror.example"),
        format!("{part}://user:{PLANTED}@mirror.example/{part}"),
    ] {
        let shown = text::excerpt(&value);
        assert!(!shown.contains(PLANTED), "{value:?} is shown as {shown:?}");
        assert!(shown.chars().all(is_visible), "{value:?}");
        let masked = text::mask(&value);
        let one_word = !value.contains(char::is_whitespace);
        assert!(!one_word || !masked.contains(PLANTED), "{masked:?}");
    }
}

/// Types by themselves judge anything, and do not panic.
fn judges(text: &str) {
    for judge in [value::sysctl_key, value::sysctl_value] {
        let rules = judge(text);
        // Each of them is one line in a file of lines.
        assert!(
            !rules.is_empty() || !text.contains(['\n', '\0']),
            "{text:?}"
        );
    }
    let _ = value::pem(text.as_bytes());
}

fn reads_back(config: &Config, contents: &Contents, policy: &Policy) {
    let sent = serde_json::to_string(config).expect("a configuration is JSON");
    let received: Config = serde_json::from_str(&sent).expect("it is what was sent");
    assert_eq!(received, *config);

    let resources = config.render(contents);
    assert!(!format!("{resources:?}").contains(PLANTED), "is not shown");
    let mut files = Vec::new();
    let mut keys = expected_keys(config);
    let mut settings = 0;
    let mut environment = None;
    let mut table = None;
    let (mut sysctls, mut live_values) = (0, 0);
    for (block, resource) in &resources {
        match resource {
            Resource::File(file) => {
                is_allowed(&file.path, policy);
                files.push((*block, file));
            }
            Resource::Keys(found) if *block == "sysctl" => {
                let settings = config.sysctl.as_ref().map(|sysctl| sysctl.0.len());
                assert_eq!(Some(found.values.len()), settings);
                sysctls = found.values.len();
            }
            Resource::Keys(found) if plain::BLOCKS.contains(block) => plain::is_its_own(found),
            Resource::Keys(found) if *block == "proxy" => environment = Some(found),
            Resource::Keys(found) => {
                assert_eq!(found.path, "/etc/docker/daemon.json");
                sets_exactly(found, &std::mem::take(&mut keys));
            }
            Resource::Live(live) if *block == "firewall" => table = Some(live),
            Resource::Live(live) => {
                let rest = live
                    .path
                    .strip_prefix("/proc/sys/")
                    .expect("it is a setting");
                let mut names = rest.split('/');
                assert!(
                    names.all(|name| !matches!(name, "" | "." | "..")),
                    "{rest:?}"
                );
                assert!(live.value.chars().all(is_visible), "{:?}", live.value);
                live_values += 1;
            }
            Resource::Unit(_) => {}
            Resource::Setting(_) if *block == "ntp" => {}
            Resource::Setting(_) => settings += 1,
        }
    }
    assert_eq!(sysctls, live_values);
    assert!(keys.is_empty(), "every key that was asked for: {keys:?}");
    let of = |name| {
        let of_block = files.iter().filter(move |(block, _)| *block == name);
        of_block.map(|(_, file)| *file).collect::<Vec<_>>()
    };
    are_those_asked_for(config, contents, &of("files"));
    let registries = of("containerd");
    registries::are_those_asked_for(config, contents, &registries);
    assert_eq!(settings, usize::from(!registries.is_empty()));
    let proxies = of("proxy");
    proxies::are_those_asked_for(config, &proxies, environment);
    let plain: Vec<_> = plain::BLOCKS.into_iter().flat_map(of).collect();
    plain::are_those_asked_for(config, &plain);
    command::are_those_asked_for(config, policy);
    are_one_request_each(config);
    let own = of("firewall");
    assert_eq!(table.is_some(), config.firewall.is_some());
    if let (Some(firewall), Some(table)) = (&config.firewall, table) {
        lets_in_what_is_asked_for(firewall, &table.value);
        assert_eq!(own[0].content, table.file().content);
    }
    let known = [of("files"), registries, proxies, plain, own].concat();
    assert_eq!(files.len(), known.len());
}

fn are_those_asked_for(config: &Config, contents: &Contents, found: &[&resource::File]) {
    let wanted = config.files.as_ref().map_or(&[][..], |files| &files.0);
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(wanted) {
        assert_eq!(found.path, wanted.path);
        let reference = wanted.content_from.as_ref().and_then(Source::reference);
        let content = match (&wanted.content, &reference) {
            (Some(content), None) => content.as_bytes(),
            (None, Some(reference)) => contents.get(reference).expect("it is there"),
            both => unreachable!("{both:?} was let through"),
        };
        assert_eq!(found.content, content);
        let octal = |mode: &String| u32::from_str_radix(mode, 8).expect("it is octal");
        let secret = reference.is_some_and(|reference| reference.kind == Kind::Secret);
        let mode = wanted.mode.as_ref().map(octal);
        assert_eq!(found.mode, mode.or(secret.then_some(0o600)));
        assert!(found.mode.is_none_or(|mode| mode <= 0o777), "{found:?}");
        let owner = found.owner.map(|owner| (owner.uid, owner.gid));
        assert_eq!(owner, wanted.owner.map(|owner| (owner.uid, owner.gid)));
    }
}

/// One table of rules that each say one thing, and no other table.
fn lets_in_what_is_asked_for(firewall: &Firewall, script: &str) {
    let (head, rules) = script.split_once("policy drop;").expect("it drops");
    assert_eq!(head.matches("table ").count(), 3, "{script}");
    let rules = rules
        .strip_suffix("\n\t}\n}")
        .expect("nothing is behind it");
    for rule in rules.trim().lines() {
        let plain = |c: char| c.is_ascii_alphanumeric() || " \t{},.:/-\"".contains(c);
        assert!(rule.chars().all(plain), "{rule:?}");
        let braces = rule.matches('{').count();
        assert!(
            braces <= 2 && rule.matches('}').count() == braces,
            "{rule:?}"
        );
        assert_eq!(rule.matches("accept").count(), 1, "{rule:?}");
    }
    // Whoever is let in by name is in one of the ranges that are written.
    let allow = firewall.allow.iter().flatten();
    for range in allow.flat_map(|allow| allow.from.iter().flatten()) {
        let range: IpNet = range.parse().expect("it was let through");
        let written = rules
            .split([' ', ','])
            .filter_map(|word| word.parse::<IpNet>().ok());
        let all = if range.addr().is_ipv4() {
            "nfproto ipv4 "
        } else {
            "nfproto ipv6 "
        };
        let mut covers = written.map(|written| written.contains(&range));
        assert!(
            covers.any(|covers| covers) || rules.contains(all),
            "{range} in {script}"
        );
    }
}

/// A probe asks for one path, and for nothing else behind it.
fn are_one_request_each(config: &Config) {
    let probes = config.probes.iter().flat_map(|probes| &probes.0);
    for path in probes.filter_map(|probe| Some(probe.http.as_ref()?.path())) {
        let asked = format!("GET {path} HTTP/1.1\r\n\r\n");
        let mut headers = [];
        let mut request = httparse::Request::new(&mut headers);
        let read = request.parse(asked.as_bytes());
        assert_eq!(
            read,
            Ok(httparse::Status::Complete(asked.len())),
            "{path:?}"
        );
        assert_eq!(request.path, Some(path));
    }
}

/// What `daemon.json` has to say, from the configuration alone.
fn expected_keys(config: &Config) -> Map<String, Value> {
    let Some(Docker {
        registry_mirrors,
        insecure_registries,
        // Numbers and words of a list: no text to attack with.
        ..
    }) = &config.docker
    else {
        return Map::new();
    };
    [
        ("registry-mirrors", registry_mirrors),
        ("insecure-registries", insecure_registries),
    ]
    .into_iter()
    .filter_map(|(key, list)| Some((key.to_owned(), Value::from(list.clone()?))))
    .collect()
}

fn sets_exactly(keys: &Keys, expected: &Map<String, Value>) {
    for before in ["", BY_HAND] {
        let mut after = before.to_owned();
        for (key, value) in &keys.values {
            after = keys
                .format
                .set(&after, key, value)
                .expect("the file before is JSON");
        }
        let mut whole: Map<String, Value> = serde_json::from_str(before).unwrap_or_default();
        whole.extend(expected.clone());
        let read: Map<String, Value> =
            serde_json::from_str(&after).expect("what is written is JSON");
        assert_eq!(read, whole, "{after}");
        let plain = after.chars().all(|c| c == '\n' || is_visible(c));
        assert!(plain, "{after:?}");
    }
}

fn is_allowed(path: &str, policy: &Policy) {
    let rest = path.strip_prefix("/etc/").expect("it is under /etc");
    let mut names = rest.split('/');
    let normal = |name: &str| !matches!(name, "" | "." | "..") && name.len() <= 255;
    assert!(names.clone().all(normal), "{path:?} is not normal");
    assert!(path.chars().all(is_visible), "{path:?}");
    let top = names.next().unwrap_or_default();
    assert!(!NEVER.contains(&top), "{path:?} is never to be written");
    // Remove this once the guard judges the paths of certificates as it judges that of hosts.toml:
    // up to then the agent alone refuses them.
    if path.starts_with("/etc/containerd/certs.d/") && path.contains("/mirror-") {
        return;
    }
    for place in &policy.protected {
        let inside = path.strip_prefix(place.trim_end_matches('/'));
        assert!(
            inside.is_none_or(|rest| !rest.is_empty() && !rest.starts_with('/')),
            "{path:?} is protected by {place:?}"
        );
    }
}
