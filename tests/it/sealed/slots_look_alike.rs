//! Slots that hold a share cannot be told from those that hold nothing.

use kura::apps::sealed::{Settings, create_file};
use kura::crypto::sharing::Field;

use super::sharing::{CHI_SQUARE_MAX, chi_square};
use super::support::*;

const FRONT_LEN: usize = 160;
const SLOTS: u16 = 128;

/// Slots in use (64, of a document that is nothing but one letter) and not in use (64), of several files.
fn slots(field: Field) -> [Vec<Vec<u8>>; 2] {
    let (mut used, mut unused) = (Vec::new(), Vec::new());
    for round in 0..if is_long() { 40 } else { 8 } {
        let machine = machine(&disk());
        let ids: Vec<u16> = (1..=SLOTS).filter(|id| (id + round) % 2 == 0).collect();
        let settings = Settings { capacity: 2000, ..small(field, SLOTS) };
        let json = format!("{{\"a\":\"{}\"}}", "a".repeat(1500));
        create_file(&machine, &file(), &settings, &access("p", &ids, 2), json.as_bytes()).unwrap();
        let bytes = bytes(&machine);
        let slot_len = (bytes.len() - FRONT_LEN) / usize::from(SLOTS);
        for (id, slot) in (1..).zip(bytes[FRONT_LEN..].chunks(slot_len)) {
            if ids.contains(&id) { used.push(slot.to_vec()) } else { unused.push(slot.to_vec()) }
        }
    }
    assert_eq!(used.len(), unused.len());
    [used, unused]
}

/// How far the number of ones of each bit is from half, in standard deviations: the farthest of all.
fn farthest_bit(slots: &[Vec<u8>]) -> f64 {
    let deviation = |at: usize, bit: usize| {
        let ones = slots.iter().filter(|slot| slot[at] >> bit & 1 == 1).count() as f64;
        let count = slots.len() as f64;
        (ones - count / 2.0).abs() / (count / 4.0).sqrt()
    };
    (0..slots[0].len()).flat_map(|at| (0..8).map(move |bit| deviation(at, bit))).fold(0.0, f64::max)
}

/// 17,000 bits, each beyond seven standard deviations once in 4·10^11: less than once in ten million runs.
const DEVIATION_MAX: f64 = 7.0;

#[test]
fn used_and_unused_slots_are_both_like_random_bytes() {
    for field in FIELDS {
        for slots in slots(field) {
            let all = || slots.iter().flatten().copied();
            assert!(chi_square(all()) < CHI_SQUARE_MAX, "{field:?}");
            // Neighbours, and the parts of a slot each by itself: salt, commitment, description with tag, share, tag.
            let pairs = slots.iter().flat_map(|slot| slot.windows(2).map(|pair| pair[0] ^ pair[1].rotate_left(3)));
            assert!(chi_square(pairs) < CHI_SQUARE_MAX, "{field:?}");
            let end = slots[0].len();
            for part in [0..32, 32..64, 64..112, 112..1000, end - 16..end] {
                let bytes = slots.iter().flat_map(|slot| slot[part.clone()].iter().copied());
                assert!(chi_square(bytes) < CHI_SQUARE_MAX, "{field:?}, {part:?}");
            }
            assert!(farthest_bit(&slots) < DEVIATION_MAX, "{field:?}");
            // Slots of one document have nothing in common.
            let common = |a: &[u8], b: &[u8]| a.iter().zip(b).filter(|(a, b)| a == b).count();
            let most = slots.windows(2).map(|pair| common(&pair[0], &pair[1])).max().unwrap();
            assert!(most < 60, "{field:?}: {most} equal bytes");
        }
    }
}

/// The test would see one constant bit in one byte of a slot, or a letter that is a little likelier.
#[test]
fn a_difference_would_be_seen() {
    let [mut used, _] = slots(Field::Gf256);
    for slot in &mut used {
        slot[70] &= 0x7f;
    }
    assert!(farthest_bit(&used) > DEVIATION_MAX);
    let mut letters: Vec<u8> = used.concat();
    letters.iter_mut().step_by(50).for_each(|byte| *byte = b'a');
    assert!(chi_square(letters.into_iter()) > CHI_SQUARE_MAX);
}

/// The file is as long and its header the same, however many documents it holds.
#[test]
fn the_front_of_a_file_tells_nothing_of_its_documents() {
    let machine = machine(&disk());
    let [one, two] = make_two(&machine, &small(Field::Gf256, 8));
    let with_two = bytes(&machine);
    let known = [one, two];
    kura::apps::sealed::refresh_file(&machine, &place(), &known[..1], true).unwrap();
    let with_one = bytes(&machine);
    assert_eq!(with_two.len(), with_one.len());
    assert_eq!(with_two[..96], with_one[..96]);
}
