//! Values made as a specification says, and an honest eye on what is let through.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::strategy::{cases, text};
use crate::subject::rules;

/// Host names of RFC 1123.
fn name() -> impl Strategy<Value = String> {
    "[a-z]([a-z0-9-]{0,20}[a-z0-9])?(\\.[a-z]([a-z0-9-]{0,10}[a-z])?){0,4}"
        .prop_filter("a label with two hyphens there is punycode", |name| {
            name.split('.').all(|label| label.get(2..4) != Some("--"))
        })
}

/// But those that only wrap one of IPv4: they are to be written as that.
fn ipv6() -> impl Strategy<Value = std::net::Ipv6Addr> {
    any::<std::net::Ipv6Addr>().prop_filter("IPv4", |address| address.to_ipv4_mapped().is_none())
}

/// Hosts as URLs have them, IPv6 in brackets.
fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => name(),
        1 => any::<std::net::Ipv4Addr>().prop_map(|address| address.to_string()),
        1 => ipv6().prop_map(|address| format!("[{address}]")),
        1 => select(&["bücher.example", "例え.jp", "зеркало.рф", "xn--bcher-kva.example"][..]).prop_map(ToOwned::to_owned),
    ]
}

/// No port that a scheme has anyway: it would not read back.
fn port() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        (1024_u16..).prop_map(|port| format!(":{port}"))
    ]
}

/// RFC 3986: what a path may have without escapes, but the signs that mean something to a shell,
/// and letters escaped.
fn path() -> impl Strategy<Value = String> {
    "(/([a-zA-Z0-9_~:@+-]|%C3%A9){1,8}(\\.[a-z0-9]{1,3})?){0,4}/?"
}

fn url() -> impl Strategy<Value = String> {
    (select(&["http", "https"][..]), host(), port(), path())
        .prop_map(|(scheme, host, port, path)| format!("{scheme}://{host}{port}{path}"))
}

/// A range of addresses with nothing set behind its length.
fn range() -> impl Strategy<Value = String> {
    prop_oneof![
        (any::<u32>(), 0..=32_u32).prop_map(|(bits, length)| {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            format!("{}/{length}", std::net::Ipv4Addr::from_bits(bits & mask))
        }),
        (any::<u128>(), 0..=128_u32).prop_map(|(bits, length)| {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            format!("{}/{length}", std::net::Ipv6Addr::from_bits(bits & mask))
        }),
    ]
}

fn registry() -> impl Strategy<Value = String> {
    let plain = host().prop_filter("image names have no letters beyond ASCII", |host| {
        host.is_ascii()
    });
    (plain, port()).prop_map(|(host, port)| format!("{host}{port}"))
}

/// User name and password of a URL: RFC 3986, specials escaped.
fn user() -> impl Strategy<Value = String> {
    let part = || "([a-zA-Z0-9._~-]|%40|%3A|%24|%C3%BC){1,8}";
    prop_oneof![
        Just(String::new()),
        (part(), part()).prop_map(|(user, password)| format!("{user}:{password}@"))
    ]
}

fn proxy() -> impl Strategy<Value = String> {
    let scheme = select(&["http", "https", "socks5"][..]);
    let slash = select(&["", "/"][..]);
    (scheme, user(), registry(), slash)
        .prop_map(|(scheme, user, host, slash)| format!("{scheme}://{user}{host}{slash}"))
}

fn no_proxy() -> impl Strategy<Value = String> {
    let domain =
        (select(&["", ".", "*."][..]), name()).prop_map(|(start, name)| format!("{start}{name}"));
    prop_oneof![
        domain,
        range(),
        (name(), port()).prop_map(|(name, port)| format!("{name}{port}")),
        ipv6().prop_map(|address| address.to_string()),
        any::<std::net::Ipv4Addr>().prop_map(|address| address.to_string()),
    ]
}

