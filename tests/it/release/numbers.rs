//! Numbers that nothing can follow bring nobody down.

use kura::apps::release::{Request, State};
use serde_json::Value;

use super::support::{World, run};
use crate::workspace_rig::Rig;

#[test]
fn a_memory_of_releases_with_the_last_number_there_is_is_refused() {
    let rig = Rig::new();
    let client = rig.open("client");
    let mut state = State::default();
    state.note("2026-01-01T00:00:00Z", "pinned", "tool", "1.0.0", "");
    state.events[0].number = u64::MAX;
    client.records("releases").write("state", &serde_json::to_vec(&state).unwrap()).unwrap();
    let error = run(&client, &Request::Pin { packages: vec!["tool@1.0.0".to_owned()] }).unwrap_err().to_string();
    assert!(error.contains("does not follow from what happened before"), "{error}");
}

#[test]
fn a_root_with_the_last_number_there_is_is_followed_by_none() {
    let world = World::new();
    for name in ["root.json", "root-1.json"] {
        let path = world.keys().join(name);
        let mut root: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        root["signed"]["version"] = u64::MAX.into();
        std::fs::write(&path, root.to_string()).unwrap();
    }
    let keygen = Request::Keygen { keys: world.at().1, count: None, threshold: None, with: Vec::new() };
    run(&world.client, &keygen).unwrap_err();
}
