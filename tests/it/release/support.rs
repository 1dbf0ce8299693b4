//! A publisher with keys and a repository, and clients that follow it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use kura::apps::release::{
    self, Access, Change, Decision, Doing, Done, Expiry, ReleaseError, Reply, Request, Rollout, Standing, State,
    Thresholds, keygen,
};
use kura::workspace::Workspace;
use serde_json::{Value, json};

use crate::workspace_rig::Rig;

pub const CHANNEL: &str = "stable";

pub struct World {
    pub rig: Rig,
    pub client: Arc<Workspace>,
}

impl World {
    /// A publisher, and a client that trusts it; nothing is offered.
    pub fn new() -> Self {
        Self::signed_by(Thresholds { keys: 1, threshold: 1 }, Expiry::default())
    }

    pub fn signed_by(thresholds: Thresholds, expiry: Expiry) -> Self {
        let rig = Rig::new();
        let client = rig.open("client");
        let world = Self { rig, client };
        keygen(&world.keys(), thresholds, expiry, jiff::Timestamp::now()).unwrap();
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.rig.dir.path().join(name)
    }

    pub fn keys(&self) -> PathBuf {
        self.path("keys")
    }

    pub fn repository(&self) -> PathBuf {
        self.path("releases")
    }

    pub fn at(&self) -> (String, String) {
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        (text(self.repository()), text(self.keys()))
    }

    /// Writes a package directory.
    pub fn package(&self, name: &str, version: &str, more: Value, files: &[(&str, &str)]) -> String {
        let dir = self.path(&format!("package-{name}-{version}"));
        fs::remove_dir_all(&dir).ok();
        fs::create_dir_all(dir.join("files")).unwrap();
        let mut package = json!({ "name": name, "version": version, "type": "feature" });
        package.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        fs::write(dir.join("package.json"), package.to_string()).unwrap();
        for (path, content) in files {
            let path = dir.join("files").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir.to_str().unwrap().to_owned()
    }

    pub fn publish_as(
        &self,
        (name, version): (&str, &str),
        more: Value,
        files: &[(&str, &str)],
        rollout: Rollout,
    ) -> Result<Reply, ReleaseError> {
        let dir = self.package(name, version, more, files);
        let (repository, keys) = self.at();
        run(&self.client, &Request::Publish { dir, repository, keys, channel: CHANNEL.to_owned(), rollout })
    }

    pub fn publish(&self, name: &str, version: &str, more: Value, files: &[(&str, &str)]) {
        self.publish_as((name, version), more, files, Rollout::default()).unwrap();
    }

    pub fn follow(&self) {
        self.try_follow().unwrap();
    }

    pub fn trust(&self, channel: &str) -> String {
        let to = self.path(&format!("{channel}.trust")).to_str().unwrap().to_owned();
        let (keys, channel) = (self.at().1, channel.to_owned());
        run(&self.client, &Request::Trust { keys, channel, to: to.clone() }).unwrap();
        to
    }

    pub fn follow_at(&self, repository: &str, access: Access) -> Result<Reply, ReleaseError> {
        let (repository, trust) = (repository.to_owned(), self.trust(CHANNEL));
        let (ring, every_ms, install) = (None, 0, false);
        run(&self.client, &Request::Follow { repository, trust, access, ring, every_ms, install })
    }

    pub fn try_follow(&self) -> Result<Reply, ReleaseError> {
        self.follow_at(&self.at().0, Access::default())
    }

    pub fn done(&self, request: &Request) -> Result<Done, ReleaseError> {
        match run(&self.client, request)? {
            Reply::Done(done) => Ok(done),
            reply => panic!("{reply:?}"),
        }
    }

    pub fn install(&self, packages: &[&str]) -> Result<Done, ReleaseError> {
        let packages = packages.iter().map(|package| (*package).to_owned()).collect();
        self.done(&Request::Install { packages, force: false })
    }

    pub fn update(&self) -> Result<Done, ReleaseError> {
        self.done(&Request::Update {})
    }

    pub fn change(&self, release: &str, change: Change) {
        let ((repository, keys), channel) = (self.at(), CHANNEL.to_owned());
        let packages = vec![release.to_owned()];
        run(&self.client, &Request::Rollout { packages, repository, keys, channel, change }).unwrap();
    }

    pub fn decisions(&self) -> Vec<Decision> {
        match run(&self.client, &Request::Check {}).unwrap() {
            Reply::Decisions(decisions) => decisions,
            reply => panic!("{reply:?}"),
        }
    }

    /// Why a version is not installed.
    pub fn reason(&self, version: &str) -> Option<String> {
        let found = self.decisions().into_iter().find(|decision| decision.version == version).unwrap();
        assert_eq!(found.install, found.reason.is_none());
        found.reason
    }

    /// What happened to the client, and to rollouts by themselves.
    pub fn events(&self) -> Vec<String> {
        let mut events = self.all_events();
        events.retain(|event| !["published", "promoted", "rollout"].iter().any(|word| event.starts_with(word)));
        events
    }

    /// What happened, with what the publisher did.
    pub fn all_events(&self) -> Vec<String> {
        let Reply::History { events, .. } = run(&self.client, &Request::History {}).unwrap() else { panic!("none") };
        events.iter().map(|event| format!("{} {} {}", event.what, event.package, event.version)).collect()
    }

    pub fn standings(&self) -> Vec<Standing> {
        let ((repository, keys), channel) = (self.at(), CHANNEL.to_owned());
        match run(&self.client, &Request::Report { repository, keys, channel }).unwrap() {
            Reply::Standings(standings) => standings,
            reply => panic!("{reply:?}"),
        }
    }

    pub fn state(&self) -> State {
        State::read(&self.client).unwrap()
    }
}

/// Runs a request without anybody looking on.
pub fn run(workspace: &Workspace, request: &Request) -> Result<Reply, ReleaseError> {
    release::run(workspace, request, &Doing { told: &|_, _, _| true })
}

/// `[("a", None, "1.0.0")]` as texts.
pub fn installed(done: &Done) -> Vec<String> {
    let text = |(name, before, now): &(String, Option<String>, String)| {
        format!("{name} {} {now}", before.as_deref().unwrap_or("-"))
    };
    done.installed.iter().map(text).collect()
}
