//! What the store holds, by when it was stored.

use std::collections::BTreeMap;

use super::Result;
use super::opened::Workspace;
use crate::base::clock::Timestamp;
use crate::store::ObjectStore;

/// So much lay in the store since a moment, of what lies there now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredPoint {
    /// The moment.
    pub time: Timestamp,
    /// Bytes stored until then.
    pub bytes: u64,
    /// Objects stored until then.
    pub objects: u64,
}

/// What the store holds, over time. What was deleted is in none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Bytes in all.
    pub bytes: u64,
    /// Objects in all.
    pub objects: u64,
    /// Sums, the oldest first. What the store knows no time of counts from the first on.
    pub points: Vec<StoredPoint>,
}

impl Workspace {
    /// Lists the store and sums up what lies there by the times that the store gives, in at most `max` points.
    pub fn stored(&self, max: usize) -> Result<Stored> {
        // Bytes and objects of each second; `None` where there is no time.
        let mut sums: BTreeMap<Option<i64>, (u64, u64)> = BTreeMap::new();
        self.parts.store.list("", &mut |object| {
            let sum = sums.entry(object.modified.map(|time| time.parts().0)).or_default();
            (sum.0, sum.1) = (sum.0.saturating_add(object.len), sum.1 + 1);
        })?;
        Ok(summed(&sums, max))
    }
}

fn summed(sums: &BTreeMap<Option<i64>, (u64, u64)>, max: usize) -> Stored {
    let mut stored = Stored::default();
    for (second, (bytes, objects)) in sums {
        stored.bytes = stored.bytes.saturating_add(*bytes);
        stored.objects += objects;
        let (bytes, objects) = (stored.bytes, stored.objects);
        let time = second.map(|second| Timestamp::from_parts(second, 0));
        stored.points.extend(time.map(|time| StoredPoint { time, bytes, objects }));
    }
    // Sums only grow, so the last of some neighbours stands for them.
    let step = stored.points.len().div_ceil(max.max(1)).max(1);
    let last = stored.points.len().saturating_sub(1);
    let mut at = 0..;
    stored.points.retain(|_| at.next().is_some_and(|at| (last - at).is_multiple_of(step)));
    stored
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_over_time_grow_to_what_is_stored_in_few_points() {
        let sums = (0..1_000).map(|second| (Some(second), (10, 1))).chain([(None, (7, 2))]).collect();
        let stored = summed(&sums, 300);
        assert_eq!((stored.bytes, stored.objects), (10_007, 1_002));
        assert!(stored.points.len() <= 300 && stored.points.is_sorted_by_key(|point| (point.time, point.bytes)));
        let last = StoredPoint { time: Timestamp::from_parts(999, 0), bytes: 10_007, objects: 1_002 };
        assert_eq!(stored.points.last(), Some(&last));
        assert_eq!(summed(&BTreeMap::from([(None, (7, 2))]), 300).points, []);
        assert_eq!(summed(&BTreeMap::new(), 300), Stored::default());
    }
}
