//! Alerts: limits of how rollouts may go, and an event each time one is crossed.

use serde::{Deserialize, Serialize};

use super::ONE;
use super::error::Result;
use super::request::Standing;
use super::rollout::Verdict;
use super::state::State;
use crate::workspace::Workspace;

/// The event that an alert is.
const ALERT: &str = "alert";

/// How rollouts of a channel may go before somebody is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// So many of ten thousand installs may fail their checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_bps: Option<u32>,
    /// So many of ten thousand may be taken back later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_bps: Option<u32>,
    /// An install may take so long in the mean, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install_ms: Option<u64>,
    /// Fewer reports say nothing.
    #[serde(default)]
    pub min_samples: u32,
}

impl Limits {
    /// Whether nothing is watched.
    pub fn is_empty(&self) -> bool {
        self.failure_bps.is_none() && self.rollback_bps.is_none() && self.install_ms.is_none()
    }

    /// What goes beyond the limits: a stable word, and a sentence.
    pub fn exceeded(&self, standing: &Standing) -> Vec<(&'static str, String)> {
        let (totals, mut found) = (&standing.totals, Vec::new());
        let samples = totals.samples();
        if samples < self.min_samples.max(1) {
            return found;
        }
        let over = |count: u32, bps: u32| u64::from(count) * 10_000 > u64::from(bps) * u64::from(samples);
        for (word, verb, count, limit) in [
            ("failure-rate", "failed", totals.failed, self.failure_bps),
            ("rollback-rate", "were taken back", totals.rolled_back, self.rollback_bps),
        ] {
            if let Some(bps) = limit.filter(|bps| over(count, *bps)) {
                let most = f64::from(bps) / 100.0;
                found.push((word, format!("{count} of {samples} installs {verb}, and the limit is {most} %")));
            }
        }
        if let Some(most) = self.install_ms.filter(|most| totals.time_ms > *most) {
            let took = totals.time_ms;
            found.push(("install-time", format!("an install takes {took} ms in the mean, and the limit is {most} ms")));
        }
        found
    }
}

/// Says in each standing which limits it exceeds, and notes what does so since this look as an event, once until it
/// is within the limit again. With `acted`, verdicts were carried out, which are events, too.
pub(super) fn watch(workspace: &Workspace, channel: &str, standings: &mut [Standing], acted: bool) -> Result<()> {
    let _one = ONE.lock();
    let mut state = State::read(workspace)?;
    let limits = state.limits.get(channel).cloned().unwrap_or_default();
    let (time, before) = (super::now(workspace).to_string(), state.clone());
    for standing in standings {
        let exceeded = limits.exceeded(standing);
        standing.alerts = exceeded.iter().map(|(_, sentence)| sentence.clone()).collect();
        let Standing { package, version, .. } = &*standing;
        let about = format!("{channel} {package} {version} ");
        // What was taken back before tells nothing new.
        if standing.revoked.is_none() || standing.verdict == Verdict::Abort {
            let lasts = |known: &String| {
                known.strip_prefix(&about).is_none_or(|word| exceeded.iter().any(|(now, _)| *now == word))
            };
            state.alerts.retain(lasts);
            for (word, sentence) in exceeded {
                if state.alerts.insert(format!("{about}{word}")) {
                    state.note(&time, ALERT, package, version, &format!("in {channel}: {sentence}"));
                }
            }
        }
        let share = f64::from(standing.bps) / 100.0;
        match standing.verdict {
            Verdict::Abort if acted => state.note(&time, "aborted", package, version, &format!("in {channel}")),
            Verdict::Advance if acted => {
                state.note(&time, "advanced", package, version, &format!("in {channel}, to {share} %"));
            }
            _ => {}
        }
    }
    if state != before {
        state.write(workspace)?;
        state.tell(workspace)?;
    }
    Ok(())
}

/// Sets the limits of a channel, or (with nothing to set) says which they are.
pub(super) fn set(state: &mut State, channel: &str, limits: Option<&Limits>) -> Result<String> {
    super::package::check_name("channel", channel)?;
    if let Some(limits) = limits {
        state.alerts.retain(|known| !known.starts_with(&format!("{channel} ")));
        match limits.is_empty() {
            true => drop(state.limits.remove(channel)),
            false => drop(state.limits.insert(channel.to_owned(), limits.clone())),
        }
    }
    let Some(Limits { failure_bps, rollback_bps, install_ms, min_samples }) = state.limits.get(channel) else {
        return Ok(format!("nothing is watched in {channel}"));
    };
    let percent = |word, bps: &Option<u32>| bps.map(|bps| format!("{word} {} %", f64::from(bps) / 100.0));
    let time = install_ms.map(|time| format!("installs {time} ms"));
    let parts = [percent("failures", failure_bps), percent("rollbacks", rollback_bps), time];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    Ok(format!("limits in {channel}: {}; from {} reports on", parts.join(", "), min_samples.max(&1)))
}
