//! What is written down of an offer that several people signed: how it differs from the one before.

use super::channel::{Channel, Offer};
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
                    let words: Vec<String> = changes.iter().map(ToString::to_string).collect();
                    let words = if words.is_empty() { "is offered anew".to_owned() } else { words.join(", ") };
                    say("rollout", package, offer, format!("in {channel} {words}"));
                }
            }
        }
    }
    for (package, offers) in &before.packages {
        for offer in offers.iter().filter(|offer| now.offer(package, &offer.version).is_none()) {
            say("cleaned-up", package, offer, format!("is not offered in {channel} any more"));
        }
    }
    if lines.is_empty() {
        let text = format!("channel {channel} is signed anew");
        lines.push(Line { what: "signed", package: String::new(), version: String::new(), text });
    }
    lines
}

fn changes(old: &Offer, now: &Offer) -> Vec<Change> {
    let mut changes = Vec::new();
    if now.revoked != old.revoked {
        changes.extend(now.revoked.clone().map(Change::Revoke));
    } else if now.bps != old.bps {
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
