//! Reading blobs through memory, journal, outbox, cache and store.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use kura::base::ids::BlobId;
use kura::base::limits::{CHUNK_LEN_MAX, FRAME_LEN};
use kura::blob::codec::{BlobKind, ChunkRef, encode};
use kura::blob::location::{pack_key, run_key};
use kura::blob::{BlobError, Cache, LocalBlobs, Location, Place};
use kura::store::StoreError;

use super::local::PoorDisk;
use super::support::{Bench, noise, text};

const CONTENT: BlobKind = BlobKind::Content;

/// 1,500 small files, 6.6 MB.
fn tree() -> Vec<Vec<u8>> {
    (0..1500).map(|number| noise(number, 400 + usize::try_from(number).expect("small") * 5337 % 8000)).collect()
}

fn journal(blobs: &[(BlobId, Vec<u8>)]) -> Arc<dyn LocalBlobs> {
    struct Journal(HashMap<BlobId, Vec<u8>>);
    impl LocalBlobs for Journal {
        fn get(&self, id: &BlobId) -> Option<kura::blob::Result<Vec<u8>>> {
            self.0.get(id).cloned().map(Ok)
        }
    }
    Arc::new(Journal(blobs.iter().cloned().collect()))
}

#[test]
fn a_cold_tree_takes_few_requests() {
    let contents = tree();
    let mut bench = Bench::new();
    let (_, chunks) = bench.store_pack(&contents);
    for has_cache in [true, false] {
        let blobs = bench.blobs(has_cache.then(|| bench.cache(1 << 30)));
        for (chunk, content) in chunks.iter().zip(&contents) {
            assert_eq!(&*blobs.read(CONTENT, chunk).expect("reads"), content.as_slice());
        }
        let requests = bench.store.count();
        assert!(requests <= 10, "{requests} requests in order");
        let blobs = bench.blobs(has_cache.then(|| bench.cache(1 << 30)));
        for number in 0..1500 {
            let number = number * 677 % 1500;
            assert_eq!(&*blobs.read(CONTENT, &chunks[number]).expect("reads"), contents[number].as_slice());
        }
        let requests = bench.store.count();
        let most = if has_cache { 0 } else { 12 };
        assert!(requests <= most, "{requests} requests out of order");
    }
    let blobs = bench.blobs(None);
    for (read, content) in blobs.read_many(CONTENT, &chunks).into_iter().zip(&contents) {
        assert_eq!(&*read.expect("reads"), content.as_slice());
    }
    assert_eq!(bench.store.count(), 2, "the run, and the pack in one range");
}

#[test]
fn one_small_read_does_not_fetch_a_pack() {
    let mut bench = Bench::new();
    let (_, chunks) = bench.store_pack(&tree());
    let blobs = bench.blobs(None);
    blobs.index().lookup(&chunks[0].id).expect("reads");
    bench.store.bytes.store(0, Ordering::SeqCst);
    blobs.read(CONTENT, &chunks[700]).expect("reads");
    assert!(bench.store.bytes.load(Ordering::SeqCst) <= 256 * 1024);
}

#[test]
fn ranges_are_those_of_the_whole() {
    for (is_local, content) in
        [(false, noise(8, CHUNK_LEN_MAX)), (true, text(8, CHUNK_LEN_MAX - 5)), (false, text(9, 3000))]
    {
        let mut bench = Bench::new();
        let (_, chunk) = bench.store_object(&content);
        bench.store.is_local.store(is_local, Ordering::SeqCst);
        let blobs = bench.blobs_with_memory((!is_local).then(|| bench.cache(1 << 30)), 1 << 20);
        let len = content.len();
        let spots = [0, 1, FRAME_LEN - 1, FRAME_LEN, 7 * FRAME_LEN + 5, len - 1, len, len + 9];
        for (offset, count) in
            spots.into_iter().flat_map(|offset| [0, 1, FRAME_LEN, FRAME_LEN + 2, len].map(|count| (offset, count)))
        {
            let mut out = b"before".to_vec();
            let (from, to) = (offset.min(len), (offset + count).min(len));
            let (offset, count) = (u32::try_from(offset).expect("small"), u32::try_from(count).expect("small"));
            blobs.read_range(CONTENT, &chunk, offset, count, &mut out).expect("reads");
            assert!(out == [b"before", &content[from.min(to)..to]].concat(), "{count} bytes at {offset} of {len}");
        }
        blobs.read_range(CONTENT, &chunk, u32::MAX, u32::MAX, &mut Vec::new()).expect("reads nothing");
        assert!(*blobs.read(CONTENT, &chunk).expect("reads") == content);
    }
}

