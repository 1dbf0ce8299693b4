//! Joining what two lines did to one inode's attributes and content.

use crate::version::diff::same_bytes;
use crate::version::entry::{Body, Entry, Xattrs};

/// Whether two inodes have certainly the same content; of directories, not their names.
pub(super) fn same_content(a: &Entry, b: &Entry) -> bool {
    match (&a.body, &b.body) {
        (Body::Directory { .. }, Body::Directory { .. }) => true,
        (Body::File(a), Body::File(b)) => same_bytes(a, b),
        (a, b) => a == b,
    }
}

/// Whether a user would call them the same inode in the same state.
pub(super) fn same_state(a: &Entry, b: &Entry) -> bool {
    let times = a.is_dir() || a.mtime == b.mtime;
    times && same_content(a, b) && (a.mode, a.uid, a.gid, &a.xattrs) == (b.mode, b.uid, b.gid, &b.xattrs)
}

/// Three-way choice for one attribute; where both changed it, the newer inode's counts.
fn choose<T: PartialEq + Clone>(base: Option<&T>, ours: &T, theirs: &T, is_ours_newer: bool) -> T {
    if ours == theirs || base == Some(theirs) {
        ours.clone()
    } else if base == Some(ours) || !is_ours_newer {
        theirs.clone()
    } else {
        ours.clone()
    }
}

/// Our inode with what theirs changed of its attributes. Body and number stay ours.
pub(super) fn join_attributes(base: Option<&Entry>, ours: &Entry, theirs: &Entry) -> Entry {
    let is_ours_newer = ours.ctime > theirs.ctime;
    macro_rules! pick {
        ($field:ident) => {
            choose(base.map(|base| &base.$field), &ours.$field, &theirs.$field, is_ours_newer)
        };
    }
    let mtime = match base {
        Some(base) if base.mtime == theirs.mtime => ours.mtime,
        Some(base) if base.mtime == ours.mtime => theirs.mtime,
        _ => ours.mtime.max(theirs.mtime),
    };
    Entry {
        mode: pick!(mode),
        uid: pick!(uid),
        gid: pick!(gid),
        atime: pick!(atime),
        mtime,
        ctime: ours.ctime.max(theirs.ctime),
        xattrs: join_xattrs(base.map(|base| &base.xattrs), &ours.xattrs, &theirs.xattrs, is_ours_newer),
        ..ours.clone()
    }
}

fn join_xattrs(base: Option<&Xattrs>, ours: &Xattrs, theirs: &Xattrs, is_ours_newer: bool) -> Xattrs {
    let none = Xattrs::new();
    let base = base.unwrap_or(&none);
    let names: std::collections::BTreeSet<&Vec<u8>> = ours.keys().chain(theirs.keys()).collect();
    let joined = names.into_iter().filter_map(|name| {
        let value = choose(Some(&base.get(name)), &ours.get(name), &theirs.get(name), is_ours_newer);
        Some((name.clone(), value?.clone()))
    });
    joined.collect()
}
