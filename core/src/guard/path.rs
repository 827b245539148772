//! Where files may be written: three tables, judged after symlinks are resolved.
//!
//! Much under `/etc` is code for root. So writing is allowed in the places of [`ALLOWED`] only,
//! and elsewhere when the Fleet says so; the places of [`EXECUTES`] have to be allowed by their own
//! name; those of [`FORBIDDEN`] never are.

use unicode_normalization::UnicodeNormalization as _;

use super::Policy;
use super::rule::{self, Rule};
use super::value::broken;
use crate::resource::is_under;

/// The folder that everything is under.
pub const ROOT: &str = "/etc";

/// Places that are allowed from the start. A folder stands for everything in it.
///
/// What they have in common: no program that reads them runs what they name.
pub const ALLOWED: &[&str] = &[
    "/etc/containerd/certs.d",
    "/etc/containers/registries.conf",
    "/etc/containers/registries.conf.d",
    "/etc/crictl.yaml",
    "/etc/docker/certs.d",
    "/etc/edict",
    "/etc/gai.conf",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/issue",
    "/etc/issue.d",
    "/etc/issue.net",
    "/etc/locale.conf",
    "/etc/motd",
    "/etc/motd.d",
    "/etc/pki/ca-trust/source/anchors",
    "/etc/resolv.conf",
    "/etc/security/limits.d",
    "/etc/systemd/journald.conf.d",
    "/etc/systemd/resolved.conf.d",
    "/etc/systemd/timesyncd.conf.d",
    "/etc/timezone",
];

/// Places whose files are, or name, programs that run as root: refused until the Fleet allows them
/// by name. A `*` at the end stands for any rest of that name.
pub const EXECUTES: &[&str] = &[
    "/etc/NetworkManager",
    "/etc/X11",
    "/etc/acpi",
    "/etc/aliases",
    "/etc/alternatives",
    "/etc/anacrontab",
    "/etc/apparmor*",
    "/etc/apt",
    "/etc/audit",
    "/etc/auto*",
    "/etc/bash*",
    "/etc/binfmt.d",
    "/etc/cdi",
    "/etc/chrony*",
    "/etc/cloud",
    "/etc/cni",
    "/etc/containerd",
    "/etc/containers",
    "/etc/crio",
    "/etc/cron*",
    "/etc/crypttab",
    "/etc/csh*",
    "/etc/dbus-1",
    "/etc/default",
    "/etc/dhcp*",
    "/etc/dnf",
    "/etc/docker",
    "/etc/dpkg",
    "/etc/dracut*",
    "/etc/environment",
    "/etc/environment.d",
    "/etc/exports*",
    "/etc/extensions",
    "/etc/fstab",
    "/etc/gitconfig",
    "/etc/grub*",
    "/etc/hosts.allow",
    "/etc/inetd*",
    "/etc/init*",
    "/etc/kernel",
    "/etc/krb5.conf*",
    "/etc/ld.so*",
    "/etc/ld.so.preload",
    "/etc/logrotate*",
    "/etc/lvm",
    "/etc/modprobe*",
    "/etc/modules*",
    "/etc/network*",
    "/etc/nri",
    "/etc/nsswitch.conf",
    "/etc/pam*",
    "/etc/polkit-1",
    "/etc/ppp",
    "/etc/profile",
    "/etc/profile.d",
    "/etc/rc*",
    "/etc/request-key*",
    "/etc/rsyslog*",
    "/etc/security",
    "/etc/selinux",
    "/etc/shells",
    "/etc/skel",
    "/etc/ssl",
    "/etc/sysconfig",
    "/etc/sysctl*",
    "/etc/systemd",
    "/etc/tmpfiles.d",
    "/etc/udev",
    "/etc/update-motd.d",
    "/etc/xdg",
    "/etc/xinetd*",
    "/etc/yum*",
    "/etc/zsh*",
];

/// Places that no setting and no message allows: who may log in, and the cluster's own keys.
pub const FORBIDDEN: &[&str] = &[
    "/etc/doas*",
    "/etc/group*",
    "/etc/gshadow*",
    "/etc/krb5.keytab",
    "/etc/kubernetes",
    "/etc/login.defs",
    "/etc/machine-id",
    "/etc/passwd*",
    "/etc/rancher",
    "/etc/securetty",
    "/etc/security/opasswd",
    "/etc/shadow*",
    "/etc/ssh",
    "/etc/ssl/private",
    "/etc/subgid*",
    "/etc/subuid*",
    "/etc/sudo*",
];

/// [`FORBIDDEN`] as a CEL rule on a path, for the API server's own refusal.
pub fn forbidden_rule() -> String {
    let names: Vec<_> = FORBIDDEN
        .iter()
        .map(|place| place.trim_start_matches("/etc/"))
        .collect();
    let names = names.join("|").replace('.', "[.]").replace('*', "[^/]*");
    format!("!self.matches('^/etc/({names})(/.*)?$')")
}

