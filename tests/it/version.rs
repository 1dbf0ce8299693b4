//! Page trees, entries, index records, refs and differences, against plain maps.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use kura::base::clock::Timestamp;
use kura::base::ids::{BlobId, ClientId, FileId, VersionId, WorkspaceId};
use kura::base::limits::{CHUNK_LEN_MAX, PAGE_LEN_MAX};
use kura::blob::ChunkRef;
use kura::crypto::Keys;
use kura::version::diff::{Change, ChangeKind, diff};
use kura::version::entry::{Body, CHUNKS_IN_ENTRY_MAX, Content, Entry, FileBody, Ino, LinkRecord, Xattrs};
use kura::version::head::{CollectionState, Head};
use kura::version::history::History;
use kura::version::index::{Author, Counts, IndexRecord, Origin, Root};
use kura::version::refs;
use kura::version::tree::{Edits, PageIo, TreeRef};
use kura::version::{Result, VersionError};
use proptest::prelude::*;

use crate::rig::sha256;

/// Pages in memory, counted.
#[derive(Default)]
pub struct Pages {
    pub pages: RefCell<HashMap<BlobId, Arc<[u8]>>>,
    pub loaded: Cell<usize>,
    pub fresh: Cell<usize>,
}

impl PageIo for Pages {
    fn load(&self, page: &ChunkRef) -> Result<Arc<[u8]>> {
        self.loaded.set(self.loaded.get() + 1);
        let missing = || VersionError::Damaged { object: page.id.to_string(), reason: "missing".into() };
        self.pages.borrow().get(&page.id).cloned().ok_or_else(missing)
    }

    fn save(&self, bytes: &[u8]) -> Result<ChunkRef> {
        assert!(bytes.len() <= PAGE_LEN_MAX, "a page of {} bytes", bytes.len());
        let id = BlobId(sha256(bytes).0);
        if self.pages.borrow_mut().insert(id, bytes.into()).is_none() {
            self.fresh.set(self.fresh.get() + 1);
        }
        Ok(ChunkRef { id, len: u32::try_from(bytes.len()).unwrap() })
    }
}

pub type Map = BTreeMap<Vec<u8>, Vec<u8>>;

