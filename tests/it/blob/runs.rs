//! Location runs and the index over them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kura::base::ids::{BlobId, PackId, RunId};
use kura::blob::codec::BlobKind;
use kura::blob::location::{Location, Place, run_key};
use kura::blob::run::{FRAME_RECORDS, RUN_RECORDS_MAX, Records, RunRef, build_run};
use kura::blob::{BlobError, plan_merge};
use kura::store::StoreError;
use proptest::prelude::*;

use super::support::{Bench, keys, noise};

fn id(seed: u64) -> BlobId {
    BlobId(noise(seed + 1, 32).try_into().expect("32 bytes"))
}

fn location(number: u32) -> Location {
    let place = match number % 3 {
        0 => Place::Object { generation: (number % 7) as u16 },
        _ => Place::Pack { pack: PackId::random(), offset: number },
    };
    let kind = if number.is_multiple_of(2) { BlobKind::Content } else { BlobKind::Page };
    Location { kind, stored_len: number + 1, len: number, place }
}

fn records(seeds: impl Iterator<Item = u64>) -> Vec<(BlobId, Location)> {
    let mut records: Vec<_> = seeds.zip(0..).map(|(seed, number)| (id(seed), location(number))).collect();
    records.sort_by_key(|(id, _)| *id);
    records
}

#[test]
fn lookups_agree_with_a_map() {
    let mut bench = Bench::new();
    let mut model = BTreeMap::new();
    // Small runs and large ones, with ids that are in several.
    for (from, to) in [(0, 20_000), (19_000, 30_000), (29_990, 30_010), (5, 6), (100, 1200)] {
        let records = records(from..to);
        model.extend(records.iter().copied());
        bench.store_run(records);
    }
    let blobs = bench.blobs(None);
    for (id, location) in model.iter().step_by(97) {
        assert_eq!(blobs.index().lookup(id).expect("reads"), Some(*location));
    }
    for seed in 40_000..40_050 {
        assert_eq!(blobs.index().lookup(&id(seed)).expect("reads"), None);
    }
    for edge in [[0; 32], [0xff; 32]] {
        assert_eq!(blobs.index().lookup(&BlobId(edge)).expect("reads"), None);
    }
    let ids: Vec<BlobId> = (0..31_000).map(id).collect();
    let found = bench.blobs(None).index().lookup_many(&ids).expect("reads");
    for (id, found) in ids.iter().zip(found) {
        assert_eq!(found, model.get(id).copied());
    }
}

#[test]
fn unevenly_spread_ids_are_found_too() {
    let mut bench = Bench::new();
    let ids: Vec<BlobId> = (0..12_000_u32)
        .map(|number| {
            let mut id = [0x80; 32];
            id[28..].copy_from_slice(&number.to_be_bytes());
            BlobId(id)
        })
        .collect();
    bench.store_run(ids.iter().zip(0..).map(|(id, number)| (*id, location(number))).collect());
    let blobs = bench.blobs(None);
    for id in ids.iter().step_by(501) {
        assert!(blobs.index().lookup(id).expect("reads").is_some());
    }
    assert!(blobs.index().lookup(&BlobId([0x80; 32])).expect("reads").is_none());
}

#[test]
fn lookups_take_few_requests() {
    let mut bench = Bench::new();
    bench.store_run(records(0..200_000));
    let blobs = bench.blobs(None);
    for seed in 0..20 {
        bench.store.count();
        assert!(blobs.index().lookup(&id(seed * 9_999)).expect("reads").is_some());
        assert!(bench.store.count() <= 3);
    }
    let blobs = bench.blobs(None);
    let ids: Vec<BlobId> = (0..1500).map(|seed| id(seed * 100)).collect();
    assert!(blobs.index().lookup_many(&ids).expect("reads").iter().all(Option::is_some));
    let requests = bench.store.count();
    assert!(requests <= 40, "{requests} requests");
}

#[test]
fn what_is_recorded_wins_until_a_run_holds_it() {
    let mut bench = Bench::new();
    let old = location(1);
    bench.store_run(vec![(id(1), old)]);
    let blobs = bench.blobs(None);
    let index = blobs.index();
    index.record(id(1), location(2));
    index.record(id(2), location(3));
    assert_eq!(index.lookup(&id(1)).expect("reads").map(|location| location.len), Some(2));
    assert_eq!(index.lookup_many(&[id(1)]).expect("reads")[0].map(|location| location.len), Some(2));
    let taken = index.recorded();
    assert!(taken.is_sorted_by_key(|(id, _)| *id) && taken.len() == 2);
    let run = bench.store_run(taken.clone());
    index.record(id(2), location(9));
    index.adopt_run(run, &taken);
    assert_eq!(index.recorded().len(), 1, "a record made since is kept");
    assert_eq!(index.lookup(&id(1)).expect("reads").map(|location| location.len), Some(2));
    assert_eq!(index.lookup(&id(2)).expect("reads").map(|location| location.len), Some(9));
    index.forget(&id(2));
    assert_eq!(index.lookup(&id(2)).expect("reads").map(|location| location.len), Some(3));
    assert!(blobs.contains(&id(1)).expect("reads") && !blobs.contains(&id(3)).expect("reads"));
}

