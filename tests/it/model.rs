//! The live tree against a model of it: random operations, compared after each.

mod op;
mod reference;
mod regressions;
mod run;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Cases of one run; `KURA_MODEL_CASES` sets another number for long runs.
fn cases() -> u32 {
    std::env::var("KURA_MODEL_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(500)
}

#[test]
fn live_tree_behaves_as_its_model() {
    let config = Config { cases: cases(), failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
    let strategy = (prop::collection::vec(op::any_op(), 1..60), prop_oneof![Just(6_usize), Just(100_000)]);
    let outcome = TestRunner::new(config).run(&strategy, |(ops, inodes_max)| {
        run::run(&ops, inodes_max);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