#[test]
fn a_random_read_fetches_no_chunk() {
    let mut bench = Bench::new();
    let (_, chunk) = bench.store_object(&noise(8, CHUNK_LEN_MAX));
    let blobs = bench.blobs(None);
    blobs.index().lookup(&chunk.id).expect("reads");
    bench.store.count();
    bench.store.bytes.store(0, Ordering::SeqCst);
    blobs.read_range(CONTENT, &chunk, 3_000_000, 10, &mut Vec::new()).expect("reads");
    assert!(bench.store.count() <= 2 && bench.store.bytes.load(Ordering::SeqCst) <= 512 * 1024);
    for offset in (0..CHUNK_LEN_MAX).step_by(FRAME_LEN) {
        let (offset, len) = (u32::try_from(offset).expect("small"), u32::try_from(FRAME_LEN).expect("small"));
        blobs.read_range(CONTENT, &chunk, offset, len, &mut Vec::new()).expect("reads");
    }
    let requests = bench.store.count();
    assert!(requests <= 7, "{requests} requests for a chunk read in order");
}

#[test]
fn the_nearest_copy_is_read() {
    let mut bench = Bench::new();
    let content = text(4, 3 * FRAME_LEN);
    let (key, chunk) = bench.store_object(&content);
    let sealed = encode(&bench.keys, CONTENT, chunk.id, &content);
    let stored_len = u32::try_from(sealed.len()).expect("small");
    let place = Place::Object { generation: 0 };
    let blobs = bench.blobs(None);
    blobs.index().record(chunk.id, Location { kind: CONTENT, stored_len, len: chunk.len, place });
    bench.outbox.add(&key, &sealed).expect("writes");
    assert!(*blobs.read(CONTENT, &chunk).expect("reads") == content);
    assert_eq!(bench.store.count(), 0, "read from the outbox");

    let other = ChunkRef::of(&bench.keys, CONTENT, b"only here");
    let missing = blobs.read(CONTENT, &other);
    assert!(matches!(missing, Err(BlobError::Missing { id, .. }) if id == other.id));
    let other_sealed = encode(&bench.keys, CONTENT, other.id, b"only here").into_bytes();
    blobs.set_local(journal(&[(other.id, other_sealed), (chunk.id, sealed.into_bytes())]));
    assert!(blobs.contains(&other.id).expect("knows"));
    assert_eq!(&*blobs.read(CONTENT, &other).expect("reads"), b"only here");
    let fresh = bench.blobs(None);
    fresh.set_local(journal(&[(other.id, vec![7; 100])]));
    assert!(matches!(fresh.read(CONTENT, &other), Err(BlobError::Damaged { .. })));
    assert!(fresh.read_many(CONTENT, &[other])[0].is_err());
    let mut out = Vec::new();
    let ranged = bench.blobs(None);
    ranged.set_local(journal(&[(chunk.id, encode(&bench.keys, CONTENT, chunk.id, &content).into_bytes())]));
    let frame_len = u32::try_from(FRAME_LEN).expect("small");
    ranged.read_range(CONTENT, &chunk, frame_len - 1, 2, &mut out).expect("reads");
    assert_eq!(out, &content[FRAME_LEN - 1..=FRAME_LEN]);
}

