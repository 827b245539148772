//! Kernel settings.

use super::super::rule::{self, Rule};
use super::super::text;
use super::{LENGTH_MAX, broken};
use crate::format::assignment::sysctl_path;

/// Settings whose value the kernel runs, or that say what it runs. A `*` at the end stands for any
/// rest. Source: the kernel's admin-guide/sysctl/kernel.rst and its uses of call_usermodehelper.
const EXECUTES: &[&str] = &[
    "fs/binfmt_misc*",
    "kernel/core_pattern",
    "kernel/core_pipe_limit",
    "kernel/hotplug",
    "kernel/modprobe",
    "kernel/poweroff_cmd",
    "kernel/usermodehelper*",
];

/// The name of a setting: words with dots (or, all of them, slashes) between them.
///
/// The first of the two kinds of separator counts, the other is part of a word then; the kernel's
/// own tool reads it so. Source: sysctl.d(5).
pub fn sysctl_key(value: &str) -> Vec<&'static Rule> {
    // What is judged is where it leads: a slash in a word of a dotted name is a dot there.
    let path = sysctl_path(value);
    let words: Vec<_> = path.split('/').collect();
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '@' | ':');
    let holds = words.len() > 1
        && !value.starts_with('-')
        && words
            .iter()
            .all(|word| !matches!(*word, "" | "." | "..") && word.chars().all(plain));
    // A minus sign before a key means that errors don't matter: it sets the key all the same.
    let lower = path.to_ascii_lowercase();
    let lower = lower.trim_start_matches('-');
    let executes = EXECUTES.iter().any(|key| match key.strip_suffix('*') {
        Some(stem) => lower.starts_with(stem),
        None => lower == *key,
    });
    let mut rules = broken([
        (value.len() > LENGTH_MAX, &rule::LENGTH),
        (!holds, &rule::SYSCTL_KEY),
        (executes, &rule::SYSCTL_EXECUTES),
    ]);
    rules.extend(text::check(value));
    rules
}

/// The value of a setting: one line of words, with blanks or tabs between them.
pub fn sysctl_value(value: &str) -> Vec<&'static Rule> {
    let mut rules = broken([(value.len() > LENGTH_MAX, &rule::LENGTH)]);
    rules.extend(text::check(&value.replace(['\t', ' '], "_")));
    rules
}

#[cfg(test)]
mod tests {
    use super::super::super::rule::names;
    use super::*;

    #[test]
    fn keys() {
        for honest in [
            "net.ipv4.ip_forward",
            "net/ipv4/conf/eth0.100/rp_filter",
            "net.ipv4.conf.eth0/100.rp_filter",
            "vm.max_map_count",
        ] {
            assert_eq!(names(&sysctl_key(honest)), [""; 0], "{honest}");
        }
        for hostile in [
            "",
            "vm",
            "vm.",
            ".vm",
            "a..b",
            "a.b=c",
            "a/../b",
            "é.b",
            "a.//.b",
            "a./.b",
            "a.//.kernel.core_pattern",
        ] {
            assert_eq!(names(&sysctl_key(hostile)), ["sysctl-key"], "{hostile}");
        }
        for hostile in [
            "kernel.core_pattern",
            "kernel/modprobe",
            "fs/binfmt_misc/register",
            "Kernel.hotplug",
        ] {
            assert_eq!(
                names(&sysctl_key(hostile)),
                ["sysctl-executes"],
                "{hostile}"
            );
        }
        assert_eq!(names(&sysctl_key("-vm.swappiness")), ["sysctl-key"]);
        let hidden = names(&sysctl_key("-kernel.modprobe"));
        assert_eq!(hidden, ["sysctl-key", "sysctl-executes"]);
        assert_eq!(names(&sysctl_key("kernel.modprobes")), [""; 0]);
        let long = format!("a.{}", "b".repeat(511));
        assert_eq!(names(&sysctl_key(&long)), ["length"]);
        assert_eq!(names(&sysctl_key(&long[..512])), [""; 0]);
    }

    #[test]
    fn values() {
        for honest in ["1", "4096 87380\t6291456", "-1", "cubic", ""] {
            assert_eq!(names(&sysctl_value(honest)), [""; 0], "{honest}");
        }
        assert_eq!(names(&sysctl_value("1\nkernel.modprobe=x")), ["control"]);
        assert_eq!(names(&sysctl_value("|/bin/x")), ["shell"]);
        assert_eq!(names(&sysctl_value(&"1".repeat(513))), ["length"]);
        assert_eq!(names(&sysctl_value(&"1".repeat(512))), [""; 0]);
    }
}
