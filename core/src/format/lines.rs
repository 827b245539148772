//! Files of lines of which each says something by itself: what they have in common.
//!
//! Values are texts, just as they stand in the file: quotes that somebody wrote are given back as they
//! were. A key that stands in several lines is an error where it is asked for: programs differ in which
//! of them they mean.

use std::ops::Range;

use serde_json::Value;

use crate::resource::KeyPath;

/// Why a file's keys can't be read or changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A key stands in several lines.
    #[error("{key} stands in lines {first} and {second}: keep one of them")]
    Twice {
        /// The key.
        key: String,
        /// The line where it stands first, from 1 on.
        first: usize,
        /// The line where it stands next.
        second: usize,
    },
    /// A key shares its line with others.
    #[error(
        "{key} stands in line {line} together with others: give it a line of its own, or take it out"
    )]
    Shared {
        /// The key.
        key: String,
        /// The line, from 1 on.
        line: usize,
    },
    /// What is to be set is no text of one line, or no key of such a file.
    #[error("{0} can't be set: a line has one key and a text")]
    NotALine(KeyPath),
}

/// What a line says.
pub struct Line {
    /// All of it, line break included.
    pub whole: Range<usize>,
    /// Its number, from 1 on.
    pub number: usize,
    /// Its key, in its one form.
    pub key: KeyPath,
    /// Its value.
    pub value: Range<usize>,
    /// Whether it says nothing else.
    pub alone: bool,
}

/// How the lines of a file are written.
pub trait Syntax {
    /// What the lines say, in their order. Those that say nothing are left out, and one that says several
    /// things is there for each.
    fn lines(&self, text: &str) -> Vec<Line>;

    /// The one form of a key that may be written in several.
    fn canonical(&self, key: &KeyPath) -> KeyPath;

    /// The line that gives `key` a value, without its end; `None` where no line can.
    fn line(&self, key: &KeyPath, value: &str) -> Option<String>;

    /// The value of `key`; `None` where there is none.
    fn get(&self, text: &str, key: &KeyPath) -> Result<Option<String>, Error> {
        let line = self.find(text, key)?;
        Ok(line.map(|line| text[line.value].to_owned()))
    }

    /// `text` with `value` at `key`. What already says so stays as it is, byte for byte.
    fn set(&self, text: &str, key: &KeyPath, value: &Value) -> Result<String, Error> {
        let refused = || Error::NotALine(key.clone());
        let value = value.as_str().ok_or_else(refused)?;
        let line = self.line(key, value).ok_or_else(refused)?;
        let mut changed = text.to_owned();
        if let Some(line) = self.find(text, key)? {
            changed.replace_range(line.value, value);
        } else {
            if !text.is_empty() && !text.ends_with('\n') {
                changed.push('\n');
            }
            changed.extend([&*line, "\n"]);
        }
        // Nothing else than that is said by it: no other key, and no other value.
        if matches!(self.get(&changed, key), Ok(Some(read)) if read == value)
            && self.lines(&changed).len() == self.with(text, key)
        {
            Ok(changed)
        } else {
            Err(refused())
        }
    }

    /// `text` without `key`, if it was there.
    fn unset(&self, text: &str, key: &KeyPath) -> Result<String, Error> {
        let mut changed = text.to_owned();
        if let Some(line) = self.find(text, key)? {
            changed.replace_range(line.whole, "");
        }
        Ok(changed)
    }

    /// How many keys there are once `key` is one of them.
    fn with(&self, text: &str, key: &KeyPath) -> usize {
        let lines = self.lines(text);
        let key = self.canonical(key);
        let there = lines.iter().any(|line| line.key == key);
        lines.len() + usize::from(!there)
    }

    /// The line of `key`.
    fn find(&self, text: &str, key: &KeyPath) -> Result<Option<Line>, Error> {
        let canonical = self.canonical(key);
        let lines = self.lines(text).into_iter();
        let mut lines = lines.filter(|line| line.key == canonical);
        match (lines.next(), lines.next()) {
            (Some(first), Some(second)) => Err(Error::Twice {
                key: key.to_string(),
                first: first.number,
                second: second.number,
            }),
            (Some(line), None) if !line.alone => Err(Error::Shared {
                key: key.to_string(),
                line: line.number,
            }),
            (line, _) => Ok(line),
        }
    }
}