#[test]
fn every_change_of_a_run_is_found_and_named() {
    let keys = keys();
    let records = records(0..1100);
    let run = RunRef { id: RunId::random(), count: 1100 };
    let sealed = build_run(&keys, run.id, &records).into_bytes();
    let (_, second) = run.span(1, 1);
    let second = sealed.len() - usize::try_from(second).expect("small");
    assert_eq!(Records::open(&keys, &run, 0, &sealed).expect("opens").len(), 1100);
    assert_eq!(Records::open(&keys, &run, 1, &sealed[second..]).expect("opens").len(), 1100 - FRAME_RECORDS);
    for at in (0..sealed.len()).step_by(173) {
        let mut flipped = sealed.clone();
        flipped[at] ^= 4;
        assert!(Records::open(&keys, &run, 0, &flipped).is_err(), "flip at {at}");
    }
    assert!(Records::open(&keys, &run, 0, &sealed[second..]).is_err(), "another frame");
    assert!(Records::open(&keys, &RunRef { count: 1101, ..run }, 0, &sealed).is_err(), "another count");
    assert!(Records::open(&keys, &RunRef { id: RunId::random(), ..run }, 0, &sealed).is_err(), "another run");

    let mut bench = Bench::new();
    let run = bench.store_run(records.clone());
    let key = run_key(run.id);
    bench.store.change(&key, |bytes| bytes.truncate(bytes.len() - 1));
    match bench.blobs(None).index().lookup(&records[0].0) {
        Err(BlobError::DamagedObject { object, .. }) => assert!(object.contains(&run.id.to_string())),
        other => panic!("{other:?}"),
    }
    bench.store.is_unreachable.store(true, Ordering::SeqCst);
    let unreachable = bench.blobs(None).index().lookup(&records[0].0);
    assert!(matches!(unreachable, Err(BlobError::Store(StoreError::Unreachable { .. }))));
    bench.store.is_unreachable.store(false, Ordering::SeqCst);
    bench.store.objects.lock().remove(&key);
    assert!(matches!(bench.blobs(None).index().lookup(&records[0].0), Err(BlobError::MissingObject { .. })));
    assert!(bench.blobs(None).index().lookup_many(&[records[0].0]).is_err());
}

#[test]
fn merging_keeps_the_newest_of_each() {
    let mut bench = Bench::new();
    let mut model = BTreeMap::new();
    for part in 0..8_u64 {
        let records = records((part * 500)..(part * 500 + 3000 + part));
        model.extend(records.iter().copied());
        bench.store_run(records);
    }
    assert_eq!(plan_merge(&bench.runs), Some(0..8));
    let (run, sealed) = bench.blobs(None).index().merge_runs(&bench.runs, RunId::random()).expect("merges");
    assert_eq!(run.count, model.len() as u64);
    bench.store.insert(run_key(run.id), &sealed);
    bench.runs = vec![run];
    let ids: Vec<BlobId> = model.keys().copied().collect();
    let found = bench.blobs(None).index().lookup_many(&ids).expect("reads");
    assert!(found.into_iter().eq(model.values().copied().map(Some)));
}

#[test]
fn an_empty_merge_is_an_empty_run() {
    let bench = Bench::new();
    let (run, sealed) = bench.blobs(None).index().merge_runs(&[], RunId::random()).expect("merges");
    assert!(run.count == 0 && sealed.is_empty());
    let blobs = bench.blobs(None);
    blobs.index().set_runs(vec![run]);
    assert_eq!(blobs.index().lookup(&id(1)).expect("needs no request"), None);
    assert_eq!(bench.store.count(), 0);
}

#[test]
fn a_reader_may_be_shared_by_threads() {
    let mut bench = Bench::new();
    bench.store_run(records(0..10_000));
    let blobs = Arc::new(bench.blobs(None));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let blobs = Arc::clone(&blobs);
            scope.spawn(move || {
                for seed in (thread..10_000).step_by(61) {
                    assert!(blobs.index().lookup(&id(seed)).expect("reads").is_some());
                }
            });
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn merges_keep_runs_few_and_small(counts in prop::collection::vec(1..5000_u64, 1..400)) {
        let mut runs: Vec<RunRef> = Vec::new();
        for count in counts {
            runs.push(RunRef { id: RunId(uuid::Uuid::nil()), count });
            while let Some(range) = plan_merge(&runs) {
                let total = runs[range.clone()].iter().map(|run| run.count).sum();
                prop_assert!(range.len() >= 2 && total <= RUN_RECORDS_MAX);
                runs.splice(range, [RunRef { id: RunId(uuid::Uuid::nil()), count: total }]);
            }
            let longest = runs.split(|run| run.count >= RUN_RECORDS_MAX / 2).map(<[RunRef]>::len).max();
            prop_assert!(longest <= Some(32), "{longest:?} neighbours that could be merged");
        }
    }
}