pub fn apply(map: &mut Map, edits: &Edits) {
    for (key, value) in edits {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}

fn scanned(tree: &TreeRef, io: &Pages, from: Bound<&[u8]>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut items = Vec::new();
    tree.scan(io, from, &mut |key, value| {
        items.push((key.to_vec(), value.to_vec()));
        true
    })
    .unwrap();
    items
}

pub fn of_map(io: &Pages, map: &Map) -> TreeRef {
    let edits = map.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
    TreeRef::default().edit(io, &edits).unwrap()
}

fn check(tree: &TreeRef, io: &Pages, map: &Map) {
    assert_eq!(tree.count(), map.len() as u64);
    assert_eq!(*tree, of_map(io, map), "the tree depends on its content alone");
    let all: Vec<_> = map.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    assert!(scanned(tree, io, Bound::Unbounded) == all);
    for (key, value) in map.iter().step_by(map.len() / 10 + 1) {
        assert_eq!(tree.get(io, key).unwrap().as_ref(), Some(value));
        assert_eq!(tree.get(io, &[key.as_slice(), b"~"].concat()).unwrap(), None);
        let from = |bound: Bound<&[u8]>| scanned(tree, io, bound);
        let expected = |bound: Bound<&[u8]>| -> Vec<_> {
            map.range::<[u8], _>((bound, Bound::Unbounded)).map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        assert!(from(Bound::Included(key)) == expected(Bound::Included(key)));
        assert!(from(Bound::Excluded(key)) == expected(Bound::Excluded(key)));
    }
}

fn edits(keys: u32, count: usize) -> impl Strategy<Value = Edits> {
    let len = prop_oneof![8 => 0..60_usize, 1 => 3000..9000_usize, 1 => 60_000..130_000_usize];
    let value = prop_oneof![2 => (len, any::<u8>()).prop_map(|(len, byte)| Some(vec![byte; len])), 1 => Just(None)];
    prop::collection::btree_map((0..keys).prop_map(|key| format!("{key:05}").into_bytes()), value, 1..count)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn small_batches_are_as_a_map(batches in prop::collection::vec(edits(400, 60), 1..8)) {
        let (io, mut map, mut tree) = (Pages::default(), Map::new(), TreeRef::default());
        for batch in batches {
            tree = tree.edit(&io, &batch).unwrap();
            apply(&mut map, &batch);
            check(&tree, &io, &map);
        }
    }

    #[test]
    fn large_batches_are_as_a_map(first in 1..9000_u32, batches in prop::collection::vec(edits(9000, 900), 1..4)) {
        let (io, mut map) = (Pages::default(), Map::new());
        for key in 0..first {
            map.insert(format!("{key:05}").into_bytes(), vec![7; 40]);
        }
        let mut tree = of_map(&io, &map);
        for batch in batches {
            tree = tree.edit(&io, &batch).unwrap();
            apply(&mut map, &batch);
            check(&tree, &io, &map);
        }
        let rest: Edits = map.keys().map(|key| (key.clone(), None)).collect();
        prop_assert_eq!(tree.edit(&io, &rest).unwrap(), TreeRef::default());
    }

    #[test]
    fn differences_are_those_of_the_maps(before in edits(3000, 2500), change in edits(3000, 60)) {
        let (io, mut old) = (Pages::default(), Map::new());
        apply(&mut old, &before);
        let tree = of_map(&io, &old);
        let mut new = old.clone();
        apply(&mut new, &change);
        let after = tree.edit(&io, &change).unwrap();
        let mut found = Vec::new();
        tree.diff(&after, &io, &mut |key, before, after| {
            found.push((key.to_vec(), before.map(<[u8]>::to_vec), after.map(<[u8]>::to_vec)));
            Ok(())
        }).unwrap();
        let keys: HashSet<&Vec<u8>> = old.keys().chain(new.keys()).collect();
        let mut expected: Vec<_> = keys.into_iter().filter(|key| old.get(*key) != new.get(*key))
            .map(|key| (key.clone(), old.get(key).cloned(), new.get(key).cloned())).collect();
        expected.sort();
        prop_assert!(found == expected);
    }

    #[test]
    fn random_bytes_are_refused_or_decoded_within_bounds(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(entry) = Entry::decode(&bytes) {
            prop_assert_eq!(Entry::decode(&entry.encode()).unwrap(), entry);
        }
        LinkRecord::decode(&bytes).ok();
        let io = Pages::default();
        let page = io.save(&bytes).unwrap();
        let tree: TreeRef = postcard::from_bytes(&postcard::to_stdvec(&(Some(page), 3_u64)).unwrap()).unwrap();
        tree.get(&io, b"key").ok();
        tree.pages(&io, &mut |_| {}).ok();
        tree.scan(&io, Bound::Unbounded, &mut |_, _| true).ok();
        tree.edit(&io, &Edits::from([(b"key".to_vec(), None)])).ok();
    }

    #[test]
    fn chunk_lists_are_as_a_map(
        count in 0..60_u64,
        splices in prop::collection::vec((0..70_u64, 0..30_u64, 0..30_u64), 1..6),
    ) {
        let io = Pages::default();
        let mut map: BTreeMap<u64, ChunkRef> = (0..count).map(|number| (number * 10, chunk(number, 10))).collect();
        let mut content = Content::from_chunks(&io, map.clone().into_iter().collect()).unwrap();
        for (from, removed, added) in splices {
            let gone: Vec<u64> = map.range(from * 10..(from + removed) * 10).map(|(offset, _)| *offset).collect();
            let new: Vec<_> = (from..from + added.min(removed)).map(|number| (number * 10, chunk(number + 500, 7))).collect();
            gone.iter().for_each(|offset| { map.remove(offset); });
            map.extend(new.iter().copied());
            content = content.splice(&io, &gone, &new).unwrap();
            let all: Vec<_> = map.clone().into_iter().collect();
            prop_assert_eq!(&content, &Content::from_chunks(&io, all.clone()).unwrap());
            prop_assert_eq!(matches!(content, Content::Tree(_)), all.len() > CHUNKS_IN_ENTRY_MAX);
            for (from, to) in [(0, u64::MAX), (5, 6), (9, 11), (100, 305), (17, 17)] {
                let touching = |(offset, chunk): &&(u64, ChunkRef)| *offset < to && offset + u64::from(chunk.len) > from;
                let expected: Vec<_> = all.iter().filter(touching).copied().collect();
                prop_assert_eq!(content.chunks(&io, from, to).unwrap(), expected);
            }
        }
    }
}

fn chunk(number: u64, len: u32) -> ChunkRef {
    ChunkRef { id: BlobId(sha256(&number.to_le_bytes()).0), len }
}

#[test]
fn an_edit_of_a_large_tree_touches_few_pages() {
    let io = Pages::default();
    let map: Map = (0..50_000).map(|key| (format!("name {key:06}").into_bytes(), vec![1; 100])).collect();
    let tree = of_map(&io, &map);
    let mut all = 0;
    tree.pages(&io, &mut |_| all += 1).unwrap();
    assert!(all > 100, "{all} pages");
    io.loaded.set(0);
    io.fresh.set(0);
    let edit = Edits::from([(b"name 025000".to_vec(), Some(b"changed".to_vec()))]);
    let edited = tree.edit(&io, &edit).unwrap();
    assert!(io.fresh.get() <= 4, "{} new pages", io.fresh.get());
    assert!(io.loaded.get() <= 6, "{} pages read", io.loaded.get());
    io.loaded.set(0);
    let mut differing = 0;
    let mut count = |_: &[u8], _: Option<&[u8]>, _: Option<&[u8]>| {
        differing += 1;
        Ok(())
    };
    tree.diff(&edited, &io, &mut count).unwrap();
    assert_eq!(differing, 1);
    assert!(io.loaded.get() <= 8, "{} pages read", io.loaded.get());
}

fn entry(ino: u64, body: Body) -> Entry {
    let time = Timestamp::from_unix_ns(5);
    Entry {
        ino: Ino(ino),
        file_id: FileId([1; 16]),
        mode: 0o644,
        uid: 1,
        gid: 2,
        atime: time,
        mtime: time,
        ctime: time,
        xattrs: Xattrs::from([(b"user.a".to_vec(), b"value".to_vec())]),
        body,
    }
}

fn file(bytes: &[u8]) -> Body {
    let content = if bytes.is_empty() { Content::Empty } else { Content::Inline(bytes.to_vec()) };
    Body::File(FileBody { size: bytes.len() as u64, content, sha256: Some(sha256(bytes)) })
}

#[test]
fn entries_come_back_as_they_were() {
    let io = Pages::default();
    let chunks: Vec<_> = (0..40).map(|number| (number * 100, chunk(number, 100))).collect();
    let bodies = [
        file(b""),
        file(b"inline"),
        Body::File(FileBody { size: 9000, content: Content::Chunks(chunks[..3].to_vec()), sha256: None }),
        Body::File(FileBody { size: 4000, content: Content::from_chunks(&io, chunks).unwrap(), sha256: None }),
        Body::Directory { names: TreeRef::default(), subdirs: 3 },
        Body::Symlink { target: b"to/where".to_vec() },
        Body::Fifo,
        Body::Socket,
        Body::CharDevice { rdev: 7 },
        Body::BlockDevice { rdev: 8 },
        Body::Link,
    ];
    for body in bodies {
        let entry = entry(9, body);
        assert_eq!(Entry::decode(&entry.encode()).unwrap(), entry);
        let encoded = entry.encode();
        for len in 0..encoded.len() {
            assert!(Entry::decode(&encoded[..len]).is_err(), "an entry cut at {len} bytes");
        }
        let record = LinkRecord { names: 3, inode: entry };
        assert_eq!(LinkRecord::decode(&record.encode()).unwrap(), record);
    }
}

#[test]
fn entries_that_cannot_be_are_refused() {
    let with = |size, content| entry(9, Body::File(FileBody { size, content, sha256: None })).encode();
    let chunks =
        |chunks: &[(u64, u32)]| Content::Chunks(chunks.iter().map(|(offset, len)| (*offset, chunk(0, *len))).collect());
    let too_long = u32::try_from(CHUNK_LEN_MAX + 1).unwrap();
    for (size, content) in [
        (10, Content::Inline(vec![0; 11])),
        (1000, Content::Inline(vec![0; 257])),
        (u64::MAX, Content::Empty),
        (100, chunks(&[(0, 10), (9, 10)])),
        (100, chunks(&[(10, 10), (0, 10)])),
        (100, chunks(&[(u64::MAX, 10)])),
        (100, chunks(&[(0, 0)])),
        (100, chunks(&[(0, too_long)])),
    ] {
        let decoded = Entry::decode(&with(size, content.clone()));
        assert!(matches!(decoded, Err(VersionError::Damaged { .. })), "{content:?}");
    }
    Entry::decode(&with(100, chunks(&[(0, 10), (10, 10), (40, 1)]))).unwrap();
}

fn record(root: Root) -> IndexRecord {
    let time = Timestamp::from_unix_ns(1_700_000_000_000_000_000);
    IndexRecord {
        id: VersionId::at(time),
        parents: Vec::new(),
        parents_digest: IndexRecord::digest_of_parents(&[]),
        generation: 0,
        time,
        author: Author { client: ClientId::random(), host: "host".into(), user: "user".into() },
        origin: Origin::Snapshot,
        message: Some("message".into()),
        root,
        counts: Counts::default(),
    }
}

fn root(io: &Pages, names: &[(&str, Entry)], links: &[(Ino, LinkRecord)]) -> Root {
    let names = names.iter().map(|(name, entry)| (name.as_bytes().to_vec(), Some(entry.encode()))).collect();
    let links = links.iter().map(|(ino, record)| (LinkRecord::key(*ino), Some(record.encode()))).collect();
    let names = TreeRef::default().edit(io, &names).unwrap();
    Root {
        dir: entry(1, Body::Directory { names, subdirs: 0 }),
        links: TreeRef::default().edit(io, &links).unwrap(),
        digests: TreeRef::default(),
    }
}

fn dir(io: &Pages, ino: u64, names: &[(&str, Entry)]) -> Entry {
    let Body::Directory { names, .. } = root(io, names, &[]).dir.body else { unreachable!() };
    entry(ino, Body::Directory { names, subdirs: 0 })
}

#[test]
fn records_and_head_open_only_in_their_own_place() {
    let io = Pages::default();
    let keys = Keys::ephemeral(WorkspaceId::random());
    let record = record(root(&io, &[], &[]));
    let sealed = record.seal(&keys);
    assert_eq!(IndexRecord::open(&keys, record.id, sealed.as_bytes()).unwrap(), record);
    let other = VersionId::random();
    assert!(matches!(IndexRecord::open(&keys, other, sealed.as_bytes()), Err(VersionError::Unopened { .. })));
    let mut head = Head {
        generation: 3,
        version: record.id,
        version_digest: record.digest(),
        refs: TreeRef::default(),
        runs: Vec::new(),
        collection: 0,
        collection_state: CollectionState::Idle,
        writer: ClientId::random(),
        time: record.time,
        nonce: [0; 16],
    };
    let (first, second) = (head.seal(&keys), head.clone().seal(&keys));
    assert!(first.as_bytes() != second.as_bytes());
    assert_eq!(Head::open(&keys, first.as_bytes()).unwrap().version, record.id);
    assert!(Head::open(&keys, sealed.as_bytes()).is_err(), "a record is no HEAD");
    assert!(IndexRecord::open(&keys, record.id, first.as_bytes()).is_err(), "HEAD is no record");
    let foreign = Keys::ephemeral(WorkspaceId::random());
    assert!(Head::open(&foreign, first.as_bytes()).is_err());
}

#[test]
fn refs_list_versions_newest_first_and_their_tags() {
    let io = Pages::default();
    let mut edits = Edits::new();
    let records: Vec<IndexRecord> = (0..300)
        .map(|generation| IndexRecord { generation, ..record(root(&io, &[], &[])) })
        .inspect(|record| refs::add_version(&mut edits, record))
        .collect();
    refs::set_tag(&mut edits, "release 1", Some(records[7].id));
    refs::set_tag(&mut edits, "first", Some(records[0].id));
    let tree = TreeRef::default().edit(&io, &edits).unwrap();
    let listed = refs::versions(&tree, &io).unwrap();
    assert!(listed.iter().map(|version| version.id).eq(records.iter().rev().map(|record| record.id)));
    assert_eq!(listed[292].tags, ["release 1"]);
    assert_eq!(refs::tagged(&tree, &io, "first").unwrap(), Some(records[0].id));
    assert_eq!(refs::tags(&tree, &io).unwrap().len(), 2);
    let mut edits = Edits::new();
    refs::set_tag(&mut edits, "first", None);
    let tree = tree.edit(&io, &edits).unwrap();
    assert_eq!(refs::tagged(&tree, &io, "first").unwrap(), None);
    for (tag, ok) in [("v1.0", true), ("a b", true), ("", false), (" a", false), ("a/b", false), ("a:b", false)] {
        assert_eq!(refs::tag_ok(tag), ok, "{tag:?}");
    }
    assert!(!refs::tag_ok("latest") && !refs::tag_ok("a\nb") && !refs::tag_ok(&"x".repeat(201)));
}

/// Reading from pages that stay the test's.
struct Lent<'a>(&'a Pages);

impl PageIo for Lent<'_> {
    fn load(&self, page: &ChunkRef) -> Result<Arc<[u8]>> {
        self.0.load(page)
    }

    fn save(&self, bytes: &[u8]) -> Result<ChunkRef> {
        self.0.save(bytes)
    }
}

