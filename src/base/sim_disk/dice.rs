//! Repeatable choices.

use super::image::Change;

/// What a drive writes whole or not at all, in bytes.
const SECTOR_LEN: usize = 512;

/// A small generator of repeatable choices (SplitMix64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap_or(0)
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 0
    }

    /// What a power cut leaves of a change that was not synced.
    pub(super) fn survivors_of(&mut self, change: &Change) -> Vec<Change> {
        match (change, self.below(3)) {
            (_, 0) => Vec::new(),
            (Change::Write { node, offset, bytes }, 1) => self.torn(*node, *offset, bytes),
            _ => vec![change.clone()],
        }
    }

    /// Some of the sectors of a write.
    fn torn(&mut self, node: u64, offset: u64, bytes: &[u8]) -> Vec<Change> {
        let mut parts = Vec::new();
        let mut rest = bytes;
        let mut at = offset;
        while !rest.is_empty() {
            let to_boundary = SECTOR_LEN - usize::try_from(at % SECTOR_LEN as u64).unwrap_or(0);
            let (sector, after) = rest.split_at(to_boundary.min(rest.len()));
            if self.coin() {
                parts.push(Change::Write { node, offset: at, bytes: sector.to_vec() });
            }
            at += sector.len() as u64;
            rest = after;
        }
        parts
    }
}
