//! Typed values: what a mirror, a registry, a mode is. Each function answers with every rule that
//! the value breaks, each rule judged by itself.

mod certificate;
pub mod drop_in;
mod host;
mod kernel;
mod limit;
mod proxy;
mod reference;
mod unit;
mod url;

use ::url::Host;
use ipnet::IpNet;

use super::rule::{self, Rule};

pub use certificate::{ders, pem};
pub use host::{address, host_name, name_server, range, search_domain, time_server};
pub use kernel::{sysctl_key, sysctl_value};
pub use limit::{Amount, limit_domain, limit_value, module, module_value};
pub use proxy::{no_proxy, proxy};
pub use reference::{credentials, is_object_name, reference};
pub use unit::unit;
pub use url::mirror;

/// The longest value of one line, in bytes.
pub(super) const LENGTH_MAX: usize = 512;

/// The rules of those that hold.
pub(crate) fn broken<const N: usize>(rules: [(bool, &'static Rule); N]) -> Vec<&'static Rule> {
    let broken = rules.into_iter().filter(|(holds, _)| *holds);
    broken.map(|(_, rule)| rule).collect()
}

/// A registry as Docker's `insecure-registries` has it: host, host:port or an address range.
pub fn registry(text: &str) -> Vec<&'static Rule> {
    let holds = text.parse::<IpNet>().is_ok() || is_address(text, is_domain);
    broken([
        (text.len() > LENGTH_MAX, &rule::LENGTH),
        (!holds, &rule::REGISTRY),
    ])
}

/// A registry as image names have it, or `_default` for all that have no entry of their own.
///
/// containerd looks for a folder of that name. Source: its docs/hosts.md; the grammar of a host in
/// an image's name is that of the distribution project's reference package.
pub fn host(text: &str) -> Vec<&'static Rule> {
    let holds = text == "_default" || is_address(text, is_domain);
    broken([(text.len() > 255, &rule::LENGTH), (!holds, &rule::HOST)])
}

/// A host, perhaps with a port: a name that is a `domain`, or an address as it is usually written.
fn is_address(text: &str, domain: impl Fn(&str) -> bool) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        // The colons of an IPv6 address stand in brackets.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_holds = port.is_none_or(|port| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    let host_holds = match Host::parse(host) {
        Ok(Host::Domain(parsed)) => parsed == host.to_ascii_lowercase() && domain(host),
        // Other spellings of an address (0x7f.1, 127.1) mean it to this parser and not to others.
        Ok(address @ (Host::Ipv4(_) | Host::Ipv6(_))) => address.to_string() == host,
        Err(_) => false,
    };
    port_holds && host_holds
}

/// Labels of letters, digits, hyphens and underscores, with dots between them.
fn is_domain(host: &str) -> bool {
    host.split('.').all(|label| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    })
}

/// A size as Docker's log drivers have it: a number and k, m or g.
pub fn size(text: &str) -> Vec<&'static Rule> {
    let number = text.strip_suffix(['k', 'm', 'g']).unwrap_or_default();
    let holds = text.len() <= 16
        && !number.is_empty()
        && !number.starts_with('0')
        && number.bytes().all(|b| b.is_ascii_digit());
    broken([(!holds, &rule::SIZE)])
}

/// A file's permissions in octal.
pub fn mode(text: &str) -> Vec<&'static Rule> {
    broken([(parse_mode(text).is_none(), &rule::MODE)])
}

