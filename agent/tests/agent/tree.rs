//! A folder in words: to see whether anything in it is other than it was.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Everything in a folder: path, kind and mode, owner, content.
pub fn tree(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    collect(folder, &mut all);
    all.sort();
    all
}

fn collect(folder: &Path, all: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stat = path.symlink_metadata().unwrap();
        let what = if stat.is_dir() {
            collect(&path, all);
            String::new()
        } else if stat.is_symlink() {
            format!("-> {}", fs::read_link(&path).unwrap().display())
        } else {
            String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned()
        };
        let (mode, uid, gid) = (stat.mode(), stat.uid(), stat.gid());
        all.push(format!("{} {mode:o} {uid}:{gid} {what}", path.display()));
    }
}
