//! Renderers that are broken, one thing each. The tests of [`round`](crate::round) have to see it:
//! a test that nothing can fail proves nothing.

use edict_core::config::containerd::FOLDER;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestError, TestRng, TestRunner};
use serde_json::json;

use crate::render::{self, DAEMON, Host, Renderer};
use crate::round::{
    containerd_holds, daemon, docker_holds, docker_subject, files_hold, files_subject, proxy_holds,
    sysctl_holds, variables,
};
use crate::strategy::{containerd, proxy, sysctl};
use crate::subject::Subject;

/// Changes the text of every file that `which` names.
pub fn changed(mut host: Host, which: &str, change: impl Fn(String) -> String) -> Host {
    for (path, bytes) in &mut host {
        if path.ends_with(which) {
            let text = String::from_utf8_lossy(bytes).into_owned();
            *bytes = change(text).into_bytes();
        }
    }
    host
}

/// The keys joined by hand, `escape` being all that is done to a value.
fn by_hand(subject: &Subject, escape: fn(&str) -> String) -> Host {
    let docker = subject.config.docker.clone().unwrap_or_default();
    let list = |key: &str, list: Option<Vec<String>>| {
        let items: Vec<_> = list?
            .iter()
            .map(|item| format!("\"{}\"", escape(item)))
            .collect();
        Some(format!("\"{key}\": [{}]", items.join(", ")))
    };
    let word = |key: &str, word: Option<String>| Some(format!("\"{key}\": {}", word?));
    let keys: Vec<_> = [
        list("registry-mirrors", docker.registry_mirrors),
        list("insecure-registries", docker.insecure_registries),
        word("debug", docker.debug.map(|debug| debug.to_string())),
        word(
            "max-concurrent-downloads",
            docker.max_concurrent_downloads.map(|n| n.to_string()),
        ),
        word(
            "shutdown-timeout",
            docker.shutdown_timeout.map(|n| n.to_string()),
        ),
        word("mtu", docker.mtu.map(|n| n.to_string())),
    ]
    .into_iter()
    .flatten()
    .collect();
    [(
        DAEMON.to_owned(),
        format!("{{{}}}", keys.join(", ")).into_bytes(),
    )]
    .into()
}

/// The registries' own servers written by hand, the rest as it should be.
fn server_by_hand(subject: &Subject, escape: fn(&str) -> String) -> Host {
    let mut host = render::real(subject, "{}");
    let registries = subject
        .config
        .containerd
        .iter()
        .flat_map(|block| block.registries.iter().flatten());
    for registry in registries {
        let mut without = subject.clone();
        without.config.containerd = Some(edict_core::config::Containerd {
            registries: Some(vec![edict_core::config::containerd::Registry {
                server: None,
                ..registry.clone()
            }]),
        });
        if let Some(server) = &registry.server {
            let path = format!("{FOLDER}/{}/hosts.toml", registry.host);
            let rest = render::real(&without, "{}")
                .remove(&path)
                .unwrap_or_default();
            let text = format!(
                "server = \"{}\"\n{}",
                escape(server),
                String::from_utf8_lossy(&rest)
            );
            host.insert(path, text.into_bytes());
        }
    }
    host
}

fn quote_is_not_escaped(subject: &Subject, _: &str) -> Host {
    by_hand(subject, |text| text.replace('\\', "\\\\"))
}

fn backslash_is_not_escaped(subject: &Subject, _: &str) -> Host {
    by_hand(subject, |text| text.replace('"', "\\\""))
}

fn a_mirror_goes_missing(subject: &Subject, daemon: &str) -> Host {
    let mut less = subject.clone();
    if let Some(mirrors) = less
        .config
        .docker
        .as_mut()
        .and_then(|docker| docker.registry_mirrors.as_mut())
    {
        mirrors.pop();
    }
    render::real(&less, daemon)
}

fn a_key_goes_missing(subject: &Subject, daemon: &str) -> Host {
    let mut less = subject.clone();
    if let Some(docker) = &mut less.config.docker {
        docker.insecure_registries = None;
    }
    render::real(&less, daemon)
}

fn foreign_keys_are_lost(subject: &Subject, _: &str) -> Host {
    render::real(subject, "{}")
}

