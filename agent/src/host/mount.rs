//! Which files are mount points: those can't be replaced, only written over.

use std::io;
use std::path::{Path, PathBuf};

use edict_core::guard::path::ROOT;
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;

/// Says which paths are mount points.
pub trait Mounts: Send + Sync + 'static {
    /// Whether something is mounted right at the host path `path`.
    fn is_mount_point(&self, path: &str) -> io::Result<bool>;
}

/// What the kernel says, anew each time: mounts come and go. It tells of each file whether it is the root
/// of a mount (`statx(2)`, since Linux 5.8); where it does not, its table has all of them.
#[derive(Debug)]
pub struct MountInfo {
    etc: PathBuf,
}

impl MountInfo {
    /// For the host's `/etc` mounted at the folder `etc`.
    pub fn new(etc: &Path) -> io::Result<Self> {
        let etc = etc.canonicalize()?;
        Ok(Self { etc })
    }
}

impl Mounts for MountInfo {
    fn is_mount_point(&self, path: &str) -> io::Result<bool> {
        let inner = path.strip_prefix(ROOT).unwrap_or(path);
        let here = self.etc.join(inner.trim_start_matches('/'));
        match is_mount_root(&here)? {
            Some(is) => Ok(is),
            None => is_listed(&here),
        }
    }
}

/// Whether something is mounted right at `path`, if the kernel says that of a file.
fn is_mount_root(path: &Path) -> io::Result<Option<bool>> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let attribute = StatxAttributes::MOUNT_ROOT;
    match statx(CWD, path, flags, StatxFlags::empty()) {
        Ok(stat) if stat.stx_attributes_mask.contains(attribute) => {
            Ok(Some(stat.stx_attributes.contains(attribute)))
        }
        // An older kernel, or a filter of system calls that does not know this one.
        Ok(_) | Err(Errno::NOSYS | Errno::PERM) => Ok(None),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(Some(false)),
        Err(error) => Err(error.into()),
    }
}

/// Whether the kernel's table has this mount point.
fn is_listed(path: &Path) -> io::Result<bool> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(points(&table).any(|point| Path::new(&point) == path))
}

/// The mount points of a table in the format of `proc_pid_mountinfo(5)`: the fifth field of each
/// line, with blanks, tabs, line breaks and backslashes written as three octal digits.
fn points(table: &[u8]) -> impl Iterator<Item = std::ffi::OsString> {
    use std::os::unix::ffi::OsStringExt as _;
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| std::ffi::OsString::from_vec(unescape(field)))
}

fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\')
            .then(|| std::str::from_utf8(after.get(..3)?).ok())
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = octal {
            plain.push(byte);
            rest = &after[3..];
        } else {
            plain.push(*first);
            rest = after;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_table_of_the_kernel() {
        let table = b"36 35 98:0 /mnt1 /host/etc/hosts rw,noatime master:1 - ext3 /dev/root rw\n\
            37 35 98:0 / /odd\\040name\\134x rw - tmpfs none rw\n\nshort line\n";
        let points: Vec<_> = points(table).collect();
        assert_eq!(points, ["/host/etc/hosts", "/odd name\\x"]);
    }

    #[test]
    fn a_plain_file_is_no_mount_point() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("motd"), "").unwrap();
        let mounts = MountInfo::new(folder.path()).unwrap();
        assert!(!mounts.is_mount_point("/etc/motd").unwrap());
        // The root of the file system is one for sure.
        let root = MountInfo::new(Path::new("/")).unwrap();
        assert!(root.is_mount_point("/etc").unwrap());
        assert!(!mounts.is_mount_point("/etc/none").unwrap());
    }

    #[test]
    fn the_table_says_the_same_as_the_kernel() {
        for path in ["/", "/proc", "/proc/self", "/dev", "/etc", "/etc/none"] {
            let path = Path::new(path);
            let said = is_mount_root(path).unwrap();
            let is = is_listed(path).unwrap();
            assert!(said.is_none_or(|said| said == is), "{}", path.display());
        }
        assert!(is_listed(Path::new("/proc")).unwrap());
    }
}
