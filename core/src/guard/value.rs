//! Typed values: what a mirror, a registry, a mode is. Each function answers with the rule that
//! the value breaks.

use std::cell::Cell;

use ipnet::IpNet;
use url::{Host, SyntaxViolation, Url};

use super::rule::{self, Rule};

/// The longest value of one line, in bytes.
const LENGTH_MAX: usize = 512;

/// A registry mirror: an http or https URL with a host and perhaps a port and a path.
///
/// Source: `ValidateMirror` of the Docker daemon, which refuses other schemes, user names, queries
/// and fragments.
pub fn mirror(text: &str) -> Option<&'static Rule> {
    if text.len() > LENGTH_MAX {
        return Some(&rule::LENGTH);
    }
    // The parser of the WHATWG mends what it can (blanks, tabs, backslashes); Docker's does not.
    let mended = Cell::new(false);
    let note = |_: SyntaxViolation| mended.set(true);
    let parsed = Url::options()
        .syntax_violation_callback(Some(&note))
        .parse(text);
    let mut scheme = ["http://", "https://"].iter();
    let Some(rest) = scheme.find_map(|scheme| text.strip_prefix(scheme)) else {
        return Some(&rule::URL_SCHEME);
    };
    let Ok(url) = parsed else {
        return Some(&rule::URL_FORM);
    };
    // Asked of the text: the parser forgets an empty user name.
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    if authority.contains('@') || url.query().is_some() || url.fragment().is_some() {
        return Some(&rule::URL_PARTS);
    }
    // What the parser reads back must be what was written: no default port dropped, no dot
    // segments folded.
    let same = url.as_str() == text || url.as_str().strip_suffix('/') == Some(text);
    let international = !text.is_ascii();
    if mended.get() || !(same || international) {
        return Some(&rule::URL_FORM);
    }
    None
}

/// A registry as Docker's `insecure-registries` has it: host, host:port or an address range.
pub fn registry(text: &str) -> Option<&'static Rule> {
    if text.len() > LENGTH_MAX {
        return Some(&rule::LENGTH);
    }
    if text.parse::<IpNet>().is_ok() {
        return None;
    }
    let (host, port) = match text.rsplit_once(':') {
        // The colons of an IPv6 address stand in brackets.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_holds = port.is_none_or(|port| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    let host_holds = match Host::parse(host) {
        Ok(Host::Domain(domain)) => domain == host.to_ascii_lowercase() && is_domain(host),
        // Other spellings of an address (0x7f.1, 127.1) mean it to this parser and not to Docker's.
        Ok(address @ (Host::Ipv4(_) | Host::Ipv6(_))) => address.to_string() == host,
        Err(_) => false,
    };
    (!port_holds || !host_holds).then_some(&rule::REGISTRY)
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

/// A file's permissions in octal.
pub fn mode(text: &str) -> Option<&'static Rule> {
    parse_mode(text).is_none().then_some(&rule::MODE)
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
        ] {
            assert_eq!(mirror(honest), None, "{honest}");
        }
        for (hostile, rule) in [
            ("", "url-scheme"),
            ("mirror.example.com", "url-scheme"),
            ("ftp://mirror.example.com", "url-scheme"),
            ("file:///etc/shadow", "url-scheme"),
            ("HTTPS://mirror.example.com", "url-scheme"),
            (" https://mirror.example.com", "url-scheme"),
            ("https://", "url-form"),
            ("https:///path", "url-form"),
            ("https://host:99999", "url-form"),
            ("https://host:443", "url-form"),
            ("https://host/a b", "url-form"),
            ("https://host/../x", "url-form"),
            ("https://ho\nst", "url-form"),
            ("https:\\\\host", "url-scheme"),
            ("https://host\\x", "url-form"),
            ("https://0x7f.1", "url-form"),
            ("https://user@host", "url-parts"),
            ("https://user:password@host", "url-parts"),
            ("https://@host", "url-parts"),
            ("https://:@host/x", "url-parts"),
            ("https://host/?a=b", "url-parts"),
            ("https://host/#a", "url-parts"),
        ] {
            assert_eq!(mirror(hostile).map(|r| r.name), Some(rule), "{hostile:?}");
        }
        let sized = |size: usize| format!("https://host/{}", "x".repeat(size - 13));
        assert_eq!(mirror(&sized(512)), None);
        assert_eq!(mirror(&sized(513)), Some(&rule::LENGTH));
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
            assert_eq!(registry(honest), None, "{honest}");
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
            assert_eq!(registry(hostile), Some(&rule::REGISTRY), "{hostile:?}");
        }
        let label = "a".repeat(63);
        assert_eq!(registry(&label), None);
        assert_eq!(registry(&format!("a{label}")), Some(&rule::REGISTRY));
        let name = |size: usize| format!("{}b", "a.".repeat((size - 1) / 2));
        assert_eq!(registry(&format!("{}:80", name(201))), None);
        assert_eq!(registry(&"a".repeat(512)), Some(&rule::REGISTRY));
        assert_eq!(registry(&name(513)), Some(&rule::LENGTH));
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
            assert_eq!(mode(text).is_some(), expected.is_none(), "{text}");
        }
    }
}
