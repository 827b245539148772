//! The round trip of blocks whose values have a closed grammar: hosts, limits, modules, time and name
//! servers, settings of services, certificates. Their renderers lean on the guard, so only what is let
//! through has to read back.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use edict_core::config::Config;
use edict_core::config::certificates::BUNDLES;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use systemd_unit_edit::SystemdUnit;

use crate::broken::{all_are_seen, changed, sees};
use crate::corpus;
use crate::render::{self, DAEMON, Host, Renderer};
use crate::strategy::{cases, text};
use crate::subject::{CA, Subject};

type Verdict = Result<(), TestCaseError>;

const HOSTS: &str = "/etc/hosts";
const LIMITS: &str = "/etc/security/limits.d/zz-edict.conf";
const MODULES: &str = "/etc/modules-load.d/zz-edict.conf";
const CHRONY: &str = "/etc/chrony/sources.d/zz-edict.sources";
const TIMESYNCD: &str = "/etc/systemd/timesyncd.conf.d/zz-edict.conf";
const RESOLVED: &str = "/etc/systemd/resolved.conf.d/zz-edict.conf";
/// A file of hosts as somebody has left it.
const BY_HAND: &str = "127.0.0.1\tlocalhost # ours\n# 10.0.0.1 mirror\n\n10.9.9.9  by-hand";

/// Honest texts of these kinds, or any.
fn mostly(kinds: &'static [&'static str]) -> impl Strategy<Value = String> {
    let honest = corpus::HONEST
        .iter()
        .filter(|entry| kinds.contains(&entry.kind));
    let honest = honest.filter_map(|entry| entry.value.as_str().map(ToOwned::to_owned));
    prop_oneof![3 => select(honest.collect::<Vec<_>>()), 1 => text(kinds)]
}

fn hosts() -> impl Strategy<Value = Value> {
    let names = vec(mostly(&["host-name"]), 1..4);
    let entry = (mostly(&["address"]), names);
    let entry = entry.prop_map(|(address, names)| json!({"address": address, "names": names}));
    vec(entry, 0..3).prop_map(Value::from)
}

fn limits() -> impl Strategy<Value = Value> {
    let kind = select(&["Soft", "Hard", "Both"][..]);
    let item = select(&["nofile", "nice", "memlock"][..]);
    let limit = (
        mostly(&["limit-domain"]),
        kind,
        item,
        mostly(&["limit-value"]),
    );
    let limit = limit.prop_map(|(domain, kind, item, value)| {
        json!({"domain": domain, "type": kind, "item": item, "value": value})
    });
    vec(limit, 0..3).prop_map(Value::from)
}

fn modules() -> impl Strategy<Value = Value> {
    let parameters = vec((mostly(&["module"]), mostly(&["module-value"])), 0..3);
    let module = (mostly(&["module"]), parameters).prop_map(|(name, parameters)| {
        let parameters: BTreeMap<_, _> = parameters.into_iter().collect();
        json!({"name": name, "parameters": parameters})
    });
    vec(module, 0..3).prop_map(Value::from)
}

fn ntp() -> impl Strategy<Value = Value> {
    let clients = subsequence(vec!["Chrony", "Timesyncd"], 1..=2);
    let names = || vec(mostly(&["time-server"]), 0..3);
    (clients, names(), names()).prop_map(|(clients, servers, pools)| {
        json!({"appliesTo": clients, "servers": servers, "pools": pools})
    })
}

fn dns() -> impl Strategy<Value = Value> {
    let servers = || vec(mostly(&["name-server"]), 0..3);
    let word = select(&["Yes", "No"][..]);
    (
        servers(),
        servers(),
        vec(mostly(&["search-domain"]), 0..3),
        word,
    )
        .prop_map(|(servers, fallback, domains, word)| {
            json!({
                "servers": servers, "fallbackServers": fallback, "domains": domains,
                "dnsOverTLS": word, "dnssec": word,
            })
        })
}