/// Refs of so many versions; `join` says which earlier version is joined into each, and `skew` by how many
/// milliseconds the clock of each is wrong.
fn line(
    io: &Pages,
    count: u64,
    join: impl Fn(u64) -> Option<u64>,
    skew: impl Fn(u64) -> u64,
) -> (TreeRef, Vec<VersionId>) {
    let (mut edits, mut records) = (Edits::new(), Vec::<IndexRecord>::new());
    for number in 0..count {
        let time = 1_700_000_000_000 + 10 * number + skew(number);
        let time = Timestamp::from_unix_ns(i64::try_from(time).unwrap() * 1_000_000);
        // A line goes on at the version before, a joined one lies beside it.
        let before = records.iter().rev().take(1);
        let joined = join(number).and_then(|at| records.get(usize::try_from(at).unwrap()));
        let parents: Vec<&IndexRecord> = before.chain(joined).collect();
        let generation = parents.iter().map(|parent| parent.generation + 1).max().unwrap_or(1);
        let parents = parents.iter().map(|parent| parent.id).collect();
        let one = IndexRecord { id: VersionId::at(time), time, parents, generation, ..record(root(io, &[], &[])) };
        refs::add_version(&mut edits, &one);
        records.push(one);
    }
    refs::set_tag(&mut edits, "middle", Some(records[records.len() / 2].id));
    (TreeRef::default().edit(io, &edits).unwrap(), records.iter().map(|record| record.id).collect())
}