/// Whether `path` is the place, or in it.
fn covers(place: &str, path: &str) -> bool {
    match place.strip_suffix('*') {
        Some(stem) => path.starts_with(stem),
        None => path == place || is_under(path, place),
    }
}

/// Every rule of its form that a path breaks: absolute, normal, no longer than the kernel takes.
pub(crate) fn form(path: &str) -> Vec<&'static Rule> {
    let parts = |path| str::strip_prefix(path, '/').unwrap_or(path).split('/');
    let odd = |path| parts(path).any(|part| matches!(part, "" | "." | ".."));
    let long = path.len() > 512 || parts(path).any(|part| part.len() > 255);
    // Full-width dots and slashes become those of ASCII in whatever normalizes names.
    let compatible: String = path.nfkc().collect();
    let seems = odd(&compatible) || parts(&compatible).count() != parts(path).count();
    broken([
        (!path.starts_with('/'), &rule::PATH_ABSOLUTE),
        (odd(path) || seems, &rule::PATH_NORMAL),
        (long, &rule::PATH_LENGTH),
    ])
}

/// Where a path of any form leads: absolute and normal.
fn normal(path: &str) -> String {
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            _ => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

/// Every rule that keeps a whole file from being written at `path`.
///
/// Where the path leads through symlinks, the path that they lead to is to be judged as well.
pub fn check(path: &str, policy: &Policy) -> Vec<&'static Rule> {
    let mut rules = form(path);
    let path = &normal(path);
    rules.extend(place(path, policy));
    rules
}

/// The rules of the tables. What is off limits is not judged by the others: whatever they say, the
/// answer is no.
fn place(path: &str, policy: &Policy) -> Vec<&'static Rule> {
    let Policy {
        allowed, protected, ..
    } = policy;
    let off_limits = forbidden(path, protected);
    if !off_limits.is_empty() {
        return off_limits;
    }
    if ALLOWED.iter().any(|place| covers(place, path)) {
        return Vec::new();
    }
    let mut named = allowed
        .iter()
        .map(|place| place.trim_end_matches('/'))
        .filter(|place| is_under(path, ROOT) && covers(place, path));
    let executes: Vec<_> = EXECUTES
        .iter()
        .filter(|place| covers(place, path))
        .collect();
    // A folder above the place does not name it.
    let by_name = |place: &str| executes.iter().any(|executes| covers(executes, place));
    if executes.is_empty() {
        broken([(named.next().is_none(), &rule::PATH_ROOT)])
    } else {
        broken([(!named.any(by_name), &rule::PATH_EXECUTES)])
    }
}

/// Every rule that keeps everything, single keys included, from being written at `path`.
pub fn off_limits(path: &str, protected: &[String]) -> Vec<&'static Rule> {
    let mut rules = form(path);
    let path = &normal(path);
    rules.extend(forbidden(path, protected));
    rules.extend(broken([(!is_under(path, ROOT), &rule::PATH_ROOT)]));
    rules
}

