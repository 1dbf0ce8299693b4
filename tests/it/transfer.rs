//! Importing and exporting directories.
#![allow(clippy::disallowed_methods, reason = "what a user does to files")]

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use kura::version::entry::Ino;
use kura::workspace::{Progress, Workspace, WorkspaceError};
use kura::worktree::Wait;

use super::workspace_rig::*;

fn quiet() -> impl FnMut(Progress) {
    |_| {}
}

/// A directory with everything that a directory can hold.
fn source(dir: &Path) {
    fs::create_dir_all(dir.join("sub/deep")).unwrap();
    fs::create_dir(dir.join("empty")).unwrap();
    fs::write(dir.join("sub/deep/file"), b"hello").unwrap();
    fs::write(dir.join("none"), b"").unwrap();
    fs::write(dir.join("large"), noise(3_000_000)).unwrap();
    fs::write(dir.join("odd \n\u{1F600} name"), b"odd").unwrap();
    fs::write(dir.join("x".repeat(255)), b"long").unwrap();
    symlink("nowhere/at all", dir.join("dangling")).unwrap();
    symlink("/", dir.join("to root")).unwrap();
    fs::hard_link(dir.join("sub/deep/file"), dir.join("other name")).unwrap();
    let sparse = fs::File::create(dir.join("sparse")).unwrap();
    sparse.write_all_at(b"start", 0).unwrap();
    sparse.write_all_at(b"middle", 5 << 20).unwrap();
    sparse.set_len(20 << 20).unwrap();
    nix::unistd::mkfifo(&dir.join("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    fs::set_permissions(dir.join("sub"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::set_permissions(dir.join("none"), fs::Permissions::from_mode(0o4711)).unwrap();
    rustix::fs::setxattr(dir.join("large"), "user.colour", b"blue", rustix::fs::XattrFlags::empty()).ok();
    for (path, time) in [("sub", 1_000_000_000), ("large", -5), ("none", 4_000_000_000)] {
        let spec = nix::sys::time::TimeSpec::new(time, 123_456_789);
        let follow = nix::sys::stat::UtimensatFlags::FollowSymlink;
        nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, &dir.join(path), &spec, &spec, follow).unwrap();
    }
}

/// Path to kind, mode, owner, mtime, names of the inode, content.
fn shown(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(at) = pending.pop() {
        for item in fs::read_dir(at).unwrap() {
            let path = item.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = match meta.file_type() {
                kind if kind.is_file() => kura::version::index::sha256(&fs::read(&path).unwrap()).to_string(),
                kind if kind.is_symlink() => fs::read_link(&path).unwrap().display().to_string(),
                _ => String::new(),
            };
            let mut colour = [0; 16];
            let colour = rustix::fs::getxattr(&path, "user.colour", &mut colour).is_ok();
            let links = if meta.is_dir() { 0 } else { meta.nlink() };
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            found.push(format!(
                "{name} {:o} {}:{} {}.{} {links} {colour} {content}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.mtime(),
                meta.mtime_nsec()
            ));
            if meta.is_dir() {
                pending.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_directory_comes_out_as_it_went_in() {
    let rig = Rig::new();
    let (from, to) = (rig.dir.path().join("from"), rig.dir.path().join("to"));
    source(&from);
    let w = rig.open("state");
    let report = w.import(&from, b"in/here", &mut quiet()).unwrap();
    assert!(report.skipped.is_empty(), "{:?}", report.skipped);
    assert!(report.imported.bytes < 6_000_000, "holes are not copied");
    let version = report.recorded.unwrap().record.id;
    w.close(true).unwrap();
    let other = rig.open("other");
    let exported = other.export(version, &[b"in/here".to_vec()], &to, false, &mut |_| true).unwrap();
    assert!(exported.skipped.is_empty(), "{:?}", exported.skipped);
    assert_eq!(shown(&to.join("in/here")), shown(&from));
    assert!(fs::metadata(to.join("in/here/sparse")).unwrap().blocks() < 8_000, "holes are holes again");
    let hard = |name: &str| fs::metadata(to.join("in/here").join(name)).unwrap().ino();
    assert_eq!(hard("other name"), hard("sub/deep/file"));
}

#[test]
fn importing_twice_transfers_nothing_and_only_changes_are_taken() {
    let rig = Rig::new();
    let from = rig.dir.path().join("from");
    source(&from);
    let w = rig.open("state");
    let first = w.import(&from, b"", &mut quiet()).unwrap();
    w.flush(Some(std::time::Duration::from_secs(120))).unwrap();
    let again = w.import(&from, b"", &mut quiet()).unwrap();
    assert_eq!(again.imported, Progress::default());
    assert!(again.recorded.is_none() && again.unchanged > 8);
    assert!(first.recorded.is_some());
    fs::write(from.join("none"), b"something").unwrap();
    fs::remove_file(from.join("dangling")).unwrap();
    fs::create_dir(from.join("dangling")).unwrap();
    fs::remove_file(from.join("pipe")).unwrap();
    fs::write(from.join("pipe"), b"a file").unwrap();
    let changed = w.import(&from, b"", &mut quiet()).unwrap();
    assert_eq!(changed.imported.files, 2, "and a directory in the place of a link");
    assert_eq!((read(&w, "none"), read(&w, "pipe")), (b"something".to_vec(), b"a file".to_vec()));
}

#[test]
fn what_cannot_be_imported_is_told_and_the_rest_goes_on() {
    let rig = Rig::new();
    let from = rig.dir.path().join("from");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("good"), b"good").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();
    let w = rig.open("state");
    let report = w.import(&from, b"", &mut quiet()).unwrap();
    assert_eq!(report.skipped.len(), 1);
    assert!(report.skipped[0].0.ends_with("socket"));
    assert_eq!(read(&w, "good"), b"good");
    let missing = w.import(&from.join("missing"), b"", &mut quiet());
    assert!(matches!(missing, Err(WorkspaceError::Disk { .. })));
    let file = w.import(&from.join("good"), b"", &mut quiet());
    assert!(matches!(file, Err(WorkspaceError::Unfit { .. })));
}

#[test]
fn an_export_overwrites_nothing_unless_told_and_never_follows_links() {
    let rig = Rig::new();
    let w = rig.open("state");
    mkdir(&w, "d");
    write(&w, "d/f", b"new");
    let version = snapshot(&w);
    let to = rig.dir.path().join("to");
    fs::create_dir_all(to.join("d")).unwrap();
    fs::write(to.join("d/f"), b"old").unwrap();
    let refused = w.export(version, &[], &to, false, &mut |_| true);
    assert!(matches!(refused, Err(WorkspaceError::InTheWay { .. })));
    assert_eq!(fs::read(to.join("d/f")).unwrap(), b"old");
    w.export(version, &[], &to, true, &mut |_| true).unwrap();
    assert_eq!(fs::read(to.join("d/f")).unwrap(), b"new");
    let outside = rig.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::remove_dir_all(to.join("d")).unwrap();
    symlink(&outside, to.join("d")).unwrap();
    let refused = w.export(version, &[], &to, true, &mut |_| true);
    assert!(matches!(refused, Err(WorkspaceError::InTheWay { .. })), "{refused:?}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    let missing = w.export(version, &[b"no/such".to_vec()], &to, true, &mut |_| true);
    assert!(matches!(missing, Err(WorkspaceError::Version(_))));
}

#[test]
fn ten_thousand_small_files_go_to_s3_in_few_requests() {
    let server = super::s3_server::S3Server::start();
    let store = Arc::new(server.store("many"));
    Workspace::init_in(&*store, init_options()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    let content = noise(4096);
    for sub in 0..100_u32 {
        fs::create_dir_all(from.join(format!("{sub}"))).unwrap();
        for file in 0..100_u32 {
            let mut content = content.clone();
            content[..8].copy_from_slice(&[sub.to_le_bytes(), file.to_le_bytes()].concat());
            fs::write(from.join(format!("{sub}/{file}")), content).unwrap();
        }
    }
    let w = Workspace::open_in(store.clone(), options(&dir, "state")).unwrap();
    let before = server.count_all();
    let report = w.import(&from, b"", &mut quiet()).unwrap();
    assert_eq!(w.close(true).unwrap().unpublished_versions, 0);
    let requests = server.count_all() - before;
    assert!(requests < 100, "{requests} requests");
    assert_eq!(report.imported, Progress { files: 10_100, bytes: 40_960_000 });
    let other = Workspace::open_in(store, options(&dir, "other")).unwrap();
    let attr = other.tree().lookup(Ino::ROOT, b"42", Wait::Yes).unwrap();
    let file = other.tree().lookup(attr.ino, b"7", Wait::Yes).unwrap();
    assert_eq!(other.tree().read(file.ino, 8, 4088, Wait::Yes).unwrap(), content[8..]);
}
