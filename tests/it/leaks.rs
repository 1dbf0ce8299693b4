//! Promise: nothing readable is written anywhere, neither in the store nor locally.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kura::store::{ObjectStore, StoreUrl};
use kura::version::index::sha256;
use kura::workspace::Workspace;
use kura::worktree::Wait;

use super::s3_server::{ACCESS_KEY, S3Server, SECRET_KEY};
use super::space;

const WORDS: [&str; 9] = [
    "zanzibar-plans",
    "quarterly-numbers",
    "the door code is 4711",
    "user.colour",
    "ultramarine",
    "somewhere/else/entirely",
    "release-candidate",
    "before the merger",
    "half-written thought",
];

/// Uses every feature that stores something, leaving work in every stage.
fn use_workspace(workspace: &Arc<Workspace>) {
    space::mkdir(workspace, "zanzibar-plans");
    space::write(workspace, "zanzibar-plans/quarterly-numbers", &b"the door code is 4711\n".repeat(2000));
    space::write(workspace, "zanzibar-plans/short", b"the door code is 4711");
    space::setxattr(workspace, "zanzibar-plans/short", "user.colour", "ultramarine");
    space::symlink(workspace, "zanzibar-plans/link", "somewhere/else/entirely");
    space::write(workspace, "large", &b"the door code is 4711, and so on. ".repeat(60_000));
    space::write(workspace, "noise", &space::noise(700_000, 1));
    workspace.snapshot(Some("before the merger".to_owned()), Some("release-candidate".to_owned())).unwrap();
    workspace.flush(Some(Duration::from_secs(60))).unwrap();
    // Absorbed and in no version; logged and not published; staged.
    space::write(workspace, "zanzibar-plans/unrecorded", &b"the door code is 4711\n".repeat(500));
    workspace.tree().absorb_all().unwrap();
    let draft = space::write(workspace, "zanzibar-plans/draft", b"old");
    workspace.tree().open(draft, true, false, 0, Wait::Yes).unwrap();
    workspace.tree().write(draft, 3, &b"half-written thought ".repeat(300), 0, Wait::Yes).unwrap();
    let staged = space::write(workspace, "staged", b"old");
    workspace.tree().open(staged, true, false, 0, Wait::Yes).unwrap();
    for index in 0..12_u64 {
        workspace
            .tree()
            .write(staged, index << 20, &b"half-written thought ".repeat(50_000)[..1 << 20], 0, Wait::Yes)
            .unwrap();
    }
    workspace.tree().log_drafts().unwrap();
    workspace.tree().sync().unwrap();
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for item in std::fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

/// No word, no name, no digest of content; and (but for the header) no order in the bytes.
fn assert_sealed(name: &str, bytes: &[u8]) {
    let mut secrets: Vec<Vec<u8>> = WORDS.iter().map(|word| word.as_bytes().to_vec()).collect();
    let digest = sha256(&b"the door code is 4711\n".repeat(2000));
    secrets.push(digest.0.to_vec());
    secrets.push(digest.to_string().into_bytes());
    secrets.push(space::PASSPHRASE.as_bytes().to_vec());
    for secret in &secrets {
        let shown = String::from_utf8_lossy(secret);
        assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{name} holds `{shown}` in clear");
        assert!(!name.contains(&*shown), "the name {name} tells `{shown}`");
    }
    if bytes.len() >= 4096 && !name.ends_with("kura.json") {
        assert!(entropy(bytes) > 7.8, "{name} has only {:.2} bits of entropy per byte", entropy(bytes));
    }
}

fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0_f64; 256];
    // Sparse cache files have holes; a hole tells only that nothing was fetched.
    let blocks = bytes.chunks(4096).filter(|block| block.iter().any(|byte| *byte != 0));
    let mut total = 0.0;
    for byte in blocks.flatten() {
        counts[usize::from(*byte)] += 1.0;
        total += 1.0;
    }
    counts.iter().filter(|count| **count > 0.0).map(|count| -(count / total) * (count / total).log2()).sum()
}

fn assert_dir_sealed(dir: &Path) -> usize {
    let mut files = Vec::new();
    files_below(dir, &mut files);
    for path in &files {
        assert_sealed(&path.strip_prefix(dir).unwrap().to_string_lossy(), &std::fs::read(path).unwrap());
    }
    files.len()
}

#[test]
fn nothing_readable_in_a_directory_store_nor_in_local_state() {
    let root = tempfile::tempdir().unwrap();
    let url = StoreUrl::Dir(root.path().join("store"));
    Workspace::init(&url, space::init_options()).unwrap();
    let workspace = Workspace::open(space::open_options(url, &root.path().join("local"))).unwrap();
    use_workspace(&workspace);
    assert!(assert_dir_sealed(root.path()) > 15, "the scan saw the files");
    drop(workspace);
    assert_dir_sealed(root.path());
}

#[test]
fn nothing_readable_in_a_bucket_nor_in_the_cache_of_a_reader() {
    let server = S3Server::start();
    let root = tempfile::tempdir().unwrap();
    let writer = space::create(Arc::new(server.store("leaks")), &root.path().join("writer"));
    use_workspace(&writer);
    let store: Arc<dyn ObjectStore> = Arc::new(server.store("leaks"));
    let reader = space::open(store, &root.path().join("reader")).unwrap();
    let version = reader.select("release-candidate").unwrap();
    assert!(space::manifest(&reader, version).unwrap().len() >= 6);
    for (key, bytes) in server.objects() {
        assert_sealed(&key, &bytes);
        assert!(
            ![ACCESS_KEY, SECRET_KEY]
                .iter()
                .any(|secret| bytes.windows(secret.len()).any(|window| window == secret.as_bytes()))
        );
    }
    assert!(assert_dir_sealed(root.path()) > 10, "the scan saw the files");
}