fn units() -> impl Strategy<Value = Value> {
    let pairs = [
        ("LimitNOFILE", "65536"),
        ("CPUQuota", "50%"),
        ("StartLimitBurst", "5"),
        ("Restart", "always"),
    ];
    let honest =
        select(pairs.to_vec()).prop_map(|(name, value)| (name.to_owned(), value.to_owned()));
    let any = (mostly(&["unit-setting"]), mostly(&["unit-value"]));
    let settings = vec(prop_oneof![2 => honest, 1 => any], 1..4);
    (mostly(&["unit"]), settings).prop_map(|(unit, settings)| {
        let settings: BTreeMap<_, _> = settings.into_iter().collect();
        json!([{"unit": unit, "settings": settings}])
    })
}

fn certificates() -> impl Strategy<Value = Value> {
    let ca = prop_oneof![
        3 => Just(CA.to_owned()),
        1 => Just(format!("# Ours\n{CA}{}", CA.replace('\n', "\r\n"))),
        1 => select(corpus::texts_of(&["ca"])),
    ];
    vec(ca, 0..3).prop_map(|all| {
        let all = all.into_iter().map(|ca| json!({"ca": ca}));
        json!({"certificates": all.collect::<Vec<_>>()})
    })
}

/// A configuration with one of these blocks.
pub fn plain() -> impl Strategy<Value = Subject> {
    let named = |name: &'static str, block: BoxedStrategy<Value>| {
        block.prop_map(move |block| Subject {
            config: serde_json::from_value::<Config>(json!({name: block}))
                .expect("a configuration"),
            ..Subject::default()
        })
    };
    prop_oneof![
        named("hosts", hosts().boxed()),
        named("limits", limits().boxed()),
        named("modules", modules().boxed()),
        named("ntp", ntp().boxed()),
        named("dns", dns().boxed()),
        named("units", units().boxed()),
        named("caCertificates", certificates().boxed()),
    ]
}

fn beside(subject: &Subject, hosts: &str) -> Host {
    let mut host = render::onto(subject, HOSTS, hosts);
    host.remove(DAEMON);
    host
}

/// What is let through stands in the files that it belongs to, and there is nothing else in them.
fn holds(render: Renderer, subject: &Subject) -> Verdict {
    if !subject.is_let_through() {
        return Ok(());
    }
    let config = &subject.config;
    let mut host = render(subject, BY_HAND);
    let mut take = |path: &str| {
        let bytes = host.remove(path);
        bytes.map(|bytes| String::from_utf8(bytes).expect("it is text"))
    };
    let found = hosts_in(&take(HOSTS).unwrap_or_default());
    let mut wanted = hosts_in(BY_HAND);
    for entry in config.hosts.iter().flat_map(|hosts| &hosts.0) {
        let names = entry.names.iter().map(|name| name.to_ascii_lowercase());
        wanted.extend(names.map(|name| (entry.address.clone(), name)));
    }
    prop_assert_eq!(sorted(found), sorted(wanted));

    let found = words_in(&take(LIMITS).unwrap_or_default());
    let mut wanted = Vec::new();
    for limit in config.limits.iter().flat_map(|limits| &limits.0) {
        let said = json!(limit);
        let word = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        let kinds = match &*word("type") {
            "Both" => vec!["soft", "hard"],
            kind => vec![if kind == "Soft" { "soft" } else { "hard" }],
        };
        wanted.extend(kinds.iter().map(|kind| {
            vec![
                word("domain"),
                (*kind).to_owned(),
                word("item"),
                word("value"),
            ]
        }));
    }
    prop_assert_eq!(sorted(found), sorted(wanted));

    let found = words_in(&take(MODULES).unwrap_or_default());
    let mut wanted = Vec::new();
    for module in config.modules.iter().flat_map(|modules| &modules.0) {
        let name = module.name.replace('-', "_");
        let parameters = module.parameters.iter().flatten();
        let mut line: Vec<_> = parameters
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        if !line.is_empty() {
            line.splice(0..0, ["options".to_owned(), name.clone()]);
            let text = take(&format!("/etc/modprobe.d/zz-edict-{name}.conf"));
            prop_assert_eq!(words_in(&text.unwrap_or_default()), [line]);
        }
        wanted.push(vec![name]);
    }
    prop_assert_eq!(sorted(found), sorted(wanted));

    servers_hold(config, &mut take)?;
    settings_hold(config, &mut take)?;

    let ders = |text: &str| {
        let all = CertificateDer::pem_slice_iter(text.as_bytes());
        all.map(|der| der.expect("a certificate").to_vec())
            .collect::<BTreeSet<_>>()
    };
    let given = config
        .ca_certificates
        .iter()
        .flat_map(|block| &block.certificates);
    let given = given.flat_map(|one| [one.ca.as_deref().unwrap_or_default(), "\n"]);
    let given: String = given.collect();
    prop_assert_eq!(ders(&take(BUNDLES[0]).unwrap_or_default()), ders(&given));
    prop_assert!(host.is_empty(), "nobody asked for {:?}", host.keys());
    Ok(())
}

