//! What a push would do: the answer to [`PLAN`](super::PLAN).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Report;
use crate::resource::Action;

/// What a push would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    /// What the agent would say of it.
    pub report: Report,
    /// Each file that would be another one afterwards, by path.
    pub changes: Vec<Change>,
    /// What would be done with units, by name.
    pub units: BTreeMap<String, Action>,
    /// What would be run, in this order: who runs it, and what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<PlannedCommand>,
}

/// A command that would be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedCommand {
    /// Name of the `NodeConfig`.
    pub owner: String,
    /// Its name in the catalogue.
    pub run: String,
    /// The program's path, and its arguments.
    pub argv: Vec<String>,
}

impl fmt::Display for PlannedCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            owner: _,
            run,
            argv,
        } = self;
        write!(f, "{run}:")?;
        for argument in argv {
            // As a shell would have it, so that one with a blank in it is seen as one.
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
            if !argument.is_empty() && argument.chars().all(plain) {
                write!(f, " {argument}")?;
            } else {
                write!(f, " '{}'", argument.replace('\'', r"'\''"))?;
            }
        }
        Ok(())
    }
}

/// What would become of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Its path, symlinks resolved.
    pub path: String,
    /// In a word.
    pub change: Kind,
    /// Whether it is a mount point, and so would be written over in its place.
    pub in_place: bool,
    /// A unified diff, credentials masked; empty where only permissions or owner differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
    /// Why there is no diff, or not all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<String>,
    /// Permissions and owner before and after, `0644 0:0`; absent where they stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<[String; 2]>,
}

/// What would become of a file, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// There is none, and there would be one.
    Create,
    /// It would be another one.
    Change,
    /// There would be none any more.
    Remove,
}

impl Planned {
    /// Cuts the diffs, so that all of them together have no more than `most` bytes. What is cut says so.
    pub fn cut(&mut self, most: usize) {
        let mut left = most;
        for change in &mut self.changes {
            let Some(diff) = &mut change.diff else {
                continue;
            };
            if diff.len() > left {
                // Whole lines only.
                let fits = diff.floor_char_boundary(left);
                let end = diff[..fits].rfind('\n').map_or(0, |end| end + 1);
                let more = diff[end..].lines().count();
                diff.truncate(end);
                change.hidden = Some(format!("{more} more lines of the diff are left out"));
            }
            left -= diff.len();
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            change,
            in_place,
            diff,
            hidden,
            meta,
        } = self;
        match (diff.as_deref().unwrap_or_default(), hidden) {
            ("", Some(why)) => writeln!(f, "{change:?} {path}: not shown, {why}")?,
            ("", None) => writeln!(f, "{change:?} {path}")?,
            (diff, why) => {
                f.write_str(diff)?;
                if let Some(why) = why {
                    writeln!(f, "{path}: {why}")?;
                }
            }
        }
        if let Some([before, after]) = meta {
            writeln!(f, "{path}: {before} -> {after}")?;
        }
        if *in_place {
            writeln!(
                f,
                "{path} is a mount point: it is written over in its place"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(diff: Option<&str>) -> Change {
        Change {
            path: "/etc/a".to_owned(),
            change: Kind::Change,
            in_place: false,
            diff: diff.map(ToOwned::to_owned),
            hidden: None,
            meta: None,
        }
    }

    fn cut(diffs: &[&str], most: usize) -> Vec<(String, Option<String>)> {
        let mut planned = Planned {
            report: Report::default(),
            changes: diffs.iter().map(|diff| change(Some(diff))).collect(),
            units: BTreeMap::new(),
            commands: Vec::new(),
        };
        planned.cut(most);
        let cut = planned.changes.into_iter();
        cut.map(|change| (change.diff.unwrap(), change.hidden))
            .collect()
    }

    #[test]
    fn what_is_too_long_is_cut_at_a_line_and_says_so() {
        let left_out = |n| Some(format!("{n} more lines of the diff are left out"));
        let whole = |diff: &str| (diff.to_owned(), None);
        assert_eq!(cut(&["a\nb\n", "c\n"], 6), [whole("a\nb\n"), whole("c\n")]);
        assert_eq!(
            cut(&["a\nb\n", "c\n", "d\n"], 5),
            [
                whole("a\nb\n"),
                (String::new(), left_out(1)),
                (String::new(), left_out(1))
            ]
        );
        assert_eq!(cut(&["a\nb\n"], 3), [("a\n".to_owned(), left_out(1))]);
        // What is shorter still has room.
        assert_eq!(
            cut(&["äöü\n", "c\n"], 3),
            [(String::new(), left_out(1)), whole("c\n")]
        );
        assert_eq!(cut(&["a\nb"], 0), [(String::new(), left_out(2))]);
    }

    #[test]
    fn a_change_reads_as_a_diff_or_says_why_not() {
        let text = |change: Change| change.to_string();
        assert_eq!(text(change(Some("+a\n"))), "+a\n");
        assert_eq!(text(change(Some(""))), "Change /etc/a\n");
        let hidden = Change {
            change: Kind::Create,
            hidden: Some("for a reason".to_owned()),
            ..change(None)
        };
        assert_eq!(
            text(hidden.clone()),
            "Create /etc/a: not shown, for a reason\n"
        );
        let long = Change {
            diff: Some("+a\n".to_owned()),
            ..hidden
        };
        assert_eq!(text(long), "+a\n/etc/a: for a reason\n");
        let other = Change {
            in_place: true,
            meta: Some(["0644 0:0", "0600 0:0"].map(ToOwned::to_owned)),
            ..change(Some(""))
        };
        assert_eq!(
            text(other),
            "Change /etc/a\n/etc/a: 0644 0:0 -> 0600 0:0\n\
             /etc/a is a mount point: it is written over in its place\n"
        );
    }
}
