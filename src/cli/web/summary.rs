//! Sums over a long history, small enough for a page.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::history::data;
use crate::cli::output::outcome;
use crate::cli::view::View;
use crate::control::{Exit, Failure, ForgetMode, KeepRules, Request, VersionInfo};

/// Points of a curve; of more versions, those with the largest value among neighbours.
const POINTS_MAX: usize = 500;
/// Versions that a preview names, of each kind.
const NAMED_MAX: usize = 200;

/// How large the workspace was.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Curve {
    /// Versions there are.
    versions: usize,
    /// The oldest first.
    points: Vec<Point>,
}

#[derive(Clone, Debug, Serialize)]
struct Point {
    id: String,
    time: String,
    /// Bytes in files.
    bytes: u64,
    files: u64,
}

/// Curves that were made last.
#[derive(Default)]
pub struct Sizes {
    /// With the version it ends at.
    files: Mutex<Option<(String, Curve)>>,
    stored: Mutex<Option<Value>>,
    /// Had by who counts what is stored.
    counting: Mutex<()>,
}

impl Sizes {
    /// What the store holds over time, as it was counted last; counted anew with `again`, unless that is being
    /// done. Nothing before the first time. Nobody waits while the store is listed but who asked for it.
    pub fn stored(&self, view: &View, again: bool) -> Result<Option<Value>, Failure> {
        if again {
            let _one = self.counting.try_lock().ok_or_else(|| {
                Failure::new(Exit::Locked, "what the store holds is being counted already")
                    .hint("look again in a while")
            })?;
            let mut counted = view.data(&Request::Stored {})?;
            counted["counted"] = json!(jiff::Timestamp::now().to_string());
            *self.stored.lock() = Some(counted);
        }
        Ok(self.stored.lock().clone())
    }

    /// The size of every version, thinned out.
    pub fn curve(&self, view: &View) -> Result<Curve, Failure> {
        let newest = view.data(&Request::Status { files: false })?["newest_version"].as_str().map(str::to_owned);
        let newest = newest.unwrap_or_default();
        let mut kept = self.files.lock();
        if let Some((_, curve)) = kept.as_ref().filter(|(known, _)| *known == newest) {
            return Ok(curve.clone());
        }
        let reply = view.ask(&Request::Log { max: None, path: None, from: None })?;
        outcome(&reply)?;
        let versions: Vec<VersionInfo> = data(&reply)?;
        let step = versions.len().div_ceil(POINTS_MAX).max(1);
        let largest = |some: &[VersionInfo]| {
            let version = some.iter().max_by_key(|version| version.counts.bytes)?;
            let (id, time) = (version.id.clone(), version.time.clone());
            Some(Point { id, time, bytes: version.counts.bytes, files: version.counts.files })
        };
        let points = versions.chunks(step).rev().filter_map(largest).collect();
        let curve = Curve { versions: versions.len(), points };
        *kept = Some((newest, curve.clone()));
        Ok(curve)
    }
}

/// What a retention policy would keep and forget: numbers by month, and the first of each kind.
pub fn preview(view: &View, keep: KeepRules) -> Result<BTreeMap<&'static str, Value>, Failure> {
    let found = view.data(&Request::Forget { keep, mode: ForgetMode::DryRun })?;
    let list = |name: &str| found[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let (kept, forgotten) = (list("kept"), list("forgotten"));
    let month = |version: &Value| version["time"].as_str().and_then(|time| time.get(..7)).unwrap_or("").to_owned();
    let mut months: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    kept.iter().for_each(|one| months.entry(month(&one["version"])).or_default().0 += 1);
    forgotten.iter().for_each(|version| months.entry(month(version)).or_default().1 += 1);
    let months: Vec<Value> = months
        .into_iter()
        .rev()
        .map(|(month, (kept, forgotten))| json!({ "month": month, "kept": kept, "forgotten": forgotten }))
        .collect();
    Ok(BTreeMap::from([
        ("kept", json!(kept.len())),
        ("forgotten", json!(forgotten.len())),
        ("months", Value::Array(months)),
        ("first_kept", json!(&kept[..kept.len().min(NAMED_MAX)])),
        ("first_forgotten", json!(&forgotten[..forgotten.len().min(NAMED_MAX)])),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_while_the_store_is_counted() {
        let (sizes, view) = (Sizes::default(), View::Mounted("/nowhere".into()));
        *sizes.stored.lock() = Some(json!({ "bytes": 1 }));
        let counts = sizes.counting.lock();
        assert!(sizes.stored(&view, true).unwrap_err().message.contains("being counted"));
        assert_eq!(sizes.stored(&view, false).unwrap(), Some(json!({ "bytes": 1 })));
        drop(counts);
        assert!(!sizes.stored(&view, true).unwrap_err().message.contains("being counted"), "it is tried");
    }
}
