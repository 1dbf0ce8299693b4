//! What feedback makes of a rollout.

use serde::{Deserialize, Serialize};

use super::channel::{EVERYBODY, Offer, Step};
use crate::base::clock::Timestamp;

/// An install took no longer than this, in milliseconds, whatever a client says: one day.
const TIME_MAX_MS: u64 = 86_400_000;

/// How an install ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Installed, and all checks passed.
    Installed,
    /// Installed, and taken back because checks failed.
    Failed,
    /// Taken back by the user, or because the release was.
    RolledBack,
}

/// What one client says of one version. Downloads that fail are no report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feedback {
    /// The client.
    pub client: String,
    /// Grows with each report of the client.
    pub counter: u64,
    /// How it ended.
    pub result: Outcome,
    /// How long the install took, in milliseconds.
    pub time_ms: u64,
    /// What its user says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// All reports of one version together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Installs that went well.
    pub installed: u32,
    /// Installs that failed.
    pub failed: u32,
    /// Installs that were taken back later.
    pub rolled_back: u32,
    /// The mean time of an install, in milliseconds; of those that tell it.
    pub time_ms: u64,
}

/// What becomes of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Too early, or neither good nor bad.
    Hold,
    /// To the next step.
    Advance,
    /// Taken back.
    Abort,
    /// There is no further step.
    Complete,
}

impl Totals {
    /// Sums up; of several reports of one client, the last counts.
    pub fn of(reports: &[Feedback]) -> Self {
        let mut last: std::collections::BTreeMap<&str, &Feedback> = std::collections::BTreeMap::new();
        for report in reports {
            let known = last.entry(&report.client).or_insert(report);
            if report.counter > known.counter {
                *known = report;
            }
        }
        let count = |result| u32::try_from(last.values().filter(|report| report.result == result).count());
        let count = |result| count(result).unwrap_or(u32::MAX);
        // What was taken back, or finished after a crash, tells no time.
        let time = |report: &&Feedback| report.time_ms.min(TIME_MAX_MS);
        let times: Vec<u64> = last.values().map(time).filter(|time| *time > 0).collect();
        Self {
            installed: count(Outcome::Installed),
            failed: count(Outcome::Failed),
            rolled_back: count(Outcome::RolledBack),
            time_ms: times
                .iter()
                .fold(0, |sum: u64, time| sum.saturating_add(*time))
                .checked_div(times.len() as u64)
                .unwrap_or(0),
        }
    }

    /// How many clients reported.
    pub fn samples(&self) -> u32 {
        self.installed.saturating_add(self.failed).saturating_add(self.rolled_back)
    }

    /// The share of installs that were taken back later; 0 without any.
    pub fn rollback_rate(&self) -> f64 {
        match self.samples() {
            0 => 0.0,
            samples => f64::from(self.rolled_back) / f64::from(samples),
        }
    }

    /// The share of installs that went well; 1 without any.
    pub fn success_rate(&self) -> f64 {
        match self.samples() {
            0 => 1.0,
            samples => f64::from(self.installed) / f64::from(samples),
        }
    }
}

/// What to do with a rollout that is at the step with the present share of clients.
pub fn judge(offer: &Offer, totals: &Totals, now: Timestamp) -> Verdict {
    let place = offer.steps.iter().position(|step| step.bps == offer.bps);
    let Some(place) = place else { return Verdict::Hold };
    let Step { min_samples, min_soak_s, success_bps_min, failures_max, .. } = offer.steps[place];
    if totals.failed.saturating_add(totals.rolled_back) > failures_max {
        return Verdict::Abort;
    }
    if offer.paused {
        return Verdict::Hold;
    }
    let since = offer.since.parse::<jiff::Timestamp>().map(|since| since.as_second()).unwrap_or(i64::MAX);
    let soaked = now.parts().0.saturating_sub(since) >= i64::try_from(min_soak_s).unwrap_or(i64::MAX);
    let enough =
        u64::from(totals.installed) * u64::from(EVERYBODY) >= u64::from(totals.samples()) * u64::from(success_bps_min);
    if totals.samples() < min_samples || !soaked || !enough {
        return Verdict::Hold;
    }
    if place + 1 < offer.steps.len() { Verdict::Advance } else { Verdict::Complete }
}

/// Carries a verdict out; `why` is what clients are told of an end.
pub fn carry_out(offer: &mut Offer, verdict: Verdict, now: &str, why: &str) {
    match verdict {
        Verdict::Hold | Verdict::Complete => return,
        Verdict::Abort => {
            offer.bps = 0;
            offer.revoked = Some(why.to_owned());
        }
        Verdict::Advance => {
            let place = offer.steps.iter().position(|step| step.bps == offer.bps).unwrap_or(0);
            offer.bps = offer.steps.get(place + 1).map_or(offer.bps, |step| step.bps);
        }
    }
    offer.since = now.to_owned();
}
