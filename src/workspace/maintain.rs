//! What a mount that is told to does by itself: it applies the retention policy, collects garbage, and reads a part of
//! what is stored to find damage early.

use std::time::Duration;

use super::opened::Workspace;
use super::status::rfc3339;
use super::{Result, Sample};
use crate::base::random;
use crate::sync::CollectOptions;

/// What is done by itself, and how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// How often the retention policy is applied and garbage is collected, in milliseconds; 0 for never.
    pub collect_every_ms: u64,
    /// How long collected objects stay before they are deleted, in milliseconds; the usual time when missing.
    pub grace_ms: Option<u64>,
    /// How often content is read to find damage, in milliseconds; 0 for never.
    pub scrub_every_ms: u64,
    /// How much of it, in stored bytes.
    pub scrub_bytes: u64,
}

/// What one round found, for `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Maintained {
    pub(super) collected: Option<String>,
    pub(super) scrubbed: Option<String>,
}

impl Workspace {
    /// Applies the retention policy, if there is one, and collects garbage; says what came of it.
    pub fn maintain(&self, grace_ms: Option<u64>, stop: &dyn Fn() -> bool) -> Result<String> {
        let forgotten = match self.retention()? {
            Some(policy) => self.forget(&policy, false)?.forgotten.len(),
            None => 0,
        };
        let usual = CollectOptions { delete: true, ..CollectOptions::default() };
        let options = CollectOptions { grace_ms: grace_ms.unwrap_or(usual.grace_ms), ..usual };
        let report = self.collect(options, stop)?;
        let waiting = report.waiting.map_or(0, |waits| waits.names);
        Ok(format!("{forgotten} versions forgotten, {} objects deleted, {waiting} wait for it", report.deleted))
    }

    /// Reads so many stored bytes, chosen at random, and all that versions are made of; says what came of it.
    pub fn scrub(&self, bytes: u64) -> Result<String> {
        let report = self.check(Sample::Bytes(bytes))?;
        for (object, what) in &report.problems {
            tracing::error!("{object}: {what}; run `kura check`, then `kura repair`");
        }
        Ok(match report.problems.len() {
            0 => format!("nothing wrong in {} blobs that were read", report.blobs_read),
            count => format!("{count} objects are DAMAGED or missing; run `kura check`, then `kura repair`"),
        })
    }

    pub(super) fn keep_collecting(&self) {
        let plan = self.parts.options.maintenance;
        self.keep_doing(plan.collect_every_ms, &|| {
            let outcome = self.maintain(plan.grace_ms, &|| self.background.is_stopping());
            self.background.maintained.lock().collected = Some(self.told(outcome));
        });
    }

    pub(super) fn keep_scrubbing(&self) {
        let plan = self.parts.options.maintenance;
        self.keep_doing(plan.scrub_every_ms, &|| {
            let outcome = self.scrub(plan.scrub_bytes);
            self.background.maintained.lock().scrubbed = Some(self.told(outcome));
        });
    }

    fn keep_doing(&self, every_ms: u64, work: &dyn Fn()) {
        if every_ms == 0 {
            return;
        }
        loop {
            // Not all clients at the same moment.
            let wait_ms = every_ms - every_ms / 8 + random::number() % (every_ms / 4 + 1);
            if !self.background.pause(Duration::from_millis(wait_ms)) {
                return;
            }
            work();
        }
    }

    fn told(&self, outcome: Result<String>) -> String {
        let now = rfc3339(self.parts.options.clock.now());
        match outcome {
            Ok(text) => format!("{now}: {text}"),
            Err(error) => {
                tracing::warn!("maintenance is tried again later: {error}");
                format!("{now}: not done: {error}")
            }
        }
    }
}
