//! What decides about a file, sidecars, and who owns what.

use kura::apps::profile::{Install, ProfileError, Request, Take};
use kura::base::ids::Sha256;
use kura::workspace::{Action, Clash, Class, Facts, Incoming, Now, Owned, decide, sidecar_name};
use kura::worktree::{NewNode, Wait};
use serde_json::json;

use super::support::{Site, actions, expect};
use crate::workspace_rig::{self as ws, ME};

#[test]
fn three_digests_decide() {
    let (old, mine, new) = (Sha256([1; 32]), Sha256([2; 32]), Sha256([3; 32]));
    let owned = |sha256| Owned { path: "f".into(), mode: 0o644, size: 1, sha256, class: Class::Data, adopted: false };
    let incoming = |class| Incoming { path: "f".into(), mode: 0o644, size: 1, sha256: new, class };
    let (data, config) = (incoming(Class::Data), incoming(Class::Config));
    let (was_old, was_new) = (owned(old), owned(new));
    let conflict = |clash| Action::Conflict(clash);
    let other = || conflict(Clash::Owned { owner: "other".into() });
    // Installed, now, new, other owner, what becomes of it, and with force.
    type Row<'a> = (Option<&'a Owned>, Now, &'a Incoming, Option<&'a str>, Action, Action);
    let rows: [Row; 13] = [
        (None, Now::Absent, &data, None, Action::Install, Action::Install),
        (None, Now::File(new), &data, None, Action::Adopt, Action::Adopt),
        (Some(&was_old), Now::File(new), &data, None, Action::Adopt, Action::Adopt),
        (Some(&was_old), Now::File(old), &data, None, Action::Replace, Action::Replace),
        (Some(&was_new), Now::File(mine), &data, None, Action::Keep, Action::Keep),
        (Some(&was_old), Now::File(mine), &data, None, conflict(Clash::Modified), Action::Replace),
        (Some(&was_old), Now::File(mine), &config, None, conflict(Clash::Modified), Action::Sidecar),
        (None, Now::File(mine), &data, Some("other"), other(), Action::Sidecar),
        (None, Now::Absent, &data, Some("other"), other(), Action::Sidecar),
        (Some(&was_old), Now::File(new), &data, Some("other"), other(), Action::Sidecar),
        (None, Now::File(mine), &data, None, conflict(Clash::Unowned), Action::Sidecar),
        (Some(&was_old), Now::Absent, &data, None, Action::LeaveRemoved, Action::LeaveRemoved),
        (
            Some(&was_old),
            Now::Other("a directory"),
            &data,
            None,
            conflict(Clash::InTheWay { what: "a directory".into() }),
            conflict(Clash::InTheWay { what: "a directory".into() }),
        ),
    ];
    for (old, now, new, other_owner, plain, forced) in rows {
        for (force, expected) in [(false, plain), (true, forced)] {
            let facts = Facts { old, now, new, other_owner, force, restore_missing: false };
            assert_eq!(decide(&facts), expected, "{facts:?}");
        }
    }
    let facts = Facts {
        old: Some(&was_old),
        now: Now::Absent,
        new: &data,
        other_owner: None,
        force: false,
        restore_missing: true,
    };
    assert_eq!(decide(&facts), Action::Install);
}

#[test]
fn sidecars_have_fixed_names() {
    let names = [
        ("app.conf", 1, "app.team.conf"),
        ("d/app.conf", 2, "d/app.team.2.conf"),
        ("a.tar.gz", 1, "a.tar.team.gz"),
        (".bashrc", 1, ".bashrc.team"),
        ("Makefile", 3, "Makefile.team.3"),
        ("dot.", 1, "dot..team"),
    ];
    for (path, number, expected) in names {
        assert_eq!(sidecar_name(path, "team", number), expected);
    }
    let longest = format!("{}.txt", "ä".repeat(125));
    let shortened = sidecar_name(&longest, "team", 1);
    assert!(shortened.len() <= 255 && shortened.ends_with(".team.txt"), "{shortened}");
    assert_ne!(shortened, sidecar_name(&format!("{}b.txt", "ä".repeat(125)), "team", 1));
    assert!(sidecar_name(&format!("a.{}", "x".repeat(253)), "team", 12).len() <= 255);
}

