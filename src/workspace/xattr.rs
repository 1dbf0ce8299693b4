//! Extended attributes of local files. Only those of users (`user.*`) are carried in and out.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use rustix::fs::{XattrFlags, lgetxattr, llistxattr, lsetxattr};

use crate::base::limits::{XATTR_TOTAL_LEN_MAX, XATTR_VALUE_LEN_MAX};

/// The attributes of a file; none where they cannot be read (many file systems have none).
pub(super) fn read(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; XATTR_TOTAL_LEN_MAX];
    let Ok(len) = llistxattr(path, &mut names) else { return BTreeMap::new() };
    names.truncate(len);
    let mut value = vec![0; XATTR_VALUE_LEN_MAX];
    let mut found = BTreeMap::new();
    for name in names.split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")) {
        if let Ok(len) = lgetxattr(path, name, &mut value) {
            found.insert(name.to_vec(), value[..len].to_vec());
        }
    }
    found
}

/// Sets one attribute of a file.
pub(super) fn set(path: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
    Ok(lsetxattr(path, name, value, XattrFlags::empty())?)
}
