//! A workspace, mounted; unmounted and removed whatever happens.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use kura::control::Dispatcher;
use kura::crypto::slots::{Credential, KdfParams, NewSlot, Secret};
use kura::fs::{Fs, FsOptions};
use kura::fuse::{MountOptions, Mounted, Operation, mount};
use kura::store::StoreUrl;
use kura::workspace::{InitOptions, OpenOptions, Workspace, WorkspaceError};

/// What lies on the disk of one test: store, state, cache and mount point.
pub struct Place {
    dir: tempfile::TempDir,
}

/// A mounted workspace.
pub struct Mount {
    pub workspace: Arc<Workspace>,
    pub control: Arc<Dispatcher>,
    mounted: Option<Mounted>,
    mountpoint: PathBuf,
}

fn passphrase() -> Credential {
    Credential::Passphrase(Secret::new(b"correct horse".to_vec()))
}

impl Place {
    /// A new workspace.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("kura-mount-").tempdir().unwrap();
        let place = Self { dir };
        std::fs::create_dir(place.mountpoint()).unwrap();
        let mut options = InitOptions::new(vec![NewSlot { label: "test".into(), credential: passphrase() }]);
        (options.kdf, options.recovery_code) = (KdfParams::minimum(), false);
        Workspace::init(&place.store(), options).unwrap();
        place
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn mountpoint(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// Forgets everything this machine knew of the workspace, as a fresh client would.
    pub fn forget_locally(&self) {
        for dir in ["state", "cache"] {
            match std::fs::remove_dir_all(self.dir.path().join(dir)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
                _ => {}
            }
        }
    }

    pub fn store_dir(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn store(&self) -> StoreUrl {
        StoreUrl::Dir(self.store_dir())
    }

    pub fn open(&self, change: impl Fn(&mut OpenOptions)) -> Arc<Workspace> {
        for _ in 0..200 {
            let credential = Box::new(|| Ok(passphrase()));
            let (state, cache) = (self.dir.path().join("state"), self.dir.path().join("cache"));
            let mut options = OpenOptions::new(self.store(), state, cache, credential);
            change(&mut options);
            match Workspace::open(options) {
                // Another test may be starting a program, which holds all files until it runs.
                Err(WorkspaceError::Locked { .. }) => std::thread::sleep(Duration::from_millis(20)),
                opened => return opened.unwrap(),
            }
        }
        panic!("the state directory stays locked");
    }

    /// Mounts with the usual options, for everybody.
    pub fn mount(&self) -> Mount {
        self.mount_with(|_| {}, MountOptions { allow_other: true, ..MountOptions::default() }, true)
    }

    pub fn mount_with(&self, change: impl Fn(&mut OpenOptions), options: MountOptions, xattrs: bool) -> Mount {
        let workspace = self.open(change);
        workspace.start();
        let control = dispatcher(&workspace);
        control.jobs().start();
        let fs = file_system_with(&workspace, xattrs, control.clone());
        let mounted = mount(fs, &self.mountpoint(), &options).unwrap();
        Mount { workspace, control, mounted: Some(mounted), mountpoint: self.mountpoint() }
    }
}

/// The file system of a workspace. A request to stop does nothing.
pub fn file_system(workspace: &Arc<Workspace>, xattrs: bool) -> Arc<Fs> {
    file_system_with(workspace, xattrs, dispatcher(workspace))
}

/// What answers control files.
pub fn dispatcher(workspace: &Arc<Workspace>) -> Arc<Dispatcher> {
    Dispatcher::new(workspace.clone(), || {}).unwrap()
}

/// The file system of a workspace with a dispatcher.
pub fn file_system_with(workspace: &Arc<Workspace>, xattrs: bool, control: Arc<Dispatcher>) -> Arc<Fs> {
    let (owner_uid, owner_gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    Arc::new(Fs::new(workspace.clone(), FsOptions { owner_uid, owner_gid, xattrs }, control))
}

impl Mount {
    pub fn path(&self) -> &Path {
        &self.mountpoint
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.mountpoint.join(name)
    }

    pub fn mounted(&self) -> &Mounted {
        self.mounted.as_ref().unwrap()
    }

    /// Requests of one kind so far.
    pub fn requests(&self, operation: Operation) -> u64 {
        self.mounted().requests().into_iter().find(|(known, _)| *known == operation).unwrap().1
    }

    /// All requests so far but those nobody waits for.
    pub fn requests_waited_for(&self) -> u64 {
        let background = [Operation::Forget, Operation::Release];
        self.mounted()
            .requests()
            .into_iter()
            .filter(|(operation, _)| !background.contains(operation))
            .map(|(_, n)| n)
            .sum()
    }

    /// Unmounts and closes; everything that could go wrong is a failure.
    pub fn end(mut self) {
        let mounted = self.mounted.take().unwrap();
        assert_eq!(mounted.unmount().unwrap(), kura::fuse::Unmounted::Clean, "a test left a file open");
        mounted.wait().unwrap();
        self.control.jobs().close();
        self.workspace.close(true).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(self.mounted.take());
        self.control.jobs().close();
        self.workspace.close(false).ok();
    }
}

/// Whether tests that need root can run; says so when not.
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        // Past the harness, which shows nothing of tests that pass.
        let line = format!("skipped, as it needs root: {}\n", std::thread::current().name().unwrap_or_default());
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    root
}

/// Whether the tests shall take their time.
pub fn is_long() -> bool {
    std::env::var_os("KURA_TEST_LONG").is_some()
}

/// Runs a command line in a directory.
pub fn shell(dir: &Path, line: &str) -> Output {
    Command::new("sh").args(["-ec", line]).current_dir(dir).stdin(Stdio::null()).output().unwrap()
}

/// As [`shell`]; it must succeed. Gives its output.
pub fn sh(dir: &Path, line: &str) -> String {
    let output = shell(dir, line);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{line}\n{out}\n{err}");
    out.into_owned()
}

/// Runs a Python program in a directory; it must succeed.
pub fn python(dir: &Path, program: &str) -> String {
    let output = Command::new("python3").args(["-c", program]).current_dir(dir).output().expect("python3 runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program}\n{out}\n{err}");
    out.into_owned()
}