#[test]
fn damaged_copies_are_healed_and_a_damaged_store_is_named() {
    let mut bench = Bench::new();
    let contents = tree();
    let (pack, chunks) = bench.store_pack(&contents);
    let key = pack_key(pack);
    bench.blobs(Some(bench.cache(1 << 30))).read(CONTENT, &chunks[0]).expect("reads");
    let cached = bench.dir.path().join("cache").join(key.as_str().replace('/', "+"));
    let file = std::fs::OpenOptions::new().write(true).open(&cached).expect("is cached");
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 300_000], 0).expect("written");
    bench.store.count();
    let blobs = bench.blobs(Some(bench.cache(1 << 30)));
    assert_eq!(&*blobs.read(CONTENT, &chunks[1]).expect("heals"), contents[1].as_slice());
    assert!(blobs.read_many(CONTENT, &chunks[..9]).iter().all(Result::is_ok));
    assert!(bench.store.count() >= 1, "went to the store");
    bench.blobs(Some(bench.cache(1 << 30))).read(CONTENT, &chunks[1]).expect("reads");
    assert_eq!(bench.store.count(), 0, "the bad copy is gone, and a good one in its place");

    let at = contents.iter().take(5).map(Vec::len).sum::<usize>() + 5 * 41 + 60;
    bench.store.change(&key, |bytes| bytes[at] ^= 1);
    for blobs in [bench.blobs(None), bench.blobs(None)] {
        match blobs.read(CONTENT, &chunks[5]) {
            Err(BlobError::Damaged { object, id, .. }) => assert!(object == key.as_str() && id == chunks[5].id),
            other => panic!("{other:?}"),
        }
        let many = blobs.read_many(CONTENT, &chunks[..10]);
        let failed: Vec<usize> = (0..10).filter(|number| many[*number].is_err()).collect();
        assert_eq!(failed, [5], "only the damaged blob fails");
    }
    bench.store.objects.lock().remove(&key);
    assert!(matches!(bench.blobs(None).read(CONTENT, &chunks[5]), Err(BlobError::Missing { .. })));
    bench.store.is_unreachable.store(true, Ordering::SeqCst);
    let read = bench.blobs(None).read(CONTENT, &chunks[5]);
    assert!(matches!(read, Err(BlobError::Store(StoreError::Unreachable { .. }))));
    assert!(matches!(&bench.blobs(None).read_many(CONTENT, &chunks[5..6])[0], Err(BlobError::Store(_))));
}

#[test]
fn swapped_objects_are_found() {
    let mut bench = Bench::new();
    let (a, chunk_a) = bench.store_object(&noise(1, 700_000));
    let (b, chunk_b) = bench.store_object(&noise(2, 700_000));
    {
        let mut objects = bench.store.objects.lock();
        let (one, two) = (objects[&a].clone(), objects[&b].clone());
        objects.insert(a, two);
        objects.insert(b, one);
    }
    for chunk in [chunk_a, chunk_b] {
        let blobs = bench.blobs(Some(bench.cache(1 << 30)));
        assert!(matches!(blobs.read(CONTENT, &chunk), Err(BlobError::Damaged { .. })));
        let mut out = vec![1];
        assert!(blobs.read_range(CONTENT, &chunk, 300_000, 10, &mut out).is_err());
        assert_eq!(out, [1], "nothing is handed out");
    }
}

#[test]
fn an_object_stored_by_someone_else_in_another_length_is_read() {
    let mut bench = Bench::new();
    let content = noise(6, 900_000);
    let (_, chunk) = bench.store_object(&content);
    let blobs = bench.blobs(None);
    let right = blobs.index().lookup(&chunk.id).expect("reads").expect("is there");
    for stored_len in [right.stored_len - 70_000, right.stored_len + 70_000] {
        for has_cache in [true, false] {
            let blobs = bench.blobs(has_cache.then(|| bench.cache(1 << 30)));
            blobs.index().record(chunk.id, Location { stored_len, ..right });
            assert!(*blobs.read(CONTENT, &chunk).expect("reads") == content);
            assert!(*blobs.read_many(CONTENT, &[chunk])[0].as_ref().expect("reads").clone() == content);
        }
    }
}