fn file() -> impl Strategy<Value = String> {
    let place = select(
        &[
            "/etc/edict",
            "/etc/motd.d",
            "/etc/docker/certs.d",
            "/etc/containerd/certs.d",
            "/etc/security/limits.d",
        ][..],
    );
    (place, "(/[a-zA-Z0-9é_+@-]{1,12}(\\.[a-z0-9]{1,4})?){1,4}")
        .prop_map(|(place, rest)| format!("{place}{rest}"))
}

fn setting() -> impl Strategy<Value = String> {
    "(net|vm|fs\\.inotify|user)(\\.[a-z][a-z0-9_-]{0,12}){1,4}"
}

fn unit() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9_-]{0,20}(@[a-z0-9]{1,8})?\\.(service|socket|timer|path)".prop_filter(
        "what ends a host has such names",
        |name| {
            let ends = ["exit", "halt", "kexec", "sleep"];
            !ends.iter().any(|word| name.contains(word))
        },
    )
}

/// A value and its kind, none of which may be refused.
fn honest() -> impl Strategy<Value = (&'static str, Value)> {
    let of = |kind: &'static str, text: BoxedStrategy<String>| {
        text.prop_map(move |text| (kind, Value::from(text)))
    };
    prop_oneof![
        of("mirror", url().boxed()),
        of("url", url().boxed()),
        of("registry", prop_oneof![registry(), range()].boxed()),
        of("host", registry().boxed()),
        of("proxy", proxy().boxed()),
        of("no-proxy", no_proxy().boxed()),
        of("path", file().boxed()),
        of("mode", "0?[0-7]{3}".boxed()),
        of("unit", unit().boxed()),
        of("size", "[1-9][0-9]{0,6}[kmg]".boxed()),
        of("sysctl-key", setting().boxed()),
        of(
            "sysctl-key",
            setting().prop_map(|key| key.replace('.', "/")).boxed()
        ),
        of(
            "sysctl-value",
            "-?[0-9]{1,10}([ \t][0-9]{1,10}){0,3}|[a-z][a-z0-9_]{0,8}".boxed()
        ),
        vec(no_proxy(), 1..40).prop_map(|list| ("no-proxy-list", json!(list))),
        (
            "[^:\\p{C}\\p{Zl}\\p{Zp}]{1,16}",
            "[^\\p{C}\\p{Zl}\\p{Zp}]{1,24}"
        )
            .prop_map(|(username, password)| (
                "credentials",
                json!({"username": username, "password": password})
            )),
        (
            "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?",
            "[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,20}"
        )
            .prop_filter("Edict's own", |(name, _)| !name.starts_with("edict-"))
            .prop_map(|(name, key)| ("reference", json!({"name": name, "key": key}))),
    ]
}

proptest! {
    #![proptest_config(cases(4000))]

    #[test]
    fn what_is_made_by_the_book_is_let_through((kind, value) in honest()) {
        prop_assert_eq!(rules(kind, &value), [].into(), "{} {}", kind, value);
    }

    /// Whatever the rules are called: none of this has a place in a line of a file that root's
    /// programs read.
    #[test]
    fn nothing_that_breaks_out_is_let_through(
        (kind, text) in select(&["mirror", "url", "registry", "host", "proxy", "no-proxy", "sysctl-key", "path"][..])
            .prop_flat_map(|kind| (Just(kind), text(&["mirror", "url", "registry", "host", "proxy", "no-proxy", "sysctl-key", "path"])))
    ) {
        let breaks = |c: char| c.is_control() || c.is_whitespace() || "\"'`\\;|&<>".contains(c);
        if text.contains(breaks) || text.contains("$(") || text.contains("${") {
            prop_assert_ne!(rules(kind, &json!(text)), [].into(), "{} {:?}", kind, text);
        }
    }

    /// A host that is let through is one that containerd can look for and a person can read.
    #[test]
    fn hosts_that_are_let_through_are_plain(text in text(&["host", "registry"])) {
        if rules("host", &json!(text)).is_empty() {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
            prop_assert!(text.chars().all(plain), "{:?}", text);
            prop_assert!(!text.contains("..") && !text.starts_with(['.', '-']), "{:?}", text);
        }
    }
}
