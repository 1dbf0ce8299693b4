//! Promise: what was written in a released format opens for ever.
//!
//! `format1/` holds a workspace as format 1 wrote it, with its secrets and what must be read from it; `format1b/`
//! another, since long content has names of another kind. Each was made by `makes_a_workspace_like_the_golden_one`
//! with `KURA_GOLDEN_DIR` naming the directory; they are never made anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kura::base::clock::Timestamp;
use kura::base::disk::RealDisk;
use kura::crypto::slots::{Credential, NewSlot, Secret};
use kura::store::{DirStore, ObjectStore};
use kura::workspace::{OpenOptions, Sample, Workspace};

use super::space;

const KEY_FILE: &[u8] = b"a key file of more than thirty-two bytes, for the golden workspace";

fn golden_dirs() -> [PathBuf; 2] {
    ["format1", "format1b"].map(|name| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden").join(name))
}

fn store_at(dir: &Path) -> Arc<dyn ObjectStore> {
    Arc::new(DirStore::create(Arc::new(RealDisk), dir).unwrap())
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let target = to.join(item.file_name());
        if item.path().is_dir() {
            copy_dir(&item.path(), &target);
        } else {
            fs::copy(item.path(), target).unwrap();
        }
    }
}

fn open_with(
    store: Arc<dyn ObjectStore>,
    local: &Path,
    credential: impl Fn() -> Credential + Send + Sync + 'static,
) -> Arc<Workspace> {
    let url = kura::store::StoreUrl::Dir(local.join("store"));
    let options = OpenOptions { credential: Box::new(move || Ok(credential())), ..space::open_options(url, local) };
    Workspace::open_in(store, options).unwrap()
}

/// Three versions with every kind of inode, content of every form, tags, and both large and packed blobs.
fn fill(workspace: &Workspace) {
    let time = Timestamp::from_parts(1_700_000_000, 123_456_789);
    space::mkdir(workspace, "dir");
    space::write(workspace, "dir/empty", b"");
    space::write(workspace, "dir/inline", b"a few bytes");
    space::write(workspace, "dir/packed", &space::noise(5000, 1));
    space::write(workspace, "object", &space::noise(300_000, 2));
    space::write(workspace, "text", &b"the same line again and again\n".repeat(20_000));
    space::symlink(workspace, "link", "dir/inline");
    space::link(workspace, "dir/packed", "second-name");
    space::setxattr(workspace, "dir/inline", "user.colour", "blue");
    space::write(workspace, "n\u{e4}me with spaces", b"x");
    ["dir/empty", "dir/inline", "dir/packed", "object", "text"]
        .iter()
        .for_each(|path| space::touch(workspace, path, time));
    workspace.snapshot(Some("everything".to_owned()), Some("first".to_owned())).unwrap();
    for index in 0..700 {
        space::write(
            workspace,
            &format!("dir/many-{index:04}-with-a-rather-long-name-so-that-pages-split"),
            format!("{index}").as_bytes(),
        );
    }
    workspace.snapshot(Some("a split directory".to_owned()), None).unwrap();
    space::unlink(workspace, "text");
    space::write(workspace, "dir/inline", b"other bytes");
    workspace.snapshot(Some("changes".to_owned()), Some("last".to_owned())).unwrap();
    workspace.flush(Some(Duration::from_secs(60))).unwrap();
}

/// The versions, oldest first, with what is in them.
fn listing(workspace: &Workspace) -> String {
    let mut versions = workspace.versions().unwrap();
    versions.reverse();
    let mut text = String::new();
    for version in versions {
        text.push_str(&format!("version {} {:?} {:?}\n", version.id, version.summary.message, version.tags));
        space::manifest(workspace, version.id).unwrap().iter().for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    text
}

#[test]
fn makes_a_workspace_like_the_golden_one() {
    let root = tempfile::tempdir().unwrap();
    let asked = std::env::var_os("KURA_GOLDEN_DIR").map(PathBuf::from);
    let dir = asked.clone().unwrap_or_else(|| root.path().join("made"));
    let store = store_at(&dir.join("store"));
    let mut options = space::init_options();
    options.slots.push(NewSlot {
        label: "key file".to_owned(),
        credential: Credential::KeyFile(Secret::new(KEY_FILE.to_vec())),
    });
    let report = Workspace::init_in(&*store, options).unwrap();
    let workspace = space::open(store.clone(), &root.path().join("writer")).unwrap();
    fill(&workspace);
    let written = listing(&workspace);
    drop(workspace);
    let reader = open_with(store, &root.path().join("reader"), space::passphrase);
    assert_eq!(listing(&reader), written);
    if asked.is_some() {
        fs::write(dir.join("listing.txt"), written).unwrap();
        fs::write(dir.join("recovery-code.txt"), report.recovery_code.unwrap().as_bytes()).unwrap();
    }
}

#[test]
fn format_1_opens_with_every_secret_and_reads_as_it_was_written() {
    golden_dirs().iter().for_each(|dir| opens_and_reads(dir));
}

fn opens_and_reads(golden: &Path) {
    let expected = fs::read_to_string(golden.join("listing.txt")).unwrap();
    let code = fs::read_to_string(golden.join("recovery-code.txt")).unwrap();
    let secrets: [Box<dyn Fn() -> Credential + Send + Sync>; 3] = [
        Box::new(space::passphrase),
        Box::new(|| Credential::KeyFile(Secret::new(KEY_FILE.to_vec()))),
        Box::new(move || Credential::RecoveryCode(Secret::from_text(code.clone()))),
    ];
    for secret in secrets {
        let root = tempfile::tempdir().unwrap();
        copy_dir(&golden.join("store"), &root.path().join("store"));
        let workspace = open_with(store_at(&root.path().join("store")), root.path(), secret);
        assert_eq!(listing(&workspace), expected);
        // Long content was named by its digest in the first of them.
        assert!(workspace.check(Sample::Percent(100)).unwrap().problems.is_empty());
        space::write(&workspace, "new", b"and it is still written to");
        workspace.snapshot(None, None).unwrap();
        assert_eq!(workspace.flush(Some(Duration::from_secs(60))).unwrap().unpublished_versions, 0);
    }
}
