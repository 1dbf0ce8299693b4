//! The flow where nothing fails: what is chosen, what is done once, and what is remembered.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kura::apps::batch::{FileSystem, Job, LocalFiles, MemoryFiles};

use super::rig::{Faulty, Rig, balanced, job, marking};

fn choosing(walk: &str) -> Job {
    let mut job = marking();
    job.walk = serde_json::from_str(walk).unwrap();
    job
}

#[test]
fn every_file_is_processed_once_and_a_second_run_does_nothing() {
    let rig = Rig::new();
    for number in 0..200 {
        rig.put(&format!("d{}/f{number}", number % 7), format!("{number}").as_bytes());
    }
    rig.put("empty", b"");
    let first = rig.run(&marking(), rig.files());
    assert_eq!((first.scan.scanned, first.done, first.failed), (201, 201, 0), "{first:?}");
    let after = rig.all();
    assert_eq!(after["d3/f3"], b"mark:3");
    assert_eq!(after["empty"], b"mark:");
    let second = rig.run(&marking(), rig.files());
    assert_eq!((second.scan.scanned, second.scan.skipped, second.scan.backlogged), (201, 201, 0));
    assert_eq!(rig.all(), after);
    rig.put("d3/f3", b"new");
    let third = rig.run(&marking(), rig.files());
    assert_eq!((third.scan.backlogged, third.done), (1, 1));
    assert_eq!(rig.get("d3/f3"), b"mark:new");
}

