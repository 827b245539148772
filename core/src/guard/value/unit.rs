//! Names of systemd units.

use super::super::rule::{self, Rule};
use super::broken;

/// The longest name of a unit. Source: systemd.unit(5).
const NAME_MAX: usize = 255;

/// The kinds of units that a program is, or that start one.
const KINDS: &[&str] = &[".service", ".socket", ".timer", ".path"];

/// Units that end or suspend the host, or take it from its users. Source: systemd.special(7), and
/// the services behind its targets.
const POWER: &[&str] = &[
    "ctrl-alt-del",
    "debug-shell",
    "emergency",
    "exit",
    "halt",
    "hibernate",
    "hybrid-sleep",
    "initrd-switch-root",
    "kexec",
    "poweroff",
    "reboot",
    "rescue",
    "sleep",
    "soft-reboot",
    "suspend",
    "suspend-then-hibernate",
];

/// A unit that may be reloaded or restarted.
///
/// Source: systemd.unit(5) for the form. Template instances are written as systemd writes them, with
/// `-` for `/` and no escapes.
pub fn unit(text: &str) -> Vec<&'static Rule> {
    let stem = KINDS.iter().find_map(|kind| text.strip_suffix(kind));
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b':' | b'_' | b'.' | b'-' | b'@');
    let holds = stem.is_some_and(|stem| {
        !stem.is_empty()
            && !stem.starts_with(['.', '-', '@'])
            && !stem.ends_with('@')
            && stem.matches('@').count() < 2
            && stem.bytes().all(plain)
    });
    let stem = stem.unwrap_or(text);
    let ends = POWER.contains(&stem.strip_prefix("systemd-").unwrap_or(stem));
    broken([
        (text.len() > NAME_MAX, &rule::LENGTH),
        (!holds, &rule::UNIT),
        (ends, &rule::UNIT_POWER),
    ])
}

#[cfg(test)]
mod tests {
    use super::super::super::rule::names;
    use super::*;

    #[test]
    fn units() {
        for honest in [
            "docker.service",
            "systemd-resolved.service",
            "getty@tty1.service",
            "dbus-org.freedesktop.resolve1.service",
            "logrotate.timer",
            "docker.socket",
            "my_app:1.path",
            "reboot-notifier.service",
        ] {
            assert_eq!(names(&unit(honest)), [""; 0], "{honest}");
        }
        let long = format!("{}.service", "x".repeat(248));
        for (hostile, rules) in [
            ("docker", &["unit"][..]),
            ("", &["unit"]),
            (".service", &["unit"]),
            ("-docker.service", &["unit"]),
            (".docker.service", &["unit"]),
            ("@x.service", &["unit"]),
            ("getty@.service", &["unit"]),
            ("a@b@c.service", &["unit"]),
            ("docker.service;id", &["unit"]),
            ("a b.service", &["unit"]),
            ("$(id).service", &["unit"]),
            ("%i.service", &["unit"]),
            ("a/b.service", &["unit"]),
            ("a\\x2db.service", &["unit"]),
            ("multi-user.target", &["unit"]),
            ("-.mount", &["unit"]),
            ("reboot.target", &["unit"]),
            ("systemd-reboot.service", &["unit-power"]),
            ("poweroff.service", &["unit-power"]),
            ("emergency.service", &["unit-power"]),
            ("reboot", &["unit", "unit-power"]),
            (&long, &["length"]),
        ] {
            assert_eq!(names(&unit(hostile)), rules, "{hostile}");
        }
        assert_eq!(names(&unit(&long[1..])), [""; 0]);
    }
}
