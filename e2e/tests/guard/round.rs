//! The round trip: what is rendered reads back as what was meant and as nothing else. Also for
//! values that the guard refuses, so that no renderer leans on it.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use edict_core::config::containerd::Capability;
use edict_core::config::proxy::ENVIRONMENT;
use edict_core::config::{Config, containerd::FOLDER, containerd::Mirror, containerd::Registry};
use edict_core::config::{ProxyUser, Sysctl};
use percent_encoding::percent_decode_str;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};
use systemd_unit_edit::SystemdUnit;

use crate::render::{self, DAEMON, Daemon, Host, Hosts, Ordered, Renderer};
use crate::strategy::{any_text, cases, containerd, docker, files, proxy, sysctl, text};
use crate::subject::Subject;

type Verdict = Result<(), TestCaseError>;

/// A `daemon.json` as somebody has left it: other keys, perhaps one of Docker's that Edict sets as
/// well, laid out somehow.
pub fn daemon() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        select(
            &[
                "debug",
                "log-opts",
                "data-root",
                "hosts",
                "registry-mirrors",
                "insecure-registries"
            ][..]
        )
        .prop_map(ToOwned::to_owned),
        any_text(),
    ];
    let value = prop_oneof![
        Just(json!(true)),
        Just(json!({"max-size": "10m", "max-file": "3"})),
        Just(json!(["https://old.example.com"])),
        any_text().prop_map(Value::from),
    ];
    let blank = select(&["", " ", "\n  ", "\r\n\t"][..]);
    (btree_map(key, value, 0..5), blank).prop_map(|(entries, blank)| {
        let entries = entries
            .iter()
            .map(|(key, value)| format!("{blank}{}{blank}:{blank}{value}", json!(key)));
        let entries: Vec<_> = entries.collect();
        format!("{{{}{blank}}}{blank}", entries.join(&format!("{blank},")))
    })
}

/// Docker's keys stand in the file, everything else does as before.
pub fn docker_holds(render: Renderer, subject: &Subject, before: &str) -> Verdict {
    let after = render(subject, before);
    let after = String::from_utf8_lossy(&after[DAEMON]).into_owned();
    let read = |text: &str| serde_json::from_str::<Daemon>(text);
    let (before, after) = match (read(before), read(&after)) {
        (Ok(before), Ok(after)) => (before, after),
        (_, after) => return Err(TestCaseError::fail(format!("{after:?}"))),
    };
    let docker = subject.config.docker.clone().unwrap_or_default();
    let number = |number: Option<u32>| number.map(|number| json!(number));
    let list = |list: Option<Vec<String>>| list.map(|list| json!(list));
    let given = [
        ("registry-mirrors", list(docker.registry_mirrors)),
        ("insecure-registries", list(docker.insecure_registries)),
        ("debug", docker.debug.map(|debug| json!(debug))),
        (
            "max-concurrent-downloads",
            number(docker.max_concurrent_downloads),
        ),
        ("shutdown-timeout", number(docker.shutdown_timeout)),
        ("mtu", number(docker.mtu)),
    ];
    for (key, list) in &given {
        let expected = list.as_ref().or(before.get(key));
        prop_assert_eq!(after.get(key), expected, "{}", key);
    }
    let added = given
        .iter()
        .filter(|(key, list)| list.is_some() && before.get(key).is_none());
    prop_assert_eq!(after.0.len(), before.0.len() + added.count());
    // What was there keeps its place; what is new comes behind it.
    for (one, other) in before.0.iter().zip(&after.0) {
        prop_assert_eq!(&one.0, &other.0);
        if given
            .iter()
            .all(|(key, list)| *key != one.0 || list.is_none())
        {
            prop_assert_eq!(&one.1, &other.1);
        }
    }
    Ok(())
}

