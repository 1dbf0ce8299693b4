//! What stored sizes tell a store about known files, measured: `KURA_TEST_LONG=1` looks at up to 4 GB of this machine's
//! files instead of 30 MB (`KURA_TEST_FILES` names another directory), and prints what `docs/threat-model.md` says.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use kura::base::ids::WorkspaceId;
use kura::base::limits::{INLINE_LEN_MAX, PACKED_LEN_MAX};
use kura::blob::codec::{encode, frame_layout, padme_len};
use kura::blob::{BlobKind, ChunkRef, Chunker};
use kura::crypto::{Keys, Kind, SEAL_OVERHEAD, Sealed};

/// What goes into a pack beside one small file: some pages, the directory, the trailer.
const BESIDE: usize = 2000;
/// Files that are read, at most this long.
const FILE_LEN_MAX: u64 = 64 << 20;

/// Regular files below a directory with their lengths, in an order that has nothing to do with their names.
fn files(dir: &Path, bytes_max: u64) -> Vec<PathBuf> {
    let (mut found, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        let Ok(items) = std::fs::read_dir(&dir) else { continue };
        for item in items.filter_map(Result::ok) {
            match item.metadata() {
                Ok(info) if info.is_dir() => dirs.push(item.path()),
                Ok(info) if info.is_file() && (1..FILE_LEN_MAX).contains(&info.len()) => {
                    found.push((item.path(), info.len()));
                }
                _ => {}
            }
        }
    }
    found.sort_by_cached_key(|(path, _)| {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        hasher.finish()
    });
    let mut left = bytes_max;
    found.retain(|(_, len)| {
        let fits = *len <= left;
        left -= if fits { *len } else { 0 };
        fits
    });
    found.into_iter().map(|(path, _)| path).collect()
}

/// The padding of a blob: what is in its last frame behind the payload.
fn padding(keys: &Keys, chunk: &ChunkRef, sealed: &Sealed) -> usize {
    let layout = frame_layout(keys, BlobKind::Content, chunk, sealed.as_bytes(), sealed.len() as u32).unwrap();
    let last = chunk.frame_count() - 1;
    let (start, len) = layout.span(last, last).unwrap();
    let identity = [
        &chunk.id.as_bytes()[..],
        &last.to_le_bytes(),
        &chunk.frame_count().to_le_bytes(),
        &u64::from(chunk.len).to_le_bytes(),
    ];
    let frame = &sealed.as_bytes()[start as usize..(start + len) as usize];
    let opened = keys.open(Kind::Content, &identity.concat(), frame).unwrap();
    assert_eq!(opened.len() + SEAL_OVERHEAD, frame.len());
    opened.len() - 5 - u32::from_le_bytes(opened[1..5].try_into().unwrap()) as usize
}

/// What a file becomes.
#[derive(Default)]
struct Stored {
    /// The lengths of its objects of their own, and what they would be without padding.
    padded: Vec<usize>,
    plain: Vec<usize>,
    chunks: usize,
    /// Bytes in packs.
    packed: usize,
}

fn stored(keys: &Keys, content: &[u8]) -> Stored {
    let chunker = Chunker::new(keys.chunk_seed());
    let (mut stored, mut rest) = (Stored::default(), content);
    while let Some(cut) = chunker.next_cut(rest, true) {
        let chunk = ChunkRef::of(keys, BlobKind::Content, &rest[..cut]);
        let sealed = encode(keys, BlobKind::Content, chunk.id, &rest[..cut]);
        stored.chunks += 1;
        match sealed.len() >= PACKED_LEN_MAX {
            true => {
                assert_eq!(sealed.len() as u64, padme_len(sealed.len() as u64));
                stored.plain.push(sealed.len() - padding(keys, &chunk, &sealed));
                stored.padded.push(sealed.len());
            }
            false => stored.packed += sealed.len(),
        }
        rest = &rest[cut..];
    }
    stored
}

/// How many of these are like no other.
fn unique<T: Hash + Eq>(of: &[T]) -> usize {
    let mut counts: HashMap<&T, usize> = HashMap::new();
    of.iter().for_each(|one| *counts.entry(one).or_default() += 1);
    counts.values().filter(|count| **count == 1).count()
}

