//! Properties that hold for any two histories of one tree.

use std::collections::BTreeSet;

use kura::version::index::Root;
use kura::version::merge::{Policy, merge_refs};
use kura::version::tree::{Edits, TreeRef};
use proptest::prelude::*;

use super::model::*;

const PATHS: [&str; 14] = ["a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "d/e/f", "g", "g/a", "g/d", "g/d/x", "h"];

#[derive(Clone, Debug)]
enum Op {
    Mkdir(usize),
    Write(usize),
    Save(usize),
    Chmod(usize, u16),
    Link(usize, usize),
    Remove(usize),
    Rename(usize, usize),
}

fn op() -> impl Strategy<Value = Op> {
    let path = 0..PATHS.len();
    prop_oneof![
        2 => path.clone().prop_map(Op::Mkdir),
        4 => path.clone().prop_map(Op::Write),
        2 => path.clone().prop_map(Op::Save),
        1 => (path.clone(), 0_u16..0o777).prop_map(|(path, mode)| Op::Chmod(path, mode)),
        1 => (path.clone(), path.clone()).prop_map(|(from, to)| Op::Link(from, to)),
        2 => path.clone().prop_map(Op::Remove),
        4 => (path.clone(), path).prop_map(|(from, to)| Op::Rename(from, to)),
    ]
}

/// Does what is possible; every written content occurs once.
fn run(model: &mut Model, world: &World, ops: &[Op], written: &mut BTreeSet<String>) {
    let parent_ok = |model: &Model, path: &str| model.is_dir(path.rsplit_once('/').map_or("", |(dir, _)| dir));
    for op in ops {
        match op {
            Op::Mkdir(path) if !model.has(PATHS[*path]) && parent_ok(model, PATHS[*path]) => {
                model.mkdir(world, PATHS[*path]);
            }
            Op::Write(path) if !model.is_dir(PATHS[*path]) && parent_ok(model, PATHS[*path]) => {
                let content = format!("content {}", world.tick());
                model.write(world, PATHS[*path], &content);
                written.insert(content);
            }
            Op::Save(path) if model.has(PATHS[*path]) && !model.is_dir(PATHS[*path]) => {
                let content = format!("content {}", world.tick());
                model.save(world, PATHS[*path], &content);
                written.insert(content);
            }
            Op::Chmod(path, mode) if model.has(PATHS[*path]) => model.chmod(world, PATHS[*path], *mode),
            Op::Link(from, to)
                if model.has(PATHS[*from])
                    && !model.is_dir(PATHS[*from])
                    && !model.has(PATHS[*to])
                    && parent_ok(model, PATHS[*to]) =>
            {
                model.link(world, PATHS[*from], PATHS[*to]);
            }
            Op::Remove(path) if model.has(PATHS[*path]) => model.remove(world, PATHS[*path]),
            Op::Rename(from, to)
                if model.has(PATHS[*from])
                    && !model.has(PATHS[*to])
                    && parent_ok(model, PATHS[*to])
                    && !PATHS[*to].starts_with(&format!("{}/", PATHS[*from])) =>
            {
                model.rename(world, PATHS[*from], PATHS[*to]);
            }
            _ => {}
        }
    }
}

struct Three {
    io: Pages,
    base: Root,
    ours: Root,
    theirs: Root,
    written: BTreeSet<String>,
}

fn three(base: &[Op], ours: &[Op], theirs: &[Op]) -> Three {
    let (io, world) = (Pages::default(), World::new());
    let (mut model, mut written) = (Model::default(), BTreeSet::new());
    for path in ["d", "d/e", "g"] {
        model.mkdir(&world, path);
    }
    run(&mut model, &world, base, &mut BTreeSet::new());
    let (mut left, mut right) = (model.clone(), model.clone());
    run(&mut left, &world, ours, &mut written);
    run(&mut right, &world, theirs, &mut written);
    Three { base: model.root(&io), ours: left.root(&io), theirs: right.root(&io), written, io }
}

/// Takes the long way even where one side did nothing.
fn thorough() -> Setting {
    let mut setting = Setting::default();
    setting.pins.unpublished.push(vec![b"being written".to_vec()]);
    setting
}

fn contents(io: &Pages, root: &Root) -> BTreeSet<String> {
    seen(io, root).into_values().filter(|content| content != "/").collect()
}

fn ops(count: usize) -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(op(), 0..count)
}