/// Every registry has its file, with its mirrors in their order and the certificates that it names.
pub fn containerd_holds(render: Renderer, subject: &Subject) -> Verdict {
    let host = render(subject, "{}");
    let registries = subject
        .config
        .containerd
        .iter()
        .flat_map(|block| block.registries.iter().flatten());
    let mut known = vec![DAEMON.to_owned()];
    for registry in registries {
        let folder = format!("{FOLDER}/{}", registry.host);
        let path = format!("{folder}/hosts.toml");
        let text = host
            .get(&path)
            .ok_or_else(|| TestCaseError::fail(format!("there is no {path}")))?;
        let text = String::from_utf8_lossy(text);
        let read: Hosts = basic_toml::from_str(&text)
            .map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        known.push(path);
        known.extend(registry_holds(registry, &read, &folder, &host, subject)?);
    }
    for path in host.keys() {
        prop_assert!(known.contains(path), "nobody asked for {}", path);
    }
    Ok(())
}

/// Answers with the files that `read` names.
fn registry_holds(
    registry: &Registry,
    read: &Hosts,
    folder: &str,
    host: &Host,
    subject: &Subject,
) -> Result<Vec<String>, TestCaseError> {
    let mirrors = || registry.mirrors.iter().flatten();
    prop_assert_eq!(&read.server, &registry.server);
    let urls: Vec<_> = mirrors().map(|mirror| mirror.url.as_str()).collect();
    prop_assert_eq!(read.host.keys(), urls, "the mirrors and their order");
    let mut named = Vec::new();
    for (mirror, (_, read)) in mirrors().zip(&read.host.0) {
        let words = mirror
            .capabilities
            .as_ref()
            .map(|list| list.iter().map(|one| word(*one).to_owned()).collect());
        prop_assert_eq!(&read.capabilities, &words);
        prop_assert_eq!(read.skip_verify, mirror.skip_verify);
        prop_assert_eq!(read.override_path, mirror.override_path);
        prop_assert_eq!(
            &read.header,
            &header(mirror, subject).map(|value| [("Authorization".to_owned(), value)].into())
        );
        let path = read.ca.as_ref().map(|name| format!("{folder}/{name}"));
        let there = path
            .as_ref()
            .and_then(|path| host.get(path))
            .map(Vec::as_slice);
        prop_assert_eq!(there, certificates(mirror, subject));
        named.extend(path);
    }
    Ok(named)
}

fn word(capability: Capability) -> &'static str {
    match capability {
        Capability::Pull => "pull",
        Capability::Resolve => "resolve",
        Capability::Push => "push",
    }
}

fn certificates<'a>(mirror: &'a Mirror, subject: &'a Subject) -> Option<&'a [u8]> {
    match (&mirror.ca, &mirror.ca_from) {
        (Some(ca), _) => Some(ca.as_bytes()),
        (None, from) => subject.contents.get(&from.as_ref()?.reference()?),
    }
}

/// RFC 7617, section 2.
fn header(mirror: &Mirror, subject: &Subject) -> Option<String> {
    let secret = &mirror.credentials_from.as_ref()?.secret_ref;
    let bytes = |key| subject.contents.get(&secret.key(key));
    let pair = [bytes("username")?, b":", bytes("password")?].concat();
    Some(format!("Basic {}", BASE64_STANDARD.encode(pair)))
}

/// Every file says what it is to say, byte for byte.
pub fn files_hold(render: Renderer, subject: &Subject) -> Verdict {
    let host = render(subject, "{}");
    let files = subject.config.files.clone().unwrap_or_default().0;
    for file in &files {
        let there = host
            .get(&file.path)
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        prop_assert_eq!(&there, &file.content, "{}", file.path);
    }
    for path in host.keys() {
        let known = path == DAEMON || files.iter().any(|file| &file.path == path);
        prop_assert!(known, "nobody asked for {}", path);
    }
    Ok(())
}

pub fn docker_subject() -> impl Strategy<Value = Subject> {
    docker().prop_map(|docker| {
        of(Config {
            docker: Some(docker),
            ..Config::default()
        })
    })
}

pub fn files_subject() -> impl Strategy<Value = Subject> {
    files().prop_map(|files| {
        of(Config {
            files: Some(files),
            ..Config::default()
        })
    })
}

fn of(config: Config) -> Subject {
    Subject {
        config,
        ..Subject::default()
    }
}