#[test]
fn another_processing_is_another_job() {
    let rig = Rig::new();
    rig.put("a", b"x");
    rig.run(&marking(), rig.files());
    let report = rig.run(&job(r#"{"kind": "replace", "find": "x", "with": "y"}"#), rig.files());
    assert_eq!(report.done, 1);
    assert_eq!(rig.get("a"), b"mark:y");
}

#[test]
fn a_file_that_the_processing_leaves_as_it_is_is_not_written() {
    let rig = Rig::new();
    rig.put("a", b"nothing to see");
    let before = std::fs::metadata(rig.dir.path().join("files/a")).unwrap();
    let report = rig.run(&job(r#"{"kind": "replace", "find": "x", "with": "y"}"#), rig.files());
    assert_eq!((report.done, report.unchanged), (0, 1));
    let after = std::fs::metadata(rig.dir.path().join("files/a")).unwrap();
    assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()));
    assert_eq!(rig.run(&job(r#"{"kind": "replace", "find": "x", "with": "y"}"#), rig.files()).scan.backlogged, 0);
}

#[test]
fn its_own_result_is_recognised_where_times_tell_nothing() {
    let rig = Rig::new();
    rig.put("a", b"x");
    rig.run(&marking(), rig.files());
    // The same content under a new time: a copy of the result, or a server that lost its clock.
    let content = rig.get("a");
    rig.put("a", &content);
    let file = std::fs::File::options().write(true).open(rig.dir.path().join("files/a")).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1)).unwrap();
    let report = rig.run(&marking(), rig.files());
    assert_eq!((report.done, report.unchanged), (0, 1));
    assert_eq!(rig.get("a"), b"mark:x");
}

#[test]
fn the_walk_takes_what_its_options_say() {
    let rig = Rig::new();
    for path in ["a.csv", "d/b.csv", "d/e/c.csv", "d/e/f/g.csv", "tmp/x.csv", ".h/y.csv", "n.txt", "tmp/.z.csv"] {
        rig.put(path, b"x");
    }
    let count = |walk: &str| rig.open(&choosing(walk), rig.files()).unwrap().scan_and_filter().unwrap().scanned;
    assert_eq!(count("{}"), 8);
    assert_eq!(count(r#"{"include": ["**/*.csv"]}"#), 5);
    assert_eq!(count(r#"{"include": ["**/*.csv"], "dot": true}"#), 7);
    assert_eq!(count(r#"{"include": ["**/*.csv"], "exclude": ["tmp/**"]}"#), 4);
    assert_eq!(count(r#"{"exclude": ["tmp"]}"#), 6);
    assert_eq!(count(r#"{"exclude": ["**/*.csv"]}"#), 1, "what is excluded is excluded, dots or not");
    assert_eq!(count(r#"{"include": ["**/*.csv"], "exclude": ["**/*.csv"]}"#), 0, "exclude comes before include");
    assert_eq!(count(r#"{"max_depth": 0}"#), 0);
    assert_eq!(count(r#"{"max_depth": 1}"#), 2);
    assert_eq!(count(r#"{"max_depth": 2}"#), 6);
    assert!(
        Job::parse(r#"{"name":"x","source":{"url":"test:"},"process":{"kind":"none"},"walk":{"inclde":[]}}"#).is_err()
    );
}

#[test]
fn the_same_is_taken_of_every_file_system() {
    let rig = Rig::new();
    let memory = MemoryFiles::new();
    for path in ["a.csv", "d/b.csv", "d/e/c.csv", "tmp/x.csv", ".h/y.csv", "n.txt"] {
        rig.put(path, b"x");
        memory.put(path.as_bytes(), b"x");
    }
    let memory: Arc<dyn FileSystem> = Arc::new(memory);
    let walks =
        [r#"{"include": ["**/*.csv"]}"#, r#"{"exclude": ["tmp"]}"#, r#"{"max_depth": 2}"#, r#"{"exclude": ["d/**"]}"#];
    for walk in walks {
        let local = rig.open(&choosing(walk), rig.files()).unwrap().scan_and_filter().unwrap();
        let other = rig.open(&choosing(walk), memory.clone()).unwrap().scan_and_filter().unwrap();
        assert_eq!(local.scanned, other.scanned, "{walk}");
    }
}

#[test]
fn links_are_passed_over_or_followed_once_and_never_out_of_the_root() {
    let rig = Rig::new();
    let files = rig.dir.path().join("files");
    rig.put("d/a", b"x");
    let outside = rig.dir.path().join("outside");
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::write(outside.join("secret"), b"s").unwrap();
    symlink("d/a", files.join("link-to-file")).unwrap();
    symlink("..", files.join("d/up")).unwrap();
    symlink(&outside, files.join("out")).unwrap();
    symlink(outside.join("secret"), files.join("out-file")).unwrap();
    symlink("nowhere", files.join("broken")).unwrap();
    let plain = rig.run(&marking(), rig.files());
    assert_eq!((plain.scan.scanned, plain.done, plain.scan.unreadable), (1, 1, 0));
    let mut following = job(r#"{"kind": "regex", "find": "\\A", "with": "followed:"}"#);
    following.walk.follow_symlinks = true;
    let followed = rig.run(&following, rig.files());
    assert_eq!((followed.scan.scanned, followed.done, followed.scan.unreadable), (1, 1, 3), "{followed:?}");
    assert_eq!(rig.get("d/a"), b"followed:mark:x");
    assert_eq!(std::fs::read(outside.join("secret")).unwrap(), b"s");
}

#[test]
fn a_directory_that_became_a_link_out_of_the_root_is_not_followed() {
    let rig = Rig::new();
    rig.put("d/a", b"x");
    let outside = rig.dir.path().join("outside");
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::write(outside.join("a"), b"s").unwrap();
    let flow = rig.open(&marking(), rig.files()).unwrap();
    flow.scan_and_filter().unwrap();
    let files = rig.dir.path().join("files");
    std::fs::remove_dir_all(files.join("d")).unwrap();
    symlink(&outside, files.join("d")).unwrap();
    let report = balanced(flow.process_files().unwrap());
    assert_eq!((report.failed, report.failures[0].code.as_str()), (1, "denied"));
    assert_eq!(std::fs::read(outside.join("a")).unwrap(), b"s");
}

#[test]
fn a_replaced_file_keeps_its_mode_and_attributes() {
    let rig = Rig::new();
    rig.put("a", b"x");
    let path = rig.dir.path().join("files/a");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o754)).unwrap();
    let has_xattrs = rustix::fs::setxattr(&path, "user.note", b"kept", rustix::fs::XattrFlags::empty()).is_ok();
    rig.run(&marking(), rig.files());
    assert_eq!(rig.get("a"), b"mark:x");
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o754);
    if has_xattrs {
        let mut value = [0; 16];
        let len = rustix::fs::getxattr(&path, "user.note", &mut value).unwrap();
        assert_eq!(&value[..len], b"kept");
    }
}

#[test]
fn names_that_are_hard_to_carry_are_carried() {
    use std::os::unix::ffi::OsStrExt;
    let rig = Rig::new();
    let long = "n".repeat(255);
    let names: [&[u8]; 9] = [
        b"a\nb",
        b"#?%",
        b"space ",
        b" space",
        b"\xff\xfe",
        "e\u{301}".as_bytes(),
        "\u{e9}".as_bytes(),
        long.as_bytes(),
        b"-rf",
    ];
    for name in names {
        rig.put("x", b"x");
        let files = rig.dir.path().join("files");
        std::fs::rename(files.join("x"), files.join(std::ffi::OsStr::from_bytes(name))).unwrap();
    }
    let report = rig.run(&marking(), rig.files());
    assert_eq!((report.scan.scanned, report.done, report.failed), (9, 9, 0), "{report:?}");
    assert_eq!(rig.run(&marking(), rig.files()).scan.backlogged, 0);
}

#[test]
fn temporary_names_are_passed_over_and_old_ones_swept() {
    let rig = Rig::new();
    rig.put("d/.kura-part-0123456789abcdef", b"old");
    rig.put("d/.kura-part-fedcba9876543210", b"new");
    rig.put(".kura-part-dir/a", b"x");
    let old =
        std::fs::File::options().write(true).open(rig.dir.path().join("files/d/.kura-part-0123456789abcdef")).unwrap();
    old.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let report = rig.run(&marking(), rig.files());
    assert_eq!((report.scan.scanned, report.done), (1, 1));
    assert_eq!(rig.get(".kura-part-dir/a"), b"mark:x", "a directory may be named like a temporary file");
    assert_eq!(rig.get("d/.kura-part-fedcba9876543210"), b"new");
    assert!(!rig.dir.path().join("files/d/.kura-part-0123456789abcdef").exists());
}

#[test]
fn two_runs_on_one_source_exclude_each_other() {
    let rig = Rig::new();
    rig.put("a", b"x");
    let first = rig.open(&marking(), rig.files()).unwrap();
    let other = job(r#"{"kind": "gzip"}"#);
    assert!(rig.open(&other, rig.files()).err().unwrap().to_string().contains("another run"));
    assert!(rig.open(&marking(), rig.files()).is_err());
    drop(first);
    rig.open(&other, rig.files()).unwrap();
}

#[test]
fn a_run_tells_how_far_it_is() {
    let rig = Rig::new();
    (0..50).for_each(|number| rig.put(&format!("f{number}"), b"x"));
    let mut flow = rig.open(&marking(), rig.files()).unwrap();
    let seen = Arc::new(AtomicBool::new(false));
    let told = seen.clone();
    flow.set_progress(Arc::new(move |progress| {
        assert!(progress.files <= progress.files_total || progress.files_total == 0);
        if progress.files == 50 && progress.files_total == 50 {
            told.store(true, Ordering::SeqCst);
        }
    }));
    balanced(flow.run().unwrap());
    assert!(seen.load(Ordering::SeqCst));
}

#[test]
fn nothing_readable_is_left_behind() {
    let rig = Rig::new();
    rig.put("secret-name.csv", b"secret content");
    let flow = rig.open(&marking(), rig.files()).unwrap();
    flow.scan_and_filter().unwrap();
    let looked = |needle: &[u8]| {
        crate::cli::support::tree(&rig.setup.dir)
            .iter()
            .any(|(name, content)| name.contains("secret") || content.windows(needle.len()).any(|part| part == needle))
    };
    assert!(!looked(b"secret"));
    flow.process_files().unwrap();
    drop(flow);
    assert!(!looked(b"secret") && !looked(b"files/"));
}

#[test]
fn a_root_that_is_none_is_refused() {
    let rig = Rig::new();
    rig.put("a", b"x");
    assert!(LocalFiles::open(&rig.dir.path().join("files/a")).is_err());
    assert!(LocalFiles::open(&rig.dir.path().join("missing")).is_err());
}

#[test]
fn the_empty_source_is_done_at_once() {
    let rig = Rig::new();
    assert_eq!(rig.run(&marking(), rig.files()).scan.scanned, 0);
    let nothing = Faulty::new(&[]);
    assert_eq!(rig.run(&marking(), nothing).scan.scanned, 0);
}
