//! Values of requests about releases as words, for both doors.

use std::collections::BTreeMap;

use super::failure::{Exit, Failure};
use crate::apps::release::{Change, EVERYBODY, Rollout, Step, Window};

fn usage(text: String) -> Failure {
    Failure::new(Exit::Usage, text)
}

/// Parts of ten thousand, from a percentage.
pub fn bps(percent: f64) -> Result<u32, Failure> {
    let refused = || usage(format!("`{percent}` is no percentage"));
    if !(0.0..=100.0).contains(&percent) {
        return Err(refused());
    }
    let parts = (percent * f64::from(EVERYBODY) / 100.0).round();
    format!("{parts}").parse().map_err(|_| refused())
}

/// The same, from a text.
pub fn bps_of(percent: &str) -> Result<u32, Failure> {
    bps(percent.parse().map_err(|_| usage(format!("`{percent}` is no percentage")))?)
}

fn step(text: &String) -> Result<Step, Failure> {
    let refused = || usage(format!("`{text}` is no step such as `1:20:3600:95:2`"));
    let parts: Vec<&str> = text.split(':').collect();
    let [percent, samples, soak, rate, failures] = parts[..] else { return Err(refused()) };
    Ok(Step {
        bps: bps_of(percent).map_err(|_| refused())?,
        min_samples: samples.parse().map_err(|_| refused())?,
        min_soak_s: soak.parse().map_err(|_| refused())?,
        success_bps_min: bps_of(rate).map_err(|_| refused())?,
        failures_max: failures.parse().map_err(|_| refused())?,
    })
}

/// How a version is rolled out: the first of its steps says to how many at first, or else `percent`.
pub fn rollout(percent: f64, rings: Vec<String>, emergency: bool, steps: &[String]) -> Result<Rollout, Failure> {
    let steps = steps.iter().map(step).collect::<Result<Vec<Step>, Failure>>()?;
    let first = steps.first().map(|step| step.bps);
    let bps = first.map_or_else(|| bps(percent), Ok)?;
    Ok(Rollout { bps, rings, emergency, steps })
}

/// `pause`, `resume`, `emergency`, `25%` or `revoke:REASON`.
pub fn change(text: &str) -> Result<Change, Failure> {
    if let Some(why) = text.strip_prefix("revoke:") {
        return Ok(Change::Revoke(why.to_owned()));
    }
    if let Some(percent) = text.strip_suffix('%') {
        return Ok(Change::Bps(bps_of(percent).map_err(|_| usage(format!("`{text}` is no percentage")))?));
    }
    match text {
        "pause" => Ok(Change::Pause),
        "resume" => Ok(Change::Resume),
        "emergency" => Ok(Change::Emergency),
        _ => Err(usage(format!("`{text}` is not pause, resume, emergency, a percentage or revoke:REASON"))),
    }
}

/// Windows such as `Europe/Berlin,mon+tue,22:00,05:00`; `None` when there are none.
pub fn windows(list: &[String]) -> Result<Option<Vec<Window>>, Failure> {
    let window = |text: &String| {
        let parts: Vec<&str> = text.split(',').collect();
        let [tz, days, start, end] = parts[..] else {
            return Err(usage(format!("`{text}` is no window such as `Europe/Berlin,mon+tue,22:00,05:00`")));
        };
        let days = days.split('+').filter(|day| !day.is_empty()).map(str::to_owned).collect();
        Ok(Window { tz: tz.to_owned(), days, start: start.to_owned(), end: end.to_owned() })
    };
    (!list.is_empty()).then(|| list.iter().map(window).collect()).transpose()
}

/// Least security epochs, each such as `tool=3`.
pub fn epochs(list: &[String]) -> Result<BTreeMap<String, u32>, Failure> {
    let epoch = |text: &String| {
        let (name, epoch) = text.split_once('=')?;
        Some((name.to_owned(), epoch.parse().ok()?))
    };
    list.iter().map(|text| epoch(text).ok_or_else(|| usage(format!("`{text}` is not PACKAGE=EPOCH")))).collect()
}
