//! Files of keys and values, a line each with `=` between: `/etc/environment` and those of
//! `/etc/sysctl.d`.

use std::ops::Range;

use super::lines::{Line, Syntax};
use crate::resource::KeyPath;

/// How such lines are written.
#[derive(Clone, Copy, Debug)]
pub struct Assignment {
    /// What a line begins with that says nothing.
    comments: &'static [char],
    /// Words before a key that are none of it.
    prefixes: &'static [&'static str],
    /// What Edict writes between a key and its value.
    between: &'static str,
    /// Whether a line that ends with a backslash goes on in the next.
    continues: bool,
    /// The one form of a key that may be written in several.
    canonical: fn(&str) -> String,
}

/// Of `/etc/environment`. Source: `pam_env(8)` and its `_parse_env_file`.
pub const ENVIRONMENT: Assignment = Assignment {
    comments: &['#'],
    prefixes: &["export "],
    between: "=",
    continues: true,
    canonical: str::to_owned,
};

/// Of `/etc/sysctl.d`. Source: sysctl.d(5).
pub const SYSCTL: Assignment = Assignment {
    comments: &['#', ';'],
    // That nothing is wrong with a key that the kernel does not have.
    prefixes: &["-"],
    between: " = ",
    continues: false,
    canonical: sysctl_path,
};

/// A kernel setting as the path that it has under `/proc/sys`. Where the first of dots and slashes in
/// it is a dot, each stands for the other. Source: sysctl.d(5).
pub fn sysctl_path(key: &str) -> String {
    match key.find(['.', '/']).map(|at| &key[at..=at]) {
        Some(".") => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => key.to_owned(),
    }
}

impl Syntax for Assignment {
    fn canonical(&self, key: &KeyPath) -> KeyPath {
        let names = key.0.iter().map(|name| (self.canonical)(name));
        KeyPath(names.collect())
    }

    fn line(&self, key: &KeyPath, value: &str) -> Option<String> {
        // The next line would be part of it.
        let swallows = self.continues && value.ends_with('\\');
        match &key.0[..] {
            [name] if !swallows => Some(format!("{name}{}{value}", self.between)),
            _ => None,
        }
    }

    /// The lines with a key and a value.
    fn lines(&self, text: &str) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut rest = text.split_inclusive('\n').enumerate();
        let mut end = 0;
        while let Some((index, first)) = rest.next() {
            let start = end;
            end += first.len();
            let said = first.trim_start();
            if said.starts_with(self.comments) {
                continue;
            }
            let mut last = first;
            while self.continues && last.trim_end_matches(['\n', '\r']).ends_with('\\') {
                let Some((_, next)) = rest.next() else { break };
                end += next.len();
                last = next;
            }
            let whole = start..end;
            lines.extend(self.read(text, whole, index + 1));
        }
        lines
    }
}