fn servers_hold(config: &Config, take: &mut impl FnMut(&str) -> Option<String>) -> Verdict {
    if let Some(ntp) = &config.ntp {
        let lists = [("server", &ntp.servers), ("pool", &ntp.pools)];
        let all = lists.map(|(word, list)| list.iter().flatten().map(move |name| (word, name)));
        let all: Vec<_> = all.into_iter().flatten().collect();
        let lines = all
            .iter()
            .map(|(word, name)| [word, &***name, "iburst"].map(str::to_owned).to_vec());
        let clients = json!(ntp.applies_to).to_string();
        if clients.contains("Chrony") {
            prop_assert_eq!(
                words_in(&take(CHRONY).unwrap_or_default()),
                lines.collect::<Vec<_>>()
            );
        }
        if clients.contains("Timesyncd") {
            let names = all
                .iter()
                .map(|(_, name)| (*name).clone())
                .collect::<Vec<_>>();
            is_list(&take(TIMESYNCD).unwrap_or_default(), "Time", "NTP", &names)?;
        }
    }
    if let Some(dns) = &config.dns {
        let text = take(RESOLVED).unwrap_or_default();
        for (name, list) in [
            ("DNS", &dns.servers),
            ("FallbackDNS", &dns.fallback_servers),
            ("Domains", &dns.domains),
        ] {
            if let Some(list) = list {
                is_list(&text, "Resolve", name, list)?;
            }
        }
        let words = json!(dns);
        for (name, field) in [("DNSOverTLS", "dnsOverTLS"), ("DNSSEC", "dnssec")] {
            let word = words[field].as_str().map(str::to_lowercase);
            prop_assert_eq!(
                values(&text, "Resolve", name),
                word.into_iter().collect::<Vec<_>>()
            );
        }
        prop_assert_eq!(text.lines().filter(|line| line.contains('=')).count(), 8);
    }
    Ok(())
}

fn settings_hold(config: &Config, take: &mut impl FnMut(&str) -> Option<String>) -> Verdict {
    for unit in config.units.iter().flat_map(|units| &units.0) {
        for (name, value) in &unit.settings {
            let path = format!("/etc/systemd/system/{}.d/zz-edict-{name}.conf", unit.unit);
            let text = take(&path).unwrap_or_default();
            let section = if name.starts_with("StartLimit") {
                "Unit"
            } else {
                "Service"
            };
            prop_assert_eq!(values(&text, section, name), [value.clone()]);
            prop_assert_eq!(text.lines().count(), 2, "{}", text);
        }
    }
    Ok(())
}

