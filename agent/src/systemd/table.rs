//! Edict's own table of nftables, by the host's nft.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use edict_core::config::firewall::mark;
use edict_core::digest;
use serde::Deserialize;

use super::{OUTPUT_MAX, Systemd};
use crate::units::{Error, UNKNOWN, Units as _};

/// Source: the Filesystem Hierarchy Standard, 4.10; distributions that have one folder link the other to it.
const NFT: &str = "/usr/sbin/nft";
/// How long nft may take: less than an operator waits for a plan.
const WITHIN: Duration = Duration::from_secs(15);
/// The most bytes that are read of a table: kube-proxy has some for each service. Within an agent's memory.
pub(super) const RULES_MAX: u64 = 8 * 1024 * 1024;
/// What the copies of what was loaded are called, and beside each the digest of what nft made of it.
const PREFIX: &str = "edict-table-";

/// Stands before the script of a table that is not as it was loaded.
const CHANGED: &str = "# Changed since it was loaded.\n";

/// Edict's own.
const FAMILY: &str = "inet";
const TABLE: &str = "edict";

/// What `nft --json list tables` says.
#[derive(Deserialize)]
struct Tables {
    nftables: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    table: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    family: String,
    name: String,
}

impl Tables {
    fn has(&self, family: &str, name: &str) -> bool {
        let mut tables = self.nftables.iter().filter_map(|one| one.table.as_ref());
        tables.any(|table| table.family == family && table.name == name)
    }
}

impl Systemd {
    /// What nft says.
    pub(super) fn nft(&self, words: &[&str], most: u64) -> Result<String, Error> {
        let unit = format!("edict-nft-{}.service", std::process::id());
        let argv = [&[NFT], words].concat();
        let said = self.run(&unit, &argv, WITHIN, true, most);
        let said = said.map_err(|error| match error {
            Error::Job { result, .. } => {
                let lines = self.journal(&unit).join(" | ");
                Error::Job {
                    doing: format!("nft {} on the host", words.join(" ")),
                    result: format!("{result}: {lines}"),
                }
            }
            other => other,
        })?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// The script that the table was loaded from.
    pub(super) fn loaded(&self) -> Result<Option<String>, Error> {
        let tables = self.nft(&["--json", "list", "tables", "inet"], OUTPUT_MAX)?;
        // Nothing that is not said may be taken for a table that is not there.
        let tables: Tables = serde_json::from_str(&tables).map_err(|error| {
            Error::Unreachable(format!("nft on the host says no JSON: {error}"))
        })?;
        if !tables.has(FAMILY, TABLE) {
            return Ok(None);
        }
        let listed = self.listed()?;
        // The kernel has no comments of a script and its own order of numbers: it is known by its mark.
        let known = mark(&listed).and_then(|mark| {
            let script = fs::read_to_string(self.copy(mark)).ok()?;
            // It is written once the table is loaded: an agent may have died in between.
            let as_loaded = fs::read_to_string(self.listing(mark)).ok();
            let now = digest::of_bytes(listed.as_bytes());
            let same = as_loaded.is_none_or(|as_loaded| as_loaded == now);
            // Read once more, it is as it was.
            Some(if same {
                script
            } else {
                format!("{CHANGED}{script}")
            })
        });
        Ok(Some(known.unwrap_or_else(|| UNKNOWN.to_owned())))
    }

    /// What nft makes of the table.
    fn listed(&self) -> Result<String, Error> {
        let words = ["--stateless", "--numeric", "list", "table", FAMILY, TABLE];
        self.nft(&words, RULES_MAX)
    }

    /// Has nft read a script. What is loaded can be told afterwards: a copy is there before.
    pub(super) fn nft_reads(&self, script: &str) -> Result<(), Error> {
        let broken = |error: std::io::Error| Error::Unreachable(error.to_string());
        let scratch = self.scratch().map_err(broken)?;
        let copy = mark(script).map_or_else(|| scratch.join("edict-nft"), |mark| self.copy(mark));
        if let Some(mark) = mark(script) {
            // Of another nft, perhaps.
            match fs::remove_file(self.listing(mark)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(broken(error)),
                _ => {}
            }
        }
        put(&copy, script).map_err(broken)?;
        self.nft(&["--file", &copy.display().to_string()], OUTPUT_MAX)?;
        let mut kept = vec![copy];
        if let Some(mark) = mark(script) {
            let listing = self.listing(mark);
            // What can't be told stays as it is said.
            if let Ok(listed) = self.listed() {
                put(&listing, &digest::of_bytes(listed.as_bytes())).map_err(broken)?;
            }
            kept.push(listing);
        }
        let entries = fs::read_dir(scratch).map_err(broken)?.flatten();
        for entry in entries.filter(|entry| !kept.contains(&entry.path())) {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                // One that stays is written over, or never asked for.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    fn copy(&self, mark: &str) -> PathBuf {
        self.output.join(format!("{PREFIX}{mark}.nft"))
    }

    fn listing(&self, mark: &str) -> PathBuf {
        self.output.join(format!("{PREFIX}{mark}.listed"))
    }
}

/// A file for root alone, safe on disk.
fn put(path: &Path, content: &str) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}
