//! Collecting garbage, on demand and by itself.

use super::Result;
use super::opened::Workspace;
use crate::sync::{CollectOptions, CollectReport, Collector, CollectorParts, SyncError};

impl Workspace {
    /// Collects garbage, or (without `options.delete`) says what there is. Publishes first what waits here. Can be
    /// ended by `stop`, and called again; then it goes on where it was.
    pub fn collect(&self, options: CollectOptions, stop: &dyn Fn() -> bool) -> Result<CollectReport> {
        if options.delete {
            self.check_writable()?;
            self.publish(stop)?;
        }
        // It may be sealed under an epoch that began a moment ago.
        self.stored_head()?;
        let parts = &self.parts;
        let collector = Collector::new(CollectorParts {
            store: parts.store.clone(),
            keys: parts.keys.clone(),
            disk: parts.options.disk.clone(),
            clock: parts.options.clock.clone(),
            client: parts.memory.get().client,
            leases: (!parts.conditional_writes).then(|| parts.leases.clone()),
        });
        let run = || collector.run(options, stop);
        // Without conditional writes nobody else may swing HEAD meanwhile, this client included.
        let outcome = match parts.conditional_writes {
            true => run(),
            false => parts.publisher.exclusively(run),
        };
        if options.delete {
            self.note_collection(&outcome);
        }
        Ok(outcome?)
    }

    fn note_collection(&self, outcome: &std::result::Result<CollectReport, SyncError>) {
        match outcome {
            Ok(report) if report.sealed + report.deleted > 0 => {
                tracing::info!("collected: {} names sealed, {} objects deleted", report.sealed, report.deleted);
            }
            Ok(_) | Err(SyncError::Stopped) => {}
            Err(error) => tracing::warn!("nothing is collected for now: {error}"),
        }
        // The runs in force are others now.
        if let Err(error) = self.pull() {
            tracing::debug!("the state after collecting is taken in later: {error}");
        }
    }
}
