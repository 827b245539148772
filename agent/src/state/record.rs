//! What one of the two files of the state says of itself: which record it is, after which other one, and
//! whether all of it is there. Pure.
//!
//! ```text
//! {"sha256":"<of all that follows>","sequence":7,"after":"<the sha256 of another record>",<the state>}
//! ```
//!
//! Behind it there are line feeds, so that the file can be written over in its place at the length that it has.
//!
//! An older agent reads past these three, and its own files have none of them.

use edict_core::digest;
use serde::{Deserialize, Serialize};

/// What stands before the digest.
const BEGIN: &[u8] = b"{\"sha256\":\"";
/// How long that is, in hexadecimal digits.
const DIGEST: usize = 64;
/// What stands behind it.
const BEHIND: &[u8] = b"\",";

/// What the length of a file is a multiple of: a disk writes no less than a page.
const PAGE: usize = 4096;
/// What is behind a record.
const FILL: u8 = b'\n';

/// What a record says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Tells it from every other one.
    pub name: String,
    /// Greater than that of every one before.
    pub sequence: u64,
    /// Which record it was written after, where that stays as it is.
    pub after: Option<String>,
    /// Whether it says by itself that all of it is there. An older agent's does not: a new record that is torn over
    /// it might look like it.
    pub sealed: bool,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    sequence: u64,
    #[serde(default)]
    after: Option<String>,
}

/// What a state is written as, and what it is called from then on.
pub fn written(
    state: &impl Serialize,
    sequence: u64,
    after: Option<&str>,
) -> Result<(Vec<u8>, Record), serde_json::Error> {
    let state = serde_json::to_string(state)?;
    let state = state.strip_prefix('{').unwrap_or(&state);
    let after_it = after
        .map(|after| format!("\"after\":\"{after}\","))
        .unwrap_or_default();
    let rest = format!("\"sequence\":{sequence},{after_it}{state}");
    let name = digest::of_bytes(rest.as_bytes());
    let content = [BEGIN, name.as_bytes(), BEHIND, rest.as_bytes()].concat();
    let after = after.map(ToOwned::to_owned);
    Ok((
        content,
        Record {
            name,
            sequence,
            after,
            sealed: true,
        },
    ))
}

/// A record at the length of a file that is to have it: so many pages as it takes, and no fewer bytes than the file
/// has.
pub fn filled(mut content: Vec<u8>, length: usize) -> Vec<u8> {
    let pages = content.len().next_multiple_of(PAGE);
    content.resize(pages.max(length), FILL);
    content
}

/// What a file says that is there as a whole; `None` where it is torn.
pub fn read(content: &[u8]) -> Option<Record> {
    let end = content.iter().rposition(|byte| *byte != FILL)?;
    let content = &content[..=end];
    let Some(rest) = content.strip_prefix(BEGIN) else {
        // Older agents give a whole file its name, or none.
        let Said { sequence, after } = serde_json::from_slice(content).ok()?;
        let name = digest::of_bytes(content);
        return Some(Record {
            name,
            sequence,
            after,
            sealed: false,
        });
    };
    let (name, rest) = rest.split_at_checked(DIGEST)?;
    let rest = rest.strip_prefix(BEHIND)?;
    if digest::of_bytes(rest).as_bytes() != name {
        return None;
    }
    let Said { sequence, after } = serde_json::from_slice(content).ok()?;
    let name = String::from_utf8_lossy(name).into_owned();
    Some(Record {
        name,
        sequence,
        after,
        sealed: true,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let state = json!({"version": 3, "layers": {"uid": {"name": "a"}}});
        for after in [None, Some("ab")] {
            let (content, record) = written(&state, 7, after).unwrap();
            assert_eq!((record.sequence, record.after.as_deref()), (7, after));
            assert_eq!(read(&content), Some(record));
            // And by who knows nothing of records.
            let whole: Value = serde_json::from_slice(&content).unwrap();
            assert_eq!(
                (&whole["version"], &whole["layers"]),
                (&state["version"], &state["layers"])
            );
        }
        let one = written(&state, 7, None).unwrap().1.name;
        assert_ne!(one, written(&state, 8, None).unwrap().1.name);
    }

    #[test]
    fn what_an_older_agent_wrote_is_the_first() {
        let old = b"{\"version\":2,\"layers\":{}}";
        let record = read(old).unwrap();
        assert_eq!(
            (record.sequence, record.after, record.sealed),
            (0, None, false)
        );
        assert_eq!(record.name, digest::of_bytes(old));
        for broken in [
            &b""[..],
            b"{\"version\":2",
            b"\0\0\0",
            b"{\"sha256\":\"",
            b"no",
        ] {
            assert_eq!(read(broken), None, "{broken:?}");
        }
    }

    proptest! {
        /// Cut, with holes, or with another record's end.
        #[test]
        fn what_is_torn_is_no_record(text in ".{0,200}", at in 0_usize..400, hole in 1_usize..50) {
            let (content, _) = written(&json!({"text": text}), 1, Some("ab")).unwrap();
            let (other, _) = written(&json!({"text": text, "more": 1}), 2, None).unwrap();
            let at = at % content.len();
            prop_assert_eq!(read(&content[..at]), None);
            let mut holed = content.clone();
            let end = (at + hole).min(holed.len());
            holed[at..end].fill(0);
            prop_assert_eq!(read(&holed), None);
            // Written over another one, in pages that did not all come through, or that all did.
            for length in [0, 600, PAGE, PAGE + 1] {
                let [one, two] = [&content, &other].map(|record| filled(record.clone(), length));
                prop_assert_eq!(one.len(), length.max(PAGE));
                prop_assert_eq!(read(&one).map(|record| record.sequence), Some(1));
                let mixed = [&one[..at], &two[at..]].concat();
                if mixed != one && mixed != two {
                    prop_assert_eq!(read(&mixed), None);
                }
            }
            let mixed = [&content[..at], other.get(at..).unwrap_or_default()].concat();
            if mixed != other && mixed != content {
                prop_assert_eq!(read(&mixed), None);
            }
        }
    }
}