#[test]
fn a_location_that_does_not_fit_is_refused() {
    let mut bench = Bench::new();
    let (_, chunk) = bench.store_object(&noise(6, 900_000));
    let blobs = bench.blobs(None);
    let longer = ChunkRef { len: chunk.len + 1, ..chunk };
    assert!(matches!(blobs.read(CONTENT, &longer), Err(BlobError::Damaged { .. })));
    assert!(matches!(blobs.read(BlobKind::Page, &chunk), Err(BlobError::Damaged { .. })));
}

#[test]
fn many_readers_of_one_range_share_one_fetch() {
    let mut bench = Bench::new();
    let (_, chunks) = bench.store_pack(&tree());
    for has_cache in [true, false] {
        let blobs = bench.blobs(has_cache.then(|| bench.cache(1 << 30)));
        blobs.index().lookup(&chunks[0].id).expect("reads");
        bench.store.count();
        bench.store.is_slow.store(true, Ordering::SeqCst);
        let gate = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for chunk in &chunks[..8] {
                let (blobs, gate) = (&blobs, &gate);
                scope.spawn(move || {
                    gate.wait();
                    blobs.read(CONTENT, chunk).expect("reads");
                });
            }
        });
        assert_eq!(bench.store.count(), 1, "cache: {has_cache}");
        bench.store.is_slow.store(false, Ordering::SeqCst);
    }
}

#[test]
fn those_who_wait_for_a_failing_fetch_fail_with_it() {
    let mut bench = Bench::new();
    let (_, chunks) = bench.store_pack(&tree());
    let blobs = bench.blobs(None);
    blobs.index().lookup(&chunks[0].id).expect("reads");
    bench.store.is_unreachable.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        for chunk in &chunks[..8] {
            let blobs = &blobs;
            scope.spawn(move || assert!(matches!(blobs.read(CONTENT, chunk), Err(BlobError::Store(_)))));
        }
    });
    bench.store.is_unreachable.store(false, Ordering::SeqCst);
    blobs.read(CONTENT, &chunks[0]).expect("reads once the store is back");
}

#[test]
fn what_is_read_ahead_needs_no_request() {
    let mut bench = Bench::new();
    let contents = tree();
    let (_, chunks) = bench.store_pack(&contents);
    let content = noise(77, CHUNK_LEN_MAX);
    let (_, large) = bench.store_object(&content);
    let blobs = bench.blobs(Some(bench.cache(1 << 30)));
    blobs.prefetch(CONTENT, chunks.iter().copied().chain([large]).collect());
    // Readers meanwhile wait for the same fetches or find them done.
    for (chunk, content) in chunks.iter().zip(&contents) {
        assert_eq!(&*blobs.read(CONTENT, chunk).expect("reads"), content.as_slice());
    }
    assert!(*blobs.read(CONTENT, &large).expect("reads") == content);
    let requests = bench.store.count();
    assert!(requests <= 24, "{requests} requests");
    blobs.prefetch(CONTENT, vec![ChunkRef { id: BlobId([9; 32]), len: 10 }; 20_000]);
    drop(blobs);
}

