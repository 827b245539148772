//! Whole files: taken, kept and given back.

use edict_core::layer::DeletionPolicy;
use edict_core::resource::File;

use super::{Back, Error, Planner};
use crate::host::{Found, Meta, Whole, is_table};
use crate::ledger::{FileEntry, Original, Stamp};

impl Planner<'_> {
    /// Has the file be as its owner wants it.
    pub(super) fn file(&mut self, path: &str, wanted: &File) -> Result<(), Error> {
        let found = self.found_file(path)?;
        let known = self.plan.ledger.files.remove(path);
        let original = match &known {
            Some(entry) => entry.original.clone(),
            None => match self.plan.ledger.keys.remove(path) {
                Some(keys) => {
                    let without = self.without_keys(path, &keys)?;
                    let without = without.or_found(self.found(path));
                    self.keep(without.as_ref())
                }
                None => self.keep(found),
            },
        };
        let mut meta = self.usual_meta(found, &original, known.as_ref());
        if let Some(mode) = wanted.mode {
            meta.mode = mode;
        }
        if let Some(owner) = wanted.owner {
            (meta.uid, meta.gid) = (owner.uid, owner.gid);
        }
        let whole = Whole {
            content: wanted.content.clone(),
            meta,
        };
        let written = vec![Stamp::of(&whole)];
        self.write(path, whole);
        let entry = FileEntry { original, written };
        self.plan.ledger.files.insert(path.to_owned(), entry);
        Ok(())
    }

    /// Permissions and owner where the owner of the file does not say: those that the file would
    /// have without Edict, so that they depend on no earlier revision; or what somebody gave it.
    fn usual_meta(
        &self,
        found: Option<&Whole>,
        original: &Original,
        known: Option<&FileEntry>,
    ) -> Meta {
        let before = match original {
            Original::Present(stamp) => stamp.meta,
            Original::Absent => self.new_meta(),
        };
        let Some(found) = found else {
            return before;
        };
        let by_edict = |entry: &FileEntry| entry.written.iter().any(|w| w.meta == found.meta);
        match known {
            Some(entry) if by_edict(entry) => before,
            _ => found.meta,
        }
    }

    /// How `path` is without Edict's file.
    pub(super) fn without_file(&mut self, path: &str, entry: &FileEntry) -> Result<Back, Error> {
        let found = self.found(path);
        let file = found.file();
        let given_back = match found {
            Found::Absent => entry.original == Original::Absent,
            _ => file.is_some() && entry.original.is(file),
        };
        let replaceable = matches!(found, Found::Absent | Found::File(_));
        // Edict's own table is nobody else's, whatever it says.
        let own = self.leaving == DeletionPolicy::RestoreForced || is_table(path);
        let forced = own && replaceable;
        if self.leaving == DeletionPolicy::Retain || given_back {
            Ok(Back::AsFound)
        } else if entry.wrote(file) || forced {
            Ok(Back::To(self.original(path, &entry.original)?))
        } else {
            Ok(self.foreign(path.to_owned()))
        }
    }
}