fn foreign_keys_change_places(subject: &Subject, daemon: &str) -> Host {
    changed(render::real(subject, daemon), DAEMON, |text| {
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let mut entries: Vec<_> = value.as_object().into_iter().flatten().collect();
        entries.reverse();
        let entries: Vec<_> = entries
            .iter()
            .map(|(key, value)| format!("{}:{value}", json!(key)))
            .collect();
        format!("{{{}}}", entries.join(","))
    })
}

fn the_key_is_there_twice(subject: &Subject, daemon: &str) -> Host {
    changed(render::real(subject, daemon), DAEMON, |text| {
        text.replacen('{', "{\"registry-mirrors\": [],", 1)
    })
}

fn a_quote_in_toml_is_not_escaped(subject: &Subject, _: &str) -> Host {
    server_by_hand(subject, |text| text.replace('\\', "\\\\"))
}

fn a_line_break_in_toml_is_not_escaped(subject: &Subject, _: &str) -> Host {
    server_by_hand(subject, |text| {
        text.replace('\\', "\\\\").replace('"', "\\\"")
    })
}

fn hosts_are_sorted(subject: &Subject, daemon: &str) -> Host {
    let mut sorted = subject.clone();
    for registry in sorted
        .config
        .containerd
        .iter_mut()
        .flat_map(|block| block.registries.iter_mut().flatten())
    {
        if let Some(mirrors) = &mut registry.mirrors {
            mirrors.sort_by(|one, other| one.url.cmp(&other.url));
        }
    }
    render::real(&sorted, daemon)
}

fn capabilities_are_lost(subject: &Subject, daemon: &str) -> Host {
    let without = |text: String| {
        let lines = text.split('\n');
        let others = lines.filter(|line| !line.starts_with("capabilities"));
        others.collect::<Vec<_>>().join("\n")
    };
    changed(render::real(subject, daemon), "/hosts.toml", without)
}

fn certificates_are_lost(subject: &Subject, daemon: &str) -> Host {
    let mut host = render::real(subject, daemon);
    host.retain(|path, _| !path.contains("/mirror-"));
    host
}

fn credentials_are_as_they_are(subject: &Subject, daemon: &str) -> Host {
    changed(render::real(subject, daemon), "/hosts.toml", |text| {
        text.replace("Basic ", "")
    })
}

/// Changes what is in every file of variables.
fn of_variables(subject: &Subject, before: &str, change: impl Fn(String) -> String) -> Host {
    changed(render::beside(subject, before), ".env", change)
}

fn a_value_is_not_quoted(subject: &Subject, before: &str) -> Host {
    of_variables(subject, before, |text| text.replace("\\\"", "\""))
}

fn a_password_is_not_encoded(subject: &Subject, before: &str) -> Host {
    of_variables(subject, before, |text| {
        text.replace("%40", "@")
            .replace("%3A", ":")
            .replace("%25", "%")
    })
}

fn exceptions_have_blanks_between(subject: &Subject, before: &str) -> Host {
    of_variables(subject, before, |text| text.replace(',', ", "))
}

fn lower_case_is_forgotten(subject: &Subject, before: &str) -> Host {
    changed(render::beside(subject, before), "/environment", |text| {
        let lines = text.lines().filter(|line| !line.starts_with("http"));
        lines.flat_map(|line| [line, "\n"]).collect()
    })
}

fn lines_of_others_are_lost(subject: &Subject, _: &str) -> Host {
    render::beside(subject, "")
}

fn a_drop_in_is_not_forgiving(subject: &Subject, before: &str) -> Host {
    changed(render::beside(subject, before), ".conf", |text| {
        text.replace("=-", "=")
    })
}

fn the_kernel_is_not_told(subject: &Subject, before: &str) -> Host {
    let mut host = render::real(subject, before);
    host.retain(|path, _| !path.starts_with("/proc/sys"));
    host
}

fn dots_and_slashes_are_the_same(subject: &Subject, before: &str) -> Host {
    changed(render::real(subject, before), "-edict.conf", |text| {
        text.replace('/', ".")
    })
}

fn blanks_are_lost(subject: &Subject, before: &str) -> Host {
    changed(render::real(subject, before), "-edict.conf", |text| {
        text.replace(" = ", "=").replace(' ', "")
    })
}

fn content_is_trimmed(subject: &Subject, daemon: &str) -> Host {
    changed(render::real(subject, daemon), "", |text| {
        text.trim_end().to_owned()
    })
}