#[derive(Default)]
struct Seen {
    exact: Vec<usize>,
    inline: usize,
    /// Of files in packs, each in a pack of its own with what goes along: without padding, padded.
    packed: (Vec<usize>, Vec<u64>),
    /// Of files that have objects of their own: exact, without padding, padded.
    alone: (Vec<usize>, Vec<Vec<usize>>, Vec<Vec<usize>>),
    bytes: (usize, usize),
    /// Files of several chunks, and those of them whose lengths are the same under other keys.
    several: (usize, usize),
}

fn look(paths: &[PathBuf]) -> Seen {
    let keys = [(); 2].map(|()| Keys::ephemeral(WorkspaceId::random()));
    let (mut seen, mut known) = (Seen::default(), std::collections::HashSet::new());
    for path in paths {
        let Ok(content) = std::fs::read(path) else { continue };
        if content.is_empty() || !known.insert(BlobKind::Content.id_of(&keys[0], &content)) {
            continue;
        }
        seen.exact.push(content.len());
        let Stored { padded, plain, chunks, packed } = stored(&keys[0], &content);
        if padded.is_empty() {
            seen.inline += usize::from(content.len() <= INLINE_LEN_MAX);
            seen.packed.0.push(packed + BESIDE);
            seen.packed.1.push(padme_len((packed + BESIDE) as u64));
            continue;
        }
        if chunks > 1 {
            seen.several.0 += 1;
            seen.several.1 += usize::from(stored(&keys[1], &content).padded == padded);
        }
        seen.bytes.0 += plain.iter().sum::<usize>();
        seen.bytes.1 += padded.iter().sum::<usize>();
        seen.alone.0.push(content.len());
        seen.alone.1.push(plain);
        seen.alone.2.push(padded);
    }
    seen
}

#[test]
fn stored_sizes_tell_little_about_known_files() {
    let is_long = std::env::var_os("KURA_TEST_LONG").is_some();
    let dir = std::env::var_os("KURA_TEST_FILES").map_or_else(|| PathBuf::from("/usr"), PathBuf::from);
    let seen = look(&files(&dir, if is_long { 4 << 30 } else { 30 << 20 }));
    let (alone, packed) = (seen.alone.0.len(), seen.packed.0.len());
    let percent = |part: usize, whole: usize| part as f64 * 100.0 / whole.max(1) as f64;
    let mut lengths: Vec<usize> = seen.alone.2.iter().flatten().copied().collect();
    lengths.sort_unstable();
    lengths.dedup();
    let single = |of: &[Vec<usize>]| of.iter().filter(|lens| lens.len() == 1).cloned().collect::<Vec<_>>();
    let (single_plain, single_padded) = (single(&seen.alone.1), single(&seen.alone.2));
    println!(
        "{} different files; {:.1} % unique by their size\n\
         {} in packs or directory entries only ({:.1} %; {} in entries): together with others, none has a stored size; \
         alone in a pack, unique without padding {:.1} %, padded {:.1} %\n\
         {alone} with objects of their own: unique by size {:.1} %, by sealed sizes without padding {:.1} %, \
         padded {:.1} %\n\
         {} of them in one such object: unique without padding {:.1} %, padded {:.1} %\n\
         {} of several chunks, of which {} have the same sizes under other keys\n\
         {} different padded sizes in all; padding costs {:.1} %",
        seen.exact.len(),
        percent(unique(&seen.exact), seen.exact.len()),
        packed,
        percent(packed, seen.exact.len()),
        seen.inline,
        percent(unique(&seen.packed.0), packed),
        percent(unique(&seen.packed.1), packed),
        percent(unique(&seen.alone.0), alone),
        percent(unique(&seen.alone.1), alone),
        percent(unique(&seen.alone.2), alone),
        single_plain.len(),
        percent(unique(&single_plain), single_plain.len()),
        percent(unique(&single_padded), single_padded.len()),
        seen.several.0,
        seen.several.1,
        lengths.len(),
        percent(seen.bytes.1 - seen.bytes.0, seen.bytes.0),
    );
    assert!(seen.exact.len() > 100, "too few files below {}", dir.display());
    assert!(packed * 2 > seen.exact.len(), "most files are small");
    assert!(unique(&seen.alone.2) <= unique(&seen.alone.1));
    assert!(unique(&seen.packed.1) * 4 < unique(&seen.packed.0), "of many small files few have a size of their own");
    // Every length that one object can have, from 256 KiB to a little more than 4 MiB.
    assert!(lengths.len() <= 140, "{}", lengths.len());
    assert!(seen.several.1 * 2 <= seen.several.0.max(1), "the cuts depend on the key");
}
