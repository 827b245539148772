//! Single keys of files that others write to as well: taken, kept and given back on the text.

use edict_core::format::{self, Format};
use edict_core::layer::DeletionPolicy;
use edict_core::resolve::SharedFile;
use edict_core::resource::{KeyPath, Place};
use serde_json::Value;

use super::{Back, Error, Planner};
use crate::host::{Found, Whole};
use crate::ledger::{Before, KeyEntry, KeysEntry, Original};

impl Planner<'_> {
    /// Has the keys be as their owners want them.
    pub(super) fn keys(&mut self, path: &str, wanted: &SharedFile) -> Result<(), Error> {
        let format = wanted.format;
        let found = self.found_file(path)?.cloned();
        // What the keys are set in: the file without what Edict no longer has in it.
        let base = match self.plan.ledger.files.remove(path) {
            Some(entry) => self.without_file(path, &entry)?.or_found(self.found(path)),
            None => found,
        };
        let known = self.plan.ledger.keys.remove(path);
        let mut text = match &base {
            Some(whole) => text_of(path, whole)?.to_owned(),
            None => String::new(),
        };
        format.check(&text).map_err(misread(path))?;
        let mut entry = match known {
            Some(mut entry) => {
                entry.pristine = entry.pristine
                    && (entry.wrote(text.as_bytes()) || entry.original.is(base.as_ref()));
                let (kept, gone): (Vec<_>, Vec<_>) = entry
                    .keys
                    .drain(..)
                    .partition(|entry| wanted.values.contains_key(&entry.key));
                entry.keys = kept;
                // What stays for good is in the file from now on: its first bytes are not what it
                // is given back as.
                if self.leaving == DeletionPolicy::Retain && !gone.is_empty() {
                    entry.pristine = false;
                }
                text = self.return_keys(path, format, text, &gone);
                entry
            }
            None => KeysEntry {
                format,
                original: self.keep(base.as_ref()),
                written: Vec::new(),
                pristine: true,
                keys: Vec::new(),
            },
        };
        for (key, owned) in &wanted.values {
            let known = entry.key(key).map(|known| known.original.clone());
            let is_known = known.is_some();
            let original = match known {
                Some(original) => original,
                None => Before::from(format.get(&text, key).map_err(misread(path))?),
            };
            entry.keys.retain(|known| known.key != *key);
            entry.keys.push(KeyEntry {
                key: key.clone(),
                original,
                written: vec![owned.what.clone()],
            });
            match format.set(&text, key, &owned.what) {
                Ok(set) => text = set,
                Err(_) if is_known && self.facts.layer != Some(&*owned.by) => {
                    self.plan.foreign.push(format!("{path}: {key}"));
                    self.plan.spoiled.insert(Place::key(path, key));
                }
                Err(error) => return Err(misread(path)(error)),
            }
        }
        let whole = Whole {
            content: text.into_bytes(),
            meta: base.map_or_else(|| self.new_meta(), |whole| whole.meta),
        };
        entry.written = vec![edict_core::digest::of_bytes(&whole.content)];
        self.write(path, whole);
        self.plan.ledger.keys.insert(path.to_owned(), entry);
        Ok(())
    }

    /// How `path` is without Edict's keys.
    pub(super) fn without_keys(&mut self, path: &str, entry: &KeysEntry) -> Result<Back, Error> {
        let forced = self.leaving == DeletionPolicy::RestoreForced;
        let found = match self.found(path) {
            _ if self.leaving == DeletionPolicy::Retain => return Ok(Back::AsFound),
            Found::File(whole) => whole,
            Found::Absent if entry.original == Original::Absent => return Ok(Back::AsFound),
            Found::Absent if forced => {
                return Ok(Back::To(self.original(path, &entry.original)?));
            }
            _ => return Ok(self.foreign(path.to_owned())),
        };
        if entry.original.is(Some(found)) {
            return Ok(Back::AsFound);
        }
        let Some(text) = text_of(path, found)
            .ok()
            .filter(|text| entry.format.check(text).is_ok())
        else {
            // Somebody else's text through and through.
            return if forced {
                Ok(Back::To(self.original(path, &entry.original)?))
            } else {
                Ok(self.foreign(path.to_owned()))
            };
        };
        let left = self.plan.foreign.len();
        let returned = self.return_keys(path, entry.format, text.to_owned(), &entry.keys);
        let complete = self.plan.foreign.len() == left;
        if complete && entry.pristine && entry.wrote(&found.content) {
            let original = self.original(path, &entry.original)?;
            // Permissions that somebody else gave the file since are not the keys' concern.
            return Ok(Back::To(original.map(|whole| Whole {
                meta: found.meta,
                ..whole
            })));
        }
        if entry.original == Original::Absent && complete && entry.format.is_empty(&returned) {
            return Ok(Back::To(None));
        }
        Ok(Back::To(Some(Whole {
            content: returned.into_bytes(),
            meta: found.meta,
        })))
    }

    /// `text` with these keys as they were before Edict. A value that somebody else changed is left.
    fn return_keys(
        &mut self,
        path: &str,
        format: Format,
        mut text: String,
        keys: &[KeyEntry],
    ) -> String {
        if self.leaving == DeletionPolicy::Retain {
            return text;
        }
        let forced = self.leaving == DeletionPolicy::RestoreForced;
        for entry in keys {
            // Somebody has set it a second time.
            let Ok(now) = format.get(&text, &entry.key) else {
                self.plan.foreign.push(format!("{path}: {}", entry.key));
                continue;
            };
            if now.as_ref() == entry.original.value() {
                continue;
            }
            let by_edict = now.is_some_and(|value| entry.written.contains(&value));
            let returned = (by_edict || forced)
                .then(|| put_back(format, &text, &entry.key, entry.original.value()).ok())
                .flatten();
            match returned {
                Some(returned) => text = returned,
                None => self.plan.foreign.push(format!("{path}: {}", entry.key)),
            }
        }
        text
    }
}

fn put_back(
    format: Format,
    text: &str,
    key: &KeyPath,
    value: Option<&Value>,
) -> Result<String, format::Error> {
    match value {
        Some(value) => format.set(text, key, value),
        None => format.unset(text, key),
    }
}

fn text_of<'a>(path: &str, whole: &'a Whole) -> Result<&'a str, Error> {
    std::str::from_utf8(&whole.content).map_err(|_| Error::NotText(path.to_owned()))
}

fn misread(path: &str) -> impl Fn(format::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::Format {
        path: path.clone(),
        error,
    }
}
