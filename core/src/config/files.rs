//! `files`: whole files under `/etc`, with their content in the `NodeConfig` or by reference.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Block, Notify};
use crate::content::{Contents, Reference, Source};
use crate::guard::{Findings, Policy, path, rule, value};
use crate::resource::{self, Owner, Resource};

/// The most bytes that one file's inline content may have.
///
/// An object in etcd has 1.5 MiB at most, and a revision stands there beside its `NodeConfig`.
pub const CONTENT_MAX: usize = 64 * 1024;
/// The most bytes that the inline contents of one `NodeConfig` may have together.
pub const CONTENT_TOTAL_MAX: usize = 192 * 1024;

/// The field that was not there from the start.
pub(super) const NOTIFY: &str = "files.notify";

/// Whole files, one for each path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["path"]))]
pub struct Files(#[schemars(length(max = 64))] pub Vec<File>);

/// One whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.content) != has(self.contentFrom)", "message": "give either content or contentFrom"},
]))]
pub struct File {
    /// Where the file is, for example "/etc/motd". Absolute, without "." or "..", and in a place
    /// where Edict may write: see the README for the paths that are allowed from the start and how
    /// a Fleet allows more.
    #[schemars(length(min = 1, max = 512), extend("x-kubernetes-validations" = [
        {"rule": "self.startsWith('/etc/')", "message": "must be an absolute path under /etc/, for example /etc/motd"},
        {"rule": "!self.split('/').exists(part, part == '..' || part == '.')", "message": "must not have '.' or '..' in it: write the path that is meant"},
        {"rule": path::forbidden_rule(), "message": "is a path that no setting allows (accounts, sudo, ssh, the cluster's own keys): change it by the host's own means"},
    ]))]
    pub path: String,
    /// What the file says, all of it. 64 KiB at most, and 192 KiB for all files of one NodeConfig.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub content: Option<String>,
    /// Takes what the file says from a ConfigMap or Secret in Edict's own namespace: up to 1 MiB
    /// for all of one NodeConfig. When that changes, the file changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_from: Option<Source>,
    /// Permissions as an octal number in quotes, for example "0644". If left out, a file from a
    /// Secret gets "0600"; of others an existing file keeps its own, and a new one gets "0644".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 4), extend("x-kubernetes-validations" = [
        {"rule": "self.matches('^0?[0-7]{3}$')", "message": "must be an octal number of three digits in quotes, for example \"0644\" (no set-uid, set-gid or sticky bit)"},
    ]))]
    pub mode: Option<String>,
    /// Who owns the file. If left out, an existing file keeps its owner and a new one is root's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<FileOwner>,
    /// Units that read the file, and are told when it has changed. What a Fleet's or this NodeConfig's
    /// spec.restarts does not allow is left for later, and the status says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["unit"]))]
    pub notify: Option<Vec<Notify>>,
}

/// Who owns a file, in numbers: names may differ from node to node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileOwner {
    /// Number of the user, 0 for root.
    #[schemars(range(min = 0, max = 4_294_967_294_u32))]
    pub uid: u32,
    /// Number of the group, 0 for root.
    #[schemars(range(min = 0, max = 4_294_967_294_u32))]
    pub gid: u32,
}

impl Block for Files {
    fn check(&self, policy: &Policy, contents: &Contents, found: &mut Findings) {
        let mut paths = HashSet::new();
        for (index, file) in self.0.iter().enumerate() {
            found.within(&format!("[{index}]"), |found| {
                found.one("path", &file.path, |text| path::check(text, policy));
                if file.inline() > CONTENT_MAX {
                    let size = format!("{} bytes", file.inline());
                    found.add("content", &rule::CONTENT_SIZE, &size);
                }
                if file.content.is_some() == file.content_from.is_some() {
                    let given = if file.content.is_some() {
                        "both"
                    } else {
                        "neither"
                    };
                    found.add("content", &rule::CONTENT_SOURCE, given);
                }
                if let Some(source) = &file.content_from {
                    found.within("contentFrom", |found| {
                        super::source(source, contents, found);
                    });
                }
                if let Some(mode) = &file.mode {
                    found.one("mode", mode, value::mode);
                }
                if file
                    .owner
                    .is_some_and(|owner| owner.uid == u32::MAX || owner.gid == u32::MAX)
                {
                    found.add("owner", &rule::OWNER, "4294967295");
                }
                let mut units = HashSet::new();
                for (index, notify) in file.notify.iter().flatten().enumerate() {
                    found.within(&format!("notify[{index}]"), |found| {
                        notify.check(found);
                        if !units.insert(&notify.unit) {
                            found.add("unit", &rule::DUPLICATE, &notify.unit);
                        }
                    });
                }
                if !paths.insert(&file.path) {
                    found.add("path", &rule::DUPLICATE, &file.path);
                }
            });
        }
        let total: usize = self.0.iter().map(File::inline).sum();
        if total > CONTENT_TOTAL_MAX {
            found.add("", &rule::CONTENT_TOTAL, &format!("{total} bytes"));
        }
    }

    fn references(&self) -> Vec<Reference> {
        self.0.iter().filter_map(File::reference).collect()
    }