fn first(refs: &TreeRef, io: &Pages, newest: VersionId, count: usize) -> Vec<refs::Listed> {
    History::new(refs, Box::new(Lent(io)), newest).unwrap().take(count).map(|version| version.unwrap()).collect()
}

#[test]
fn a_page_of_a_long_history_reads_few_pages_of_the_refs() {
    let io = Pages::default();
    let (refs, ids) = line(&io, 20_000, |_| None, |_| 0);
    let newest = *ids.last().unwrap();
    io.loaded.set(0);
    let page = first(&refs, &io, newest, 100);
    assert!(page.iter().map(|version| version.id).eq(ids.iter().rev().take(100).copied()));
    let read = io.loaded.replace(0);
    assert!(read <= 20, "{read} pages for a hundred of twenty thousand versions");
    assert_eq!(refs::count(&refs, &io).unwrap(), 20_000);
    assert_eq!(refs::with_digits(&refs, &io, &ids[9].to_string().replace('-', "")[..20], 2).unwrap()[0].0, ids[9]);
    let read = io.loaded.replace(0);
    assert!(read <= 20, "{read} pages to count versions, and to find one");

    // One page after another reads each page of the refs about once.
    let mut history = History::new(&refs, Box::new(Lent(&io)), newest).unwrap();
    let (mut place, mut seen) = (history.place(), 0);
    while let Some(at) = place {
        io.loaded.set(0);
        history = History::from_place(&refs, Box::new(Lent(&io)), newest, &at).unwrap();
        seen += history.by_ref().take(1_000).inspect(|version| assert!(version.is_ok())).count();
        let read = io.loaded.get();
        assert!(read <= 60, "{read} pages for a thousand versions after {seen}");
        place = history.place();
    }
    assert_eq!(seen, ids.len());
}

