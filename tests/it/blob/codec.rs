//! Chunker, sealed form and packs.

use kura::base::ids::{BlobId, PackId};
use kura::base::limits::{CHUNK_LEN_MAX, CHUNK_LEN_MIN, FRAME_LEN, PACKED_LEN_MAX};
use kura::blob::codec::{BlobKind, ChunkRef, decode, decode_frame, encode, frame_layout, padme_len};
use kura::blob::pack::{TRAILER_LEN, directory_tail_len, read_directory};
use kura::blob::{Chunker, Fault, PackBuilder, Place};
use kura::crypto::{IdDomain, Keys};
use kura::version::index::sha256;
use proptest::prelude::*;

use super::support::{keys, noise, text};

const CONTENT: BlobKind = BlobKind::Content;

fn sealed(keys: &Keys, kind: BlobKind, plaintext: &[u8]) -> (ChunkRef, Vec<u8>) {
    let chunk = ChunkRef::of(keys, kind, plaintext);
    (chunk, encode(keys, kind, chunk.id, plaintext).into_bytes())
}

fn cuts(chunker: Chunker, content: &[u8]) -> Vec<usize> {
    let mut cuts = vec![0];
    while let Some(len) = chunker.next_cut(&content[cuts[cuts.len() - 1]..], true) {
        cuts.push(cuts[cuts.len() - 1] + len);
    }
    cuts
}

#[test]
fn every_size_comes_back() {
    let keys = keys();
    let edges = [0, 1, FRAME_LEN, 2 * FRAME_LEN, CHUNK_LEN_MIN, PACKED_LEN_MAX, CHUNK_LEN_MAX];
    let sizes = edges.iter().flat_map(|edge| [edge.saturating_sub(1), *edge, edge + 1]);
    for len in sizes.filter(|len| *len <= CHUNK_LEN_MAX) {
        for plaintext in [noise(7, len), text(7, len)] {
            for kind in [BlobKind::Content, BlobKind::Page] {
                let (chunk, bytes) = sealed(&keys, kind, &plaintext);
                assert!(decode(&keys, kind, &chunk, &bytes).expect("opens") == plaintext, "{len} bytes");
                let total = bytes.len() as u64;
                if total >= PACKED_LEN_MAX as u64 {
                    assert_eq!(total, padme_len(total), "{len} bytes");
                }
            }
        }
    }
}

#[test]
fn text_shrinks_and_noise_stays() {
    let keys = keys();
    assert!(sealed(&keys, CONTENT, &text(1, 1 << 20)).1.len() < 1 << 19);
    assert!(sealed(&keys, CONTENT, &noise(1, 100_000)).1.len() < 100_100);
}

#[test]
fn padme_lengths_are_those_of_the_paper() {
    // Nikitin et al., algorithm 1: E = floor(log2 L), S = floor(log2 E) + 1, the last E - S bits are zero.
    for (len, padded) in [(0, 0), (1, 1), (9, 10), (100, 104), (1000, 1024), (1_000_000, 1_015_808), (1 << 32, 1 << 32)]
    {
        assert_eq!(padme_len(len), padded, "{len}");
    }
    for len in 2..100_000_u64 {
        let padded = padme_len(len);
        assert!(padded >= len && padded * 100 <= len * 112 && padme_len(padded) == padded, "{len}");
    }
}

#[test]
fn each_frame_opens_alone() {
    let keys = keys();
    let plaintext = text(3, 3 * FRAME_LEN + 17);
    let (chunk, bytes) = sealed(&keys, CONTENT, &plaintext);
    let front = &bytes[..chunk.table_len()];
    let layout = frame_layout(&keys, CONTENT, &chunk, front, 0).expect("opens");
    assert_eq!(layout.total_len() as usize, bytes.len());
    assert_eq!(layout.span(4, 4), None);
    for (number, expected) in (0..).zip(plaintext.chunks(FRAME_LEN)) {
        let (start, len) = layout.span(number, number).expect("is there");
        let frame = &bytes[start as usize..(start + len) as usize];
        assert_eq!(frame_of(&keys, &chunk, number, frame).expect("opens"), expected);
        assert!(frame_of(&keys, &chunk, (number + 1) % 4, frame).is_err(), "opened as another frame");
        let longer = ChunkRef { len: chunk.len + 1, ..chunk };
        assert!(frame_of(&keys, &longer, number, frame).is_err(), "opened for another length");
    }
}

