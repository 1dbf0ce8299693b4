//! What other people sign, or hand over, and what clients and publishers of releases remember.

use std::collections::BTreeMap;

use kura::apps::profile::check_manifest;
use kura::apps::release::{
    Anchor, Channel, Feedback, Form, Installed, Offer, Package, Seen, State, Totals, Verdict, check_form, judge, solve,
};
use kura::base::clock::Timestamp;
use semver::VersionReq;

use super::{Decoder, Renewed};

/// All of them.
pub fn decoders() -> Vec<Decoder> {
    [signed(), metadata(), remembered()].into_iter().flatten().collect()
}

/// The root of a repository, which nobody signed.
fn root_text() -> String {
    let roles = ["root", "snapshot", "targets", "timestamp"].map(|role| {
        let id = "ab".repeat(32);
        format!(r#""{role}": {{"keyids": ["{id}"], "threshold": 1}}"#)
    });
    format!(
        r#"{{"signed": {{"_type": "root", "spec_version": "1.0.0", "consistent_snapshot": true, "version": 1,
        "expires": "2030-01-01T00:00:00Z", "keys": {{}}, "roles": {{{}}}}}, "signatures": []}}"#,
        roles.join(", ")
    )
}

/// What is signed, or about to be.
fn signed() -> Vec<Decoder> {
    let package =
        br#"{"name": "tool", "version": "1.2.0", "type": "security", "changes": ["mended"], "from": ">=1.0.0",
        "floor": "why", "dependencies": {"base": "^1"}, "conflicts": {"old": "*"}, "files": [{"path": "bin/tool",
        "mode": 493, "size": 3, "integrity": "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}],
        "checks": [{"name": "runs", "command": ["bin/tool"], "timeout_ms": 1000}]}"#;
    let channel = br#"{"name": "stable", "packages": {"tool": [{"version": "1.2.0", "bps": 500, "rings": ["early"],
        "steps": [{"bps": 10000, "min_samples": 5, "min_soak_s": 60, "success_bps_min": 9900, "failures_max": 1}],
        "since": "2026-01-01T00:00:00Z"}]}, "min_epoch": {"tool": 1},
        "windows": [{"tz": "Europe/Berlin", "days": ["mon"], "start": "22:00", "end": "04:00"}]}"#;
    let root = root_text();
    let key = "A".repeat(43) + "=";
    let anchor = format!(
        r#"{{"format": 1, "channel": "stable", "channel_key": "{key}", "store_key": "{key}", "root": {root}}}"#
    );
    let proposal = format!(r#"{{"format": 1, "root": {root}}}"#);
    let manifest = br#"{"name": "tools", "version": "1.0", "provider": "us", "description": "what it is",
        "files": ["a/b", {"path": "c", "mode": "644"}]}"#;
    let requirements = format!(
        r#"[{{"tool": "^1", "base": "<3, >=1.0"}}, [{0}, {1}]]"#,
        String::from_utf8_lossy(package),
        r#"{"name": "base", "version": "1.4.0", "type": "bugfix", "changes": [], "files": []}"#
    );
    let (wanted, known) = serde_json::from_str::<(BTreeMap<String, VersionReq>, Vec<Package>)>(&requirements).unwrap();
    assert_eq!(solve(&wanted, &known).unwrap().len(), 2);
    let understood = [
        Package::parse(package, "tool", &"1.2.0".parse().unwrap()).map(drop),
        Channel::parse(channel, "stable").map(drop),
        Anchor::parse(anchor.as_bytes(), "file").map(drop),
        check_form(Form::Proposal, proposal.as_bytes(), "file"),
    ];
    assert!(understood.iter().all(Result::is_ok) && check_manifest(manifest, "tools").is_ok(), "{understood:?}");
    vec![
        Decoder::new("release-package", package, |bytes| {
            drop(Package::parse(bytes, "tool", &"1.2.0".parse().unwrap()))
        }),
        Decoder::new("release-channel", channel, |bytes| {
            let Ok(channel) = Channel::parse(bytes, "stable") else { return };
            let now = Timestamp::from_unix_ns(1_790_000_000_000_000_000);
            let open = channel.windows.iter().filter(|window| window.is_open(now)).count();
            assert!(open <= channel.windows.len());
            let totals = Totals { installed: 7, failed: 1, rolled_back: 0, time_ms: 5 };
            let advances = |offer: &Offer| judge(offer, &totals, now) == Verdict::Advance;
            assert!(channel.packages.values().flatten().all(|offer| !offer.steps.is_empty() || !advances(offer)));
        }),
        Decoder::new("release-root-trust", root_text(), |bytes| {
            if let Ok(root) = serde_json::from_slice(bytes) {
                drop(Seen::from_root(&root));
            }
        }),
        Decoder::new("release-solver", requirements, |bytes| {
            if let Ok((wanted, known)) = serde_json::from_slice::<(BTreeMap<String, VersionReq>, Vec<Package>)>(bytes) {
                drop(solve(&wanted, &known));
            }
        }),
        Decoder::new("release-anchor", anchor, |bytes| drop(Anchor::parse(bytes, "file"))),
        Decoder::new("release-proposal", proposal, |bytes| drop(check_form(Form::Proposal, bytes, "file"))),
        Decoder::new("profile-manifest", manifest, |bytes| drop(check_manifest(bytes, "tools"))),
    ]
}

