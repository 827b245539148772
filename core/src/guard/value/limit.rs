//! Limits of users, and modules of the kernel.

use super::super::rule::{self, Rule};
use super::super::text;
use super::{LENGTH_MAX, broken};

/// Who a limit is for: a user, `@` and a group, or `*` for everybody but root. Source: limits.conf(5);
/// useradd(8) for names.
pub fn limit_domain(text: &str) -> Vec<&'static Rule> {
    let name = text.strip_prefix('@').unwrap_or(text);
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let first = name.bytes().next();
    let named = name.len() <= 32
        && first.is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && name.bytes().all(plain);
    broken([(text != "*" && !named, &rule::LIMIT_DOMAIN)])
}

/// The most files that a process may have open where nobody has raised that: `setrlimit` takes no more, and
/// PAM ends a session that it can't give its limits. Source: the kernel's admin-guide/sysctl/fs.rst, nr_open.
const OPEN_MAX: i64 = 1_048_576;

/// How much of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// A number, or `unlimited`.
    Any,
    /// Open files.
    Files,
    /// No amount: a number from -20 to 19.
    Priority,
}

/// How much. Source: limits.conf(5).
pub fn limit_value(text: &str, of: Amount) -> Vec<&'static Rule> {
    let number: Option<i64> = text.parse().ok().filter(|n: &i64| n.to_string() == text);
    let holds = match (of, number) {
        (Amount::Priority, Some(number)) => (-20..=19).contains(&number),
        (Amount::Files, Some(number)) => (0..=OPEN_MAX).contains(&number),
        (Amount::Any, Some(number)) => number >= 0,
        (Amount::Any, None) => text == "unlimited",
        (Amount::Files | Amount::Priority, None) => false,
    };
    broken([(!holds, &rule::LIMIT_VALUE)])
}

/// The name of a module, or of one of its parameters. Source: modprobe.d(5).
pub fn module(text: &str) -> Vec<&'static Rule> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    // The kernel's own bound, MODULE_NAME_LEN.
    let holds = (1..56).contains(&text.len()) && !text.starts_with('-') && text.bytes().all(plain);
    broken([(!holds, &rule::MODULE)])
}

/// The value of a module's parameter: a word that needs no quotes, and no path: some parameters name a
/// program that the kernel runs (`usermode_helper` of drbd, `cache_getent` of nfs). Source: modprobe.d(5); the kernel's
/// admin-guide/kernel-parameters.rst.
pub fn module_value(value: &str) -> Vec<&'static Rule> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.,:+@=".contains(c);
    let mut rules = broken([
        (value.len() > LENGTH_MAX, &rule::LENGTH),
        (
            value.is_empty() || !value.chars().all(plain),
            &rule::MODULE_VALUE,
        ),
    ]);
    rules.extend(text::check(value));
    rules
}

#[cfg(test)]
mod tests {
    use super::super::super::rule::names;
    use super::*;

    #[test]
    fn domains() {
        for honest in ["*", "root", "@wheel", "my_user", "_apt", "a.b-c"] {
            assert_eq!(names(&limit_domain(honest)), [""; 0], "{honest}");
        }
        let long = "a".repeat(33);
        for hostile in [
            "",
            "@",
            "**",
            "a b",
            "#a",
            "1000:2000",
            "%group",
            "@@a",
            "a\nb",
            "-a",
            &long,
        ] {
            assert_eq!(names(&limit_domain(hostile)), ["limit-domain"], "{hostile}");
        }
        assert_eq!(names(&limit_domain(&long[1..])), [""; 0]);
    }

    #[test]
    fn values() {
        for honest in ["0", "65536", "unlimited", "9223372036854775807"] {
            assert_eq!(
                names(&limit_value(honest, Amount::Any)),
                [""; 0],
                "{honest}"
            );
        }
        for hostile in [
            "",
            "-1",
            "+1",
            "01",
            "1k",
            "infinity",
            "9223372036854775808",
            "1 2",
            "1\n",
        ] {
            assert_eq!(
                names(&limit_value(hostile, Amount::Any)),
                ["limit-value"],
                "{hostile}"
            );
        }
        for (value, holds) in [
            ("-20", true),
            ("19", true),
            ("-21", false),
            ("20", false),
            ("unlimited", false),
        ] {
            assert_eq!(
                limit_value(value, Amount::Priority).is_empty(),
                holds,
                "{value}"
            );
        }
        for (value, holds) in [
            ("1048576", true),
            ("0", true),
            ("1048577", false),
            ("unlimited", false),
            ("-1", false),
        ] {
            assert_eq!(
                limit_value(value, Amount::Files).is_empty(),
                holds,
                "{value}"
            );
        }
    }

    #[test]
    fn modules() {
        let longest = "a".repeat(55);
        for honest in ["br_netfilter", "nf-conntrack", "8021q", &longest] {
            assert_eq!(names(&module(honest)), [""; 0], "{honest}");
        }
        for hostile in [
            "",
            "-r",
            "a b",
            "a\nb",
            "a/b",
            "#a",
            "a.ko",
            "é",
            &format!("{longest}a"),
        ] {
            assert_eq!(names(&module(hostile)), ["module"], "{hostile}");
        }
        for honest in ["1", "0x10", "a,b:c", "Y", "on=off"] {
            assert_eq!(names(&module_value(honest)), [""; 0], "{honest}");
        }
        for hostile in ["", "é", "a~b", "*", "/etc/edict/x", "x/y"] {
            assert_eq!(names(&module_value(hostile)), ["module-value"], "{hostile}");
        }
        assert_eq!(names(&module_value("a b")), ["module-value", "blank"]);
        assert_eq!(
            names(&module_value("a\ninstall x /bin/sh")),
            ["module-value", "control", "blank"]
        );
        assert_eq!(names(&module_value(&"1".repeat(513))), ["length"]);
        assert_eq!(names(&module_value(&"1".repeat(512))), [""; 0]);
    }
}
