//! Settings: what somebody else's file has to say so that what Edict writes is read at all. Edict
//! never writes them; where one is missing, the status says so.

use toml_edit::{DocumentMut, Item};

/// Something that a program's file has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The program whose setting it is.
    pub program: &'static str,
    /// Where its file may be: the first of these that is there is meant.
    pub paths: &'static [&'static str],
    /// How the file says it.
    pub says: Says,
    /// The path that has to be named.
    pub contains: &'static str,
    /// What to do where that is not so.
    pub advice: &'static str,
}

/// How a file names a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// It is TOML, and the value at the first of these keys that is there is a list of paths with colons
    /// between them. It may import others, which count as if they stood in it.
    Toml(&'static [&'static [&'static str]]),
    /// A line begins with this word, and the path is another one in it.
    Line(&'static str),
}

/// The files of a node, as far as they can be read.
pub trait Files {
    /// What the file at `path` says; `None` where there is none that can be read.
    fn read(&self, path: &str) -> Option<String>;
    /// The names in the folder `path`.
    fn list(&self, path: &str) -> Vec<String>;
}

/// The most files that are looked into: an import that imports itself ends there.
const IMPORTS_MAX: usize = 32;

impl Setting {
    /// Why what Edict writes is not read; `None` where it is.
    pub fn unmet(&self, files: &dyn Files) -> Option<String> {
        let Self {
            program,
            paths,
            says,
            contains,
            advice,
        } = self;
        let mut there = paths
            .iter()
            .filter_map(|path| Some((*path, files.read(path)?)));
        let Some((path, text)) = there.next() else {
            let none = paths.join(" or ");
            return Some(format!(
                "{program} has no {none}, and does not read {contains} by itself: {advice}"
            ));
        };
        let keys = match says {
            Says::Toml(keys) => keys,
            Says::Line(word) => {
                let names = |line: &str| {
                    let mut words = line.split_whitespace();
                    words.next() == Some(word) && words.any(|word| is_path(word, contains))
                };
                let met = text.lines().any(names);
                return (!met).then(|| format!("{program} does not read {contains}: {advice}"));
            }
        };
        // What is imported overrides what imports it.
        let mut last = None;
        let mut waiting = vec![text];
        for _ in 0..IMPORTS_MAX {
            let Some(text) = waiting.pop() else { break };
            let Ok(document) = text.parse::<DocumentMut>() else {
                return Some(format!(
                    "{path} or what it imports is not valid TOML, so it can't be told whether {program} reads {contains}: correct it on the node"
                ));
            };
            last = keys.iter().find_map(|key| value(&document, key)).or(last);
            waiting.extend(imports(path, &document, files).into_iter().rev());
        }
        match last {
            Some(value) if value.split(':').any(|one| is_path(one, contains)) => None,
            Some(value) if !value.is_empty() => {
                let value = crate::guard::text::excerpt(&value);
                Some(format!("{program} reads {value}, not {contains}: {advice}"))
            }
            _ => Some(format!("{program} does not read {contains}: {advice}")),
        }
    }
}

/// What the file at `path` imports.
fn imports(path: &str, document: &DocumentMut, files: &dyn Files) -> Vec<String> {
    let list = document.get("imports").and_then(Item::as_array);
    let names = list.into_iter().flatten().filter_map(|item| item.as_str());
    let (folder, _) = path.rsplit_once('/').unwrap_or_default();
    let mut texts = Vec::new();
    for name in names {
        let name = if name.starts_with('/') {
            name.to_owned()
        } else {
            format!("{folder}/{name}")
        };
        let Some((folder, stem, rest)) = name.rsplit_once('/').and_then(|(folder, last)| {
            let (stem, rest) = last.split_once('*')?;
            Some((folder, stem, rest))
        }) else {
            texts.extend(files.read(&name));
            continue;
        };
        let mut found = files.list(folder);
        found.sort();
        let fits = |name: &String| {
            name.len() >= stem.len() + rest.len() && name.starts_with(stem) && name.ends_with(rest)
        };
        for name in found.iter().filter(|name| fits(name)) {
            texts.extend(files.read(&format!("{folder}/{name}")));
        }
    }
    texts
}

/// Whether a path that somebody wrote is this folder.
fn is_path(written: &str, folder: &str) -> bool {
    written.trim_end_matches('/') == folder
}

fn value(document: &DocumentMut, key: &[&str]) -> Option<String> {
    let mut item = document.as_item();
    for name in key {
        item = item.get(name)?;
    }
    Some(item.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::containerd::CONFIG_PATH;

    struct Tree(BTreeMap<&'static str, String>);

    impl Files for Tree {
        fn read(&self, path: &str) -> Option<String> {
            self.0.get(path).cloned()
        }
        fn list(&self, path: &str) -> Vec<String> {
            let inside = |name: &&str| Some(name.strip_prefix(path)?.strip_prefix('/')?.to_owned());
            self.0.keys().filter_map(inside).collect()
        }
    }

    fn unmet(files: &[(&'static str, &str)]) -> String {
        let files = files.iter().map(|(path, text)| (*path, (*text).to_owned()));
        CONFIG_PATH
            .unmet(&Tree(files.collect()))
            .unwrap_or_default()
    }

    const MAIN: &str = "/etc/containerd/config.toml";
    const SET: &str =
        "[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = '/etc/containerd/certs.d'\n";
    const SET_3: &str = "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/x:/etc/containerd/certs.d/'\n";
    const UNSET: &str = "[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = ''\n";

    #[test]
    fn what_is_set_is_met() {
        assert_eq!(unmet(&[(MAIN, SET)]), "");
        assert_eq!(unmet(&[(MAIN, SET_3)]), "");
    }

    #[test]
    fn what_is_not_set_is_said() {
        let says = |files: &[(&'static str, &str)], words: &str| {
            let said = unmet(files);
            assert!(
                said.contains(words) && said.contains("config_path"),
                "{said}"
            );
        };
        says(&[], "has no /etc/containerd/config.toml");
        says(
            &[(MAIN, "version = 2")],
            "does not read /etc/containerd/certs.d",
        );
        says(&[(MAIN, UNSET)], "does not read /etc/containerd/certs.d");
        says(
            &[(MAIN, &SET.replace("certs.d", "other"))],
            "reads /etc/containerd/other, not",
        );
        assert!(unmet(&[(MAIN, "= x")]).contains("not valid TOML"));
    }

    #[test]
    fn a_line_may_name_the_path() {
        let setting = Setting {
            program: "chrony",
            paths: &["/etc/chrony/chrony.conf", "/etc/chrony.conf"],
            says: Says::Line("sourcedir"),
            contains: "/etc/chrony/sources.d",
            advice: "say so",
        };
        let unmet = |files: &[(&'static str, &str)]| {
            let files = files.iter().map(|(path, text)| (*path, (*text).to_owned()));
            setting.unmet(&Tree(files.collect())).unwrap_or_default()
        };
        let (first, second) = (setting.paths[0], setting.paths[1]);
        let says = "pool a\n sourcedir /run/x /etc/chrony/sources.d/\n";
        assert_eq!(unmet(&[(first, says)]), "");
        assert_eq!(unmet(&[(second, says)]), "");
        let not = "chrony does not read /etc/chrony/sources.d: say so";
        assert_eq!(
            unmet(&[(first, "# sourcedir /etc/chrony/sources.d"), (second, says)]),
            not
        );
        assert_eq!(unmet(&[(first, "sourcedir /etc/chrony/other")]), not);
        let none = "chrony has no /etc/chrony/chrony.conf or /etc/chrony.conf, and";
        assert!(unmet(&[]).starts_with(none), "{}", unmet(&[]));
    }

    #[test]
    fn imports_count_and_the_last_one_wins() {
        let main = format!("imports = ['/etc/containerd/conf.d/*.toml', 'own.toml']\n{UNSET}");
        assert_eq!(
            unmet(&[(MAIN, &main), ("/etc/containerd/conf.d/a.toml", SET)]),
            ""
        );
        assert_eq!(
            unmet(&[(MAIN, &main), ("/etc/containerd/own.toml", SET)]),
            ""
        );
        assert_ne!(
            unmet(&[(MAIN, &main), ("/etc/containerd/conf.d/a.toml.bak", SET)]),
            ""
        );
        let two = [
            (MAIN, main.as_str()),
            ("/etc/containerd/conf.d/a.toml", SET),
            ("/etc/containerd/conf.d/b.toml", UNSET),
        ];
        assert_ne!(unmet(&two), "");
        // One letter is not both what comes before the star and what comes behind it.
        let letter = format!("imports = ['/etc/containerd/x*x']\n{UNSET}");
        assert_ne!(unmet(&[(MAIN, &letter), ("/etc/containerd/x", SET)]), "");
        assert_eq!(unmet(&[(MAIN, &letter), ("/etc/containerd/xx", SET)]), "");
        let itself = format!("imports = ['config.toml']\n{SET}");
        assert_eq!(unmet(&[(MAIN, &itself)]), "");
    }
}
