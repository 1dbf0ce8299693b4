//! The same stories on a mounted and an unmounted workspace.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::support::{Ended, Home, json_lines, run, tree};

/// A workspace behind one of the doors.
struct Site {
    /// Goes before the home that it lies in.
    mount: Option<super::support::Mount>,
    home: Home,
    store: PathBuf,
}

impl Site {
    fn new(mounted: bool) -> Self {
        let home = Home::new();
        let store = home.store("store");
        let mount = mounted.then(|| home.mount(&store, "mnt"));
        Self { home, store, mount }
    }

    /// Changes files as ordinary programs do, then records the result.
    fn edit(&self, message: &str, change: impl FnOnce(&Path)) -> String {
        match &self.mount {
            Some(mount) => {
                change(&mount.path);
                self.snapshot(message)
            }
            None => {
                let mount = self.home.mount(&self.store, "mnt");
                change(&mount.path);
                let id = self.snapshot(message);
                run(self.home.kura(["unmount"]).arg(&mount.path)).ok();
                id
            }
        }
    }

    fn snapshot(&self, message: &str) -> String {
        let out = self.kura(&["snapshot", "--json", "-m", message]).ok();
        json_lines(&out)[0]["id"].as_str().unwrap().to_owned()
    }

    fn kura(&self, args: &[&str]) -> Ended {
        run(self.home.kura(args).arg("-w").arg(&self.store))
    }

    fn files(&self, version: &str) -> Vec<(String, Vec<u8>)> {
        let to = tempfile::tempdir().unwrap();
        self.kura(&["export", version, to.path().to_str().unwrap()]).ok();
        tree(to.path())
    }
}

/// Runs a test behind both doors.
macro_rules! both_doors {
    ($($name:ident),*) => {$(
        mod $name {
            #[test]
            fn mounted() {
                super::$name(&super::Site::new(true));
            }

            #[test]
            fn unmounted() {
                super::$name(&super::Site::new(false));
            }
        }
    )*};
}

both_doors!(
    history_is_listed,
    differences_have_their_letters,
    earlier_states_come_back,
    a_revert_keeps_what_came_after,
    files_go_out_and_in,
    selectors_mean_the_same_everywhere,
    mistakes_select_nothing,
    names_cannot_pose_as_something_else
);

fn history_is_listed(site: &Site) {
    let first = site.edit("one", |dir| fs::write(dir.join("a"), "1").unwrap());
    let second = site.edit("two", |dir| fs::write(dir.join("b"), "22").unwrap());
    site.kura(&["snapshot", "--name", "v1.0"]).ok();
    let versions = json_lines(&site.kura(&["log", "--json"]).ok());
    let named = &versions[0];
    for key in ["id", "time", "parents", "name", "message", "counts"] {
        assert!(named.get(key).is_some(), "{key} is missing: {named}");
    }
    assert_eq!(named["name"], "v1.0");
    assert!(named["time"].as_str().unwrap().ends_with('Z'));
    let find = |id: &str| versions.iter().find(|version| version["id"] == id).unwrap();
    assert_eq!((&find(&first)["message"], &find(&second)["message"]), (&"one".into(), &"two".into()));
    assert_eq!(find(&second)["counts"]["files"], 2);
    assert_eq!(find(&second)["counts"]["bytes"], 3);
    for pair in versions.windows(2) {
        assert_eq!(pair[0]["parents"][0], pair[1]["id"], "newest first, one after the other");
    }
    assert_eq!(versions.last().unwrap()["origin"], "init");
    assert_eq!(json_lines(&site.kura(&["log", "--json", "-n", "2"]).ok()).len(), 2);
    let text = site.kura(&["log"]).ok();
    assert!(text.lines().next().unwrap().contains("(v1.0)"), "{text}");
    assert!(text.contains("  two"), "{text}");
    site.kura(&["untag", "v1.0"]).ok();
    site.kura(&["show", "v1.0"]).fails(1, &["v1.0"]);
    let shown = site.kura(&["show", &second]).ok();
    assert!(shown.contains(&second) && shown.contains("\n    two\n") && shown.contains("+ b"), "{shown}");
    let status: Value = serde_json::from_str(&site.kura(&["status", "--json"]).ok()).unwrap();
    assert!(status["workspace"].is_string());
}

