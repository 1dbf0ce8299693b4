//! What is written down of an offer that several people signed: how it differs from the one before.

use std::collections::BTreeSet;

use super::channel::{Channel, Offer, Step, Window};
use super::request::Change;

/// One thing that was done: which kind, package and version, and the same in words.
pub(super) struct Line {
    pub(super) what: &'static str,
    pub(super) package: String,
    pub(super) version: String,
    pub(super) text: String,
}

/// What a channel says now and did not before, a line for each version.
pub(super) fn lines(before: &Channel, now: &Channel) -> Vec<Line> {
    let channel = &now.name;
    let mut lines = Vec::new();
    let mut say = |what, package: &str, offer: &Offer, words: String| {
        let (package, version) = (package.to_owned(), offer.version.to_string());
        let text = format!("{package} {version} {words}");
        lines.push(Line { what, package, version, text });
    };
    for (package, offers) in &now.packages {
        for offer in offers {
            match before.offer(package, &offer.version) {
                None => say("published", package, offer, format!("is offered in {channel}")),
                Some(old) if old == offer => {}
                Some(old) => {
                    let changes = changes(old, offer);
                    let mut words: Vec<String> = changes.iter().map(ToString::to_string).collect();
                    let others = others(old, offer);
                    let what = if words.is_empty() && !others.is_empty() { "signed" } else { "rollout" };
                    words.extend(others);
                    let words = if words.is_empty() { "is offered anew".to_owned() } else { words.join(", ") };
                    say(what, package, offer, format!("in {channel} {words}"));
                }
            }
        }
    }
    for (package, offers) in &before.packages {
        for offer in offers.iter().filter(|offer| now.offer(package, &offer.version).is_none()) {
            say("cleaned-up", package, offer, format!("is not offered in {channel} any more"));
        }
    }
    let set = set(before, now);
    if lines.is_empty() || !set.is_empty() {
        let words = if set.is_empty() { "is signed anew".to_owned() } else { set.join(", ") };
        let text = format!("channel {channel} {words}");
        lines.push(Line { what: "signed", package: String::new(), version: String::new(), text });
    }
    lines
}

fn changes(old: &Offer, now: &Offer) -> Vec<Change> {
    let mut changes = Vec::new();
    if now.revoked != old.revoked {
        changes.extend(now.revoked.clone().map(Change::Revoke));
    }
    if now.revoked.is_none() && now.bps != old.bps {
        changes.push(Change::Bps(now.bps));
    }
    if now.paused != old.paused {
        changes.push(if now.paused { Change::Pause } else { Change::Resume });
    }
    if now.emergency && !old.emergency {
        changes.push(Change::Emergency);
    }
    changes
}

/// What differs of an offer that no change of a rollout does.
fn others(old: &Offer, now: &Offer) -> Vec<String> {
    let mut words = Vec::new();
    if let (Some(why), None) = (&old.revoked, &now.revoked) {
        words.push(format!("is not taken back any more (it was: {why})"));
    }
    if now.rings != old.rings {
        words.push(format!("goes to rings {} and not {}", listed(&now.rings), listed(&old.rings)));
    }
    if now.steps != old.steps {
        words.push(format!("has steps {} and not {}", listed(&steps(now)), listed(&steps(old))));
    }
    if old.emergency && !now.emergency {
        words.push("is no emergency any more".to_owned());
    }
    words
}

fn listed(words: &[String]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(" ") }
}

/// Steps as the command line takes them.
fn steps(offer: &Offer) -> Vec<String> {
    let percent = |bps: u32| f64::from(bps) / 100.0;
    let step = |step: &Step| {
        let (bps, success) = (percent(step.bps), percent(step.success_bps_min));
        format!("{bps}:{}:{}:{success}:{}", step.min_samples, step.min_soak_s, step.failures_max)
    };
    offer.steps.iter().map(step).collect()
}

/// What differs of a channel as a whole.
fn set(before: &Channel, now: &Channel) -> Vec<String> {
    let window = |window: &Window| format!("{},{},{},{}", window.tz, window.days.join("+"), window.start, window.end);
    let windows = |channel: &Channel| listed(&channel.windows.iter().map(window).collect::<Vec<_>>());
    let mut words = Vec::new();
    if now.windows != before.windows {
        words.push(format!("has windows {} and not {}", windows(now), windows(before)));
    }
    let packages: BTreeSet<&String> = before.min_epoch.keys().chain(now.min_epoch.keys()).collect();
    let least = |channel: &Channel, package: &String| channel.min_epoch.get(package).copied().unwrap_or(0);
    for package in packages {
        let (old, new) = (least(before, package), least(now, package));
        if old != new {
            words.push(format!("asks for security epoch {new} of {package} and not {old}"));
        }
    }
    words
}
