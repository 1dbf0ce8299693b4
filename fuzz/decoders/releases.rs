//! What other people sign, or hand over, and what clients and publishers of releases remember.

use std::collections::BTreeMap;
use std::sync::Arc;

use kura::apps::profile::check_manifest;
use kura::apps::release::{
    Anchor, Channel, DirRepository, Expiry, Feedback, Form, Installed, Package, Seen, Signer, State, Thresholds,
    Totals, Verdict, carry_out, check_form, check_name, judge, keygen, solve,
};
use kura::base::clock::Timestamp;

use super::{Decoder, Renewed};

/// All of them.
pub fn decoders() -> Vec<Decoder> {
    [signed(), trusted(), repositories(), metadata(), remembered()].into_iter().flatten().collect()
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
        "steps": [{"bps": 500, "min_samples": 5, "min_soak_s": 60, "success_bps_min": 9900, "failures_max": 1}],
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
    vec![
        Decoder::checked("release-package", package, |bytes| {
            Package::parse(bytes, "tool", &"1.2.0".parse().unwrap()).is_ok()
        }),
        Decoder::checked("release-channel", channel, in_channel),
        Decoder::checked("release-anchor", anchor, |bytes| Anchor::parse(bytes, "file").is_ok()),
        Decoder::checked("release-proposal", proposal, |bytes| check_form(Form::Proposal, bytes, "file").is_ok()),
        Decoder::checked("profile-manifest", manifest, |bytes| check_manifest(bytes, "tools").is_ok()),
    ]
}

/// A channel, with all that is asked of it: when its windows are open, and what becomes of its rollouts.
fn in_channel(bytes: &[u8]) -> bool {
    let Ok(channel) = Channel::parse(bytes, "stable") else { return false };
    let totals = Totals { installed: 90, failed: 1, rolled_back: 1, time_ms: 5 };
    let (mut open, mut verdicts) = (0, 0);
    // The ends of time, and four times of a week.
    for seconds in [i64::MIN, 0, 1_767_600_000, 1_767_650_000, 1_767_700_000, 1_775_000_000, i64::MAX] {
        let now = Timestamp::from_parts(seconds, 0);
        open += channel.windows.iter().filter(|window| window.is_open(now)).count();
        for offer in channel.packages.values().flatten() {
            let verdict = judge(offer, &totals, now);
            carry_out(&mut offer.clone(), verdict, "2026-01-01T00:00:00Z", "why");
            assert!(verdict != Verdict::Advance || !offer.steps.is_empty(), "{offer:?} advances without steps");
            verdicts += usize::from(verdict != Verdict::Hold);
        }
    }
    open > 0 && verdicts > 0
}

/// What is wanted, and the packages there are; few of them, since finding out what fits may take long.
fn solved(bytes: &[u8]) -> bool {
    const PACKAGES_MAX: usize = 12;
    let Ok((wanted, known)) = serde_json::from_slice::<(BTreeMap<String, _>, Vec<Package>)>(bytes) else {
        return false;
    };
    let names = known.iter().flat_map(|package| package.dependencies.keys().chain([&package.name]));
    if known.len() > PACKAGES_MAX || names.chain(wanted.keys()).any(|name| check_name("package", name).is_err()) {
        return false;
    }
    let Ok(chosen) = solve(&wanted, &known) else { return false };
    for (name, range) in &wanted {
        let version = &chosen[name];
        assert!(known.iter().any(|package| package.name == *name && package.version == *version));
        // Somebody else may have asked for a pre-release that lies within the range.
        assert!(!version.pre.is_empty() || range.matches(version), "{name} {version} is not {range}");
    }
    !chosen.is_empty()
}