impl Assignment {
    /// What a line says, or several of which each goes on in the next.
    fn read(&self, text: &str, whole: Range<usize>, number: usize) -> Option<Line> {
        let said = &text[whole.clone()];
        let (before, behind) = said.split_once('=')?;
        let mut key = before.trim();
        for prefix in self.prefixes {
            key = key.strip_prefix(prefix).unwrap_or(key).trim_start();
        }
        let value = whole.end - behind.len();
        let led = behind.len() - behind.trim_start().len();
        // With nothing but blanks behind it the value begins right there.
        let value = if behind.trim().is_empty() {
            value..value
        } else {
            value + led..value + behind.trim_end().len()
        };
        (!key.is_empty()).then(|| Line {
            whole,
            number,
            key: KeyPath::top(&(self.canonical)(key)),
            value,
            alone: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::lines::Error;
    use super::*;

    fn key(name: &str) -> KeyPath {
        KeyPath::top(name)
    }

    #[test]
    fn values_are_read_as_they_stand() {
        let text = "# A=1\n\n  B=\"two\"  \nexport C='three'\n=x\nno assignment\nD=\\\n four\nE= \n F = 6\n";
        for (name, value) in [
            ("A", None),
            ("B", Some("\"two\"")),
            ("C", Some("'three'")),
            ("D", Some("\\\n four")),
            ("E", Some("")),
            ("F", Some("6")),
            ("no assignment", None),
            ("", None),
        ] {
            let read = ENVIRONMENT.get(text, &key(name)).unwrap();
            assert_eq!(read.as_deref(), value, "{name}");
        }
        let text = "; a.b = 0\n-net/ipv4/ip_forward=1\nvm.swappiness = 10 \n";
        for (name, value) in [
            ("a.b", None),
            ("net.ipv4.ip_forward", Some("1")),
            ("net/ipv4/ip_forward", Some("1")),
            ("vm.swappiness", Some("10")),
        ] {
            let read = SYSCTL.get(text, &key(name)).unwrap();
            assert_eq!(read.as_deref(), value, "{name}");
        }
    }

    #[test]
    fn a_setting_has_one_path() {
        for (name, path) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
            (
                "net/ipv4/conf/eth0.100/rp_filter",
                "net/ipv4/conf/eth0.100/rp_filter",
            ),
            (
                "net.ipv4.conf.eth0/100.rp_filter",
                "net/ipv4/conf/eth0.100/rp_filter",
            ),
            ("plain", "plain"),
        ] {
            assert_eq!(sysctl_path(name), path);
        }
    }

    #[test]
    fn a_line_changes_and_no_other() {
        for (text, name, value, after) in [
            ("", "A", "1", "A=1\n"),
            ("X=1", "A", "1", "X=1\nA=1\n"),
            ("X=1\nA=2 # old\nY=3\n", "A", "4", "X=1\nA=4\nY=3\n"),
            ("export A=\"2\"\n", "A", "3", "export A=3\n"),
            ("  A=\n", "A", "3", "  A=3\n"),
            ("A=\\\n x\nB=1\n", "A", "2", "A=2\nB=1\n"),
        ] {
            let changed = ENVIRONMENT.set(text, &key(name), &json!(value)).unwrap();
            assert_eq!(changed, after, "{text:?}");
        }
        let changed = SYSCTL.set("# x\n", &key("a.b"), &json!("1 2")).unwrap();
        assert_eq!(changed, "# x\na.b = 1 2\n");
        let text = "# first\nA=1\n\nB=2\n";
        assert_eq!(
            ENVIRONMENT.unset(text, &key("A")).unwrap(),
            "# first\n\nB=2\n"
        );
        assert_eq!(ENVIRONMENT.unset(text, &key("C")).unwrap(), text);
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for value in [
            json!("a\nB=1"),
            json!(" a"),
            json!("a "),
            json!("a\\"),
            json!(1),
        ] {
            let set = ENVIRONMENT.set("", &key("A"), &value);
            assert_eq!(set, Err(Error::NotALine(key("A"))), "{value}");
        }
        for name in ["", "#A", "A=B", "A\nB"] {
            let set = ENVIRONMENT.set("", &key(name), &json!("1"));
            assert_eq!(set, Err(Error::NotALine(key(name))), "{name}");
        }
        let deep = KeyPath(vec!["A".into(), "B".into()]);
        assert!(ENVIRONMENT.set("", &deep, &json!("1")).is_err());
        assert_eq!(ENVIRONMENT.get("A=1\n", &deep), Ok(None));
    }

    #[test]
    fn a_key_in_two_lines_is_an_error_that_names_both() {
        let error = ENVIRONMENT.get("A=1\nB=2\nA=3\n", &key("A")).unwrap_err();
        let said = "A stands in lines 1 and 3: keep one of them";
        assert_eq!(error.to_string(), said);
        assert!(SYSCTL.get("a.b=1\na/b=2\n", &key("a.b")).is_err());
        assert!(ENVIRONMENT.get("A=1\nB=2\nA=3\n", &key("B")).is_ok());
    }

    proptest! {
        /// Whatever somebody has written: it is read back as it was set, nothing else changes, and without
        /// it the rest is there.
        #[test]
        fn what_is_set_is_read_back_and_nothing_else_changes(
            text in "([A-C=# \\\\\n]|[ -~]|\n){0,40}",
            name in "[A-C]",
            value in "[!-~]{0,8}",
        ) {
            let key = key(&name);
            let Ok(changed) = ENVIRONMENT.set(&text, &key, &json!(value)) else { return Ok(()) };
            prop_assert_eq!(ENVIRONMENT.get(&changed, &key).unwrap(), Some(value));
            for other in ["A", "B", "C", "AA"] {
                if other != name {
                    let other = KeyPath::top(other);
                    prop_assert_eq!(ENVIRONMENT.get(&changed, &other), ENVIRONMENT.get(&text, &other));
                }
            }
            let without = ENVIRONMENT.unset(&changed, &key).unwrap();
            prop_assert_eq!(ENVIRONMENT.get(&without, &key).unwrap(), None);
        }
    }
}