/// The permission bits that `text` means, if it is three octal digits, perhaps behind a zero.
pub fn parse_mode(text: &str) -> Option<u32> {
    let digits = match text.len() {
        3 => text,
        4 => text.strip_prefix('0')?,
        _ => return None,
    };
    // from_str_radix alone would take a sign.
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    u32::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::super::rule::names;
    use super::*;

    #[test]
    fn mirrors() {
        for honest in [
            "https://mirror.example.com",
            "https://mirror.example.com/",
            "http://mirror.example.com:5000",
            "http://10.0.0.1:5000",
            "https://[2001:db8::1]:5000",
            "https://abc.mirror.aliyuncs.com",
            "https://mirror.gcr.io",
            "https://registry.example.com/docker-hub/",
            "https://registry.example.com/a@b",
            "http://localhost:5000",
            "https://bücher.example",
            "https://é",
            "https://例え.example/é",
            "https://mirror例え.example",
        ] {
            assert_eq!(names(&mirror(honest)), [""; 0], "{honest}");
        }
        for (hostile, rules) in [
            ("", "url-scheme url-form"),
            ("mirror.example.com", "url-scheme url-form"),
            ("ftp://mirror.example.com", "url-scheme"),
            ("file:///etc/shadow", "url-scheme url-form"),
            ("HTTPS://mirror.example.com", "url-scheme"),
            (" https://mirror.example.com", "url-scheme url-form"),
            ("https://", "url-form"),
            ("https:///path", "url-form"),
            ("https://host:99999", "url-form"),
            ("https://host:443", "url-form"),
            ("https://host/a b", "url-form"),
            ("https://host/%zz", "url-form"),
            ("https://host/%ff", "url-form"),
            ("https://host/../x", "url-form"),
            ("https://host/.", "url-form"),
            ("https://user@ho st", "url-form url-parts"),
            ("https://ho\nst", "url-form"),
            ("https:\\\\host", "url-scheme url-form"),
            ("https://host\\x", "url-form"),
            ("https://0x7f.1", "url-form"),
            ("https://HOST", "url-form"),
            ("https://B\u{dc}CHER.example", "idn"),
            ("https://\u{ff41}bc.example", "idn"),
            ("https://ex\u{430}mple.com", "idn"),
            ("https://user@host", "url-parts"),
            ("https://user:password@host", "url-parts"),
            ("https://@host", "url-parts"),
            ("https://:@host/x", "url-parts"),
            ("https://host/?a=b", "url-parts"),
            ("https://host/#a", "url-parts"),
        ] {
            let expected: Vec<_> = rules.split(' ').collect();
            assert_eq!(names(&mirror(hostile)), expected, "{hostile:?}");
        }
        let sized = |size: usize| format!("https://host/{}", "x".repeat(size - 13));
        assert_eq!(names(&mirror(&sized(512))), [""; 0]);
        assert_eq!(names(&mirror(&sized(513))), ["length"]);
    }

    #[test]
    fn registries() {
        for honest in [
            "registry.example.com",
            "Registry.example.com",
            "registry.example.com:5000",
            "my_registry:5000",
            "localhost",
            "10.0.0.1",
            "10.0.0.1:65535",
            "10.0.0.0/8",
            "2001:db8::/32",
            "[2001:db8::1]:5000",
            "[2001:db8::1]",
        ] {
            assert_eq!(names(&registry(honest)), [""; 0], "{honest}");
            assert_eq!(
                names(&host(honest)).len(),
                usize::from(honest.contains('/')),
                "{honest}"
            );
        }
        for hostile in [
            "",
            ":5000",
            "host:",
            "host:0",
            "host:65536",
            "host:+80",
            "host:80:80",
            "http://host",
            "host/path",
            "10.0.0.0/33",
            "ho st",
            "host\n",
            "-host",
            "host-",
            "a..b",
            "127.1",
            "0x7f.0.0.1",
            "[2001:db8::1",
            "2001:db8::1",
            "host\",\"x",
            "a%2eb",
            "b\u{fc}cher",
        ] {
            assert_eq!(names(&registry(hostile)), ["registry"], "{hostile:?}");
            assert_eq!(names(&host(hostile)), ["host"], "{hostile:?}");
        }
        let label = "a".repeat(63);
        assert_eq!(names(&registry(&label)), [""; 0]);
        assert_eq!(names(&registry(&format!("a{label}"))), ["registry"]);
        let name = |size: usize| format!("{}b", "a.".repeat((size - 1) / 2));
        assert_eq!(names(&registry(&format!("{}:80", name(201)))), [""; 0]);
        assert_eq!(names(&registry(&"a".repeat(512))), ["registry"]);
        assert!(names(&registry(&name(513))).contains(&"length"));
        assert_eq!(names(&host("_default")), [""; 0]);
        assert!(!names(&host(&name(255))).contains(&"length"));
        assert!(names(&host(&format!("{}b", name(255)))).contains(&"length"));
    }

    #[test]
    fn modes() {
        for (text, expected) in [
            ("644", Some(0o644)),
            ("0644", Some(0o644)),
            ("0000", Some(0)),
            ("777", Some(0o777)),
            ("1777", None),
            ("4755", None),
            ("00644", None),
            ("44", None),
            ("", None),
            ("0648", None),
            ("+64", None),
            ("0+64", None),
            ("rwx", None),
        ] {
            assert_eq!(parse_mode(text), expected, "{text}");
            assert_eq!(mode(text) == [&rule::MODE], expected.is_none(), "{text}");
        }
    }
}
