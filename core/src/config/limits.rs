//! `limits`: how much of the machine those have who log in.
//!
//! They are read at each login by PAM. Services have limits of their own, which stand in their units.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Block;
use crate::content::Contents;
use crate::format::Format;
use crate::guard::value::Amount;
use crate::guard::{Findings, Policy, rule, value};
use crate::resource::{KeyPath, Keys, Resource};

/// Where they stand: in the last file of the folder, which counts where several say something. Source:
/// limits.conf(5).
pub const PATH: &str = "/etc/security/limits.d/zz-edict.conf";

/// Limits of those who log in to the node. They hold from the next login on; services have theirs from
/// their units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["domain", "item", "type"]))]
pub struct Limits(#[schemars(length(max = 64))] pub Vec<Limit>);

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Limit {
    /// Who has it: a user, @ and a group, or * for everybody but root.
    #[schemars(length(min = 1, max = 33))]
    pub domain: String,
    /// Soft, which the user may raise up to the hard one; Hard; or Both.
    #[serde(rename = "type")]
    pub kind: LimitType,
    /// What is limited, by the name that limits.conf(5) has for it: nofile are open files, nproc
    /// processes, memlock KiB of locked memory.
    pub item: LimitItem,
    /// How much: a number, or unlimited. Of nofile at most 1048576: with more than the kernel gives, PAM
    /// lets nobody in.
    #[schemars(length(min = 1, max = 19))]
    pub value: String,
}

/// How hard a limit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LimitType {
    /// The user may raise it up to the hard one.
    Soft,
    /// Only root may raise it.
    Hard,
    /// Both at once.
    Both,
}

/// What can be limited. Source: limits.conf(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(
    missing_docs,
    reason = "limits.conf(5) says what they are, in these words"
)]
pub enum LimitItem {
    As,
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Maxlogins,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Priority,
    Rss,
    Rtprio,
    Sigpending,
    Stack,
}

impl LimitType {
    fn words(self) -> &'static [&'static str] {
        match self {
            Self::Soft => &["soft"],
            Self::Hard => &["hard"],
            Self::Both => &["soft", "hard"],
        }
    }
}

impl LimitItem {
    fn word(self) -> &'static str {
        match self {
            Self::As => "as",
            Self::Core => "core",
            Self::Cpu => "cpu",
            Self::Data => "data",
            Self::Fsize => "fsize",
            Self::Locks => "locks",
            Self::Maxlogins => "maxlogins",
            Self::Memlock => "memlock",
            Self::Msgqueue => "msgqueue",
            Self::Nice => "nice",
            Self::Nofile => "nofile",
            Self::Nproc => "nproc",
            Self::Priority => "priority",
            Self::Rss => "rss",
            Self::Rtprio => "rtprio",
            Self::Sigpending => "sigpending",
            Self::Stack => "stack",
        }
    }
}

impl Limit {
    fn keys(&self) -> impl Iterator<Item = KeyPath> {
        let key = |kind: &&str| {
            KeyPath(
                [&self.domain, *kind, self.item.word()]
                    .map(str::to_owned)
                    .into(),
            )
        };
        self.kind.words().iter().map(key)
    }
}

impl Block for Limits {
    fn check(&self, policy: &Policy, _contents: &Contents, found: &mut Findings) {
        found.place("", PATH, policy);
        let mut keys = HashSet::new();
        for (index, limit) in self.0.iter().enumerate() {
            found.within(&format!("[{index}]"), |found| {
                found.one("domain", &limit.domain, value::limit_domain);
                let amount = match limit.item {
                    LimitItem::Nice | LimitItem::Priority => Amount::Priority,
                    LimitItem::Nofile => Amount::Files,
                    _ => Amount::Any,
                };
                found.one("value", &limit.value, |value| {
                    value::limit_value(value, amount)
                });
                for key in limit.keys().filter(|key| !keys.insert(key.clone())) {
                    found.add("", &rule::DUPLICATE, &key.to_string());
                }
            });
        }
    }

    fn render(&self, _contents: &Contents) -> Vec<Resource> {
        let values = self.0.iter().flat_map(|limit| {
            let value = Value::from(limit.value.clone());
            limit.keys().map(move |key| (key, value.clone()))
        });
        Resource::of_keys(Keys {
            path: PATH.to_owned(),
            format: Format::Limits,
            values: values.collect(),
            elsewhere: &[],
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::tests::{rendered, said};

    #[test]
    fn each_is_a_line_for_soft_and_one_for_hard() {
        let limits = json!({"limits": [
            {"domain": "*", "type": "Both", "item": "nofile", "value": "65536"},
            {"domain": "@ops", "type": "Hard", "item": "nproc", "value": "unlimited"},
            {"domain": "root", "type": "Soft", "item": "nice", "value": "-5"},
        ]});
        assert_eq!(said(&limits), [""; 0]);
        let at = PATH;
        assert_eq!(
            rendered(&limits),
            [
                format!("{at} *.hard.nofile=\"65536\""),
                format!("{at} *.soft.nofile=\"65536\""),
                format!("{at} @ops.hard.nproc=\"unlimited\""),
                format!("{at} root.soft.nice=\"-5\""),
            ]
        );
    }

    #[test]
    fn a_word_is_that_of_the_schema() {
        let schema = serde_json::to_value(schemars::schema_for!(LimitItem)).unwrap();
        let words = schema["enum"].as_array().unwrap();
        for word in words {
            let item: LimitItem = serde_json::from_value(word.clone()).unwrap();
            assert_eq!(item.word(), word);
        }
        assert_eq!(words.len(), 17);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let limit = |domain: &str, kind: &str, item: &str, value: &str| json!({"domain": domain, "type": kind, "item": item, "value": value});
        for (limits, violations) in [
            (
                vec![limit("a b", "Soft", "nofile", "1")],
                vec!["limits[0].domain limit-domain", "limits[0].domain blank"],
            ),
            (
                vec![limit("*", "Soft", "nofile", "lots")],
                vec!["limits[0].value limit-value"],
            ),
            (
                vec![limit("*", "Soft", "nofile", "-5")],
                vec!["limits[0].value limit-value"],
            ),
            (
                vec![limit("*", "Soft", "nice", "20")],
                vec!["limits[0].value limit-value"],
            ),
            (
                vec![
                    limit("*", "Soft", "nofile", "1"),
                    limit("*", "Both", "nofile", "2"),
                ],
                vec!["limits[1] duplicate"],
            ),
        ] {
            assert_eq!(said(&json!({"limits": limits})), violations, "{limits:?}");
        }
    }
}