fn cases() -> ProptestConfig {
    let count = if std::env::var_os("KURA_TEST_LONG").is_some() { 100_000 } else { 3_000 };
    ProptestConfig { cases: count, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn nothing_is_lost_and_the_tree_is_whole(base in ops(15), ours in ops(10), theirs in ops(10)) {
        let three = three(&base, &ours, &theirs);
        let (io, base) = (&three.io, &three.base);
        let result = merged(io, &Setting::default(), base, &three.ours, &three.theirs);
        let found = contents(io, &result.root);
        let (left, right) = (contents(io, &three.ours), contents(io, &three.theirs));
        for content in left.union(&right) {
            let is_kept_by_both = left.contains(content) && right.contains(content);
            let is_new = three.written.contains(content);
            if is_kept_by_both || is_new {
                prop_assert!(found.contains(content), "{content} is lost");
            }
        }
        for content in &found {
            prop_assert!(left.contains(content) || right.contains(content), "{content} came back");
        }
    }

    #[test]
    fn a_side_that_did_nothing_changes_nothing(base in ops(15), line in ops(12)) {
        let three = three(&base, &line, &[]);
        let (io, base, line) = (&three.io, &three.base, &three.ours);
        for setting in [Setting::default(), thorough()] {
            prop_assert_eq!(&merged(io, &setting, base, line, base).root, line);
            let forward = merged(io, &setting, base, base, line);
            prop_assert_eq!(seen(io, &forward.root), seen(io, line));
            prop_assert_eq!(&forward.root, line);
            prop_assert!(forward.conflicts.is_empty());
            let same = merged(io, &setting, base, line, line);
            prop_assert_eq!(&same.root, line);
            prop_assert!(same.conflicts.is_empty());
        }
    }

    #[test]
    fn the_result_depends_on_the_three_trees_alone(base in ops(15), ours in ops(10), theirs in ops(10)) {
        let three = three(&base, &ours, &theirs);
        let io = &three.io;
        for policy in Policy::ALL {
            let setting = Setting { policy, ..Setting::default() };
            let one = merged(io, &setting, &three.base, &three.ours, &three.theirs);
            let two = merged(io, &setting, &three.base, &three.ours, &three.theirs);
            prop_assert_eq!(&one.root, &two.root);
            prop_assert_eq!(&one.conflicts, &two.conflicts);
            seen(io, &one.root);
        }
    }

    #[test]
    fn both_directions_keep_the_same_content(base in ops(15), ours in ops(8), theirs in ops(8)) {
        let three = three(&base, &ours, &theirs);
        let io = &three.io;
        let one = merged(io, &Setting::default(), &three.base, &three.ours, &three.theirs);
        let two = merged(io, &Setting::default(), &three.base, &three.theirs, &three.ours);
        prop_assert_eq!(contents(io, &one.root), contents(io, &two.root));
    }

    #[test]
    fn refs_of_both_sides_survive(
        base in proptest::collection::btree_map(0_u8..20, 0_u8..3, 0..10),
        ours in proptest::collection::btree_map(0_u8..20, proptest::option::of(0_u8..6), 0..6),
        theirs in proptest::collection::btree_map(0_u8..20, proptest::option::of(0_u8..6), 0..6),
    ) {
        let io = Pages::default();
        let key = |number: u8| if number < 10 { vec![b't', b'a' + number] } else { vec![b'v', number] };
        let edits: Edits = base.iter().map(|(at, value)| (key(*at), Some(vec![*value]))).collect();
        let before = TreeRef::default().edit(&io, &edits).unwrap();
        let line = |changes: &std::collections::BTreeMap<u8, Option<u8>>| {
            // A version's summary never changes.
            let fixed = |at: u8, value: Option<u8>| value.map(|value| vec![if at < 10 { value } else { at }]);
            let edits: Edits = changes.iter().map(|(at, value)| (key(*at), fixed(*at, *value))).collect();
            before.edit(&io, &edits).unwrap()
        };
        let (left, right) = (line(&ours), line(&theirs));
        let result = merge_refs(&io, Some(&before), &left, &right).unwrap();
        let values = |tree: &TreeRef| {
            let mut all = std::collections::BTreeMap::new();
            tree.scan(&io, std::ops::Bound::Unbounded, &mut |key, value| {
                all.insert(key.to_vec(), value.to_vec());
                true
            }).unwrap();
            all
        };
        let (was, left, right, found) = (values(&before), values(&left), values(&right), values(&result));
        for (side, other) in [(&left, &right), (&right, &left)] {
            for (key, value) in side {
                let is_changed = was.get(key) != Some(value);
                let is_kept = other.get(key) == Some(value);
                if is_changed || is_kept {
                    let is_there = found.get(key) == Some(value)
                        || found.iter().any(|(tag, named)| tag.starts_with(key) && named == value);
                    prop_assert!(is_there, "{key:?} is lost");
                }
            }
        }
        prop_assert_eq!(merge_refs(&io, Some(&before), &line(&ours), &before).unwrap(), line(&ours));
        prop_assert_eq!(merge_refs(&io, Some(&before), &before, &line(&theirs)).unwrap(), line(&theirs));
    }
}
