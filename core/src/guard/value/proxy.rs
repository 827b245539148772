//! Proxies, and what they are not asked for.

use ipnet::IpNet;

use super::super::rule::{self, Rule};
use super::super::text;
use super::url::{Parts, has_scheme, split};
use super::{LENGTH_MAX, broken, is_address, is_domain};

/// A proxy: an http, https or socks5 URL with a host, perhaps a port, a user name and a password.
pub fn proxy(value: &str) -> Vec<&'static Rule> {
    let parts = Parts::of(value);
    let mut rules = broken([
        (value.len() > LENGTH_MAX, &rule::LENGTH),
        (
            !has_scheme(value, &["http", "https", "socks5"]),
            &rule::URL_SCHEME,
        ),
        (!parts.plain, &rule::URL_FORM),
        (parts.path || parts.behind, &rule::URL_PATH),
        (parts.lookalike, &rule::IDN),
    ]);
    let (scheme, authority, tail) = split(value);
    let credentials = authority.rsplit_once('@').map_or("", |(before, _)| before);
    let rest = format!("{scheme}{}{tail}", &authority[credentials.len()..]);
    let texts = text::check(&rest).chain(text::check_credentials(credentials));
    for rule in texts.collect::<Vec<_>>() {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    rules
}

/// One exception from a proxy: a domain, perhaps with a dot or `*.` before it and a port behind it,
/// an address, a range of addresses, or `*` for everything.
pub fn no_proxy(value: &str) -> Vec<&'static Rule> {
    let domain = value.strip_prefix("*.").or_else(|| value.strip_prefix('.'));
    let holds = value == "*"
        || value.parse::<IpNet>().is_ok()
        || value.parse::<std::net::IpAddr>().is_ok()
        || is_address(domain.unwrap_or(value), is_domain);
    let mut rules = broken([
        (value.len() > LENGTH_MAX, &rule::LENGTH),
        (!holds, &rule::NO_PROXY),
    ]);
    rules.extend(text::check(value));
    rules
}

#[cfg(test)]
mod tests {
    use super::super::super::rule::names;
    use super::*;

    #[test]
    fn proxies() {
        for honest in [
            "http://proxy.example.com:3128",
            "http://proxy.example.com:3128/",
            "https://user:p%40ss@proxy.example.com:8443",
            "socks5://10.0.0.1:1080",
            "http://[2001:db8::1]:3128",
            "http://user:p%2Fs%25%20%22%24%28s@proxy.example.com:3128",
            "http://DOMAIN%5Cuser:password@proxy.example.com:8080",
        ] {
            assert_eq!(names(&proxy(honest)), [""; 0], "{honest}");
        }
        for (hostile, rules) in [
            ("ftp://proxy", &["url-scheme"][..]),
            ("http://proxy/path", &["url-path"]),
            ("http://proxy/?a", &["url-path"]),
            ("http://us er@proxy", &["url-form", "blank"]),
            ("http://proxy%n", &["url-form", "specifier"]),
            ("http://", &["url-form"]),
            ("http://user:a%0ab@proxy", &["encoded"]),
            ("http://user:%e2%80%ae@proxy", &["encoded"]),
            ("http://user:`id`@proxy", &["url-form", "substitution"]),
            ("http://user:$(id)@proxy", &["substitution"]),
            ("http://a;b:a;b@proxy", &["shell"]),
            ("http://user:password@proxy%2f", &["url-form", "encoded"]),
        ] {
            assert_eq!(names(&proxy(hostile)), rules, "{hostile}");
        }
        let long = |size: usize| format!("http://{}", "a".repeat(size - 7));
        assert!(!names(&proxy(&long(512))).contains(&"length"));
        assert!(names(&proxy(&long(513))).contains(&"length"));
    }

    #[test]
    fn exceptions() {
        for honest in [
            "*",
            "localhost",
            ".svc",
            "*.example.com",
            "example.com:8443",
            "10.0.0.1",
            "10.0.0.0/8",
            "2001:db8::1",
            "fd00::/8",
            "[::1]:80",
        ] {
            assert_eq!(names(&no_proxy(honest)), [""; 0], "{honest}");
        }
        for hostile in [
            "",
            "**",
            "a*b",
            "http://host",
            "10.0.0.0/33",
            "a,b",
            "*.*",
            "..a",
        ] {
            assert_eq!(names(&no_proxy(hostile)), ["no-proxy"], "{hostile}");
        }
        assert_eq!(names(&no_proxy("a b")), ["no-proxy", "blank"]);
        assert!(!names(&no_proxy(&"a".repeat(512))).contains(&"length"));
        assert!(names(&no_proxy(&"a".repeat(513))).contains(&"length"));
    }
}
