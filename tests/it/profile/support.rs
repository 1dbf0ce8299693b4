//! Profiles in a directory, and a workspace to install them into.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use kura::apps::profile::{self, Install, LockFile, Outcome, Place, ProfileError, Reply, Request};
use kura::base::ids::VersionId;
use kura::workspace::Workspace;
use kura::worktree::FileKind;
use serde_json::json;

use crate::workspace_rig::{self as ws, Rig};

pub struct Site {
    pub rig: Rig,
    pub workspace: Arc<Workspace>,
}

impl Site {
    pub fn new() -> Self {
        let rig = Rig::new();
        let workspace = rig.open("state");
        Self { rig, workspace }
    }

    pub fn profiles(&self) -> PathBuf {
        self.rig.dir.path().join("profiles")
    }

    /// Makes a profile anew that has all files of its directory.
    pub fn profile(&self, name: &str, version: &str, files: &[(&str, &str)]) {
        self.listed(name, json!({ "version": version }), files);
    }

    /// Makes a profile anew with this `profile.json`.
    pub fn listed(&self, name: &str, manifest: serde_json::Value, files: &[(&str, &str)]) {
        let dir = self.profiles().join(name);
        fs::remove_dir_all(&dir).ok();
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("profile.json"), manifest.to_string()).unwrap();
        for (path, content) in files {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        }
    }

    pub fn want(&self, name: &str) -> Install {
        let from = Place::Directory(self.profiles().to_str().unwrap().to_owned());
        Install { name: name.to_owned(), from: Some(from), ..Install::default() }
    }

    pub fn run(&self, request: &Request) -> Result<Outcome, ProfileError> {
        match profile::run(&self.workspace, request)? {
            Reply::Outcome(outcome) => Ok(outcome),
            reply => panic!("{reply:?}"),
        }
    }

    pub fn install(&self, name: &str) -> Result<Outcome, ProfileError> {
        self.run(&Request::Install(self.want(name)))
    }

    pub fn upgrade(&self, name: &str) -> Result<Outcome, ProfileError> {
        self.run(&Request::Upgrade(self.want(name)))
    }

    pub fn forced(&self, name: &str) -> Result<Outcome, ProfileError> {
        self.run(&Request::Upgrade(Install { force: true, ..self.want(name) }))
    }

    pub fn uninstall(&self, name: &str) -> Result<Outcome, ProfileError> {
        self.run(&Request::Uninstall { name: name.to_owned(), dry_run: false })
    }

    pub fn rollback(&self, name: &str, to: Option<&str>) -> Result<Outcome, ProfileError> {
        let to = to.map(str::to_owned);
        self.run(&Request::Rollback { name: name.to_owned(), to, force: false, dry_run: false })
    }

    /// Path, and what differs.
    pub fn drift(&self, name: &str) -> Vec<(String, String)> {
        match profile::run(&self.workspace, &Request::Verify { name: Some(name.to_owned()) }).unwrap() {
            Reply::Verified(found) => found[0].drift.iter().map(|d| (d.path.clone(), d.what.clone())).collect(),
            reply => panic!("{reply:?}"),
        }
    }

    pub fn lock(&self) -> LockFile {
        LockFile::parse(&ws::read(&self.workspace, profile::LOCK_PATH)).unwrap()
    }

    /// Files of the live tree that users see, with their text, without those that say what is installed.
    pub fn files(&self) -> BTreeMap<String, String> {
        files(&self.workspace)
    }

    pub fn newest(&self) -> VersionId {
        self.workspace.tree().base().index.id
    }

    pub fn count(&self) -> usize {
        self.workspace.versions().unwrap().len()
    }
}

pub fn files(workspace: &Workspace) -> BTreeMap<String, String> {
    let shown = ws::live(workspace).into_iter().filter(|(_, (kind, ..))| *kind == FileKind::File);
    let text =
        |(path, (_, _, content)): (String, (FileKind, u16, Vec<u8>))| (path, String::from_utf8(content).unwrap());
    shown.map(text).filter(|(path, _)| !path.starts_with("profiles.")).collect()
}

pub fn expect(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

/// `path action`, one for each file.
pub fn actions(outcome: &Outcome) -> Vec<String> {
    outcome.files.iter().map(|file| format!("{} {}", file.path, file.action)).collect()
}
