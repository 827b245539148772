//! Formats of files that others write to as well: single keys are read and changed on the text, and
//! every byte that is not the key's own stays as somebody wrote it.

pub mod assignment;
pub mod bundle;
pub mod json;
pub mod lines;
pub mod table;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::lines::Syntax;
use crate::resource::KeyPath;

/// The format of a file with owned keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// JSON with an object at the top (RFC 8259: no comments, no duplicate keys).
    #[default]
    Json,
    /// `KEY=value`, a line each, as in `/etc/environment`.
    Environment,
    /// `key = value`, a line each, as in `/etc/sysctl.d`.
    Sysctl,
    /// Addresses with their names, as in `/etc/hosts`.
    Hosts,
    /// Who may have how much of what, as in `/etc/security/limits.d`.
    Limits,
    /// Names, a line each, as in `/etc/modules-load.d`.
    Modules,
    /// Certificates in PEM form.
    Bundle,
}

/// Why a file's keys can't be read or changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// In JSON.
    #[error(transparent)]
    Json(#[from] json::Error),
    /// In lines.
    #[error(transparent)]
    Lines(#[from] lines::Error),
    /// In certificates.
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
}

/// What reads and writes a format.
enum Reader {
    Json,
    Lines(&'static dyn Syntax),
    Bundle,
}

impl Format {
    /// Whether this is the format of old, which nobody writes down.
    pub fn is_json(&self) -> bool {
        *self == Self::Json
    }

    fn reader(self) -> Reader {
        match self {
            Self::Json => Reader::Json,
            Self::Environment => Reader::Lines(&assignment::ENVIRONMENT),
            Self::Sysctl => Reader::Lines(&assignment::SYSCTL),
            Self::Hosts => Reader::Lines(&table::HOSTS),
            Self::Limits => Reader::Lines(&table::LIMITS),
            Self::Modules => Reader::Lines(&table::MODULES),
            Self::Bundle => Reader::Bundle,
        }
    }

    /// Whether keys can be set in `text`.
    pub fn check(self, text: &str) -> Result<(), Error> {
        // In the others, what says nothing is somebody else's.
        if self.is_json() {
            json::parse(text)?;
        }
        Ok(())
    }

    /// The value at `key`; `None` where there is none.
    pub fn get(self, text: &str, key: &KeyPath) -> Result<Option<Value>, Error> {
        Ok(match self.reader() {
            Reader::Json => json::get(text, key)?,
            Reader::Lines(lines) => lines.get(text, key)?.map(Value::from),
            Reader::Bundle => bundle::get(text, key).map(Value::from),
        })
    }

    /// `text` with `value` at `key`. What already says so stays as it is, byte for byte.
    pub fn set(self, text: &str, key: &KeyPath, value: &Value) -> Result<String, Error> {
        Ok(match self.reader() {
            Reader::Json => json::set(text, key, value)?,
            Reader::Lines(lines) => lines.set(text, key, value)?,
            Reader::Bundle => bundle::set(text, key, value)?,
        })
    }

    /// `text` without `key`, if it was there.
    pub fn unset(self, text: &str, key: &KeyPath) -> Result<String, Error> {
        Ok(match self.reader() {
            Reader::Json => json::unset(text, key)?,
            Reader::Lines(lines) => lines.unset(text, key)?,
            Reader::Bundle => bundle::unset(text, key),
        })
    }

    /// Whether the file says nothing at all.
    pub fn is_empty(self, text: &str) -> bool {
        match self.reader() {
            Reader::Json => json::is_empty(text),
            Reader::Lines(_) | Reader::Bundle => text.trim().is_empty(),
        }
    }
}