fn frame_of(keys: &Keys, chunk: &ChunkRef, number: u32, sealed: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut buffer = Vec::new();
    decode_frame(keys, CONTENT, chunk, number, sealed, &mut buffer).map(|inside| buffer[inside].to_vec())
}

#[test]
fn a_buffer_that_is_used_again_shows_nothing_of_before() {
    let keys = keys();
    for plaintext in [text(3, 2 * FRAME_LEN + 17), noise(4, 2 * FRAME_LEN + 17), noise(5, 7), Vec::new()] {
        let (chunk, bytes) = sealed(&keys, CONTENT, &plaintext);
        let layout = frame_layout(&keys, CONTENT, &chunk, &bytes, small_len(&bytes)).expect("opens");
        for buffer_len in [0, 1, FRAME_LEN, 3 * FRAME_LEN] {
            let mut buffer = vec![0xa5; buffer_len];
            let mut whole = Vec::new();
            for number in 0..chunk.frame_count() {
                let (start, len) = layout.span(number, number).expect("is there");
                let frame = &bytes[start as usize..(start + len) as usize];
                let inside = decode_frame(&keys, CONTENT, &chunk, number, frame, &mut buffer).expect("opens");
                whole.extend_from_slice(&buffer[inside]);
            }
            assert!(whole == plaintext, "a buffer of {buffer_len} bytes");
        }
    }
}

#[test]
fn what_is_forged_leaves_no_plaintext_behind() {
    let keys = keys();
    let plaintext = noise(6, 5000);
    let (chunk, mut bytes) = sealed(&keys, CONTENT, &plaintext);
    *bytes.last_mut().expect("has bytes") ^= 1;
    let mut buffer = vec![0; 9000];
    assert!(decode_frame(&keys, CONTENT, &chunk, 0, &bytes, &mut buffer).is_err());
    assert!(buffer.windows(16).all(|window| window != &plaintext[2000..2016]), "unverified plaintext stayed");
}

fn small_len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("small")
}

#[test]
fn every_flip_cut_and_extension_of_a_blob_is_found() {
    let keys = keys();
    for plaintext in [b"small".to_vec(), noise(5, 2 * FRAME_LEN + 1)] {
        let (chunk, bytes) = sealed(&keys, CONTENT, &plaintext);
        let step = (bytes.len() / 400).max(1);
        for at in (0..bytes.len()).step_by(step).chain(0..200.min(bytes.len())) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(decode(&keys, CONTENT, &chunk, &flipped).is_err(), "flip at {at}");
            assert!(decode(&keys, CONTENT, &chunk, &bytes[..at]).is_err(), "cut at {at}");
        }
        for extra in [vec![0], vec![0; 36], bytes.clone()] {
            assert!(decode(&keys, CONTENT, &chunk, &[bytes.clone(), extra].concat()).is_err(), "extended");
        }
    }
}

#[test]
fn a_blob_opens_only_as_itself() {
    let keys = keys();
    let (a, bytes) = sealed(&keys, CONTENT, b"one");
    let (b, _) = sealed(&keys, CONTENT, b"two");
    assert!(matches!(decode(&keys, CONTENT, &b, &bytes), Err(Fault::Open(_))));
    assert!(decode(&keys, BlobKind::Page, &a, &bytes).is_err());
    assert!(decode(&super::support::keys(), CONTENT, &a, &bytes).is_err(), "opened in another workspace");
    let too_long = ChunkRef { id: a.id, len: u32::MAX };
    assert!(decode(&keys, CONTENT, &too_long, &bytes).is_err());
    assert_ne!(ChunkRef::of(&keys, CONTENT, b"x").id, ChunkRef::of(&keys, BlobKind::Page, b"x").id);
}

#[test]
fn long_content_has_a_name_of_its_own_kind_and_the_former_one_is_known() {
    let keys = keys();
    for (len, is_long) in [(0, false), (CHUNK_LEN_MIN - 1, false), (CHUNK_LEN_MIN, true), (CHUNK_LEN_MAX, true)] {
        let bytes = noise(21, len);
        let by_digest = keys.id(IdDomain::Content, &sha256(&bytes));
        let id = CONTENT.id_of(&keys, &bytes);
        assert_eq!(id != by_digest, is_long, "{len}");
        assert!(CONTENT.is_id_of(&keys, &bytes, &id) && CONTENT.is_id_of(&keys, &bytes, &by_digest));
        let others = [BlobKind::Page.id_of(&keys, &bytes), CONTENT.id_of(&super::support::keys(), &bytes)];
        assert!(others.iter().all(|other| !CONTENT.is_id_of(&keys, &bytes, other)), "{len}");
        assert!(!CONTENT.is_id_of(&keys, &noise(22, len.max(1)), &id), "{len}");
    }
}

