//! Kernel settings of the whole machine that nodes change: each kubelet sets
//! three, and five nodes need more file watchers than a small machine allows.
//!
//! The values before the first cluster are kept and put back after the last one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::settings::Settings;

/// What kubelets set, and what [`prepare`] sets for them.
const CHANGED: [&str; 4] = [
    WATCHERS,
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
];
const WATCHERS: &str = "fs/inotify/max_user_instances";
/// Five systemds, kubelets and containerds use about 300.
const ENOUGH_WATCHERS: u64 = 512;

/// Keeps the values, unless they are kept already, and raises the watchers.
pub fn prepare(settings: &Settings) -> Result<()> {
    let kept = kept(settings);
    if !kept.exists() {
        let values: BTreeMap<&str, String> = CHANGED
            .into_iter()
            .filter_map(|name| Some((name, read(name)?)))
            .collect();
        fs::create_dir_all(&settings.cache)?;
        fs::write(&kept, serde_json::to_vec_pretty(&values)?)
            .with_context(|| format!("cannot write {}", kept.display()))?;
    }
    let watchers = read(WATCHERS).and_then(|value| value.parse().ok());
    if watchers.is_some_and(|now: u64| now < ENOUGH_WATCHERS) {
        // Without the right to it nodes may still come up; kind says so if not.
        let _ = fs::write(path(WATCHERS), ENOUGH_WATCHERS.to_string());
    }
    Ok(())
}

/// Puts the values back, and says which could not be.
pub fn put_back(settings: &Settings) -> Result<Vec<String>> {
    let kept = kept(settings);
    let Ok(text) = fs::read(&kept) else {
        return Ok(Vec::new());
    };
    let values: BTreeMap<String, String> = serde_json::from_slice(&text)
        .with_context(|| format!("{} is damaged: remove it", kept.display()))?;
    let left: Vec<String> = values
        .iter()
        .filter(|(name, value)| {
            read(name).as_ref() != Some(value) && fs::write(path(name), value).is_err()
        })
        .map(|(name, value)| format!("{}={value}", name.replace('/', ".")))
        .collect();
    fs::remove_file(&kept).with_context(|| format!("cannot remove {}", kept.display()))?;
    Ok(left)
}

fn kept(settings: &Settings) -> PathBuf {
    settings.cache.join("sysctls.json")
}

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

fn read(name: &str) -> Option<String> {
    Some(fs::read_to_string(path(name)).ok()?.trim().to_owned())
}
