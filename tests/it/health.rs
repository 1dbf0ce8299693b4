//! Promise: `check` finds all damage and says what it touches; `repair` stores anew what this machine holds, and cuts
//! out nothing unasked.

use std::collections::BTreeMap;
use std::sync::Arc;

use kura::base::ids::VersionId;
use kura::control::{Exit, Failure, Reply, Request};
use kura::store::{Fault, MemoryStore, ObjectKey, Operation};
use kura::workspace::{OpenOptions, Sample, Workspace};

use super::workspace_rig::{self as rig, Rig, publish};

const ALL: Sample = Sample::Percent(100);

/// A workspace of three versions, published, with content of every form.
fn filled(rig: &Rig, state: &str) -> (Arc<Workspace>, VersionId) {
    let workspace = rig.open(state);
    rig::mkdir(&workspace, "dir");
    rig::write(&workspace, "dir/small", &rig::noise(3000));
    rig::write(&workspace, "large", &rig::noise(900_000));
    let first = rig::snapshot(&workspace);
    rig::write(&workspace, "dir/small", &rig::noise(5000)[1000..]);
    rig::snapshot(&workspace);
    rig::write(&workspace, "inline", b"tiny");
    rig::snapshot(&workspace);
    publish(&workspace);
    (workspace, first)
}

fn names(objects: &BTreeMap<ObjectKey, Vec<u8>>, prefix: &str) -> Vec<ObjectKey> {
    objects.keys().filter(|key| key.as_str().starts_with(prefix)).cloned().collect()
}

fn without(memory: &MemoryStore, keys: &[ObjectKey]) {
    let mut objects = memory.snapshot();
    keys.iter().for_each(|key| drop(objects.remove(key)));
    memory.restore(objects);
}

/// A client that has nothing of the workspace in a cache.
fn stranger(rig: &Rig, state: &str) -> Arc<Workspace> {
    let cache_dir = rig.dir.path().join(format!("{state}-cache"));
    rig.try_open(OpenOptions { cache_dir, ..rig.options(state) }).unwrap()
}

fn paths(affected: &[kura::workspace::Affected], version: VersionId) -> Vec<String> {
    let found = affected.iter().find(|affected| affected.version == version);
    found.map_or_else(Vec::new, |found| {
        found.paths.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect()
    })
}

#[test]
fn a_whole_workspace_is_found_whole() {
    let rig = Rig::new();
    let (workspace, _) = filled(&rig, "state");
    let report = workspace.check(ALL).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!((report.versions, report.blobs_read >= report.blobs), (4, true), "{report:?}");
    assert_eq!(workspace.check(Sample::Nothing).unwrap().blobs_read, 0);
    let some = workspace.check(Sample::Bytes(20_000)).unwrap().blobs_read;
    assert!(some < report.blobs_read, "{some}");
    let reply = kura::control::run(&workspace, &Request::Repair { read_data: None, cut: true });
    assert!(reply.ok && reply.message.contains("nothing is wrong"));
}

#[test]
fn damage_in_any_object_is_found_and_named() {
    let rig = Rig::new();
    filled(&rig, "writer").0.close(true).unwrap();
    let reader = stranger(&rig, "reader");
    let whole = rig.memory.snapshot();
    type Damage = fn(&[u8]) -> Option<Vec<u8>>;
    let damages: [(&str, Damage); 4] = [
        ("missing", |_| None),
        ("cut", |bytes| Some(bytes[..bytes.len() / 2].to_vec())),
        ("empty", |_| Some(Vec::new())),
        ("flipped", |bytes| {
            let mut bytes = bytes.to_vec();
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
            Some(bytes)
        }),
    ];
    let mut found = 0;
    for key in whole.keys() {
        for (what, damage) in damages {
            let mut objects = whole.clone();
            match damage(&whole[key]) {
                Some(bytes) => drop(objects.insert(key.clone(), bytes)),
                None => drop(objects.remove(key)),
            }
            rig.memory.restore(objects);
            match reader.check(ALL) {
                // Nothing needs the damaged part.
                Ok(report) if report.problems.is_empty() => rig::whole(&rig.memory),
                Ok(report) => {
                    found += 1;
                    let named = report.problems.keys().any(|object| object == key.as_str());
                    assert!(named, "{key} {what}: {:?}", report.problems);
                }
                // Without HEAD there is nothing to check.
                Err(error) => assert!(error.to_string().contains(key.as_str()), "{key} {what}: {error}"),
            }
        }
    }
    assert!(found * 4 > whole.len() * 3 * 2, "most damage matters: {found} of {}", whole.len() * 4);
    rig.memory.restore(whole);
    assert!(reader.check(ALL).unwrap().problems.is_empty());
}

