//! Whoever asks in vain learns nothing from how long it takes either: a wrong password, wrong ids and an absent
//! document cost the same reads, the same memory, the same stretching. (Time itself would depend on the machine.)

use std::cell::RefCell;
use std::io;

use kura::apps::sealed::{Bytes, Credentials, Damage, Image, Memory, SealedError, decrypt_and_extract, update_into};
use kura::base::clock::Timestamp;

use super::support::*;
use super::watching::asked_for;

/// Memory that remembers how much was read at once.
struct Recording {
    memory: Memory,
    read: RefCell<Vec<usize>>,
}

impl Bytes for Recording {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read.borrow_mut().push(buffer.len());
        self.memory.read_exact_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.memory.write_at(bytes, offset)
    }
    fn total_len(&self) -> io::Result<u64> {
        self.memory.total_len()
    }
}

/// What was read, how often memory was asked for, how much of it.
type Work = (Vec<usize>, (u64, u64));

fn work_of(bytes: &[u8], credentials: &Credentials, is_update: bool) -> (Work, bool) {
    let source = Recording { memory: Memory::new(bytes.to_vec()), read: RefCell::new(Vec::with_capacity(10_000)) };
    let target = Memory::new(vec![0; bytes.len()]);
    let image = Image::open(&source, "memory").unwrap();
    let mut opened = false;
    let asked = asked_for(|| {
        let result = if is_update {
            update_into(&image, &target, credentials, b"{}", Timestamp::from_parts(0, 0)).map(|_| ())
        } else {
            decrypt_and_extract(&image, credentials, Damage::Refuse).map(|_| ())
        };
        opened = result.is_ok();
        assert!(opened || matches!(result, Err(SealedError::NoDocument { .. })));
    });
    ((source.read.into_inner(), asked), opened)
}

#[test]
fn asking_in_vain_is_the_same_work_whatever_is_wrong() {
    for field in FIELDS {
        let machine = machine(&disk());
        make_two(&machine, &small(field, 9));
        let bytes = bytes(&machine);
        let in_vain = [
            ("a wrong password", credentials("eno", &[1, 4, 5])),
            ("another document's password", credentials("two", &[1, 4, 5])),
            ("one id of three is wrong", credentials("one", &[1, 4, 6])),
            ("all ids are wrong", credentials("one", &[3, 7, 8])),
            ("ids of another document among them", credentials("one", &[2, 6, 9])),
            ("nothing is there", credentials("abc", &[7, 8, 9])),
        ];
        for is_update in [false, true] {
            let works: Vec<(&str, Work)> =
                in_vain.iter().map(|(what, wrong)| (*what, work_of(&bytes, wrong, is_update).0)).collect();
            for (what, work) in &works {
                assert_eq!(*work, works[0].1, "{field:?}, update {is_update}: {what}");
            }
            let (right, opened) = work_of(&bytes, &credentials("one", &[1, 4, 5]), is_update);
            assert!(opened && right != works[0].1, "a difference would be seen");
        }
    }
}