#[test]
fn a_history_read_as_it_is_asked_for_is_the_list_of_versions() {
    let io = Pages::default();
    // Clocks that differ, joined lines, versions of one millisecond.
    let (mut refs, ids) = line(&io, 400, |number| (number % 7 == 3).then_some(number / 2), |number| (number % 5) * 37);
    let newest = *ids.last().unwrap();
    let all = refs::versions(&refs, &io).unwrap();
    assert_eq!(first(&refs, &io, newest, usize::MAX), all);
    // Some are forgotten; one is no ancestor of the newest.
    let mut edits = Edits::new();
    all.iter().skip(3).step_by(4).for_each(|version| refs::forget_version(&mut edits, version));
    refs = refs.edit(&io, &edits).unwrap();
    let left = refs::versions(&refs, &io).unwrap();
    assert_eq!(first(&refs, &io, newest, usize::MAX), left);
    let stray = IndexRecord { generation: 1_000, ..record(root(&io, &[], &[])) };
    let mut edits = Edits::new();
    refs::add_version(&mut edits, &stray);
    refs = refs.edit(&io, &edits).unwrap();
    let found = first(&refs, &io, newest, usize::MAX);
    assert_eq!(found.len(), left.len() + 1);
    assert_eq!((found.last().unwrap().id, &found[..left.len()]), (stray.id, &left[..]));
}