fn forbidden(path: &str, protected: &[String]) -> Vec<&'static Rule> {
    let protects = |place: &String| covers(place.trim_end_matches('/'), path);
    broken([
        (
            FORBIDDEN.iter().any(|place| covers(place, path)),
            &rule::PATH_FORBIDDEN,
        ),
        (protected.iter().any(protects), &rule::PATH_PROTECTED),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict_of(rules: &[&Rule]) -> String {
        match rule::names(rules).join(" ") {
            none if none.is_empty() => "allowed".to_owned(),
            names => names,
        }
    }

    fn verdict(path: &str, allowed: &[&str], protected: &[&str]) -> String {
        let list = |places: &[&str]| places.iter().map(ToString::to_string).collect();
        let policy = Policy {
            allowed: list(allowed),
            protected: list(protected),
            ..Policy::default()
        };
        verdict_of(&check(path, &policy))
    }

    #[test]
    fn form_and_place_are_judged_both() {
        for (path, expected) in [
            ("", "path-absolute path-normal path-root"),
            ("etc/motd", "path-absolute"),
            ("etc/shadow", "path-absolute path-forbidden"),
            ("/etc/../etc/motd", "path-normal"),
            ("/../../etc/motd", "path-normal"),
            ("/etc/./motd", "path-normal"),
            ("/etc//motd", "path-normal"),
            ("/etc/motd/", "path-normal"),
            ("/etc/motd/../shadow", "path-normal path-forbidden"),
            ("/", "path-normal path-root"),
            ("/etc", "path-root"),
            ("/etcetera", "path-root"),
            ("/usr/bin/id", "path-root"),
            ("/etc/motd", "allowed"),
            ("/etc/motd/\u{ff0e}\u{ff0e}\u{ff0f}shadow", "path-normal"),
            ("/etc/motd/\u{2025}/x", "path-normal"),
            ("/etc/motd/a\u{ff0f}b", "path-normal"),
            ("/etc/motd/a\u{ff0e}b", "allowed"),
        ] {
            assert_eq!(
                verdict(path, &["/etc/motd", "/usr"], &[]),
                expected,
                "{path}"
            );
        }
        let deep = |size: usize| format!("/etc/edict{}", "/x".repeat((size - 10) / 2));
        assert_eq!(verdict(&deep(512), &[], &[]), "allowed");
        assert_eq!(verdict(&deep(514), &[], &[]), "path-length");
        assert_eq!(
            verdict(&format!("/etc/edict/{}", "x".repeat(255)), &[], &[]),
            "allowed"
        );
        assert_eq!(
            verdict(&format!("/etc/edict/{}", "x".repeat(256)), &[], &[]),
            "path-length"
        );
    }

    #[test]
    fn every_place_of_every_table_is_judged_by_it() {
        let inside = |place: &str| format!("{}/x", place.trim_end_matches('*'));
        for place in ALLOWED {
            assert_eq!(verdict(place, &[], &[]), "allowed", "{place}");
            assert_eq!(verdict(&inside(place), &[], &[]), "allowed", "{place}");
            assert_eq!(
                verdict(place, &["/etc"], &["/etc"]),
                "path-protected",
                "{place}"
            );
        }
        for place in EXECUTES {
            let path = place.trim_end_matches('*');
            for path in [path, &inside(place)] {
                assert_eq!(verdict(path, &[], &[]), "path-executes", "{place}");
                assert_eq!(verdict(path, &["/etc"], &[]), "path-executes", "{place}");
                assert_eq!(verdict(path, &[path], &[]), "allowed", "{place}");
                assert_eq!(verdict(path, &[path], &[path]), "path-protected", "{place}");
            }
        }
        for place in FORBIDDEN {
            let path = place.trim_end_matches('*');
            for path in [path, &inside(place)] {
                assert_eq!(verdict(path, &[path], &[]), "path-forbidden", "{place}");
            }
        }
        assert_eq!(
            verdict("/etc/shadow-", &["/etc/shadow-"], &[]),
            "path-forbidden"
        );
        assert_eq!(verdict("/etc/cron.daily/x", &[], &[]), "path-executes");
    }

    #[test]
    fn the_api_server_refuses_what_is_forbidden() {
        let rule = forbidden_rule();
        let pattern = rule
            .trim_start_matches("!self.matches('")
            .trim_end_matches("')");
        let pattern = regex::Regex::new(pattern).unwrap();
        for place in FORBIDDEN {
            assert!(pattern.is_match(place.trim_end_matches('*')), "{place}");
            assert!(
                pattern.is_match(&format!("{}/x", place.trim_end_matches('*'))),
                "{place}"
            );
        }
        for place in ALLOWED {
            assert!(!pattern.is_match(place), "{place}");
        }
    }

    #[test]
    fn the_fleet_allows_more() {
        assert_eq!(verdict("/etc/myapp/a.conf", &[], &[]), "path-root");
        assert_eq!(
            verdict("/etc/myapp/a.conf", &["/etc/myapp"], &[]),
            "allowed"
        );
        assert_eq!(
            verdict("/etc/myapp/a.conf", &["/etc/myapp/"], &[]),
            "allowed"
        );
        assert_eq!(
            verdict("/etc/myapp", &["/etc/myapp/"], &["/etc/my"]),
            "allowed"
        );
        assert_eq!(
            verdict("/etc/myapplication", &["/etc/myapp"], &[]),
            "path-root"
        );
        assert_eq!(
            verdict(
                "/etc/myapp/secret",
                &["/etc/myapp"],
                &["/etc/myapp/secret/"]
            ),
            "path-protected"
        );
        // An executing place is allowed by something in it for that alone.
        let unit = "/etc/systemd/system/a.service.d";
        assert_eq!(verdict(&format!("{unit}/x.conf"), &[unit], &[]), "allowed");
        assert_eq!(
            verdict("/etc/systemd/system/b.service", &[unit], &[]),
            "path-executes"
        );
        // Inside an executing place that has an allowed corner, the corner is not the place.
        assert_eq!(
            verdict("/etc/containerd/config.toml", &[], &[]),
            "path-executes"
        );
        assert_eq!(
            verdict("/etc/containerd/certs.d/x/hosts.toml", &[], &[]),
            "allowed"
        );
    }
}
