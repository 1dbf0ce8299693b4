//! What requests carry on the command line, and paths that lie in another workspace than it seems.

use std::fs;

use super::support::{Home, json_lines, run};

#[test]
fn changes_carry_an_id_a_parent_and_a_trial_through_both_doors() {
    let home = Home::new();
    let store = home.store("store");
    for mounted in [true, false] {
        let mount = mounted.then(|| home.mount(&store, "mnt"));
        let name = |name: &str| format!("{name}-{mounted}");
        let kura = |args: &[&str]| run(home.kura(args).arg("-w").arg(&store));
        let versions = || json_lines(&kura(&["log", "--json"]).ok()).len();
        let before = versions();
        let (first, id) = (name("first"), name("id"));
        let once = ["snapshot", "--json", "--name", &first, "--id", &id];
        let told = kura(&once).ok();
        assert_eq!(kura(&once).ok(), told, "it is answered and not done again");
        assert_eq!(versions(), before + 1);
        kura(&["snapshot", "--id", &id]).fails(2, &["was that of another request"]);
        kura(&["snapshot", "--expect-parent", &first, "--name", &name("second")]).ok();
        kura(&["snapshot", "--expect-parent", &first]).fails(17, &["as expected"]);
        kura(&["tag", "latest", &name("x"), "--expect-parent", &first]).fails(17, &["as expected"]);
        let count = versions();
        assert!(kura(&["snapshot", "--name", &name("third"), "--dry-run"]).ok().contains("would be"));
        kura(&["snapshot", "--name", &first, "--dry-run"]).fails(2, &["is called"]);
        assert!(kura(&["tag", "latest", &name("tag"), "-n"]).ok().contains("would be called"));
        kura(&["tag", "v9", &name("tag"), "--dry-run"]).fails(1, &["no version matches `v9`"]);
        kura(&["show", &name("tag")]).fails(1, &["no version matches"]);
        kura(&["untag", &name("tag"), "--dry-run"]).fails(1, &["tag"]);
        assert_eq!(versions(), count);
        if let Some(mount) = mount {
            run(home.kura(["unmount"]).arg(&mount.path)).ok();
        }
    }
}

#[test]
fn a_path_in_another_mount_means_that_mount_or_is_refused() {
    let home = Home::new();
    let (one, two) = (home.store("one"), home.store("two"));
    let (here, there) = (home.mount(&one, "here"), home.mount(&two, "there"));
    fs::write(there.file("f"), "x").unwrap();
    let file = there.file("f");
    let place = file.to_str().unwrap();
    // Nothing else says which workspace is meant.
    run(home.kura(["lock", place]).env("KURA_STORE", &one)).ok();
    assert!(run(home.kura(["locks", "-w"]).arg(&two)).ok().contains('f'));
    assert!(run(home.kura(["locks", "-w"]).arg(&one)).ok().contains("nothing is locked"));
    run(home.kura(["unlock", place]).env("KURA_STORE", &one)).ok();
    let hint = format!("-w {}", there.path.display());
    for args in [["lock", place], ["log", place], ["prefetch", place], ["blame", place]] {
        run(home.kura(args).current_dir(&here.path)).fails(2, &["lies in another workspace", &hint]);
    }
    assert!(run(home.kura(["locks", "-w"]).arg(&one)).ok().contains("nothing is locked"));
    for mount in [&here, &there] {
        run(home.kura(["unmount"]).arg(&mount.path)).ok();
    }
}

#[test]
fn nothing_is_exported_into_the_mount_that_it_comes_from() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "mnt");
    fs::write(mount.file("f"), "x").unwrap();
    home.ok(&store, ["snapshot"]);
    std::os::unix::fs::symlink(&mount.path, home.path("link")).unwrap();
    for to in [mount.file("new/dir"), home.path("link/new"), mount.path.clone()] {
        let to = to.to_str().unwrap();
        run(home.kura(["export", "latest", to]).env("KURA_STORE", &store)).fails(2, &["lies in the workspace"]);
        run(home.kura(["restore", "latest", "--to", to]).env("KURA_STORE", &store))
            .fails(2, &["lies in the workspace"]);
        for trial in ["", " --dry-run"] {
            fs::write(mount.file(".kura/ctl/export"), format!("latest '{to}'{trial}\n")).unwrap_err();
            let why = fs::read_to_string(mount.file(".kura/ctl/last_error")).unwrap();
            assert!(why.contains("lies in the workspace"), "{why}");
        }
    }
    assert_eq!(fs::read_dir(mount.file(".kura/jobs")).unwrap().count(), 0, "none was taken");
    assert_eq!(super::support::tree(&mount.path), [("f".to_owned(), b"x".to_vec())]);
    home.ok(&store, ["export", "latest", home.path("out").to_str().unwrap()]);
    home.ok(&store, ["unmount", mount.path.to_str().unwrap()]);
}