#[test]
fn swapped_frames_of_one_blob_are_found() {
    let keys = keys();
    let (chunk, bytes) = sealed(&keys, CONTENT, &noise(9, 3 * FRAME_LEN));
    let layout = frame_layout(&keys, CONTENT, &chunk, &bytes, 0).expect("opens");
    let (start, len) = layout.span(0, 0).expect("is there");
    assert_eq!(layout.span(1, 1), Some((start + len, len)), "of equal length");
    let (start, len) = (start as usize, len as usize);
    let swapped =
        [&bytes[..start], &bytes[start + len..start + 2 * len], &bytes[start..start + len], &bytes[start + 2 * len..]];
    assert!(decode(&keys, CONTENT, &chunk, &swapped.concat()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn streamed_cuts_are_one_shot_cuts(
        seed: u64,
        len in 0..9_000_000_usize,
        steps in prop::collection::vec(1..2_000_000_usize, 1..20),
    ) {
        let chunker = Chunker::new(seed);
        let content = noise(seed, len);
        let expected = cuts(chunker, &content);
        let (mut start, mut end, mut streamed) = (0, 0, vec![0]);
        for step in steps.iter().cycle() {
            end = (end + step).min(len);
            while let Some(cut) = chunker.next_cut(&content[start..end], end == len) {
                prop_assert!(cut <= CHUNK_LEN_MAX);
                start += cut;
                streamed.push(start);
            }
            if end == len {
                break;
            }
        }
        prop_assert!(expected.windows(2).rev().skip(1).all(|pair| pair[1] - pair[0] >= CHUNK_LEN_MIN));
        prop_assert_eq!(streamed, expected);
    }

    #[test]
    fn decoders_refuse_random_bytes(seed: u64, len in 0..5000_usize, claimed: u32) {
        let keys = keys();
        let bytes = noise(seed, len);
        let chunk = ChunkRef { id: BlobId([seed.to_le_bytes()[0]; 32]), len: claimed };
        prop_assert!(decode(&keys, CONTENT, &chunk, &bytes).is_err());
        prop_assert!(frame_of(&keys, &chunk, claimed, &bytes).is_err());
        prop_assert!(chunk.frame_count() == 1 || frame_layout(&keys, CONTENT, &chunk, &bytes, claimed).is_err());
        prop_assert!(read_directory(&keys, PackId::random(), &bytes).is_err());
    }
}

#[test]
fn content_below_the_least_chunk_is_one_chunk() {
    let chunker = Chunker::new(1);
    assert_eq!(chunker.next_cut(&[], true), None);
    assert_eq!(chunker.next_cut(&noise(1, CHUNK_LEN_MIN - 1), true), Some(CHUNK_LEN_MIN - 1));
    assert_eq!(chunker.next_cut(&noise(1, CHUNK_LEN_MIN), true), Some(CHUNK_LEN_MIN));
    assert_eq!(chunker.next_cut(&noise(1, CHUNK_LEN_MAX - 1), false), None);
    assert!(chunker.next_cut(&vec![0; CHUNK_LEN_MAX], false).is_some());
}

#[test]
fn an_insertion_changes_few_chunks() {
    let chunker = Chunker::new(42);
    let before = noise(11, 24 << 20);
    let middle = before.len() / 2;
    let after = [&before[..middle], b"inserted", &before[middle..]].concat();
    let chunks = |content: &[u8]| -> Vec<Vec<u8>> {
        cuts(chunker, content).windows(2).map(|pair| content[pair[0]..pair[1]].to_vec()).collect()
    };
    let (old, new) = (chunks(&before), chunks(&after));
    let changed = new.iter().filter(|chunk| !old.contains(chunk)).count();
    assert!((1..=3).contains(&changed), "{changed} of {} chunks changed", new.len());
    assert_ne!(cuts(Chunker::new(43), &before), cuts(chunker, &before), "cuts do not depend on the key");
}

type Blob = (ChunkRef, Vec<u8>);

fn pack(keys: &Keys) -> (PackId, Vec<u8>, Vec<Blob>) {
    let mut builder = PackBuilder::new(keys.clone());
    assert!(builder.is_empty());
    let mut blobs = Vec::new();
    for len in [0, 5, 1000, 70_000] {
        let plaintext = text(len as u64, len);
        let chunk = ChunkRef::of(keys, CONTENT, &plaintext);
        let bytes = encode(keys, CONTENT, chunk.id, &plaintext);
        let location = builder.add(chunk.id, CONTENT, chunk.len, &bytes);
        assert_eq!(location.stored_len as usize, bytes.len());
        blobs.push((chunk, plaintext));
    }
    let (id, sealed) = builder.finish();
    (id, sealed.into_bytes(), blobs)
}

#[test]
fn a_pack_tells_what_is_in_it() {
    let keys = keys();
    let (id, bytes, blobs) = pack(&keys);
    let tail_len = usize::try_from(directory_tail_len(&keys, id, &bytes).expect("opens")).expect("small");
    for tail in [&bytes[..], &bytes[bytes.len() - tail_len..]] {
        let directory = read_directory(&keys, id, tail).expect("opens");
        assert_eq!(directory.len(), blobs.len());
        for ((chunk, plaintext), (found, location)) in blobs.iter().zip(directory) {
            assert_eq!(chunk.id, found);
            let Place::Pack { pack, offset } = location.place else { panic!("a blob of a pack lies elsewhere") };
            assert_eq!(pack, id);
            let blob = &bytes[offset as usize..(offset + location.stored_len) as usize];
            assert_eq!(&decode(&keys, CONTENT, chunk, blob).expect("opens"), plaintext);
        }
    }
    assert!(matches!(read_directory(&keys, id, &bytes[bytes.len() - tail_len + 1..]), Err(Fault::Length { .. })));
    assert!(read_directory(&keys, PackId::random(), &bytes).is_err(), "opened as another pack");
}

#[test]
fn the_length_of_a_pack_is_one_of_few_and_padding_is_a_blob_of_nothing() {
    let keys = keys();
    let mut lens = std::collections::BTreeSet::new();
    for len in (0..200_000).step_by(977) {
        let plaintext = crate::workspace_rig::noise(len + 1);
        let chunk = ChunkRef::of(&keys, CONTENT, &plaintext);
        let mut builder = PackBuilder::new(keys.clone());
        let stored = encode(&keys, CONTENT, chunk.id, &plaintext);
        builder.add(chunk.id, CONTENT, chunk.len, &stored);
        let (id, sealed) = builder.finish();
        assert_eq!(sealed.len() as u64, padme_len(sealed.len() as u64));
        assert!(sealed.len() * 100 < (stored.len() + 300) * 113, "{} for {}", sealed.len(), stored.len());
        lens.insert(sealed.len());
        // A reader that knows nothing of padding finds a blob of nothing, which opens.
        let directory = read_directory(&keys, id, sealed.as_bytes()).expect("opens");
        assert_eq!(directory.len(), 1);
        let nothing = ChunkRef { id: BlobId([0; 32]), len: 0 };
        let tail_len =
            usize::try_from(directory_tail_len(&keys, id, sealed.as_bytes()).expect("opens")).expect("small");
        let padding = &sealed.as_bytes()[stored.len()..sealed.len() - tail_len];
        assert!(decode(&keys, CONTENT, &nothing, padding).expect("opens").is_empty());
    }
    assert!(lens.len() < 130, "{}", lens.len());
}

#[test]
fn every_change_of_a_pack_directory_is_found() {
    let keys = keys();
    let (id, bytes, _) = pack(&keys);
    let tail_len = usize::try_from(directory_tail_len(&keys, id, &bytes).expect("opens")).expect("small");
    let tail = &bytes[bytes.len() - tail_len..];
    for at in 0..tail.len() {
        let mut flipped = tail.to_vec();
        flipped[at] ^= 0x10;
        assert!(read_directory(&keys, id, &flipped).is_err(), "flip at {at}");
        assert!(read_directory(&keys, id, &tail[..at]).is_err(), "cut at {at}");
    }
    let (directory, trailer) = tail.split_at(tail.len() - TRAILER_LEN);
    assert!(read_directory(&keys, id, &[trailer, directory].concat()).is_err(), "swapped");
    assert!(read_directory(&keys, id, &[tail, &[0]].concat()).is_err(), "extended");
}
