//! What would become of files, as unified diffs. Pure.

use std::time::Duration;

use edict_core::guard::text;
use edict_core::wire;
use similar::TextDiff;

use crate::apply::Change;
use crate::host::{Whole, is_setting};

/// Lines around a change.
const CONTEXT: usize = 3;
/// After so long a diff may be longer than it has to be.
const PATIENCE: Duration = Duration::from_secs(2);
/// Who may look into a file that is shown: everybody.
const READABLE: u32 = 0o004;

/// What is said where nothing of a difference can be seen.
const MASKED: &str = "credentials, or nothing that is a line, differ";

/// What would become of a file, for who may read the host's files.
pub fn shown(change: &Change) -> wire::Change {
    let Change {
        path,
        before,
        after,
        secret,
        ..
    } = change;
    let diff = difference(path, before.as_ref(), after.as_ref(), *secret);
    said(change, diff.map(|diff| (diff, None)))
}

/// What would become of a file, for who may read the `NodeConfig`s and not the host's files: nothing that
/// was not written by Edict is shown of it.
pub fn public(change: &Change) -> wire::Change {
    let Change {
        path,
        before,
        after,
        secret,
        public,
        ..
    } = change;
    let side = |whole: &Option<Whole>, text: &Vec<u8>| {
        let whole = whole.as_ref()?;
        Some(Whole {
            content: text.clone(),
            meta: whole.meta,
        })
    };
    let old = side(before, &public.old);
    let new = side(after, &public.new);
    let diff = difference(path, old.as_ref(), new.as_ref(), *secret);
    said(change, diff.map(|diff| (diff, public.rest)))
}

/// The change with its diff, and why that is not all of it; or why there is none.
fn said(
    change: &Change,
    diff: Result<(String, Option<&'static str>), &'static str>,
) -> wire::Change {
    let Change {
        path,
        before,
        after,
        in_place,
        ..
    } = change;
    let (kind, meta) = match (before, after) {
        (Some(before), Some(after)) if before.meta != after.meta => {
            (wire::Kind::Change, Some([before, after].map(permissions)))
        }
        (Some(_), Some(_)) => (wire::Kind::Change, None),
        (None, _) => (wire::Kind::Create, None),
        (Some(_), None) => (wire::Kind::Remove, None),
    };
    let (diff, hidden) = match diff {
        Ok((diff, None)) if diff.is_empty() && meta.is_none() => (Some(diff), Some(MASKED)),
        Ok((diff, rest)) => (Some(diff), rest),
        Err(why) => (None, Some(why)),
    };
    wire::Change {
        path: path.clone(),
        change: kind,
        // The kernel's own, which are set and no files.
        in_place: *in_place && !is_setting(path),
        diff,
        hidden: hidden.map(ToOwned::to_owned),
        meta,
    }
}

fn permissions(whole: &Whole) -> String {
    let meta = whole.meta;
    format!("{:04o} {}:{}", meta.mode, meta.uid, meta.gid)
}

/// A unified diff, or why there is none.
fn difference(
    path: &str,
    before: Option<&Whole>,
    after: Option<&Whole>,
    secret: bool,
) -> Result<String, &'static str> {
    if secret {
        return Err("it comes from a Secret");
    }
    let mut sides = before.into_iter().chain(after);
    if sides.any(|whole| whole.meta.mode & READABLE == 0) {
        return Err("not everybody may read it");
    }
    let lines = |whole: Option<&'_ Whole>| {
        let content = whole.map_or(&[][..], |whole| &whole.content);
        // JSON may write the slashes of a URL so that it is not seen to be one.
        std::str::from_utf8(content)
            .map(|content| text::mask(&content.replace(":\\/\\/", "://")).into_owned())
    };
    let (Ok(old), Ok(new)) = (lines(before), lines(after)) else {
        return Err("it is no text");
    };
    let name = |whole: Option<&Whole>| whole.map_or("/dev/null", |_| path);
    let diff = TextDiff::configure()
        .timeout(PATIENCE)
        .diff_lines(&old, &new);
    let mut diff = diff.unified_diff();
    let diff = diff.context_radius(CONTEXT);
    Ok(diff.header(name(before), name(after)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Meta;

    fn whole(content: &str, mode: u32) -> Whole {
        Whole {
            content: content.into(),
            meta: Meta {
                mode,
                uid: 0,
                gid: 0,
            },
        }
    }

    #[test]
    fn a_diff_names_what_changes_and_hides_what_is_not_for_everybody() {
        let (one, two) = (whole("a\none\n", 0o644), whole("a\ntwo\n", 0o644));
        assert_eq!(
            difference("/etc/motd", Some(&one), Some(&two), false),
            Ok("--- /etc/motd\n+++ /etc/motd\n@@ -1,2 +1,2 @@\n a\n-one\n+two\n".to_owned())
        );
        assert_eq!(
            difference("/etc/motd", None, Some(&two), false),
            Ok("--- /dev/null\n+++ /etc/motd\n@@ -0,0 +1,2 @@\n+a\n+two\n".to_owned())
        );
        let secret = "it comes from a Secret";
        assert_eq!(difference("/etc/motd", None, Some(&two), true), Err(secret));
        let closed = whole("a", 0o640);
        for (before, after) in [(&closed, &two), (&two, &closed)] {
            let why = Err("not everybody may read it");
            assert_eq!(
                difference("/etc/motd", Some(before), Some(after), false),
                why
            );
        }
        let bytes = Whole {
            content: vec![0xff],
            ..one.clone()
        };
        let why = Err("it is no text");
        assert_eq!(
            difference("/etc/motd", Some(&one), Some(&bytes), false),
            why
        );
        let url = whole("proxy http://user:pass@proxy.example.com\n", 0o644);
        let escaped = whole("\"http:\\/\\/user:pass@proxy.example.com\"\n", 0o644);
        for url in [url, escaped] {
            let masked = difference("/etc/motd", None, Some(&url), false).unwrap();
            assert!(!masked.contains("pass@"), "{masked}");
        }
    }
}