fn kinds(io: &Pages, before: &Root, after: &Root) -> BTreeMap<String, Option<ChangeKind>> {
    let mut kinds = BTreeMap::new();
    let mut last = Vec::new();
    diff(io, before, after, &mut |change: Change| {
        let path = String::from_utf8(change.path.to_vec()).unwrap();
        last.push(path.clone());
        assert!(kinds.insert(path.clone(), change.kind()).is_none(), "{path} is visited once");
        Ok(())
    })
    .unwrap();
    for path in &last {
        if let Some((dir, _)) = path.rsplit_once('/')
            && let Some(at) = last.iter().position(|other| other == dir)
        {
            assert!(at < last.iter().position(|other| other == path).unwrap(), "{dir} comes before {path}");
        }
    }
    kinds
}

#[test]
fn differences_of_versions_name_every_path() {
    let io = Pages::default();
    let with_mode = |entry: Entry, mode| Entry { mode, ..entry };
    let before = root(
        &io,
        &[
            ("same", entry(2, file(b"same"))),
            ("changed", entry(3, file(b"old"))),
            ("mode", entry(4, file(b"mode"))),
            ("gone", dir(&io, 5, &[("a", entry(6, file(b"a"))), ("b", entry(7, file(b"b")))])),
            ("type", entry(8, file(b"file"))),
            ("dir", dir(&io, 9, &[("keep", entry(10, file(b"k"))), ("edit", entry(11, file(b"1")))])),
        ],
        &[],
    );
    let after = root(
        &io,
        &[
            ("same", entry(2, file(b"same"))),
            ("changed", entry(3, file(b"new"))),
            ("mode", with_mode(entry(4, file(b"mode")), 0o600)),
            ("moved", dir(&io, 5, &[("a", entry(6, file(b"a"))), ("b", entry(7, file(b"b")))])),
            ("type", dir(&io, 12, &[("inside", entry(13, file(b"x")))])),
            ("dir", dir(&io, 9, &[("keep", entry(10, file(b"k"))), ("edit", entry(11, file(b"2")))])),
        ],
        &[],
    );
    let expected = [
        ("changed", Some(ChangeKind::Modified)),
        ("mode", Some(ChangeKind::Metadata)),
        ("gone", Some(ChangeKind::Removed)),
        ("gone/a", Some(ChangeKind::Removed)),
        ("gone/b", Some(ChangeKind::Removed)),
        ("moved", Some(ChangeKind::Added)),
        ("moved/a", Some(ChangeKind::Added)),
        ("moved/b", Some(ChangeKind::Added)),
        ("type", Some(ChangeKind::TypeChanged)),
        ("type/inside", Some(ChangeKind::Added)),
        ("dir", None),
        ("dir/edit", Some(ChangeKind::Modified)),
    ];
    let expected: BTreeMap<String, _> = expected.into_iter().map(|(path, kind)| (path.to_owned(), kind)).collect();
    assert_eq!(kinds(&io, &before, &after), expected);
    assert!(kinds(&io, &before, &before).is_empty());
}

#[test]
fn differences_follow_hard_links_to_their_inode() {
    let io = Pages::default();
    let link = || entry(20, Body::Link);
    let names =
        [("one", link()), ("two", link()), ("dir", dir(&io, 9, &[("three", link()), ("x", entry(3, file(b"x")))]))];
    let linked = |bytes: &[u8]| (Ino(20), LinkRecord { names: 3, inode: entry(20, file(bytes)) });
    let before = root(&io, &names, &[linked(b"old")]);
    let after = root(&io, &names, &[linked(b"new")]);
    let found = kinds(&io, &before, &after);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(["one", "two", "dir/three"].iter().all(|path| found[*path] == Some(ChangeKind::Modified)));
    // A name less, and the content changed.
    let fewer = root(&io, &names[1..], &[linked(b"new")]);
    let found = kinds(&io, &before, &fewer);
    assert_eq!(found["one"], Some(ChangeKind::Removed));
    assert_eq!(found["two"], Some(ChangeKind::Modified));
}