#[test]
fn readers_in_order_open_no_frame_of_a_local_store_twice() {
    let mut bench = Bench::new();
    let contents = [noise(31, 3_000_000), text(32, 3_000_000)];
    let chunks: Vec<ChunkRef> = contents.iter().map(|content| bench.store_object(content).1).collect();
    bench.store.is_local.store(true, Ordering::SeqCst);
    for readers in [1, 2] {
        let blobs = bench.blobs(None);
        bench.store.count();
        for (chunk, content) in chunks.iter().zip(&contents) {
            // Requests of the kernel's size that begin nowhere near a frame's beginning, taken in turn.
            let next = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                let read = || {
                    while let from @ 0..3_000_000 = next.fetch_add(100_000, Ordering::SeqCst) {
                        let mut out = Vec::new();
                        let offset = u32::try_from(from).expect("small");
                        blobs.read_range(CONTENT, chunk, offset, 100_000, &mut out).expect("reads");
                        assert!(out == content[from..from + 100_000], "at {from}");
                    }
                };
                (0..readers).for_each(|_| drop(scope.spawn(read)));
            });
        }
        let frames = chunks.iter().map(|chunk| chunk.frame_count() as usize + 1).sum::<usize>() + bench.runs.len();
        let requests = bench.store.count();
        // Readers side by side may part, and one of them then comes back to what is gone.
        assert!(
            requests <= frames * readers,
            "{requests} requests for {frames} frames, tables and runs, {readers} readers"
        );
    }
}

#[test]
fn what_is_in_memory_is_told_from_what_is_not() {
    let mut bench = Bench::new();
    let content = noise(33, 900_000);
    let (_, chunk) = bench.store_object(&content);
    for is_local in [true, false] {
        bench.store.is_local.store(is_local, Ordering::SeqCst);
        let blobs = bench.blobs(None);
        let mut out = vec![1];
        assert!(!blobs.read_range_remembered(&chunk, 0, 10, &mut out) && out == [1]);
        blobs.read_range(CONTENT, &chunk, 140_000, 10_000, &mut Vec::new()).expect("reads");
        bench.store.count();
        assert!(blobs.read_range_remembered(&chunk, 150_000, 10, &mut out));
        assert_eq!(out[1..], content[150_000..150_010]);
        assert!(!blobs.read_range_remembered(&chunk, 250_000, 100_000, &mut out), "the next frame is not here");
        assert_eq!(out.len(), 11, "nothing is handed out by halves");
        assert!(blobs.read_range_remembered(&chunk, chunk.len, 10, &mut out), "nothing is everywhere");
        assert_eq!((bench.store.count(), out.len()), (0, 11));
    }
}

#[test]
fn memory_is_bounded_and_used() {
    let mut bench = Bench::new();
    let contents = tree();
    let (_, chunks) = bench.store_pack(&contents);
    bench.store.is_local.store(true, Ordering::SeqCst);
    let blobs = bench.blobs_with_memory(None, 100_000);
    for chunk in &chunks {
        blobs.read(CONTENT, chunk).expect("reads");
    }
    bench.store.count();
    blobs.read(CONTENT, &chunks[1499]).expect("reads");
    assert_eq!(bench.store.count(), 0, "remembered");
    blobs.read(CONTENT, &chunks[0]).expect("reads");
    assert_eq!(bench.store.count(), 1, "forgotten");
    assert_eq!(bench.store.objects.lock().keys().filter(|key| **key == run_key(bench.runs[0].id)).count(), 1);
}

#[test]
fn a_damaged_waiting_object_is_read_from_the_store() {
    let mut bench = Bench::new();
    let content = noise(21, 700_000);
    let (key, chunk) = bench.store_object(&content);
    bench.outbox.add(&key, &encode(&bench.keys, CONTENT, chunk.id, &content)).expect("writes");
    let waiting = bench.dir.path().join("outbox").join(key.as_str().replace('/', "+"));
    let file = std::fs::OpenOptions::new().write(true).open(&waiting).expect("waits");
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 5000], 300_000).expect("written");
    assert!(*bench.blobs(None).read(CONTENT, &chunk).expect("heals") == content);
    let mut out = Vec::new();
    bench.blobs(None).read_range(CONTENT, &chunk, 290_000, 20_000, &mut out).expect("heals");
    assert!(out == content[290_000..310_000]);
    bench.store.objects.lock().remove(&key);
    match bench.blobs(None).read(CONTENT, &chunk) {
        Err(BlobError::Damaged { object, .. }) => assert!(object.contains("outbox") && object.contains(key.as_str())),
        other => panic!("{other:?}"),
    }
}