#[test]
fn all_conflicts_are_told_at_once_and_nothing_is_touched() {
    let site = Site::new();
    site.profile("other", "1", &[("owned", "theirs")]);
    site.install("other").unwrap();
    ws::write(&site.workspace, "unowned", b"mine");
    ws::mkdir(&site.workspace, "dir");
    let link = NewNode::Symlink(b"/etc".to_vec());
    let root = ws::ino(&site.workspace, "");
    site.workspace.tree().make(root, b"link", &link, 0o777, ME, false, Wait::Yes).unwrap();
    ws::write(&site.workspace, "file", b"no directory");
    ws::snapshot(&site.workspace);
    let (before, newest) = (ws::live(&site.workspace), site.newest());
    site.profile(
        "p",
        "1",
        &[("dir", "1"), ("file/below", "2"), ("free", "3"), ("link/passwd", "4"), ("owned", "5"), ("unowned", "6")],
    );
    let Err(ProfileError::Conflicts { conflicts }) = site.install("p") else { panic!("it was installed") };
    let found: Vec<String> = conflicts.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "dir: a directory is in the way",
            "file: a file is in the way",
            "link: a symbolic link is in the way",
            "owned belongs to profile `other`",
            "unowned is there and belongs to no profile",
        ]
    );
    assert_eq!((ws::live(&site.workspace), site.newest()), (before, newest));
    // Force makes sidecars, but never replaces what is no file.
    let Err(ProfileError::Conflicts { conflicts }) =
        site.run(&Request::Install(Install { force: true, ..site.want("p") }))
    else {
        panic!("it was installed")
    };
    assert_eq!(conflicts.len(), 3);
    assert_eq!(site.newest(), newest);
}

#[test]
fn sidecars_are_made_reused_resolved_and_removed() {
    let site = Site::new();
    ws::write(&site.workspace, "app.conf", b"mine");
    ws::write(&site.workspace, "APP.team.conf", b"differs in case only");
    ws::write(&site.workspace, "x.txt", b"mine too");
    let provider = json!({ "version": "1", "provider": "team" });
    site.listed("p", provider.clone(), &[("app.conf", "new"), ("x.txt", "x")]);
    assert!(matches!(site.install("p"), Err(ProfileError::Conflicts { .. })));
    let force = || Request::Install(Install { force: true, ..site.want("p") });
    let outcome = site.run(&force()).unwrap();
    let sidecars: Vec<_> = outcome.files.iter().filter_map(|file| file.sidecar.as_deref()).collect();
    assert_eq!(sidecars, ["app.team.2.conf", "x.team.txt"]);
    let all = |extra: &[(&str, &str)]| {
        let mut files =
            expect(&[("app.conf", "mine"), ("APP.team.conf", "differs in case only"), ("x.txt", "mine too")]);
        files.extend(expect(extra));
        files
    };
    assert_eq!(site.files(), all(&[("app.team.2.conf", "new"), ("x.team.txt", "x")]));
    assert!(!site.run(&force()).unwrap().changed, "the same again makes no second sidecar");
    // A newer one takes the place of one that nobody changed, and goes beside one that somebody did.
    ws::write(&site.workspace, "x.team.txt", b"edited");
    site.listed("p", provider, &[("app.conf", "newer"), ("x.txt", "x2")]);
    site.run(&force()).unwrap();
    let expected = all(&[("app.team.2.conf", "newer"), ("x.team.txt", "edited"), ("x.team.2.txt", "x2")]);
    assert_eq!(site.files(), expected);
    let resolve = |path: &str, take| site.run(&Request::Resolve { path: path.to_owned(), take });
    resolve("app.conf", Take::Theirs).unwrap();
    assert_eq!(site.files()["app.conf"], "newer");
    resolve("x.txt", Take::Mine).unwrap();
    let after = [
        ("app.conf", "newer"),
        ("APP.team.conf", "differs in case only"),
        ("x.team.txt", "edited"),
        ("x.txt", "mine too"),
    ];
    assert_eq!(site.files(), expect(&after));
    assert!(matches!(resolve("x.txt", Take::Both), Err(ProfileError::NothingToResolve { .. })));
    site.uninstall("p").unwrap();
    assert_eq!(site.files(), expect(&after[1..]), "what was taken belongs to the profile");
}