    fn fields(&self) -> Vec<&'static str> {
        let notifies = self.0.iter().any(|file| file.notify.is_some());
        notifies.then_some(NOTIFY).into_iter().collect()
    }

    fn render(&self, contents: &Contents) -> Vec<Resource> {
        let file = |file: &File| {
            let reference = file.reference();
            let content = match (&file.content, &reference) {
                (Some(content), _) => content.as_bytes(),
                (None, reference) => contents.get(reference.as_ref()?)?,
            };
            let secret = reference.is_some_and(|reference| reference.is_secret());
            let mode = file.mode.as_deref().and_then(value::parse_mode);
            Some(Resource::File(resource::File {
                path: file.path.clone(),
                content: content.to_vec(),
                mode: mode.or(secret.then_some(0o600)),
                owner: file.owner.map(|FileOwner { uid, gid }| Owner { uid, gid }),
                secret,
            }))
        };
        let notified = |file: &File| {
            let path = file.path.clone();
            let units = file.notify.clone().into_iter().flatten();
            units.map(move |notify| notify.render(&path))
        };
        let files = self.0.iter().filter_map(file);
        files.chain(self.0.iter().flat_map(notified)).collect()
    }
}

impl File {
    /// How many bytes of content stand in the `NodeConfig`.
    fn inline(&self) -> usize {
        self.content.as_ref().map_or(0, String::len)
    }

    fn reference(&self) -> Option<Reference> {
        self.content_from.as_ref()?.reference()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::content::Content;

    fn file(path: &str) -> File {
        File {
            path: path.into(),
            content: Some("hello\n".into()),
            content_from: None,
            mode: None,
            owner: None,
            notify: None,
        }
    }

    fn rules(files: Vec<File>) -> Vec<(String, String)> {
        let config = Config {
            files: Some(Files(files)),
            ..Config::default()
        };
        config
            .check(&Policy::default(), &Contents::default())
            .into_iter()
            .map(|v| (v.field, v.rule))
            .collect()
    }

    fn one(field: &str, rule: &str) -> Vec<(String, String)> {
        vec![(field.into(), rule.into())]
    }

    #[test]
    fn a_plain_file_passes_and_renders() {
        let mut full = file("/etc/motd");
        full.mode = Some("0600".into());
        full.owner = Some(FileOwner { uid: 1, gid: 2 });
        assert_eq!(rules(vec![full.clone(), file("/etc/issue")]), []);
        assert_eq!(
            Files(vec![full, file("/etc/issue")]).render(&Contents::default()),
            [
                Resource::File(resource::File {
                    path: "/etc/motd".into(),
                    content: b"hello\n".into(),
                    mode: Some(0o600),
                    owner: Some(Owner { uid: 1, gid: 2 }),
                    secret: false,
                }),
                Resource::File(resource::File {
                    path: "/etc/issue".into(),
                    content: b"hello\n".into(),
                    mode: None,
                    owner: None,
                    secret: false,
                }),
            ]
        );
    }

    #[test]
    fn content_from_elsewhere_is_found_and_a_secret_s_is_for_root_alone() {
        for (source, reference, mode) in [
            ("configMapKeyRef", "ConfigMap/a/k", None),
            ("secretKeyRef", "Secret/a/k", Some(0o600)),
        ] {
            let reference: Reference = reference.parse().unwrap();
            let files = |mode: &serde_json::Value| -> Files {
                serde_json::from_value(serde_json::json!([{
                    "path": "/etc/motd", "mode": mode,
                    "contentFrom": {source: {"name": "a", "key": "k"}},
                }]))
                .unwrap()
            };
            let plain = files(&serde_json::Value::Null);
            assert_eq!(plain.references(), std::slice::from_ref(&reference));
            let content = Content::new(b"key", b"x".to_vec());
            let contents = Contents([(reference, content)].into());
            let rendered = |files: Files| match files.render(&contents).pop() {
                Some(Resource::File(file)) => (file.content, file.mode),
                other => unreachable!("{other:?}"),
            };
            assert_eq!(rendered(plain), (b"x".to_vec(), mode));
            assert_eq!(rendered(files(&"0640".into())).1, Some(0o640));
        }
        assert_eq!(Files(vec![file("/etc/motd")]).references(), []);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(
            rules(vec![file("/etc/shadow")]),
            one("files[0].path", "path-forbidden")
        );
        assert_eq!(
            rules(vec![file("/etc/motd"), file("/etc/motd")]),
            one("files[1].path", "duplicate")
        );
        let mut strange = file("/etc/motd");
        strange.mode = Some("4755".into());
        assert_eq!(rules(vec![strange]), one("files[0].mode", "mode"));
        for owner in [
            FileOwner {
                uid: u32::MAX,
                gid: 0,
            },
            FileOwner {
                uid: 0,
                gid: u32::MAX,
            },
        ] {
            let mut nobody = file("/etc/motd");
            nobody.owner = Some(owner);
            assert_eq!(rules(vec![nobody]), one("files[0].owner", "owner"));
        }
    }

    #[test]
    fn sizes_are_limited_to_the_byte() {
        let sized = |path: &str, size: usize| File {
            content: Some("x".repeat(size)),
            ..file(path)
        };
        assert_eq!(rules(vec![sized("/etc/motd", CONTENT_MAX)]), []);
        assert_eq!(
            rules(vec![sized("/etc/motd", CONTENT_MAX + 1)]),
            one("files[0].content", "content-size")
        );
        let three =
            || ["/etc/motd", "/etc/issue", "/etc/issue.net"].map(|path| sized(path, CONTENT_MAX));
        assert_eq!(rules(three().into()), []);
        let mut more: Vec<_> = three().into();
        more.push(sized("/etc/hosts", 1));
        assert_eq!(rules(more), one("files", "content-total"));
    }
}
