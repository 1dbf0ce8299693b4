//! Several people sign, each where they are, and files are carried between them.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;

use kura::apps::release::{
    Change, DirRepository, Expiry, ReleaseError, Reply, Request, Rollout, Signer, Signing, Step, Thresholds, Window,
};
use serde_json::{Value, json};

use super::support::{CHANNEL, World, run};
use crate::workspace_rig as ws;
use crate::workspace_rig::Rig;

/// A publisher without keys yet, and people with keys of their own.
struct Team(World);

impl Team {
    fn new(people: &[&str]) -> Self {
        let rig = Rig::new();
        let client = rig.open("client");
        let team = Self(World { rig, client });
        for name in people {
            let (keys, to) = (team.text(name), team.text(&format!("{name}.pub")));
            team.run(&Request::Key { keys, to }).unwrap();
        }
        team
    }

    fn text(&self, name: &str) -> String {
        self.0.path(name).to_str().unwrap().to_owned()
    }

    fn run(&self, request: &Request) -> Result<Reply, ReleaseError> {
        run(&self.0.client, request)
    }

    fn keygen(&self, count: u32, threshold: u32, with: &[&str]) -> Request {
        let with = with.iter().map(|name| self.text(&format!("{name}.pub"))).collect();
        Request::Keygen { keys: self.0.at().1, count: Some(count), threshold: Some(threshold), with }
    }

    /// Writes what is asked to be signed by others, to a file of this name.
    fn propose(&self, to: &str, request: Request) -> Signing {
        let reply = self.run(&Request::Propose { to: self.text(to), request: Box::new(request) }).unwrap();
        let Reply::Signing(signing) = reply else { panic!("{reply:?}") };
        signing
    }

    fn sign(&self, file: &str, name: &str) -> Result<Signing, ReleaseError> {
        let trust = self.0.keys().join("root.json").exists().then(|| self.0.trust(CHANNEL));
        self.sign_with(file, name, trust, false)
    }

    fn sign_with(&self, file: &str, name: &str, trust: Option<String>, dry_run: bool) -> Result<Signing, ReleaseError> {
        match self.run(&Request::Sign { file: self.text(file), keys: self.text(name), trust, dry_run })? {
            Reply::Signing(signing) => Ok(signing),
            reply => panic!("{reply:?}"),
        }
    }

    fn complete(&self, files: &[&str]) -> Result<Reply, ReleaseError> {
        let files = files.iter().map(|file| self.text(file)).collect();
        let (repository, keys) = self.0.at();
        self.run(&Request::Complete { files, keys, repository: Some(repository) })
    }

    fn publish(&self, version: &str, content: &str) -> Request {
        let check = json!({ "changes": ["what is new"], "checks": [
            { "name": "check", "command": ["true"], "timeout_ms": 60_000 },
        ] });
        let dir = self.0.package("tool", version, check, &[("t", content)]);
        let (repository, keys) = self.0.at();
        Request::Publish { dir, repository, keys, channel: CHANNEL.to_owned(), rollout: Rollout::default() }
    }