/// A decoder of files of one form.
fn of_form(name: &'static str, form: Form, sample: impl Into<Vec<u8>>) -> Decoder {
    let sample = sample.into();
    check_form(form, &sample, name).unwrap();
    Decoder::new(name, sample, move |bytes| drop(check_form(form, bytes, name)))
}

/// What somebody who controls a repository may put there.
fn metadata() -> Vec<Decoder> {
    let signed = |role: &str, rest: &str| {
        format!(
            r#"{{"signed": {{"_type": "{role}", "spec_version": "1.0.0", "version": 1,
            "expires": "2030-01-01T00:00:00Z", {rest}}}, "signatures": [{{"keyid": "{}", "sig": "00"}}]}}"#,
            "ab".repeat(32)
        )
    };
    let digest = "cd".repeat(32);
    let meta = |name: &str| {
        let hashes = format!(r#"{{"sha256": "{digest}"}}"#);
        format!(r#""meta": {{"{name}": {{"version": 1, "length": 5, "hashes": {hashes}}}}}"#)
    };
    let target = format!(r#""targets": {{"package.tool": {{"length": 5, "hashes": {{"sha256": "{digest}"}}}}}}"#);
    let key = format!(r#"{{"keytype": "ed25519", "scheme": "ed25519", "keyval": {{"public": "{digest}"}}}}"#);
    vec![
        of_form("release-root", Form::Root, root_text()),
        of_form("release-targets", Form::Targets, signed("targets", &target)),
        of_form("release-snapshot", Form::Snapshot, signed("snapshot", &meta("targets.json"))),
        of_form("release-timestamp", Form::Timestamp, signed("timestamp", &meta("snapshot.json"))),
        of_form("release-person", Form::PublicKeys, format!(r#"{{"format": 1, "root": {key}, "targets": {key}}}"#)),
        of_form(
            "release-repositories",
            Form::Repositories,
            r#"{"dir:/r": {"newest": {"targets": 1, "snapshot": 2, "timestamp": 3}, "begun": ["ab"]}}"#,
        ),
        of_form("release-signed", Form::Signed, r#"{"roots": [], "targets": null, "files": {"a": "AA=="}}"#),
        of_form(
            "release-draft",
            Form::Draft,
            r#"{"name": "tool", "version": "1.2.0", "type": "feature", "changes": ["new"], "dependencies": {"a": "^1"}}"#,
        ),
        of_form(
            "release-archived",
            Form::Archived,
            r#"{"offer": {"version": "1.2.0", "bps": 500, "since": "2026-01-01T00:00:00Z"}, "package": {}}"#,
        ),
    ]
}

/// What a client remembers and tells.
fn remembered() -> Vec<Decoder> {
    let mut state = State::default();
    state.note("2026-01-01T00:00:00Z", "installed", "tool", "1.2.0", "words");
    state.note("2026-01-01T00:00:01Z", "failed", "tool", "1.3.0", "more words");
    state.deny("tool", &"1.3.0".parse().unwrap(), "it failed");
    let events = serde_json::to_vec(&state.events).unwrap();
    let state = serde_json::to_vec(&state).unwrap();
    let feedback = br#"{"client": "c", "counter": 3, "result": "installed", "time_ms": 5, "note": "fine"}"#;
    let installed = br#"{"name": "tool", "version": "1.2.0", "channel": "stable", "installed_at": "2026-01-01T00:00:00Z",
        "install_id": "i", "rollback": true, "dependencies": {"a": "^1"}, "files": [], "sidecars": [], "dirs": ["bin"]}"#;
    assert!(serde_json::from_slice::<Feedback>(feedback).is_ok());
    Installed::parse(installed, "tool").unwrap();
    let (of_state, of_events) = (Renewed::new(), Renewed::new());
    vec![
        Decoder::new("release-state", state, move |bytes| {
            let workspace = of_state.workspace();
            workspace.records("releases").write("state", bytes).unwrap();
            drop(State::read(&workspace));
        }),
        Decoder::new("release-events", events, move |bytes| {
            let workspace = of_events.workspace();
            workspace.records("releases").write("events-000000000002", bytes).unwrap();
            drop(State::default().all_events(&workspace));
        }),
        Decoder::new("release-feedback", feedback, |bytes| {
            if let Ok(report) = serde_json::from_slice::<Feedback>(bytes) {
                Totals::of(&[report.clone(), Feedback { counter: 0, ..report }]);
            }
        }),
        Decoder::new("release-installed", installed, |bytes| drop(Installed::parse(bytes, "tool"))),
    ]
}
