//! Files of columns with blanks between, a line each: `/etc/hosts`, and those of
//! `/etc/security/limits.d` and `/etc/modules-load.d`.

use std::net::IpAddr;
use std::ops::Range;

use super::lines::{Line, Syntax};
use crate::resource::KeyPath;

/// How the columns of such a file are read.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// What a comment begins with.
    comments: &'static [char],
    /// Whether a comment may stand behind something.
    behind: bool,
    /// The column that is the value; `None` where a line says its key and nothing else.
    value: Option<usize>,
    /// The keys that a line with these columns has.
    keys: fn(&[&str]) -> Vec<KeyPath>,
    /// The line that gives a key a value.
    line: fn(&[&str], &str) -> Option<String>,
    /// The one form of a key that may be written in several.
    canonical: fn(&KeyPath) -> KeyPath,
}

/// Of `/etc/hosts`: an address, and the names that it has. The key is a name and the kind of its
/// address: a name may have one of each. Source: hosts(5).
pub const HOSTS: Table = Table {
    comments: &['#'],
    behind: true,
    value: Some(0),
    keys: |columns| match columns {
        [address, names @ ..] => {
            let Ok(address) = address.parse() else {
                return Vec::new();
            };
            names.iter().map(|name| host_key(name, address)).collect()
        }
        [] => Vec::new(),
    },
    line: |key, address| match key {
        [name, _] => Some(format!("{address} {name}")),
        _ => None,
    },
    canonical: |key| KeyPath(key.0.iter().map(|name| name.to_ascii_lowercase()).collect()),
};

/// Of `/etc/security/limits.d`: who, soft or hard, what, and how much. Source: limits.conf(5).
pub const LIMITS: Table = Table {
    comments: &['#'],
    behind: true,
    value: Some(3),
    keys: |columns| match columns {
        [domain, kind, item, _] => vec![KeyPath([*domain, kind, item].map(str::to_owned).into())],
        _ => Vec::new(),
    },
    line: |key, value| match key {
        [domain, kind, item] => Some(format!("{domain} {kind} {item} {value}")),
        _ => None,
    },
    canonical: KeyPath::clone,
};

/// Of `/etc/modules-load.d`: a name. Source: modules-load.d(5).
pub const MODULES: Table = Table {
    comments: &['#', ';'],
    behind: false,
    value: None,
    keys: |columns| match columns {
        [name] => vec![KeyPath::top(&module_name(name))],
        _ => Vec::new(),
    },
    line: |key, value| match key {
        [name] if value.is_empty() => Some((*name).to_owned()),
        _ => None,
    },
    canonical: |key| KeyPath(key.0.iter().map(|name| module_name(name)).collect()),
};

/// The key of a name in `/etc/hosts` that has such an address.
pub fn host_key(name: &str, address: IpAddr) -> KeyPath {
    let kind = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    KeyPath(vec![name.to_ascii_lowercase(), kind.to_owned()])
}

/// The one form of a module's name: to the kernel `-` and `_` are the same. Source: modprobe(8).
pub fn module_name(name: &str) -> String {
    name.replace('-', "_")
}

impl Syntax for Table {
    fn canonical(&self, key: &KeyPath) -> KeyPath {
        (self.canonical)(key)
    }

    fn line(&self, key: &KeyPath, value: &str) -> Option<String> {
        let names: Vec<_> = key.0.iter().map(String::as_str).collect();
        (self.line)(&names, value)
    }

    fn lines(&self, text: &str) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut end = 0;
        for (index, whole) in text.split_inclusive('\n').enumerate() {
            let start = end;
            end += whole.len();
            let mut said = whole.trim_end();
            if self.behind {
                said = said.split(self.comments).next().unwrap_or_default();
            } else if said.trim_start().starts_with(self.comments) {
                continue;
            }
            let columns = columns(said);
            let words: Vec<_> = columns.iter().map(|column| &said[column.clone()]).collect();
            let keys = (self.keys)(&words);
            let value = self.value.and_then(|column| columns.get(column).cloned());
            let value = value.unwrap_or(said.len()..said.len());
            let alone = keys.len() == 1;
            lines.extend(keys.into_iter().map(|key| Line {
                whole: start..end,
                number: index + 1,
                key,
                value: start + value.start..start + value.end,
                alone,
            }));
        }
        lines
    }
}

