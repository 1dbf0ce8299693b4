//! The request `stored`.

use serde_json::{Value, json};

use super::failure::Failure;
use super::reply::{Reply, rfc3339};
use crate::workspace::{StoredPoint, Workspace};

/// Points of the curve in a reply.
const POINTS_MAX: usize = 500;

/// What the store holds, by when it was stored.
pub(super) fn stored(workspace: &Workspace) -> Result<Reply, Failure> {
    let stored = workspace.stored(POINTS_MAX)?;
    let since = stored.points.first().map(|point| format!(", the oldest of {}", rfc3339(point.time)));
    let message = format!("{} objects, {} bytes{}", stored.objects, stored.bytes, since.unwrap_or_default());
    let points: Vec<Value> = stored.points.iter().map(shown).collect();
    Ok(Reply::done(message, json!({ "bytes": stored.bytes, "objects": stored.objects, "points": points })))
}

fn shown(StoredPoint { time, bytes, objects }: &StoredPoint) -> Value {
    json!({ "time": rfc3339(*time), "bytes": bytes, "objects": objects })
}