#[test]
fn readers_race_with_eviction_and_damage() {
    let mut bench = Bench::new();
    let contents: Vec<Vec<u8>> = (0..12).map(|seed| noise(seed + 50, 400_000)).collect();
    let chunks: Vec<ChunkRef> = contents.iter().map(|content| bench.store_object(content).1).collect();
    let blobs = bench.blobs_with_memory(Some(bench.cache(1 << 20)), 300_000);
    let cache_dir = bench.dir.path().join("cache");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (blobs, chunks, contents) = (&blobs, &chunks, &contents);
            scope.spawn(move || {
                for round in 0..60 {
                    let number = (round * 7 + thread * 5) % chunks.len();
                    if round % 3 == 0 {
                        assert!(*blobs.read(CONTENT, &chunks[number]).expect("reads") == contents[number]);
                    } else {
                        let mut out = Vec::new();
                        blobs.read_range(CONTENT, &chunks[number], 200_000, 100_000, &mut out).expect("reads");
                        assert!(out == contents[number][200_000..300_000]);
                    }
                }
            });
        }
        scope.spawn(|| {
            for entry in std::iter::repeat_with(|| std::fs::read_dir(&cache_dir)).take(30).flatten().flatten().flatten()
            {
                if let Ok(file) = std::fs::OpenOptions::new().write(true).open(entry.path()) {
                    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 70_000], 100_000).expect("written");
                }
            }
        });
    });
}

#[test]
fn without_a_disk_to_cache_on_windows_stay_in_memory() {
    let mut bench = Bench::new();
    let contents = tree();
    let (_, chunks) = bench.store_pack(&contents);
    let is_full = Arc::new(AtomicBool::new(false));
    let disk = PoorDisk { is_full: Arc::clone(&is_full), knows_holes: true };
    let cache = Cache::open(Arc::new(disk), bench.dir.path().join("cache"), 1 << 30).expect("opens");
    is_full.store(true, Ordering::SeqCst);
    let blobs = bench.blobs(Some(cache));
    for (chunk, content) in chunks.iter().zip(&contents) {
        assert_eq!(&*blobs.read(CONTENT, chunk).expect("reads"), content.as_slice());
    }
    let requests = bench.store.count();
    assert!(requests <= 10, "{requests} requests");
}

#[test]
fn memory_that_is_wanted_elsewhere_is_given_back() {
    let mut bench = Bench::new();
    let content = noise(5, CHUNK_LEN_MAX);
    let (_, chunk) = bench.store_object(&content);
    let blobs = bench.blobs_with_memory(None, 8 << 20);
    assert_eq!(&*blobs.read(CONTENT, &chunk).expect("reads"), content.as_slice());
    assert!(blobs.remembered(&chunk).is_some());
    blobs.limit_memory(1 << 20);
    assert!(blobs.remembered(&chunk).is_none());
    let frames = (0..chunk.frame_count()).filter(|number| {
        let offset = number * u32::try_from(FRAME_LEN).expect("small");
        blobs.read_range_remembered(&chunk, offset, 10, &mut Vec::new())
    });
    let frames = frames.count();
    assert!((4..=8).contains(&frames), "{frames} frames in 1 MiB");
    // Buffers that are used again show nothing of what was in them.
    for offset in (0..chunk.len - 5000).rev().step_by(77_777) {
        let mut out = Vec::new();
        blobs.read_range(CONTENT, &chunk, offset, 5000, &mut out).expect("reads");
        assert_eq!(out, content[offset as usize..offset as usize + 5000]);
    }
    blobs.limit_memory(8 << 20);
    assert_eq!(&*blobs.read(CONTENT, &chunk).expect("reads"), content.as_slice());
    assert!(blobs.remembered(&chunk).is_some());
}