/// Where the words of a line are.
fn columns(line: &str) -> Vec<Range<usize>> {
    let words = line.split_ascii_whitespace();
    // Each word is a part of the line: where it is follows from where it begins in memory.
    let at = |word: &str| word.as_ptr() as usize - line.as_ptr() as usize;
    words.map(|word| at(word)..at(word) + word.len()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::lines::Error;
    use super::*;

    fn key(names: &str) -> KeyPath {
        KeyPath(names.split(' ').map(ToOwned::to_owned).collect())
    }

    #[test]
    fn columns_are_read() {
        let hosts =
            "127.0.0.1\tlocalhost # here\n::1 localhost\n#1.1.1.1 a\n10.0.0.1 A\nx y\n1.2.3.4\n";
        for (name, value) in [
            ("localhost ipv4", Some("127.0.0.1")),
            ("localhost ipv6", Some("::1")),
            ("a ipv4", Some("10.0.0.1")),
            ("A ipv4", Some("10.0.0.1")),
            ("a ipv6", None),
            ("y ipv4", None),
            ("here ipv4", None),
        ] {
            let read = HOSTS.get(hosts, &key(name)).unwrap();
            assert_eq!(read.as_deref(), value, "{name}");
        }
        let limits = "# *\n*  soft nofile 1024\n@admin hard nproc\troot\n* hard nofile\n";
        for (name, value) in [
            ("* soft nofile", Some("1024")),
            ("@admin hard nproc", Some("root")),
            ("* hard nofile", None),
        ] {
            let read = LIMITS.get(limits, &key(name)).unwrap();
            assert_eq!(read.as_deref(), value, "{name}");
        }
        let modules = "; a\n# b\n br-netfilter \nc d\n";
        for (name, value) in [
            ("br_netfilter", Some("")),
            ("br-netfilter", Some("")),
            ("c", None),
            ("b", None),
        ] {
            let read = MODULES.get(modules, &key(name)).unwrap();
            assert_eq!(read.as_deref(), value, "{name}");
        }
    }

    #[test]
    fn a_line_changes_and_no_other() {
        for (table, text, name, value, after) in [
            (HOSTS, "", "a ipv4", "10.0.0.1", "10.0.0.1 a\n"),
            (HOSTS, "::1 a", "a ipv4", "10.0.0.1", "::1 a\n10.0.0.1 a\n"),
            (
                HOSTS,
                " 1.1.1.1\ta # x\n::1 b\n",
                "a ipv4",
                "10.0.0.1",
                " 10.0.0.1\ta # x\n::1 b\n",
            ),
            (
                LIMITS,
                "* soft nofile 1\n",
                "* soft nofile",
                "2",
                "* soft nofile 2\n",
            ),
            (
                LIMITS,
                "* soft nofile 1\n",
                "* hard nofile",
                "2",
                "* soft nofile 1\n* hard nofile 2\n",
            ),
            (MODULES, "a\n", "b", "", "a\nb\n"),
            (MODULES, " b-c \n", "b_c", "", " b-c \n"),
        ] {
            let changed = table.set(text, &key(name), &json!(value)).unwrap();
            assert_eq!(changed, after, "{text:?}");
        }
        assert_eq!(
            HOSTS.unset("::1 a\n1.1.1.1 a\n", &key("a ipv4")).unwrap(),
            "::1 a\n"
        );
        assert_eq!(MODULES.unset("a\nb-c\n", &key("b_c")).unwrap(), "a\n");
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for (table, name, value) in [
            (HOSTS, "a ipv4", "::1"),
            (HOSTS, "a ipv4", "1.1.1.1 b"),
            (HOSTS, "a ipv4", "1.1.1.1 #"),
            (HOSTS, "a ipv4", "x"),
            (HOSTS, "a ipv4", "1.1.1.1\n2.2.2.2"),
            (HOSTS, "a", "1.1.1.1"),
            (HOSTS, "#a ipv4", "1.1.1.1"),
            (LIMITS, "* soft nofile", "1 2"),
            (LIMITS, "* soft nofile", ""),
            (LIMITS, "* soft", "1"),
            (LIMITS, "#x soft nofile", "1"),
            (MODULES, "a", "b"),
            (MODULES, "a b", ""),
            (MODULES, ";a", ""),
        ] {
            let set = table.set("", &key(name), &json!(value));
            assert_eq!(
                set,
                Err(Error::NotALine(table.canonical(&key(name)))),
                "{name} {value}"
            );
        }
    }

    #[test]
    fn a_name_that_shares_its_line_is_left_to_people() {
        let error = HOSTS.get("# x\n1.1.1.1 a b\n", &key("b ipv4")).unwrap_err();
        let said = "b.ipv4 stands in line 2 together with others: give it a line of its own, or take it out";
        assert_eq!(error.to_string(), said);
        assert_eq!(HOSTS.get("1.1.1.1 a b\n", &key("b ipv6")), Ok(None));
        let twice = HOSTS
            .get("1.1.1.1 a\n2.2.2.2 A\n", &key("a ipv4"))
            .unwrap_err();
        assert_eq!(
            twice.to_string(),
            "a.ipv4 stands in lines 1 and 2: keep one of them"
        );
    }

    proptest! {
        /// Whatever somebody has written: what is set is read back, nothing else changes, and without it
        /// the rest is there.
        #[test]
        fn what_is_set_is_read_back_and_nothing_else_changes(
            text in "(([0-9.:]{1,9}|10[.]0[.]0[.]1|::1)[ \t#]{1,2}[a-c# ]{0,6}\n|[ -~]{0,9}\n){0,4}",
            name in "[a-c]",
        ) {
            let key = key(&format!("{name} ipv4"));
            let Ok(changed) = HOSTS.set(&text, &key, &json!("10.9.9.9")) else { return Ok(()) };
            prop_assert_eq!(HOSTS.get(&changed, &key), Ok(Some("10.9.9.9".to_owned())));
            for other in ["a ipv4", "b ipv4", "c ipv4", "a ipv6", "b ipv6"] {
                let other = self::key(other);
                if other != key {
                    prop_assert_eq!(HOSTS.get(&changed, &other), HOSTS.get(&text, &other));
                }
            }
            let without = HOSTS.unset(&changed, &key).unwrap();
            prop_assert_eq!(HOSTS.get(&without, &key), Ok(None));
        }
    }
}