/// What is believed of what is signed, and what is made of it.
fn trusted() -> Vec<Decoder> {
    let place = tempfile::tempdir().unwrap();
    let (thresholds, now) = (Thresholds { keys: 1, threshold: 1 }, "2026-01-01T00:00:00Z".parse().unwrap());
    keygen(place.path(), thresholds, Expiry::default(), now).unwrap();
    let root = std::fs::read(place.path().join("root.json")).unwrap();
    let package = |name: &str, version: &str, needs: &str| {
        format!(
            r#"{{"name": "{name}", "version": "{version}", "type": "feature", "files": [], "dependencies": {{{needs}}},
            "conflicts": {{"old": "<2"}}}}"#
        )
    };
    let known = [
        package("tool", "1.2.0", r#""base": "^1.1""#),
        package("tool", "1.3.0", r#""base": ">=2, <3.1""#),
        package("base", "1.1.5", ""),
        package("base", "2.0.0-rc.1", r#""gone": "*""#),
    ];
    let wanted = format!(r#"[{{"tool": "~1", "base": "1.1.*"}}, [{}]]"#, known.join(", "));
    vec![
        Decoder::checked("release-root-trust", root, |bytes| {
            let root = serde_json::from_slice::<serde_json::Value>(bytes);
            root.is_ok_and(|root| Seen::from_root(&root).is_ok())
        }),
        Decoder::checked("release-solver", wanted, solved),
    ]
}

/// Repositories of which one file is anything, and clients that trust the root before the present one.
fn repositories() -> Vec<Decoder> {
    vec![
        repository("release-refresh", "metadata/timestamp.json"),
        repository("release-next-root", "metadata/2.root.json"),
    ]
}

fn repository(name: &'static str, altered: &str) -> Decoder {
    // Longer than anybody runs this.
    let lasting = Expiry { root_days: 36_500, targets_days: 36_500, timestamp_days: 36_500 };
    let (thresholds, now) = (Thresholds { keys: 1, threshold: 1 }, "2026-01-01T00:00:00Z".parse().unwrap());
    let (place, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    keygen(keys.path(), thresholds, lasting, now).unwrap();
    let root = std::fs::read(keys.path().join("root.json")).unwrap();
    let seen = Seen::from_root(&serde_json::from_slice(&root).unwrap()).unwrap();
    keygen(keys.path(), thresholds, lasting, now).unwrap();
    let files = [("package.tool".to_owned(), Some(b"{}".to_vec()))];
    let repository = DirRepository(place.path().to_owned());
    Signer::open(keys.path(), lasting).unwrap().publish(&repository, &files, now).unwrap();
    let file = place.path().join(altered);
    Decoder::checked(name, std::fs::read(&file).unwrap(), move |bytes| {
        std::fs::write(&file, bytes).unwrap();
        let trusted = seen.clone().refresh(Arc::new(DirRepository(place.path().to_owned())));
        trusted.is_ok_and(|trusted| trusted.target("package.tool").is_ok_and(|found| found.is_some()))
    })
}

/// A decoder of files of one form.
fn of_form(name: &'static str, form: Form, sample: impl Into<Vec<u8>>) -> Decoder {
    Decoder::checked(name, sample, move |bytes| check_form(form, bytes, name).is_ok())
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
    let (of_state, of_events) = (Renewed::new(), Renewed::new());
    vec![
        Decoder::checked("release-state", state, move |bytes| {
            let workspace = of_state.workspace();
            workspace.records("releases").write("state", bytes).unwrap();
            State::read(&workspace).is_ok_and(|state| !state.events.is_empty())
        }),
        Decoder::checked("release-events", events, move |bytes| {
            let workspace = of_events.workspace();
            workspace.records("releases").write("events-000000000002", bytes).unwrap();
            State::default().all_events(&workspace).is_ok_and(|events| !events.is_empty())
        }),
        Decoder::checked("release-feedback", feedback, |bytes| {
            let Ok(report) = serde_json::from_slice::<Feedback>(bytes) else { return false };
            Totals::of(&[report.clone(), Feedback { counter: 0, ..report }]).samples() > 0
        }),
        Decoder::checked("release-installed", installed, |bytes| Installed::parse(bytes, "tool").is_ok()),
    ]
}
