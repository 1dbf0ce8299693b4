//! Merging location runs, so that there are few of them however long a workspace lives.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::index::LocationIndex;
use super::location::Location;
use super::run::{RECORD_LEN, RUN_RECORDS_MAX, Records, RunRef, decode_record, seal_records};
use super::{BlobError, Result};
use crate::base::ids::{BlobId, RunId};
use crate::crypto::Sealed;

/// So many runs of one tier are merged to one.
const TIER_RUNS: usize = 8;
/// No more unfinished runs are neighbours.
const NEIGHBOURS_MAX: usize = 32;
/// Frames of one run read at once while merging (1 MiB).
const READ_FRAMES: u64 = 16;

/// Which neighbouring runs (newest last) to merge now, if any.
///
/// A run of `n` records is of tier `log8(n)`. When `TIER_RUNS` runs of one tier have nothing
/// larger between them, they and what lies between are merged. Sizes in an order that keeps that
/// from happening are bounded otherwise: of more than `NEIGHBOURS_MAX` neighbours those
/// `TIER_RUNS` with the fewest records are merged. Oldest first, up to [`RUN_RECORDS_MAX`] records;
/// runs of half that are left alone for ever.
pub fn plan_merge(runs: &[RunRef]) -> Option<Range<usize>> {
    let is_done = |run: &RunRef| run.count >= RUN_RECORDS_MAX / 2;
    let mut start = 0;
    runs.split(is_done).find_map(|neighbours| {
        let offset = start;
        start += neighbours.len() + 1;
        let range = plan_by_tier(neighbours).or_else(|| plan_by_number(neighbours))?;
        let mut total = 0;
        let fits = neighbours[range.clone()].iter().take_while(|run| {
            total += run.count;
            total <= RUN_RECORDS_MAX
        });
        Some(offset + range.start..offset + range.start + fits.count())
    })
}

fn plan_by_tier(runs: &[RunRef]) -> Option<Range<usize>> {
    let tier = |run: &RunRef| run.count.max(1).ilog2() / 3;
    let tiers: BTreeSet<u32> = runs.iter().map(tier).collect();
    tiers.into_iter().find_map(|wanted| {
        let mut start = 0;
        runs.split(|run| tier(run) > wanted).find_map(|stretch| {
            let offset = start;
            start += stretch.len() + 1;
            let of_tier: Vec<usize> = (0..stretch.len()).filter(|at| tier(&stretch[*at]) == wanted).collect();
            match of_tier.as_slice() {
                [first, .., last] if of_tier.len() >= TIER_RUNS => Some(offset + first..offset + last + 1),
                _ => None,
            }
        })
    })
}

fn plan_by_number(runs: &[RunRef]) -> Option<Range<usize>> {
    if runs.len() <= NEIGHBOURS_MAX {
        return None;
    }
    let total = |(_, window): &(usize, &[RunRef])| window.iter().map(|run| run.count).sum::<u64>();
    let (start, _) = runs.windows(TIER_RUNS).enumerate().min_by_key(total)?;
    Some(start..start + TIER_RUNS)
}

/// Walks through the records of one run, a few frames in memory at a time.
struct Cursor<'a> {
    index: &'a LocationIndex,
    run: RunRef,
    next_frame: u64,
    records: Option<Records>,
    position: usize,
}

impl Cursor<'_> {
    /// The id at the cursor; `None` at the end.
    fn peek(&mut self) -> Result<Option<BlobId>> {
        if self.records.as_ref().is_none_or(|records| self.position == records.len()) {
            let count = READ_FRAMES.min(self.run.frame_count().saturating_sub(self.next_frame));
            if count == 0 {
                self.records = None;
                return Ok(None);
            }
            self.records = Some(self.index.read_frames(&self.run, self.next_frame, count)?);
            self.next_frame += count;
            self.position = 0;
        }
        Ok(self.records.as_ref().map(|records| records.id(self.position)))
    }
}

/// A record of several runs that are read together.
pub struct OrderedRecord<'a> {
    /// Which of the runs has it.
    pub run: usize,
    /// The blob.
    pub id: BlobId,
    raw: &'a [u8],
    /// Whether no newer run has a record of the blob.
    pub is_newest: bool,
}

impl OrderedRecord<'_> {
    /// Where the blob is by this record.
    pub fn location(&self) -> Result<Location> {
        let fault = |fault| BlobError::DamagedObject { object: format!("the location of blob {}", self.id), fault };
        decode_record(self.raw).map(|(_, location)| location).map_err(fault)
    }
}

impl LocationIndex {
    /// Hands every record of `runs` (newest last) to `each`, in the order of the ids, of one id the newest first.
    /// 1 MiB of each run is in memory.
    pub fn each_in_order(&self, runs: &[RunRef], each: &mut dyn FnMut(OrderedRecord<'_>) -> Result<()>) -> Result<()> {
        let cursor = |run: &RunRef| Cursor { index: self, run: *run, next_frame: 0, records: None, position: 0 };
        let mut cursors: Vec<Cursor<'_>> = runs.iter().map(cursor).collect();
        loop {
            let mut least: Option<BlobId> = None;
            for cursor in &mut cursors {
                least = [least, cursor.peek()?].into_iter().flatten().min();
            }
            let Some(id) = least else { return Ok(()) };
            let mut is_newest = true;
            for (run, cursor) in cursors.iter_mut().enumerate().rev() {
                if cursor.peek()? == Some(id) {
                    let raw = cursor.records.as_ref().map_or(&[][..], |records| records.raw(cursor.position));
                    each(OrderedRecord { run, id, raw, is_newest })?;
                    cursor.position += 1;
                    is_newest = false;
                }
            }
        }
    }

    /// An index of other runs in the same store.
    pub fn of_runs(&self, runs: Vec<RunRef>) -> Self {
        let index = Self::new(Arc::clone(&self.source), self.keys.clone());
        index.set_runs(runs);
        index
    }

    /// Merges `runs` (newest last, together at most [`RUN_RECORDS_MAX`] records) into the run `id`.
    /// Of a blob that is in several, the newest record is kept.
    ///
    /// Besides the new run (at most 32 MiB, twice while it is sealed) 1 MiB of each is in memory.
    pub fn merge_runs(&self, runs: &[RunRef], id: RunId) -> Result<(RunRef, Sealed)> {
        let mut merged = Vec::new();
        self.each_in_order(runs, &mut |record| {
            if record.is_newest {
                merged.extend_from_slice(record.raw);
            }
            Ok(())
        })?;
        let run = RunRef { id, count: (merged.len() / RECORD_LEN) as u64 };
        Ok((run, seal_records(&self.keys, id, &merged)))
    }
}