    /// Keys of the publisher, Bob and Carol, of which two have to sign; and 1.0.0, signed by Bob.
    fn of_three() -> Self {
        let team = Self::new(&["bob", "carol"]);
        team.propose("root", team.keygen(1, 2, &["bob", "carol"]));
        team.sign("root", "bob").unwrap();
        team.complete(&["root"]).unwrap();
        team.propose("first", team.publish("1.0.0", "one"));
        team.sign("first", "bob").unwrap();
        team.complete(&["first"]).unwrap();
        team
    }
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

#[track_caller]
fn too_few(outcome: Result<Reply, ReleaseError>, signed: (u64, u64)) {
    match outcome {
        Err(ReleaseError::TooFew { have, need, .. }) => assert_eq!((have, need), signed),
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn people_in_different_places_sign_a_root_and_an_offer() {
    let team = Team::new(&["bob", "carol", "dave"]);
    let keygen = team.keygen(1, 2, &["bob", "carol"]);
    too_few(team.run(&keygen), (1, 2));
    assert!(!team.0.keys().exists(), "nothing was made of what cannot count");
    let signing = team.propose("root", keygen);
    assert_eq!((signing.complete, &signing.signatures[0][..]), (false, "1 of 2 signatures by the keys of root 1"));
    too_few(team.complete(&["root"]), (1, 2));
    assert!(team.run(&team.publish("1.0.0", "one")).is_err(), "there is no root yet");
    let error = team.sign("root", "dave").unwrap_err();
    assert!(error.to_string().contains("none of them signs root 1"), "{error}");
    let signing = team.sign("root", "bob").unwrap();
    assert!(signing.complete && signing.shows.contains(&"targets: 2 of 3 keys sign".to_owned()), "{signing:?}");
    assert_eq!(signing.shows.iter().filter(|line| line.ends_with(", new, yours")).count(), 2, "{signing:?}");
    team.complete(&["root"]).unwrap();

    too_few(team.run(&team.publish("1.0.0", "one")), (1, 2));
    team.propose("offer", team.publish("1.0.0", "one"));
    assert!(!team.0.repository().join("metadata").exists(), "nothing is offered");
    fs::copy(team.text("offer"), team.text("offer-at-carol")).unwrap();
    let signing = team.sign("offer-at-carol", "carol").unwrap();
    let shown = signing.shows.join("\n");
    assert!(signing.complete, "{signing:?}");
    for words in [
        "new: package.stable.tool.1.0.0",
        "expires: ",
        "  changes[0]: \"what is new\"",
        "  files[t].integrity: \"sha256-",
        "  files[t].mode: ",
        "  files[t].class: ",
        "  checks[0].command[0]: \"true\"",
        "  type: \"feature\"",
        "  security_epoch: 0",
        "  rollback: true",
        "  packages.tool[1.0.0].bps: 10000",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    too_few(team.complete(&["offer"]), (1, 2));
    team.complete(&["offer", "offer-at-carol"]).unwrap();
    team.0.follow();
    team.0.install(&["tool"]).unwrap();
    assert_eq!(ws::read(&team.0.client, "t"), b"one");
}

#[test]
fn a_rollout_that_several_sign_shows_them_what_changes() {
    let team = Team::of_three();
    team.0.follow();
    let ((repository, keys), channel) = (team.0.at(), CHANNEL.to_owned());
    let packages = vec!["tool@1.0.0".to_owned()];
    let pause = Request::Rollout { packages, repository, keys, channel, change: Change::Pause };
    too_few(team.run(&pause), (1, 2));
    assert!(team.0.reason("1.0.0").is_none());
    team.propose("pause", pause);
    let shown = team.sign("pause", "bob").unwrap().shows;
    assert!(!shown.join("\n").contains("package.stable"), "the package is as he signed it before: {shown:?}");
    assert!(shown[0].starts_with("expires: ") && shown[0].contains(" -> "), "{shown:?}");
    assert!(shown[1].starts_with("changed: channel.stable"), "{shown:?}");
    assert_eq!(shown[2], "  packages.tool[1.0.0].paused: false -> true");
    assert!(shown[3].starts_with("  packages.tool[1.0.0].since: ") && shown.len() == 4, "{shown:?}");
    // Carol has signed nothing yet.
    assert!(team.sign("pause", "carol").unwrap().shows.iter().any(|line| line.starts_with("new: package.stable")));
    team.complete(&["pause"]).unwrap();
    assert_eq!(team.0.reason("1.0.0").unwrap(), "the rollout is paused");
}

#[test]
fn what_several_signed_is_written_down_with_package_and_version() {
    let team = Team::of_three();
    let change = |release: &str, change: Change| {
        let ((repository, keys), channel) = (team.0.at(), CHANNEL.to_owned());
        Request::Rollout { packages: vec![release.to_owned()], repository, keys, channel, change }
    };
    let by_all = |name: &str, request: Request| {
        team.propose(name, request);
        team.sign(name, "bob").unwrap();
        match team.complete(&[name]).unwrap() {
            Reply::Said(text) => text,
            reply => panic!("{reply:?}"),
        }
    };
    let said = by_all("second", team.publish("1.1.0", "two"));
    assert_eq!(said, "targets 2 is published: tool 1.1.0 is offered in stable");
    by_all("pause", change("tool@1.1.0", Change::Pause));
    by_all("revoke", change("tool@1.0.0", Change::Revoke("it is bad".to_owned())));
    by_all("anew", channel(&team.0, "keys", CHANNEL));
    let ((repository, keys), name) = (team.0.at(), CHANNEL.to_owned());
    by_all("clean", Request::Cleanup { repository, keys, channel: name, keep: 1, dry_run: false });
    let events = team.0.state().events;
    let lines: Vec<String> = events
        .iter()
        .map(|event| format!("{} [{} {}] {}", event.what, event.package, event.version, event.detail))
        .collect();
    assert_eq!(
        &lines[1..],
        [
            "published [tool 1.0.0] tool 1.0.0 is offered in stable (targets 1)",
            "published [tool 1.1.0] tool 1.1.0 is offered in stable (targets 2)",
            "rollout [tool 1.1.0] tool 1.1.0 in stable is paused (targets 3)",
            "rollout [tool 1.0.0] tool 1.0.0 in stable is taken back: it is bad (targets 4)",
            "signed [ ] channel stable is signed anew (targets 5)",
            "cleaned-up [tool 1.0.0] tool 1.0.0 is not offered in stable any more (targets 6)",
        ]
    );
}

#[test]
fn what_several_signed_of_windows_epochs_rings_and_steps_is_written_down() {
    let team = Team::of_three();
    let by_all = |name: &str, request: Request| {
        team.propose(name, request);
        team.sign(name, "bob").unwrap();
        team.complete(&[name]).unwrap();
        team.0.state().events.last().map(|event| (event.what.clone(), event.detail.clone())).unwrap()
    };
    let set = |windows: Option<&str>, epoch: u32| {
        let ((repository, keys), channel) = (team.0.at(), CHANNEL.to_owned());
        let window =
            |tz: &str| Window { tz: tz.to_owned(), days: Vec::new(), start: "22:00".into(), end: "05:00".into() };
        let windows = Some(windows.into_iter().map(window).collect());
        Request::Channel { repository, keys, channel, windows, min_epoch: [("tool".to_owned(), epoch)].into() }
    };
    let said = |text: &str| ("signed".to_owned(), text.to_owned());
    let window = "channel stable has windows Europe/Berlin,,22:00,05:00 and not none";
    let epoch = "asks for security epoch 1 of tool and not 0";
    assert_eq!(by_all("set", set(Some("Europe/Berlin"), 1)), said(&format!("{window}, {epoch} (targets 2)")));
    let less = "asks for security epoch 0 of tool and not 1 (targets 3)";
    let none = "channel stable has windows none and not Europe/Berlin,,22:00,05:00";
    assert_eq!(by_all("unset", set(None, 0)), said(&format!("{none}, {less}")));
    let again = |rings: &[&str], steps: Vec<Step>| {
        let Request::Publish { dir, repository, keys, channel, .. } = team.publish("1.0.0", "one") else { panic!() };
        let rings = rings.iter().map(|ring| (*ring).to_owned()).collect();
        let rollout = Rollout { rings, steps, ..Rollout::default() };
        Request::Publish { dir, repository, keys, channel, rollout }
    };
    let step = Step { bps: 2500, min_samples: 20, min_soak_s: 3600, success_bps_min: 9550, failures_max: 2 };
    let rings = "tool 1.0.0 in stable goes to rings a b and not none, has steps 25:20:3600:95.5:2 and not none";
    assert_eq!(by_all("rings", again(&["a", "b"], vec![step])), said(&format!("{rings} (targets 4)")));
    let changed = "tool 1.0.0 in stable goes to rings none and not a b, has steps none and not 25:20:3600:95.5:2";
    assert_eq!(by_all("none", again(&[], Vec::new())), said(&format!("{changed} (targets 5)")));
}

#[test]
fn what_was_signed_counts_once_and_only_as_it_was_signed() {
    let team = Team::of_three();
    for (name, version) in [("second", "1.1.0"), ("other", "1.2.0")] {
        team.propose(name, team.publish(version, version));
        team.sign(name, "bob").unwrap();
    }
    // It is altered on its way.
    fs::copy(team.text("second"), team.text("altered")).unwrap();
    edit(&team.0.path("altered"), |value| value["targets"]["signed"]["expires"] = json!("2100-01-01T00:00:00Z"));
    too_few(team.complete(&["altered"]), (0, 2));
    let error = team.complete(&["second", "altered"]).unwrap_err();
    assert!(matches!(error, ReleaseError::Stale { .. }), "{error}");
    fs::copy(team.text("second"), team.text("altered")).unwrap();
    edit(&team.0.path("altered"), |value| {
        value["files"]["channel.stable"] = json!("AAAA");
    });
    assert!(matches!(team.complete(&["altered"]), Err(ReleaseError::Damaged { .. })));
    assert!(matches!(team.sign("altered", "carol"), Err(ReleaseError::Damaged { .. })));
    // The root in it is another's.
    let others = Team::of_three();
    edit(&others.0.path("first"), |value| {
        let theirs: Value = serde_json::from_slice(&fs::read(team.text("second")).unwrap()).unwrap();
        value["targets"] = theirs["targets"].clone();
        value["files"] = theirs["files"].clone();
    });
    too_few(others.complete(&["first"]), (0, 2));
    // Its content went meanwhile.
    let content = team.0.repository().join("content");
    let kept = team.0.path("kept");
    fs::rename(&content, &kept).unwrap();
    assert!(matches!(team.complete(&["second"]), Err(ReleaseError::Missing { .. })));
    fs::rename(&kept, &content).unwrap();
    // Both rest on the same offer: one of them can follow it.
    team.complete(&["second"]).unwrap();
    for file in ["second", "other"] {
        let error = team.complete(&[file]).unwrap_err();
        assert!(matches!(error, ReleaseError::Stale { .. }), "{error}");
    }
    team.0.follow();
    team.0.install(&["tool"]).unwrap();
    assert_eq!(ws::read(&team.0.client, "t"), b"1.1.0");
}

/// How many offers there were, and the number of the newest statement that there is none newer.
fn published(world: &World) -> (usize, u64) {
    let metadata = world.repository().join("metadata");
    let offers = fs::read_dir(&metadata).unwrap().map(|entry| entry.unwrap().path());
    let offers = offers.filter(|path| path.to_str().unwrap().ends_with(".targets.json")).count();
    let newest: Value = serde_json::from_slice(&fs::read(metadata.join("timestamp.json")).unwrap()).unwrap();
    (offers, newest["signed"]["version"].as_u64().unwrap())
}

fn channel(world: &World, keys: &str, name: &str) -> Request {
    let ((repository, _), keys, channel) = (world.at(), world.path(keys), name.to_owned());
    let keys = keys.to_str().unwrap().to_owned();
    Request::Channel { repository, keys, channel, windows: None, min_epoch: Default::default() }
}

#[test]
fn one_person_renews_what_several_signed_with_the_keys_of_snapshot_and_timestamp_alone() {
    let team = Team::of_three();
    team.0.follow();
    // A timer has no more than this.
    fs::create_dir(team.0.path("timer")).unwrap();
    for entry in fs::read_dir(team.0.keys()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if ["root.json", "root-1.json", "store.key"].contains(&&name[..])
            || name.starts_with("snapshot-")
            || name.starts_with("timestamp-")
        {
            fs::copy(team.0.keys().join(&name), team.0.path("timer").join(&name)).unwrap();
        }
    }
    let before = published(&team.0);
    for keys in ["timer", "keys"] {
        let Reply::Said(text) = team.run(&channel(&team.0, keys, CHANNEL)).unwrap() else { panic!("{keys}") };
        assert!(text.contains("what it offers counts until 20"), "{text}");
    }
    assert_eq!(published(&team.0), (before.0, before.1 + 2));
    team.0.install(&["tool"]).unwrap();
    // A channel that is not there would be a new offer, as is what changes something.
    too_few(team.run(&channel(&team.0, "keys", "beta")), (1, 2));
    let mut set = channel(&team.0, "keys", CHANNEL);
    if let Request::Channel { windows, .. } = &mut set {
        *windows = Some(Vec::new());
    }
    too_few(team.run(&set), (1, 2));
    // All of it is signed anew by all, when that is asked for.
    team.propose("anew", channel(&team.0, "keys", CHANNEL));
    team.sign("anew", "carol").unwrap();
    team.run(&channel(&team.0, "timer", CHANNEL)).unwrap();
    team.complete(&["anew"]).unwrap();
    assert_eq!(published(&team.0), (before.0 + 1, before.1 + 4), "renewed meanwhile, it follows the same offer");
    // What an earlier root's keys signed does not count any more.
    team.propose("next", team.keygen(1, 2, &["bob", "carol"]));
    team.sign("next", "bob").unwrap();
    team.complete(&["next"]).unwrap();
    too_few(team.run(&channel(&team.0, "keys", CHANNEL)), (1, 2));
    team.0.update().unwrap();
}

#[test]
fn what_is_renewed_counts_again_and_the_offer_is_renewed_before_it_ends() {
    let world = World::new();
    world.publish("tool", "1.0.0", json!({}), &[("t", "one")]);
    world.follow();
    let publish = |expiry: Expiry, days: i64| {
        let now = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * days);
        let signer = Signer::open(&world.keys(), expiry).unwrap();
        signer.publish(&DirRepository(world.repository()), &[], now).unwrap();
    };
    let renew = || run(&world.client, &channel(&world, "keys", CHANNEL)).unwrap();
    publish(Expiry::default(), 31);
    let offers = published(&world).0;
    assert!(matches!(world.update(), Err(ReleaseError::Untrusted { .. })), "it has expired");
    renew();
    assert_eq!(published(&world).0, offers, "the offer counts for eleven months more");
    world.install(&["tool"]).unwrap();
    publish(Expiry { targets_days: 29, ..Expiry::default() }, 0);
    renew();
    assert_eq!(published(&world).0, offers + 2, "it would have ended before the next renewal");
    world.update().unwrap();
}

#[test]
fn an_offer_is_not_published_without_the_files_that_it_names() {
    let team = Team::of_three();
    team.propose("second", team.publish("1.1.0", "two"));
    fs::copy(team.text("second"), team.text("cut")).unwrap();
    edit(&team.0.path("cut"), |value| value["files"] = json!({}));
    team.sign("cut", "bob").unwrap();
    let error = team.complete(&["cut"]).unwrap_err();
    assert!(matches!(error, ReleaseError::Missing { .. }), "{error}");
    team.sign("second", "bob").unwrap();
    team.complete(&["second"]).unwrap();
    // What the repository has, it has as it was signed.
    team.propose("third", team.publish("1.2.0", "three"));
    team.sign("third", "bob").unwrap();
    let targets = fs::read_dir(team.0.repository().join("targets")).unwrap();
    let name = |path: &std::path::PathBuf| path.to_str().unwrap().ends_with(".package.stable.tool.1.0.0");
    let old = targets.map(|entry| entry.unwrap().path()).find(name).unwrap();
    let kept = fs::read(&old).unwrap();
    fs::write(&old, vec![0; kept.len()]).unwrap();
    assert!(matches!(team.complete(&["third"]), Err(ReleaseError::Missing { .. })));
    fs::write(&old, kept).unwrap();
    team.complete(&["third"]).unwrap();
    team.0.follow();
    team.0.install(&["tool"]).unwrap();
    assert_eq!(ws::read(&team.0.client, "t"), b"three");
}

#[test]
fn who_signs_is_shown_first_what_it_would_be() {
    let team = Team::of_three();
    let ((repository, keys), channel) = (team.0.at(), CHANNEL.to_owned());
    let min_epoch = [("tool".to_owned(), 3)].into();
    let windows = Some(vec![Window {
        tz: "Europe/Berlin".to_owned(),
        days: vec!["mon".to_owned()],
        start: "22:00".to_owned(),
        end: "05:00".to_owned(),
    }]);
    team.propose("set", Request::Channel { repository, keys, channel, windows, min_epoch });
    let (before, trust) = (fs::read(team.text("set")).unwrap(), Some(team.0.trust(CHANNEL)));
    let trial = team.sign_with("set", "bob", trust, true).unwrap();
    assert!(!trial.complete);
    assert_eq!(fs::read(team.text("set")).unwrap(), before, "nothing is signed");
    too_few(team.complete(&["set"]), (1, 2));
    let shown = trial.shows.join("\n");
    for words in ["  min_epoch.tool: 3", "  windows[0].start: \"22:00\"", "  windows[0].days[0]: \"mon\""] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    // What says it is not shown without the key of the channel, nor without the file itself.
    let shown = team.sign_with("set", "bob", None, true).unwrap().shows.join("\n");
    assert!(shown.contains("what it says is shown with the file of trust"), "{shown}");
    fs::copy(team.text("set"), team.text("cut")).unwrap();
    edit(&team.0.path("cut"), |value| value["files"] = json!({}));
    let shown = team.sign_with("cut", "bob", Some(team.0.trust(CHANNEL)), true).unwrap().shows.join("\n");
    assert!(shown.contains("it is not in this file"), "{shown}");
    assert_eq!(team.sign("set", "bob").unwrap().shows, trial.shows, "a trial is not remembered");
}

#[test]
fn what_was_not_signed_after_all_is_shown_again() {
    let team = Team::of_three();
    team.propose("second", team.publish("1.1.0", "two"));
    let trial = team.sign_with("second", "bob", Some(team.0.trust(CHANNEL)), true).unwrap();
    // It can be read here, and not be written over.
    let open = fs::File::open(team.text("second")).unwrap();
    let (file, trust) = (format!("/proc/self/fd/{}", open.as_raw_fd()), Some(team.0.trust(CHANNEL)));
    let error = team.run(&Request::Sign { file, keys: team.text("bob"), trust, dry_run: false }).unwrap_err();
    assert!(matches!(error, ReleaseError::Disk { .. }), "{error}");
    assert_eq!(team.sign("second", "bob").unwrap().shows, trial.shows);
}

#[test]
fn nothing_is_signed_that_is_not_shown_or_lets_others_sign() {
    let team = Team::of_three();
    team.propose("second", team.publish("1.1.0", "two"));
    let id = "0".repeat(64);
    let role = json!({ "name": "mallory", "keyids": [id], "threshold": 1, "paths": ["*"], "terminating": false });
    let changes: [(&str, Value); 3] = [
        ("/targets/signed/delegations", json!({ "keys": {}, "roles": [role] })),
        ("/targets/signed/more", json!(1)),
        ("/targets/signed/targets/channel.stable/custom", json!({ "more": 1 })),
    ];
    for (path, value) in changes {
        fs::copy(team.text("second"), team.text("altered")).unwrap();
        edit(&team.0.path("altered"), |proposal| {
            let (above, name) = path.rsplit_once('/').unwrap();
            proposal.pointer_mut(above).unwrap()[name] = value;
        });
        let error = team.sign("altered", "bob").unwrap_err();
        assert!(matches!(error, ReleaseError::Damaged { .. }), "{path}: {error}");
    }
    team.propose("next", team.keygen(1, 2, &["bob", "carol"]));
    edit(&team.0.path("next"), |proposal| proposal["root"]["signed"]["more"] = json!(1));
    assert!(matches!(team.sign("next", "bob"), Err(ReleaseError::Damaged { .. })));
}

#[test]
fn a_root_is_compared_with_the_one_that_was_signed_before_and_not_with_what_it_brings() {
    let team = Team::of_three();
    // Mallory makes a root 1 of her own that names Bob, and a root 2 that follows from it.
    let mallory = Team::new(&[]);
    let keygen = |threshold| {
        let with = vec![team.text("bob.pub")];
        Request::Keygen { keys: mallory.0.at().1, count: Some(1), threshold: Some(threshold), with }
    };
    mallory.run(&keygen(1)).unwrap();
    mallory.propose("forged", keygen(1));
    fs::copy(mallory.text("forged"), team.text("forged")).unwrap();
    let before = fs::read(team.text("forged")).unwrap();
    let error = team.sign_with("forged", "bob", None, false).unwrap_err();
    assert!(error.to_string().contains("does not follow from root 1, which is known here"), "{error}");
    assert_eq!(fs::read(team.text("forged")).unwrap(), before);
    // Who signed nothing yet is told so, and knows no key but their own; the file of trust tells more.
    team.propose("next", team.keygen(1, 2, &["bob", "carol"]));
    let shown = team.sign_with("next", "carol", None, true).unwrap().shows;
    assert!(shown[0].starts_with("no root is known here"), "{shown:?}");
    let keys = |shown: &[String]| shown.iter().filter(|line| line.starts_with("  ")).cloned().collect::<Vec<_>>();
    assert!(keys(&shown).iter().all(|line| line.contains(", new")), "{shown:?}");
    let shown = team.sign("next", "carol").unwrap().shows;
    assert_eq!(shown[0], "compared with root 1, which is known here");
    assert_eq!(keys(&shown).iter().filter(|line| line.ends_with(", yours") && !line.contains("new")).count(), 2);
    assert_eq!(keys(&shown).iter().filter(|line| line.ends_with(", gone")).count(), 4, "{shown:?}");
    let bob = team.sign_with("next", "bob", None, false).unwrap().shows;
    assert_eq!(bob[0], shown[0]);
    team.complete(&["next"]).unwrap();
}

#[test]
fn the_next_root_is_signed_by_enough_of_the_old_keys_and_of_the_new() {
    let team = Team::of_three();
    team.0.follow();
    team.0.install(&["tool"]).unwrap();
    // Carol leaves.
    let signing = team.propose("next", team.keygen(1, 2, &["bob"]));
    assert_eq!(signing.signatures.len(), 2);
    team.sign("next", "carol").unwrap();
    too_few(team.complete(&["next"]), (1, 2));
    team.sign("next", "bob").unwrap();
    team.complete(&["next"]).unwrap();
    assert!(matches!(team.complete(&["next"]), Err(ReleaseError::Stale { .. })));
    team.propose("offer", team.publish("1.1.0", "two"));
    assert!(matches!(team.sign("offer", "carol"), Err(ReleaseError::Keys { .. })), "her key counts no more");
    team.sign("offer", "bob").unwrap();
    team.complete(&["offer"]).unwrap();
    team.0.update().unwrap();
    assert_eq!(ws::read(&team.0.client, "t"), b"two");
}

#[test]
fn what_is_to_be_signed_is_written_to_new_files_and_only_where_something_is_signed() {
    let team = Team::of_three();
    fs::write(team.0.path("taken"), "mine").unwrap();
    let request = Box::new(team.publish("1.1.0", "two"));
    assert!(team.run(&Request::Propose { to: team.text("taken"), request }).is_err());
    assert_eq!(fs::read(team.0.path("taken")).unwrap(), b"mine");
    let inside = Request::Propose { to: team.text("keys/offer"), request: Box::new(team.publish("1.1.0", "two")) };
    let error = team.run(&inside).unwrap_err();
    assert!(error.to_string().contains("among the keys") && !team.0.path("keys/offer").exists(), "{error}");
    let error = team.run(&Request::Propose { to: team.text("none"), request: Box::new(Request::Update {}) });
    assert!(matches!(error, Err(ReleaseError::NotNamed { .. })), "{error:?}");
    // Nobody's key counts twice.
    let twice =
        team.run(&Request::Propose { to: team.text("two"), request: Box::new(team.keygen(1, 2, &["bob", "bob"])) });
    assert!(matches!(twice, Err(ReleaseError::Keys { .. })), "{twice:?}");
    fs::write(team.0.path("junk"), "{}").unwrap();
    assert!(matches!(team.sign("junk", "bob"), Err(ReleaseError::Damaged { .. })));
}

#[test]
fn the_next_keys_are_as_many_as_before_and_as_many_of_them_have_to_sign() {
    let team = Team::of_three();
    let keys = || team.0.at().1;
    let again = |with: Vec<String>| Request::Keygen { keys: keys(), count: None, threshold: None, with };
    let error = team.run(&again(Vec::new())).unwrap_err();
    assert!(error.to_string().contains("2 of 1 keys would have to sign"), "{error}");
    let with = ["bob.pub", "carol.pub"].map(|name| team.text(name)).to_vec();
    team.propose("next", again(with));
    let shown = team.sign("next", "bob").unwrap().shows;
    assert!(shown.contains(&"root: 2 of 3 keys sign".to_owned()), "{shown:?}");
    team.complete(&["next"]).unwrap();
    // All keys are in one place.
    let world = World::signed_by(Thresholds { keys: 3, threshold: 2 }, Expiry::default());
    let keygen = Request::Keygen { keys: world.at().1, count: None, threshold: None, with: Vec::new() };
    run(&world.client, &keygen).unwrap();
    let root: Value = serde_json::from_slice(&fs::read(world.keys().join("root.json")).unwrap()).unwrap();
    let targets = &root["signed"]["roles"]["targets"];
    assert_eq!((&targets["threshold"], targets["keyids"].as_array().unwrap().len()), (&json!(2), 3));
}

#[test]
fn the_public_keys_of_a_person_are_written_to_a_new_file_also_when_the_keys_are_there() {
    let team = Team::new(&["bob"]);
    let key = |dir: &str, to: &str| team.run(&Request::Key { keys: team.text(dir), to: team.text(to) });
    let error = key("carol", "bob.pub").unwrap_err();
    assert!(matches!(error, ReleaseError::Disk { .. }) && !team.0.path("carol").exists(), "{error}");
    fs::remove_file(team.0.path("bob").join("targets-person.key")).unwrap();
    key("bob", "again.pub").unwrap();
    key("bob", "once-more.pub").unwrap();
    let read = |name: &str| -> Value { serde_json::from_slice(&fs::read(team.text(name)).unwrap()).unwrap() };
    assert_eq!(read("again.pub")["root"], read("bob.pub")["root"]);
    assert_ne!(read("again.pub")["targets"], read("bob.pub")["targets"], "this one was lost");
    assert_eq!(read("again.pub"), read("once-more.pub"));
}

#[test]
fn content_that_waits_for_signatures_is_cleaned_up_after_a_week() {
    let team = Team::of_three();
    let cleanup = || {
        let ((repository, keys), channel) = (team.0.at(), CHANNEL.to_owned());
        team.run(&Request::Cleanup { repository, keys, channel, keep: 5, dry_run: false }).unwrap();
    };
    for (name, version) in [("second", "1.1.0"), ("third", "1.2.0")] {
        team.propose(name, team.publish(version, version));
        team.sign(name, "bob").unwrap();
        cleanup();
        if name == "second" {
            team.complete(&[name]).unwrap();
        }
    }
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(8 * 86_400);
    for entry in fs::read_dir(team.0.repository().join("content")).unwrap() {
        fs::File::open(entry.unwrap().path()).unwrap().set_modified(old).unwrap();
    }
    cleanup();
    assert!(matches!(team.complete(&["third"]), Err(ReleaseError::Missing { what: "content", .. })));
    team.0.follow();
    team.0.install(&["tool"]).unwrap();
    assert_eq!(ws::read(&team.0.client, "t"), b"1.1.0");
}

/// Copies a directory of keys, as it was before, with the first `count` of the files that came since.
fn interrupted(before: &Path, after: &Path, to: &Path, count: usize) -> bool {
    fs::remove_dir_all(to).ok();
    fs::create_dir_all(to).unwrap();
    let names = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        // The repository begins anew each time.
        names.filter(|name| name != "repositories.json").collect()
    };
    let copy = |from: &Path, name: &String| assert!(fs::copy(from.join(name), to.join(name)).is_ok());
    names(before).iter().for_each(|name| copy(before, name));
    let mut new = names(after);
    new.retain(|name| fs::read(before.join(name)).ok() != fs::read(after.join(name)).ok());
    // As they are written: keys, the root under its version, and then as the newest.
    new.sort_by_key(|name| (name == "root.json", name.ends_with(".json"), name.clone()));
    new.iter().take(count).for_each(|name| copy(after, name));
    count >= new.len()
}

#[test]
fn keys_whose_making_was_interrupted_anywhere_can_be_used_and_made_again() {
    for first in [true, false] {
        let world = World::new();
        let (keys, before, after) = (world.keys(), world.path("before"), world.path("after"));
        world.publish("tool", "1.0.0", json!({}), &[("t", "one")]);
        if first {
            fs::create_dir(&before).unwrap();
        } else {
            world.follow();
            interrupted(&keys, &keys, &before, 0);
        }
        let keygen = Request::Keygen { keys: world.at().1, count: None, threshold: None, with: Vec::new() };
        if first {
            fs::remove_dir_all(&keys).unwrap();
            fs::remove_dir_all(world.repository()).unwrap();
        }
        run(&world.client, &keygen).unwrap();
        fs::rename(&keys, &after).unwrap();
        for step in 0.. {
            let is_last = interrupted(&before, &after, &keys, step);
            if !first || keys.join("root-1.json").exists() {
                world.publish("tool", &format!("2.0.{step}"), json!({}), &[("t", "two")]);
                world.follow();
            }
            run(&world.client, &keygen).unwrap_or_else(|error| panic!("{first}, {step}: {error}"));
            world.publish("tool", &format!("3.0.{step}"), json!({}), &[("t", "three")]);
            world.follow();
            world.install(&[&format!("tool@3.0.{step}")]).unwrap();
            // Each step begins with what was offered at first.
            fs::remove_dir_all(world.repository()).unwrap();
            if is_last {
                break;
            }
        }
    }
}

#[test]
fn a_root_whose_completion_was_interrupted_anywhere_is_completed_again() {
    let team = Team::of_three();
    let (keys, before, after) = (team.0.keys(), team.0.path("before"), team.0.path("after"));
    team.propose("next", team.keygen(1, 2, &["bob"]));
    fs::copy(team.text("next"), team.text("at-carol")).unwrap();
    team.sign("next", "bob").unwrap();
    interrupted(&keys, &keys, &before, 0);
    team.complete(&["next"]).unwrap();
    fs::rename(&keys, &after).unwrap();
    // Other signatures make the same root, too.
    team.sign("at-carol", "carol").unwrap();
    for step in 0..2 {
        assert!(!interrupted(&before, &after, &keys, step));
        team.complete(&["next", "at-carol"]).unwrap_or_else(|error| panic!("{step}: {error}"));
        assert_eq!(fs::read(keys.join("root-2.json")).unwrap(), fs::read(keys.join("root.json")).unwrap());
        assert!(matches!(team.complete(&["next"]), Err(ReleaseError::Stale { .. })));
        let version = format!("1.1.{step}");
        team.propose(&version, team.publish(&version, "two"));
        team.sign(&version, "bob").unwrap();
        team.complete(&[&version]).unwrap();
    }
    team.0.follow();
    team.0.install(&["tool"]).unwrap();
    assert_eq!(ws::read(&team.0.client, "t"), b"two");
}
