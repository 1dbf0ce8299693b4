//! Chance that a seed repeats.

use std::cell::Cell;
use std::collections::HashMap;

use kura::store::Operation;
use parking_lot::Mutex;

/// One sequence of draws, for one thread.
pub struct Dice(Cell<u64>);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1))
    }

    pub fn below(&self, most: u64) -> u64 {
        let mut state = self.0.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.0.set(state);
        (state >> 11) % most
    }

    pub fn pick<T: Copy>(&self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// What happens to the requests of one client. A draw depends on the seed, the client, and the number of the request
/// among those that do the same to the same kind of object: threads that ask at the same time, and names that are
/// random, change nobody's luck.
pub struct FaultDice {
    seed: u64,
    asked: Mutex<HashMap<(Operation, String), u64>>,
}

impl FaultDice {
    pub fn new(seed: u64, client: usize) -> Self {
        Self { seed: mix(seed ^ mix(client as u64 + 1)), asked: Mutex::default() }
    }

    pub fn below(&self, operation: Operation, key: &str, most: u64) -> u64 {
        let kind = key.split('/').next().unwrap_or_default().to_owned();
        let start = mix(self.seed ^ operation as u64);
        let which = kind.bytes().fold(start, |sum, byte| mix(sum ^ u64::from(byte)));
        let mut asked = self.asked.lock();
        let number = asked.entry((operation, kind)).or_default();
        *number += 1;
        mix(which ^ *number) % most
    }
}

/// Spreads every bit over all (splitmix64).
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