/// The lines of an `/etc/environment` as somebody has left it.
pub fn variables() -> impl Strategy<Value = String> {
    let lines = &[
        "PATH=/bin:/sbin",
        "export LANG=\"C.UTF-8\"",
        "# HTTP_PROXY=http://old",
        "https_proxy='http://old'",
        "",
        "no assignment",
    ][..];
    (subsequence(lines, 0..=lines.len()), any::<bool>()).prop_map(|(lines, ends)| {
        let end = if ends { "\n" } else { "" };
        lines.join("\n") + end
    })
}

/// Every daemon has the variables that were meant, and nobody else's line in `/etc/environment` changes.
pub fn proxy_holds(render: Renderer, subject: &Subject, before: &str) -> Verdict {
    let proxy = subject.config.proxy.as_ref().expect("there is one");
    let host = render(subject, before);
    let text = |path: &str| {
        host.get(path)
            .map(|text| String::from_utf8_lossy(text).into_owned())
    };
    let mut known = vec![ENVIRONMENT.to_owned()];
    for user in &proxy.applies_to {
        let unit = match user {
            ProxyUser::Docker => "docker",
            ProxyUser::Containerd => "containerd",
            ProxyUser::Kubelet => "kubelet",
            ProxyUser::Environment => continue,
        };
        let [at, drop_in] = [
            format!("/etc/edict/proxy/{unit}.env"),
            format!("/etc/systemd/system/{unit}.service.d/zz-edict-proxy.conf"),
        ];
        let read: SystemdUnit = text(&drop_in).unwrap_or_default().parse().expect("a unit");
        let named = read
            .get_section("Service")
            .expect("a section")
            .get_all("EnvironmentFile");
        prop_assert_eq!(named, [format!("-{at}")]);
        means(subject, &render::variables(&text(&at).unwrap_or_default()))?;
        known.extend([at, drop_in]);
    }
    let environment = proxy.applies_to.contains(&ProxyUser::Environment);
    // A line can't have every value, but every one that is let through.
    if environment && subject.is_let_through() {
        let read = |text: &str| render::environment(text).0;
        let given = [
            ("http_proxy", proxy.http.is_some()),
            ("https_proxy", proxy.https.is_some()),
            (
                "no_proxy",
                proxy.no_proxy.as_ref().is_some_and(|list| !list.is_empty()),
            ),
        ];
        let ours = |name: &str| given.contains(&(&*name.to_lowercase(), true));
        let after = read(&text(ENVIRONMENT).unwrap_or_default());
        let (proxies, others): (Vec<_>, Vec<_>) = after.into_iter().partition(|(n, _)| ours(n));
        let kept: Vec<_> = read(before)
            .into_iter()
            .filter(|(name, _)| !ours(name))
            .collect();
        prop_assert_eq!(others, kept);
        for form in [str::to_uppercase, str::to_lowercase] {
            let of = |(name, value): &(String, String)| {
                let same = form(name) == *name;
                same.then(|| (name.to_uppercase(), value.clone()))
            };
            means(subject, &Ordered(proxies.iter().filter_map(of).collect()))?;
        }
    }
    for path in host.keys() {
        prop_assert!(known.contains(path), "nobody asked for {}", path);
    }
    Ok(())
}

/// These variables say what the proxy of the configuration says.
fn means(subject: &Subject, read: &Ordered<String>) -> Verdict {
    let proxy = subject.config.proxy.as_ref().expect("there is one");
    let part = |key| subject.contents.get(&crate::subject::secret("proxy", key));
    let mut count = 0;
    for (name, url) in [("HTTP_PROXY", &proxy.http), ("HTTPS_PROXY", &proxy.https)] {
        let Some(url) = url else { continue };
        count += 1;
        let read = read.get(name).cloned().unwrap_or_default();
        match (part("username"), part("password"), url.split_once("://")) {
            (Some(username), Some(password), Some((scheme, rest))) => {
                let tail = format!("@{rest}");
                let start = format!("{scheme}://");
                let pair = read
                    .strip_prefix(&start)
                    .and_then(|read| read.strip_suffix(&tail));
                let pair = pair.and_then(|pair| pair.split_once(':'));
                let plain = |text| percent_decode_str(text).collect::<Vec<_>>();
                let pair = pair.map(|(one, other)| (plain(one), plain(other)));
                prop_assert_eq!(pair, Some((username.to_vec(), password.to_vec())));
            }
            _ => prop_assert_eq!(&read, url),
        }
    }
    if let Some(list) = proxy.no_proxy.as_ref().filter(|list| !list.is_empty()) {
        count += 1;
        prop_assert_eq!(read.get("NO_PROXY"), Some(&list.join(",")));
        // What is let through has no comma in it: there are as many as were given.
        if subject.is_let_through() {
            prop_assert_eq!(list.join(",").split(',').count(), list.len());
        }
    }
    prop_assert_eq!(read.0.len(), count, "{:?}", read.keys());
    Ok(())
}

