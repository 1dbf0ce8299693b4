//! Page trees against the rules of `FORMAT.md`, written down once more, and what edits and walks read.

use std::collections::BTreeSet;
use std::ops::Bound;

use kura::base::ids::BlobId;
use kura::blob::ChunkRef;
use kura::version::tree::{Edits, PageIo, TreeRef};
use proptest::prelude::*;

use crate::version::{Map, Pages, apply, of_map};

type Item = (Vec<u8>, Vec<u8>);

/// A level is one page up to this length.
const SINGLE: usize = 16_384;
/// No page is longer.
const LONGEST: usize = 262_144;

fn hash(key: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in key {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// The tree of a map by the rules alone: its root page, and every page of it.
fn by_the_rules(io: &Pages, map: &Map) -> (Option<ChunkRef>, BTreeSet<BlobId>) {
    type Node = (ChunkRef, u64, u64);
    let mut saved = BTreeSet::new();
    let mut items: Vec<(Item, u64, u64)> =
        map.iter().map(|(key, value)| ((key.clone(), value.clone()), 1, (key.len() + value.len()) as u64)).collect();
    if items.is_empty() {
        return (None, saved);
    }
    for level in 0..8_u8 {
        let item_len = |item: &Item| item.0.len() + item.1.len();
        let whole = items.iter().map(|(item, ..)| item_len(item)).sum::<usize>() <= SINGLE || level == 7;
        let mut pages: Vec<Vec<(Item, u64, u64)>> = Vec::new();
        for entry in items {
            let len: usize = pages.last().map_or(0, |page| page.iter().map(|(item, ..)| item_len(item)).sum());
            let starts = hash(&entry.0.0) >> (6 * level) & 63 == 0;
            match pages.last_mut() {
                Some(page) if whole || (!starts && len + item_len(&entry.0) <= LONGEST) => page.push(entry),
                _ => pages.push(vec![entry]),
            }
        }
        let mut above = Vec::new();
        for page in &pages {
            let plain: Vec<&Item> = page.iter().map(|(item, ..)| item).collect();
            let chunk = io.save(&postcard::to_stdvec(&(level, plain)).unwrap()).unwrap();
            saved.insert(chunk.id);
            let (count, len) = page.iter().fold((0, 0), |sum, (_, count, len)| (sum.0 + count, sum.1 + len));
            let node: Node = (chunk, count, len);
            above.push(((page[0].0.0.clone(), postcard::to_stdvec(&node).unwrap()), count, len, chunk));
        }
        if let [(_, count, _, root)] = above.as_slice() {
            assert_eq!(*count, map.len() as u64);
            return (Some(*root), saved);
        }
        items = above.into_iter().map(|(item, count, len, _)| (item, count, len)).collect();
    }
    panic!("too many levels");
}

/// Edits `tree`, and checks that the result is what the rules say, made of nothing else, at a fair price.
fn edit_and_check(io: &Pages, tree: &TreeRef, map: &mut Map, edits: &Edits) -> TreeRef {
    let before: BTreeSet<BlobId> = io.pages.borrow().keys().copied().collect();
    let edited = tree.edit(io, edits).unwrap();
    apply(map, edits);
    let made: BTreeSet<BlobId> = io.pages.borrow().keys().copied().filter(|id| !before.contains(id)).collect();
    let (root, pages) = by_the_rules(io, map);
    assert_eq!(edited.root(), root.as_ref());
    assert_eq!(edited.count(), map.len() as u64);
    assert!(made.is_subset(&pages), "an edit saves no page that the tree does not have");
    edited
}

/// Keys whose hash starts a page of a level are frequent among these, so that runs and levels come and go.
fn keys() -> impl Strategy<Value = Vec<u8>> {
    let marked: Vec<Vec<u8>> = (0..6000_u32)
        .map(|number| format!("{number:06}").into_bytes())
        .filter(|key| (0..3).any(|level| hash(key) >> (6 * level) & 63 == 0))
        .collect();
    prop_oneof![
        3 => (0..6000_u32).prop_map(|number| format!("{number:06}").into_bytes()),
        2 => prop::sample::select(marked),
    ]
}

fn batches(count: usize) -> impl Strategy<Value = Edits> {
    let len = prop_oneof![12 => 0..90_usize, 1 => 5_000..20_000_usize, 1 => 90_000..200_000_usize];
    let value = prop_oneof![(len, any::<u8>()).prop_map(|(len, byte)| Some(vec![byte; len])), Just(None)];
    prop::collection::btree_map(keys(), value, 1..count)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_edited_tree_is_the_tree_that_the_rules_make(
        first in 0..6000_u32,
        value_len in 20..120_usize,
        changes in prop::collection::vec(batches(40), 1..8),
        gone in prop::collection::vec((0..6000_u32, 1..3000_u32), 1..4),
    ) {
        let (io, mut map) = (Pages::default(), Map::new());
        let all: Edits = (0..first)
            .map(|number| (format!("{number:06}").into_bytes(), Some(vec![1; value_len])))
            .collect();
        let mut tree = edit_and_check(&io, &TreeRef::default(), &mut map, &all);
        for edits in &changes {
            tree = edit_and_check(&io, &tree, &mut map, edits);
        }
        for (from, count) in gone {
            let edits = (from..from + count).map(|number| (format!("{number:06}").into_bytes(), None)).collect();
            tree = edit_and_check(&io, &tree, &mut map, &edits);
        }
        let rest = map.keys().map(|key| (key.clone(), None)).collect();
        edit_and_check(&io, &tree, &mut map, &rest);
    }
}

#[test]
fn removing_keys_one_by_one_takes_levels_away_where_the_rules_say() {
    let (io, mut map) = (Pages::default(), Map::new());
    let all: Edits = (0..900_u32).map(|number| (format!("{number:06}").into_bytes(), Some(vec![3; 60]))).collect();
    let mut tree = edit_and_check(&io, &TreeRef::default(), &mut map, &all);
    let mut numbers: Vec<u32> = (0..900).collect();
    numbers.sort_by_key(|number| hash(&number.to_le_bytes()));
    for number in numbers {
        let edit = Edits::from([(format!("{number:06}").into_bytes(), None)]);
        tree = edit_and_check(&io, &tree, &mut map, &edit);
    }
    assert_eq!(tree, TreeRef::default());
}

/// A tree of a million keys, and how many pages it has.
fn million() -> (Pages, TreeRef) {
    let io = Pages::default();
    let map: Map = (0..1_000_000_u32).map(|number| (format!("{number:08}").into_bytes(), vec![5; 40])).collect();
    let tree = of_map(&io, &map);
    (io, tree)
}

fn cost<T>(io: &Pages, work: impl FnOnce() -> T) -> (T, usize, usize) {
    io.loaded.set(0);
    io.fresh.set(0);
    let done = work();
    (done, io.loaded.get(), io.fresh.get())
}

#[test]
fn one_change_among_a_million_keys_reads_and_writes_a_handful_of_pages() {
    let (io, tree) = million();
    for number in (0..1_000_000_u32).step_by(99_991) {
        let key = format!("{number:08}").into_bytes();
        for (what, edit) in [
            ("changing", Edits::from([(key.clone(), Some(b"other".to_vec()))])),
            ("adding", Edits::from([([key.as_slice(), b"+"].concat(), Some(vec![5; 40]))])),
            ("removing", Edits::from([(key.clone(), None)])),
        ] {
            let (edited, read, made) = cost(&io, || tree.edit(&io, &edit).unwrap());
            // A level that got shorter is counted until it is surely longer than one page.
            assert!(read <= 24, "{what} {number}: {read} pages read");
            assert!(made <= 6, "{what} {number}: {made} pages made");
            let mut differing = 0;
            let mut count = |_: &[u8], _: Option<&[u8]>, _: Option<&[u8]>| {
                differing += 1;
                Ok(())
            };
            let ((), read, _) = cost(&io, || tree.diff(&edited, &io, &mut count).unwrap());
            assert_eq!(differing, 1);
            assert!(read <= 14, "{what} {number}: {read} pages read to compare");
        }
    }
    let none = Edits::from([(b"not there".to_vec(), None)]);
    let (same, _, made) = cost(&io, || tree.edit(&io, &none).unwrap());
    assert_eq!((same, made), (tree, 0), "removing what is not there changes nothing");
}

#[test]
fn a_walk_over_a_few_keys_reads_a_few_pages() {
    let (io, tree) = million();
    let (from, to) = (b"00500000".as_slice(), b"00500010".as_slice());
    let mut seen = 0;
    let ((), read, _) = cost(&io, || {
        tree.scan_to(&io, Bound::Included(from), Some(to), &mut |_, _| {
            seen += 1;
            true
        })
        .unwrap();
    });
    assert_eq!(seen, 10);
    assert!(read <= 8, "{read} pages read");
    let mut seen = 0;
    let ((), read, _) = cost(&io, || {
        tree.scan(&io, Bound::Included(from), &mut |_, _| {
            seen += 1;
            seen < 10
        })
        .unwrap();
    });
    assert_eq!(seen, 10);
    assert!(read <= 10, "{read} pages read");
}