/// That list takes the place of what other files say, and is this one.
fn is_list(text: &str, section: &str, name: &str, list: &[String]) -> Verdict {
    // What the parser says of a value that is empty is nothing.
    let begun = format!("\n{name}=\n{name}=");
    prop_assert!(text.contains(&begun), "{}", text);
    let found = values(text, section, name);
    let words = found.iter().flat_map(|value| value.split_whitespace());
    prop_assert_eq!(words.collect::<Vec<_>>(), list.iter().collect::<Vec<_>>());
    Ok(())
}

/// The values of a key in a file of systemd's.
fn values(text: &str, section: &str, name: &str) -> Vec<String> {
    let unit: SystemdUnit = text.parse().expect("a file of systemd's");
    let section = unit.get_section(section);
    section
        .map(|section| section.get_all(name))
        .unwrap_or_default()
}

/// Each address with a name, as hosts(5) has it.
fn hosts_in(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for line in words_in(text) {
        let Some((address, names)) = line.split_first() else {
            continue;
        };
        found.extend(names.iter().map(|name| (address.clone(), name.clone())));
    }
    found
}

/// The words of each line, without what stands behind a number sign.
fn words_in(text: &str) -> Vec<Vec<String>> {
    let said = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    let words = said.map(|line| line.split_whitespace().map(ToOwned::to_owned).collect());
    words.filter(|words: &Vec<_>| !words.is_empty()).collect()
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort();
    list
}

proptest! {
    #![proptest_config(cases(5000))]

    #[test]
    fn what_is_let_through_reads_back(subject in plain()) {
        holds(beside, &subject)?;
    }
}

/// Most of what is made is refused: enough is not.
#[test]
fn every_block_is_let_through_often_enough() {
    let often: RefCell<BTreeMap<&str, usize>> = RefCell::default();
    sees(&plain(), |subject| {
        if subject.is_let_through() {
            let name = subject.config.block_names().next();
            *often
                .borrow_mut()
                .entry(name.unwrap_or_default())
                .or_default() += 1;
        }
        Ok(())
    });
    let often = often.into_inner();
    assert_eq!(often.len(), 7, "{often:?}");
    assert!(often.values().all(|count| *count >= 5), "{often:?}");
}

fn a_line_goes_missing(subject: &Subject, before: &str) -> Host {
    changed(beside(subject, before), "", |text| {
        let lines: Vec<_> = text.lines().collect();
        lines[..lines.len() - 1]
            .iter()
            .flat_map(|line| [line, "\n"])
            .collect()
    })
}

fn lines_of_others_are_lost(subject: &Subject, _: &str) -> Host {
    beside(subject, "")
}

macro_rules! replacing {
    ($($name:ident $which:literal $from:literal $to:literal;)*) => {
        $(
            fn $name(subject: &Subject, before: &str) -> Host {
                changed(beside(subject, before), $which, |text| text.replace($from, $to))
            }
        )*
    };
}

replacing! {
    soft_is_hard "/zz-edict.conf" " soft " " hard ";
    a_pool_is_a_server ".sources" "pool " "server ";
    a_list_is_not_begun_anew ".conf" "=\n" "=x\n";
    a_setting_is_elsewhere ".conf" "[Service]" "[Unit]";
    words_run_together ".conf" " " "";
    a_certificate_is_cut "certificates.crt" "MII" "MIJ";
    another_name "hosts" "1" "2";
}

#[test]
fn a_broken_renderer_is_seen() {
    let renderers: &[(&str, Renderer)] = &[
        ("a line goes missing", a_line_goes_missing),
        ("lines of others are lost", lines_of_others_are_lost),
        ("soft is hard", soft_is_hard),
        ("a pool is a server", a_pool_is_a_server),
        ("a list is not begun anew", a_list_is_not_begun_anew),
        ("a setting is elsewhere", a_setting_is_elsewhere),
        ("words run together", words_run_together),
        ("a certificate is cut", a_certificate_is_cut),
        ("another name", another_name),
    ];
    all_are_seen(beside, renderers, |render| {
        sees(&plain(), |subject| holds(render, &subject))
    });
}
