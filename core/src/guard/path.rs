//! Where files may be written: three tables, judged after symlinks are resolved.
//!
//! Much under `/etc` is code for root. So writing is allowed in the places of [`ALLOWED`] only,
//! and elsewhere when the Fleet says so; the places of [`EXECUTES`] have to be allowed by their own
//! name; those of [`FORBIDDEN`] never are.

use super::Policy;
use super::rule::{self, Rule};
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

/// The form of a path: absolute, normal, under `/etc`, no longer than the kernel takes.
pub fn form(path: &str) -> Option<&'static Rule> {
    if !path.starts_with('/') {
        return Some(&rule::PATH_ABSOLUTE);
    }
    let mut parts = path[1..].split('/');
    if parts.clone().any(|part| matches!(part, "" | "." | "..")) {
        return Some(&rule::PATH_NORMAL);
    }
    if path.len() > 512 || parts.any(|part| part.len() > 255) {
        return Some(&rule::PATH_LENGTH);
    }
    if !is_under(path, ROOT) {
        return Some(&rule::PATH_ROOT);
    }
    None
}

/// The rule that keeps a whole file from being written at `path`, if one does.
///
/// Where the path leads through symlinks, the path that they lead to is to be judged as well.
pub fn check(path: &str, policy: &Policy) -> Option<&'static Rule> {
    if let Some(rule) = form(path) {
        return Some(rule);
    }
    let Policy { allowed, protected } = policy;
    if let Some(rule) = off_limits(path, protected) {
        return Some(rule);
    }
    if ALLOWED.iter().any(|place| covers(place, path)) {
        return None;
    }
    let mut named = allowed
        .iter()
        .map(|place| place.trim_end_matches('/'))
        .filter(|place| covers(place, path));
    let executes: Vec<_> = EXECUTES
        .iter()
        .filter(|place| covers(place, path))
        .collect();
    if executes.is_empty() {
        return named.next().is_none().then_some(&rule::PATH_ROOT);
    }
    // A folder above the place does not name it.
    let by_name = |place: &str| executes.iter().any(|executes| covers(executes, place));
    (!named.any(by_name)).then_some(&rule::PATH_EXECUTES)
}

/// The rule that keeps everything, single keys included, from being written at `path`.
pub fn off_limits(path: &str, protected: &[String]) -> Option<&'static Rule> {
    if FORBIDDEN.iter().any(|place| covers(place, path)) {
        return Some(&rule::PATH_FORBIDDEN);
    }
    let covered = |place: &String| covers(place.trim_end_matches('/'), path);
    protected
        .iter()
        .any(covered)
        .then_some(&rule::PATH_PROTECTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(path: &str, allowed: &[&str], protected: &[&str]) -> &'static str {
        let list = |places: &[&str]| places.iter().map(ToString::to_string).collect();
        let policy = Policy {
            allowed: list(allowed),
            protected: list(protected),
        };
        check(path, &policy).map_or("allowed", |rule| rule.name)
    }

    #[test]
    fn form_comes_first() {
        for (path, expected) in [
            ("", "path-absolute"),
            ("etc/motd", "path-absolute"),
            ("/etc/../etc/motd", "path-normal"),
            ("/etc/./motd", "path-normal"),
            ("/etc//motd", "path-normal"),
            ("/etc/motd/", "path-normal"),
            ("/", "path-normal"),
            ("/etc", "path-root"),
            ("/etcetera", "path-root"),
            ("/usr/bin/id", "path-root"),
            ("/etc/motd", "allowed"),
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