fn differences_have_their_letters(site: &Site) {
    let before = site.edit("before", |dir| {
        for name in ["gone", "edited", "typed", "moved", "modes"] {
            fs::write(dir.join(name), format!("{name}\nsecond\n")).unwrap();
        }
        fs::create_dir_all(dir.join("dir/below")).unwrap();
        fs::write(dir.join("dir/below/file"), "deep").unwrap();
    });
    let after = site.edit("after", |dir| {
        fs::remove_file(dir.join("gone")).unwrap();
        fs::write(dir.join("edited"), "edited\nanother\n").unwrap();
        fs::remove_file(dir.join("typed")).unwrap();
        std::os::unix::fs::symlink("edited", dir.join("typed")).unwrap();
        fs::rename(dir.join("moved"), dir.join("moved to")).unwrap();
        fs::rename(dir.join("dir"), dir.join("folder")).unwrap();
        fs::set_permissions(dir.join("modes"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(dir.join("new"), "new\n").unwrap();
    });
    let expected = "M edited\nR dir/ -> folder/\nm modes\nR moved -> moved to\n+ new\nT typed\n- gone\n";
    let sorted = |text: &str| {
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        lines.join("\n")
    };
    assert_eq!(sorted(&site.kura(&["diff", &before, &after]).ok()), sorted(expected));
    assert_eq!(sorted(&site.kura(&["diff", &before]).ok()), sorted(expected), "the live tree is the newest version");
    assert_eq!(site.kura(&["diff", &after]).ok(), "");
    assert_eq!(site.kura(&["diff", &before, &after, "edited"]).ok(), "M edited\n");
    assert_eq!(site.kura(&["diff", &before, "edited"]).ok(), "M edited\n");
    let patch = site.kura(&["diff", &before, &after, "edited", "--patch"]).ok();
    assert_eq!(patch, "M edited\n--- a/edited\n+++ b/edited\n@@ -1,2 +1,2 @@\n edited\n-second\n+another\n");
    let lines = json_lines(&site.kura(&["diff", "--json", &before, &after]).ok());
    let moved = lines.iter().find(|line| line["path"] == "moved to").unwrap();
    assert_eq!((&moved["letter"], &moved["from"], &moved["kind"]), (&"R".into(), &"moved".into(), &"file".into()));
}

fn earlier_states_come_back(site: &Site) {
    let old = site.edit("old", |dir| {
        fs::create_dir(dir.join("sub")).unwrap();
        fs::write(dir.join("sub/file"), "old").unwrap();
        fs::write(dir.join("kept"), "kept").unwrap();
    });
    let files = site.files(&old);
    let new = site.edit("new", |dir| {
        fs::write(dir.join("sub/file"), "new").unwrap();
        fs::write(dir.join("sub/added"), "added").unwrap();
        fs::write(dir.join("other"), "other").unwrap();
    });
    assert_eq!(site.kura(&["cat", &format!("{old}:sub/file")]).ok(), "old");
    assert_eq!(site.kura(&["cat", "latest:sub/file"]).ok(), "new");
    site.kura(&["cat", "latest:sub"]).fails(1, &["no regular file"]);
    site.kura(&["cat", "latest:nothing"]).fails(1, &["nothing"]);

    let dry = site.kura(&["restore", &old, "--dry-run"]).ok();
    for line in ["M sub/file", "- sub/added", "- other"] {
        assert!(dry.lines().any(|found| found == line), "`{line}` is missing:\n{dry}");
    }
    assert_eq!(site.files("latest"), site.files(&new), "a dry run changes nothing");
    site.kura(&["restore", &old, "sub"]).ok();
    let part = site.files("latest");
    assert!(
        part.contains(&("sub/file".into(), b"old".to_vec())) && part.contains(&("other".into(), b"other".to_vec()))
    );
    assert!(!part.iter().any(|(name, _)| name == "sub/added"));
    site.kura(&["restore", &old]).ok();
    assert_eq!(site.files("latest"), files);
    if let Some(mount) = &site.mount {
        assert_eq!(tree(&mount.path), files);
    }
    site.kura(&["restore", &new]).ok();
    assert_eq!(site.files("latest"), site.files(&new), "a restore is undone by a restore");
    let to = site.home.path("elsewhere");
    site.kura(&["restore", &old, "sub", "--to", to.to_str().unwrap()]).ok();
    assert_eq!(tree(&to), [("sub/".into(), Vec::new()), ("sub/file".into(), b"old".to_vec())]);
}

fn a_revert_keeps_what_came_after(site: &Site) {
    site.edit("base", |dir| {
        fs::write(dir.join("a"), "a0").unwrap();
        fs::write(dir.join("b"), "b0").unwrap();
    });
    let change = site.edit("change", |dir| {
        fs::write(dir.join("a"), "a1").unwrap();
        fs::write(dir.join("b"), "b1").unwrap();
        fs::write(dir.join("c"), "c1").unwrap();
    });
    site.edit("later", |dir| {
        fs::write(dir.join("b"), "b2").unwrap();
        fs::write(dir.join("d"), "d2").unwrap();
    });
    let ended = site.kura(&["revert", &change]);
    assert_eq!(ended.code, Some(3), "b changed since: {ended:?}");
    assert!(ended.out.contains("! b was kept"), "{ended:?}");
    let files = site.files("latest");
    let content = |name: &str| files.iter().find(|(found, _)| found == name).map(|(_, content)| content.as_slice());
    assert_eq!((content("a"), content("b"), content("d")), (Some(&b"a0"[..]), Some(&b"b2"[..]), Some(&b"d2"[..])));
    assert_eq!(content("c"), None);
    let beside: Vec<_> = files.iter().filter(|(name, _)| name.starts_with("conflict-")).collect();
    assert!(matches!(beside.as_slice(), [(name, content)] if name.ends_with(".b") && content == b"b0"), "{files:?}");
}

fn files_go_out_and_in(site: &Site) {
    let source = site.home.dir("source");
    fs::create_dir_all(source.join("x/y")).unwrap();
    fs::write(source.join("x/y/file"), vec![7; 300_000]).unwrap();
    fs::write(source.join("small"), "small").unwrap();
    std::os::unix::fs::symlink("small", source.join("link")).unwrap();
    let files = tree(&source);
    site.kura(&["import", source.to_str().unwrap()]).ok();
    site.kura(&["import", source.to_str().unwrap(), "--into", "deep/er"]).ok();
    site.kura(&["snapshot"]).ok();
    let all = site.files("latest");
    let below = |prefix: &str| -> Vec<(String, Vec<u8>)> {
        let inside = all.iter().filter_map(|(name, content)| Some((name.strip_prefix(prefix)?, content)));
        inside.filter(|(name, _)| !name.is_empty()).map(|(name, content)| (name.to_owned(), content.clone())).collect()
    };
    assert_eq!(below("deep/er/"), files);
    let top: Vec<_> = below("").into_iter().filter(|(name, _)| !name.starts_with("deep")).collect();
    assert_eq!(top, files);
    let to = site.home.path("out");
    site.kura(&["export", "latest", to.to_str().unwrap(), "deep"]).ok();
    assert_eq!(tree(&to.join("deep/er")), files);
    let again = site.kura(&["export", "latest", to.to_str().unwrap(), "deep"]);
    assert!(matches!(again.code, Some(1 | 3)), "{again:?}");
    site.kura(&["import", site.home.path("missing").to_str().unwrap()]).fails(2, &["missing"]);
}

fn selectors_mean_the_same_everywhere(site: &Site) {
    let first = site.edit("first", |dir| fs::write(dir.join("n"), "1").unwrap());
    let second = site.edit("second", |dir| fs::write(dir.join("n"), "2").unwrap());
    site.kura(&["snapshot", "--name", "third"]).ok();
    let cat = |selector: &str| site.kura(&["cat", &format!("{selector}:n")]).ok();
    assert_eq!(cat("third"), "2");
    assert_eq!(cat(&first), "1");
    assert_eq!(cat(&second[..20]), "2");
    assert_eq!(cat("0s ago"), "2");
    let versions = json_lines(&site.kura(&["log", "--json"]).ok());
    let time = |id: &str| {
        let found = versions.iter().find(|version| version["id"] == id).unwrap();
        found["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap()
    };
    let later = time(&first).max(time(&second));
    let next = later + jiff::SignedDuration::from_secs(1);
    assert_eq!(cat(&next.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()), "2");
    assert_eq!(cat(&next.strftime("%Y-%m-%dT%H:%M:%S").to_string()), "2");
    assert_eq!(cat(&next.strftime("%Y-%m-%d %H:%M:%S +00:00").to_string()), "2", "as `log` prints it");
    let shown = |time: &str| site.kura(&["show", time]).ok();
    for id in [&first, &second] {
        let micros = time(id).strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        assert!(shown(&micros).contains(id.as_str()), "{micros} selects another version than {id}");
    }
    site.kura(&["cat", "2001-01-01T00:00:n"]).fails(1, &["2001-01-01T00:00"]);
}

fn mistakes_select_nothing(site: &Site) {
    let first = site.edit("first", |dir| fs::write(dir.join("n"), "1").unwrap());
    let second = site.edit("second", |dir| fs::write(dir.join("n"), "2").unwrap());
    site.kura(&["diff", &first, "latst"]).fails(1, &["`latst` selects no version", "no such path"]);
    site.kura(&["diff", &first, &second, "missing"]).fails(1, &["missing"]);
    let common = first.bytes().zip(second.bytes()).take_while(|(a, b)| a == b).count();
    site.kura(&["diff", &first, &first[..common.max(4)]]).fails(2, &["digits"]);
    assert_eq!(site.kura(&["diff", &first, &second, "n"]).ok(), "M n\n");
}

fn names_cannot_pose_as_something_else(site: &Site) {
    site.edit("first", |dir| fs::write(dir.join("n"), "1").unwrap());
    let long = "x".repeat(201);
    for name in ["latest~1", "latest", "yesterday", "10m ago", "2026-11-21", "01a2018f", "a/b", &long] {
        site.kura(&["snapshot", "--name", name]).fails(2, &["cannot name a version"]);
    }
    site.kura(&["snapshot", "--name", "v1"]).ok();
    site.kura(&["snapshot", "--name", "v1"]).fails(2, &["v1", "kura untag"]);
    site.kura(&["untag", "v1"]).ok();
    site.kura(&["snapshot", "--name", "v1"]).ok();
}