#[test]
fn unknown_is_not_absent() {
    let rig = Rig::new();
    filled(&rig, "writer").0.close(true).unwrap();
    let reader = stranger(&rig, "reader");
    for (operation, prefix) in [
        (Operation::GetRange, "packs/"),
        (Operation::Get, "indexes/"),
        (Operation::List, "objects/"),
        (Operation::Get, "HEAD"),
    ] {
        rig.set_fault(move |asked, key| match asked == operation && key.starts_with(prefix) {
            true => Fault::Unreachable,
            false => Fault::Pass,
        });
        let error = reader.check(ALL).unwrap_err();
        assert_eq!(Failure::from(error).exit, Exit::Unreachable, "{prefix}");
    }
}

#[test]
fn what_damage_touches_is_said_by_version_and_path() {
    let rig = Rig::new();
    let (writer, first) = filled(&rig, "writer");
    rig::remove(&writer, "large");
    let last = rig::snapshot(&writer);
    publish(&writer);
    let reader = stranger(&rig, "reader");
    without(&rig.memory, &names(&rig.memory.snapshot(), "objects/"));
    let report = reader.check(Sample::Nothing).unwrap();
    assert_eq!(paths(&report.affected, first), ["large"]);
    assert!(paths(&report.affected, last).is_empty());
    let reply: Reply = kura::control::run(&reader, &Request::Check { read_data: None });
    assert_eq!((reply.ok, reply.exit), (false, 13));
    assert!(reply.message.contains(&format!("version {first}: large")), "{}", reply.message);
}

#[test]
fn lost_objects_come_back_from_the_cache() {
    for prefix in ["packs/", "objects/", "indexes/"] {
        let rig = Rig::new();
        let (writer, _) = filled(&rig, "writer");
        without(&rig.memory, &names(&rig.memory.snapshot(), prefix));
        assert!(!writer.check(ALL).unwrap().problems.is_empty());
        let report = writer.repair(ALL, false).unwrap();
        assert!(
            report.lost.iter().all(|lost| lost.version != writer.select("latest").unwrap()),
            "{prefix}: {report:?}"
        );
        assert!(report.restored_blobs + report.restored_versions > 0, "{prefix}");
        publish(&writer);
        let left = stranger(&rig, "reader").check(ALL).unwrap().problems;
        let only_the_first = left.iter().all(|(object, _)| object.starts_with("indexes/"));
        // The first version was made by `init`, which keeps no copies.
        assert!(left.is_empty() || only_the_first && left.len() <= 1, "{prefix}: {left:?}");
    }
}

#[test]
fn lost_location_runs_are_rebuilt_from_the_packs() {
    let rig = Rig::new();
    filled(&rig, "writer").0.close(true).unwrap();
    let whole = rig.memory.snapshot();
    for lost in names(&whole, "locations/").into_iter().map(|run| vec![run]).chain([names(&whole, "locations/")]) {
        rig.memory.restore(whole.clone());
        let repairer = stranger(&rig, &format!("repairer-{}", lost.len() * 1000 + lost[0].as_str().len()));
        without(&rig.memory, &lost);
        assert!(!repairer.check(Sample::Nothing).unwrap().problems.is_empty());
        let report = repairer.repair(Sample::Nothing, false).unwrap();
        assert_eq!((report.rebuilt_runs as usize, report.lost.len()), (lost.len(), 0), "{report:?}");
        publish(&repairer);
        repairer.close(true).unwrap();
        std::fs::remove_dir_all(repairer.state_dir()).unwrap();
        rig::whole(&rig.memory);
        let left = stranger(&rig, "fresh").check(ALL).unwrap().problems;
        assert!(left.is_empty(), "{left:?}");
        std::fs::remove_dir_all(rig.dir.path().join("fresh")).unwrap();
    }
}

#[test]
fn what_is_lost_is_listed_and_cut_out_only_when_asked() {
    let rig = Rig::new();
    let (writer, first) = filled(&rig, "writer");
    let latest = writer.select("latest").unwrap();
    writer.close(true).unwrap();
    let repairer = stranger(&rig, "repairer");
    without(&rig.memory, &names(&rig.memory.snapshot(), "objects/"));
    let report = repairer.repair(Sample::Nothing, false).unwrap();
    assert_eq!(
        (paths(&report.lost, first), paths(&report.lost, latest)),
        (vec!["large".to_owned()], vec!["large".to_owned()])
    );
    assert!(report.cut.is_empty());
    assert_eq!(repairer.versions().unwrap().len(), 4);
    assert!(rig::live(&stranger_without_reading(&rig)).contains_key("dir/small"));

    let report = repairer.repair(Sample::Nothing, true).unwrap();
    assert!(report.lost.is_empty() && paths(&report.cut, latest) == ["large"]);
    publish(&repairer);
    let reader = stranger(&rig, "after");
    assert_eq!(rig::live(&reader).keys().collect::<Vec<_>>(), ["dir", "dir/small", "inline"]);
    assert!(reader.check(ALL).unwrap().problems.is_empty());
}

/// A client after whose opening the large file is taken away, so that the rest can be read.
fn stranger_without_reading(rig: &Rig) -> Arc<Workspace> {
    let workspace = stranger(rig, "other");
    rig::remove(&workspace, "large");
    workspace
}