/// Each setting that is let through stands in the file once, and is what the kernel is to have.
pub fn sysctl_holds(render: Renderer, subject: &Subject) -> Verdict {
    let Some(Sysctl(settings)) = subject
        .config
        .sysctl
        .as_ref()
        .filter(|_| subject.is_let_through())
    else {
        return Ok(());
    };
    let mut host = render(subject, "{}");
    host.remove(DAEMON);
    let text = host
        .remove("/etc/sysctl.d/99-zz-edict.conf")
        .unwrap_or_default();
    let mut read = render::settings(&String::from_utf8_lossy(&text)).0;
    for (key, value) in settings {
        let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
        // The path is that of the key by itself.
        let path = render::settings(&format!("{key} = 1")).0.remove(0).0;
        let at = read
            .iter()
            .position(|one| *one == (path.clone(), value.clone()));
        prop_assert!(at.is_some(), "{} = {} is not in {:?}", path, value, read);
        read.remove(at.unwrap_or_default());
        let live = host.remove(&format!("/proc/sys/{path}"));
        prop_assert_eq!(live, Some(value.into_bytes()));
        prop_assert!(path.split('/').all(|name| !matches!(name, "" | "." | "..")));
    }
    prop_assert!(read.is_empty() && host.is_empty(), "{:?} {:?}", read, host);
    Ok(())
}

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn settings_of_the_kernel_read_back(subject in sysctl()) {
        sysctl_holds(render::real, &subject)?;
    }

    #[test]
    fn proxies_read_back(subject in proxy(), before in variables()) {
        proxy_holds(render::beside, &subject, &before)?;
    }

    #[test]
    fn docker_keys_read_back(subject in docker_subject(), before in daemon()) {
        docker_holds(render::real, &subject, &before)?;
    }

    #[test]
    fn containerd_hosts_read_back(subject in containerd()) {
        containerd_holds(render::real, &subject)?;
    }

    #[test]
    fn files_read_back(subject in files_subject()) {
        files_hold(render::real, &subject)?;
    }

    /// Of what is let through no field leads to another file than the one that it is for.
    #[test]
    fn what_is_let_through_stays_in_its_place(host in text(&["host"]), path in text(&["path"])) {
        let registry = crate::subject::subject("host", &json!(host));
        if registry.is_let_through() {
            for path in render::real(&registry, "{}").keys().filter(|path| *path != DAEMON) {
                let rest = path.strip_prefix(FOLDER).and_then(|rest| rest.strip_prefix('/'));
                let names: Vec<_> = rest.unwrap_or_default().split('/').collect();
                prop_assert_eq!(names, [host.as_str(), "hosts.toml"]);
                prop_assert!(!matches!(host.as_str(), "" | "." | ".."));
            }
        }
        if crate::subject::subject("path", &json!(path)).is_let_through() {
            prop_assert!(path.starts_with("/etc/"), "{}", path);
            prop_assert!(path[1..].split('/').all(|name| !matches!(name, "" | "." | "..")), "{}", path);
        }
    }

    /// A list stays as long as it is: nothing in one value makes two of it.
    #[test]
    fn lists_keep_their_length(values in vec(text(&["mirror", "registry"]), 1..6)) {
        let config = json!({"docker": {"registryMirrors": values, "insecureRegistries": values}});
        let subject = crate::subject::subject("config", &config);
        docker_holds(render::real, &subject, "{}")?;
    }
}
