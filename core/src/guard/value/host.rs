//! Hosts by name and address: of `/etc/hosts`, of time servers and of name servers.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::super::rule::{self, Rule};
use super::{broken, is_domain};

/// The longest name of a host. Source: RFC 1035, 2.3.4.
const NAME_MAX: usize = 253;

/// An address as it is usually written.
pub fn address(text: &str) -> Vec<&'static Rule> {
    broken([(!is_ip(text), &rule::ADDRESS)])
}

/// A range of addresses as it is usually written, with nothing behind its prefix.
pub fn range(text: &str) -> Vec<&'static Rule> {
    let holds = text
        .parse()
        .is_ok_and(|range: IpNet| range.trunc().to_string() == text);
    broken([(!holds, &rule::ADDRESS_RANGE)])
}

/// Other spellings of an address mean it to some programs and not to others.
fn is_ip(text: &str) -> bool {
    text.parse()
        .is_ok_and(|address: IpAddr| address.to_string() == text)
}

/// A name that is no address, and fits into a question to a name server.
fn is_name(text: &str) -> bool {
    // A last label of digits makes an address of it. Source: WHATWG URL, "ends in a number".
    let last = text.rsplit('.').next().unwrap_or_default();
    let number = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
    text.len() <= NAME_MAX && is_domain(text) && !number
}

/// A name that `/etc/hosts` may give an address to. Not localhost, by which programs of a node find
/// each other. Source: hosts(5); RFC 6761, 6.3.
pub fn host_name(text: &str) -> Vec<&'static Rule> {
    let lower = text.to_ascii_lowercase();
    let own = lower == "localhost" || lower.ends_with(".localhost");
    broken([
        (!is_name(text), &rule::HOST_NAME),
        (own, &rule::HOST_NAME_OWN),
    ])
}

/// A server by its name or address.
pub fn time_server(text: &str) -> Vec<&'static Rule> {
    broken([(!is_ip(text) && !is_name(text), &rule::TIME_SERVER)])
}

/// A name server: an address, perhaps with a port, perhaps with `#` and the name that its certificate
/// has. Source: resolved.conf(5), `DNS=`.
pub fn name_server(text: &str) -> Vec<&'static Rule> {
    let (address, name) = match text.split_once('#') {
        Some((address, name)) => (address, Some(name)),
        None => (text, None),
    };
    let ported = address
        .parse()
        .is_ok_and(|socket: SocketAddr| socket.port() > 0 && socket.to_string() == address);
    let holds = (ported || is_ip(address)) && name.is_none_or(is_name);
    broken([(!holds, &rule::NAME_SERVER)])
}

/// A domain that short names are looked for in or, behind `~`, one that these name servers know; `~.` for
/// every domain. Source: resolved.conf(5), `Domains=`.
pub fn search_domain(text: &str) -> Vec<&'static Rule> {
    let domain = text.strip_prefix('~');
    let holds = text == "~." || is_name(domain.unwrap_or(text));
    broken([(!holds, &rule::SEARCH_DOMAIN)])
}

#[cfg(test)]
mod tests {
    use super::super::super::rule::names;
    use super::*;

    #[test]
    fn addresses() {
        for honest in [
            "10.0.0.1",
            "0.0.0.0",
            "2001:db8::1",
            "::1",
            "::ffff:1.2.3.4",
        ] {
            assert_eq!(names(&address(honest)), [""; 0], "{honest}");
            assert_eq!(names(&time_server(honest)), [""; 0], "{honest}");
            assert_eq!(names(&name_server(honest)), [""; 0], "{honest}");
        }
        for hostile in [
            "",
            "1.2.3",
            "01.2.3.4",
            "0x7f.1",
            "1.2.3.4/8",
            "[::1]",
            "::1%eth0",
            "2001:DB8::1",
            "host",
            "1.2.3.4 x",
            "1.2.3.4\n",
        ] {
            assert_eq!(names(&address(hostile)), ["address"], "{hostile}");
        }
    }

    #[test]
    fn host_names() {
        let long = format!(
            "{}.{}",
            ["a".repeat(63), "b".repeat(63), "c".repeat(63)].join("."),
            "d".repeat(61)
        );
        for honest in [
            "registry",
            "registry.example.com",
            "my_host",
            "xn--bcher-kva.example",
            "1a",
            &long,
        ] {
            assert_eq!(names(&host_name(honest)), [""; 0], "{honest}");
            assert_eq!(names(&time_server(honest)), [""; 0], "{honest}");
        }
        let long = format!("{long}d");
        for hostile in [
            "", "a b", "a\tb", "a\nb", "#a", "a.", ".a", "a..b", "-a", "1.2.3.4", "a.0x7f", "a.1",
            "é", "a/b", "*.a", "$(id)", &long,
        ] {
            assert_eq!(names(&host_name(hostile)), ["host-name"], "{hostile}");
        }
        for own in ["localhost", "LocalHost", "a.localhost"] {
            assert_eq!(names(&host_name(own)), ["host-name-own"], "{own}");
        }
        for hostile in ["a b", "a iburst", "server a", "", "1.2.3.4:123"] {
            assert_eq!(names(&time_server(hostile)), ["time-server"], "{hostile}");
        }
    }

    #[test]
    fn name_servers_and_domains() {
        for honest in [
            "10.0.0.1:53",
            "10.0.0.1#dns.example",
            "10.0.0.1:853#dns.example",
            "[2001:db8::1]:53",
            "2001:db8::1#dns.example",
        ] {
            assert_eq!(names(&name_server(honest)), [""; 0], "{honest}");
        }
        for hostile in [
            "",
            "dns.example",
            "10.0.0.1:0",
            "10.0.0.1:",
            "10.0.0.1#",
            "10.0.0.1#a#b",
            "10.0.0.1 1.1.1.1",
            "[2001:db8::1]",
            "10.0.0.1:+53",
            "10.0.0.1\nDNSSEC=no",
            "10.0.0.1%eth0",
        ] {
            assert_eq!(names(&name_server(hostile)), ["name-server"], "{hostile}");
        }
        for honest in ["example.com", "~example.com", "~.", "corp"] {
            assert_eq!(names(&search_domain(honest)), [""; 0], "{honest}");
        }
        for hostile in ["", "~", "~~a", ".", "a b", "a\nDNS=1.1.1.1", "example.com."] {
            assert_eq!(
                names(&search_domain(hostile)),
                ["search-domain"],
                "{hostile}"
            );
        }
    }
}