#[test]
fn sidecars_go_with_the_profile_unless_somebody_changed_them() {
    let site = Site::new();
    ws::write(&site.workspace, "a.c", b"mine");
    ws::write(&site.workspace, "b.c", b"mine");
    site.profile("p", "1", &[("a.c", "1"), ("b.c", "2")]);
    site.run(&Request::Install(Install { force: true, ..site.want("p") })).unwrap();
    ws::write(&site.workspace, "b.p.c", b"edited");
    let outcome = site.uninstall("p").unwrap();
    assert_eq!(actions(&outcome), ["a.p.c remove", "b.p.c orphan"]);
    assert_eq!(site.files(), expect(&[("a.c", "mine"), ("b.c", "mine"), ("b.p.c", "edited")]));
}

#[test]
fn changed_configuration_stays_and_changed_data_is_in_history() {
    let site = Site::new();
    let files = json!([{ "path": "conf", "class": "config" }, "data"]);
    site.listed("p", json!({ "version": "1", "files": files }), &[("conf", "c1"), ("data", "d1")]);
    site.install("p").unwrap();
    ws::write(&site.workspace, "conf", b"my conf");
    ws::write(&site.workspace, "data", b"my data");
    site.listed("p", json!({ "version": "2", "files": files }), &[("conf", "c2"), ("data", "d2")]);
    let Err(ProfileError::Conflicts { conflicts }) = site.upgrade("p") else { panic!("it was upgraded") };
    assert_eq!(conflicts.len(), 2);
    site.forced("p").unwrap();
    assert_eq!(site.files(), expect(&[("conf", "my conf"), ("conf.p", "c2"), ("data", "d2")]));
    let parent = site.workspace.version(site.newest()).unwrap().parents[0];
    assert_eq!(ws::recorded(&site.workspace, parent)["data"].2, b"my data");
    // Decided for one's own: the next upgrade asks again only when there is something new.
    site.run(&Request::Resolve { path: "conf".to_owned(), take: Take::Mine }).unwrap();
    site.listed("p", json!({ "version": "3", "files": files }), &[("conf", "c2"), ("data", "d3")]);
    assert_eq!(actions(&site.upgrade("p").unwrap()), ["conf keep", "data replace"]);
}

#[test]
fn a_path_moves_to_another_profile_once_the_first_has_given_it_up() {
    let site = Site::new();
    site.profile("one", "1", &[("shared", "1"), ("own", "1")]);
    site.profile("two", "1", &[("other", "2")]);
    site.install("one").unwrap();
    site.install("two").unwrap();
    site.profile("two", "2", &[("other", "2"), ("shared", "2")]);
    assert!(matches!(site.upgrade("two"), Err(ProfileError::Conflicts { .. })));
    site.profile("one", "2", &[("own", "1")]);
    site.upgrade("one").unwrap();
    site.upgrade("two").unwrap();
    assert_eq!(site.files(), expect(&[("other", "2"), ("own", "1"), ("shared", "2")]));
    // A file becomes a directory, and back.
    site.profile("one", "3", &[("own/below", "3")]);
    site.upgrade("one").unwrap();
    assert_eq!(site.files()["own/below"], "3");
}