fn lines_end_as_on_windows(subject: &Subject, daemon: &str) -> Host {
    changed(render::real(subject, daemon), "", |text| {
        text.replace('\n', "\r\n")
    })
}

fn a_file_goes_missing(subject: &Subject, daemon: &str) -> Host {
    let mut host = render::real(subject, daemon);
    host.pop_last();
    host
}

/// Tries `holds` until it fails, a thousand times at most. The cases are the same each time.
pub fn sees<S: Strategy>(
    strategy: &S,
    holds: impl Fn(S::Value) -> Result<(), TestCaseError>,
) -> bool {
    let config = ProptestConfig {
        cases: 1000,
        max_shrink_iters: 0,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let outcome = TestRunner::new_with_rng(config, rng).run(strategy, holds);
    matches!(outcome, Err(TestError::Fail(..)))
}

pub fn all_are_seen(
    real: Renderer,
    renderers: &[(&str, Renderer)],
    seen: impl Fn(Renderer) -> bool,
) {
    assert!(!seen(real), "the real one is seen as broken");
    let missed = renderers.iter().filter(|(_, render)| !seen(*render));
    let missed: Vec<_> = missed.map(|(name, _)| name).collect();
    assert!(missed.is_empty(), "not seen: {missed:?}");
}

#[test]
fn a_broken_renderer_of_docker_is_seen() {
    let renderers: &[(&str, Renderer)] = &[
        ("quote is not escaped", quote_is_not_escaped),
        ("backslash is not escaped", backslash_is_not_escaped),
        ("a mirror goes missing", a_mirror_goes_missing),
        ("a key goes missing", a_key_goes_missing),
        ("foreign keys are lost", foreign_keys_are_lost),
        ("foreign keys change places", foreign_keys_change_places),
        ("the key is there twice", the_key_is_there_twice),
    ];
    all_are_seen(render::real, renderers, |render| {
        sees(&(docker_subject(), daemon()), |(subject, daemon)| {
            docker_holds(render, &subject, &daemon)
        })
    });
}

#[test]
fn a_broken_renderer_of_containerd_is_seen() {
    let renderers: &[(&str, Renderer)] = &[
        ("a quote is not escaped", a_quote_in_toml_is_not_escaped),
        (
            "a line break is not escaped",
            a_line_break_in_toml_is_not_escaped,
        ),
        ("hosts are sorted", hosts_are_sorted),
        ("capabilities are lost", capabilities_are_lost),
        ("certificates are lost", certificates_are_lost),
        ("credentials are as they are", credentials_are_as_they_are),
    ];
    all_are_seen(render::real, renderers, |render| {
        sees(&containerd(), |subject| containerd_holds(render, &subject))
    });
}

#[test]
fn a_broken_renderer_of_proxies_is_seen() {
    let renderers: &[(&str, Renderer)] = &[
        ("a value is not quoted", a_value_is_not_quoted),
        ("a password is not encoded", a_password_is_not_encoded),
        ("exceptions have blanks", exceptions_have_blanks_between),
        ("lower case is forgotten", lower_case_is_forgotten),
        ("lines of others are lost", lines_of_others_are_lost),
        ("a drop-in is not forgiving", a_drop_in_is_not_forgiving),
    ];
    all_are_seen(render::beside, renderers, |render| {
        sees(&(proxy(), variables()), |(subject, before)| {
            proxy_holds(render, &subject, &before)
        })
    });
}

#[test]
fn a_broken_renderer_of_settings_of_the_kernel_is_seen() {
    let renderers: &[(&str, Renderer)] = &[
        ("the kernel is not told", the_kernel_is_not_told),
        (
            "dots and slashes are the same",
            dots_and_slashes_are_the_same,
        ),
        ("blanks are lost", blanks_are_lost),
    ];
    all_are_seen(render::real, renderers, |render| {
        sees(&sysctl(), |subject| sysctl_holds(render, &subject))
    });
}

#[test]
fn a_broken_renderer_of_files_is_seen() {
    let renderers: &[(&str, Renderer)] = &[
        ("content is trimmed", content_is_trimmed),
        ("lines end as on Windows", lines_end_as_on_windows),
        ("a file goes missing", a_file_goes_missing),
    ];
    all_are_seen(render::real, renderers, |render| {
        sees(&files_subject(), |subject| files_hold(render, &subject))
    });
}
