//! Promise: after re-encryption nothing that versions need is sealed under an earlier epoch, whatever interrupts it.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kura::crypto::envelope_epoch;
use kura::store::{Fault, MemoryStore, ObjectKey, Operation, StoreError};
use kura::workspace::{KeySlots, Reencryption, Sample, Workspace, WorkspaceError};

use super::workspace_rig::{self as rig, Rig, publish};

fn filled(rig: &Rig) -> Arc<Workspace> {
    let workspace = rig.open("state");
    rig::mkdir(&workspace, "dir");
    rig::write(&workspace, "dir/small", &rig::noise(3000));
    for index in 0..4 {
        rig::write(&workspace, &format!("large-{index}"), &rig::noise(700_000 + index * 1000)[index * 500..]);
    }
    rig::snapshot(&workspace);
    rig::write(&workspace, "dir/small", &rig::noise(4000)[500..]);
    rig::snapshot(&workspace);
    publish(&workspace);
    workspace
}

fn rotate(rig: &Rig) {
    KeySlots::open_in(rig.memory.clone(), &rig.options("key-command")).unwrap().rotate().unwrap();
}

fn reencrypt(workspace: &Workspace) -> Result<Reencryption, WorkspaceError> {
    workspace.reencrypt(None, &|| false, &mut |_| {})
}

/// Takes away what re-encryption says that nobody needs; everything must be readable, and of the newest epoch.
fn assert_renewed(memory: &Arc<MemoryStore>, done: &[Reencryption], epoch: u32) {
    let mut objects = memory.snapshot();
    for key in done.iter().flat_map(|done| &done.unreferred) {
        objects.remove(key);
    }
    memory.restore(objects.clone());
    rig::whole(memory);
    for (key, bytes) in &objects {
        let renewed =
            ["packs/", "objects/", "locations/", "HEAD"].iter().any(|prefix| key.as_str().starts_with(prefix));
        assert!(!renewed || envelope_epoch(bytes) >= Some(epoch), "{key} is of epoch {:?}", envelope_epoch(bytes));
    }
}

#[test]
fn nothing_that_is_needed_stays_under_the_old_key() {
    let rig = Rig::new();
    let workspace = filled(&rig);
    let before = rig::live(&workspace);
    rotate(&rig);
    let told = Cell::new(0);
    let done = workspace.reencrypt(None, &|| false, &mut |now| told.set(now.objects)).unwrap();
    assert!(done.bytes > 2_800_000 && done.objects == done.objects_total && told.get() == done.objects, "{done:?}");
    assert!(done.unreferred.iter().any(|key| key.as_str().ends_with(".0")), "{done:?}");
    assert_renewed(&rig.memory, std::slice::from_ref(&done), 1);
    assert_eq!(rig::live(&workspace), before);
    assert!(workspace.check(Sample::Percent(100)).unwrap().problems.is_empty());
    // Done is done, and what is written later needs nothing.
    rig::write(&workspace, "later", &rig::noise(2000));
    rig::snapshot(&workspace);
    publish(&workspace);
    let again = reencrypt(&workspace).unwrap();
    assert_eq!((again.bytes, again.unreferred.len()), (0, 0), "{again:?}");
    rotate(&rig);
    let second = reencrypt(&workspace).unwrap();
    assert!(second.unreferred.iter().any(|key| key.as_str().ends_with(".1")));
    assert_renewed(&rig.memory, &[second], 2);
}

#[test]
fn interrupted_anywhere_it_goes_on() {
    let rig = Rig::new();
    let workspace = filled(&rig);
    rotate(&rig);
    // The first attempt learns of the epoch.
    publish(&workspace);
    let mut done = Vec::new();
    for cut in [0, 1, 2, 4, 7] {
        let puts = AtomicUsize::new(0);
        rig.set_fault(move |operation, _| {
            let is_put = matches!(operation, Operation::Put | Operation::PutConditional);
            match is_put && puts.fetch_add(1, Ordering::SeqCst) >= cut {
                true => Fault::CommitThenLose,
                false => Fault::Pass,
            }
        });
        if let Ok(finished) = reencrypt(&workspace) {
            done.push(finished);
        }
        rig.heal();
        rig::whole(&rig.memory);
    }
    assert!(matches!(workspace.reencrypt(None, &|| true, &mut |_| {}), Err(_) | Ok(Reencryption { bytes: 0, .. })));
    done.push(reencrypt(&workspace).unwrap());
    publish(&workspace);
    rig::whole(&rig.memory);
    assert!(workspace.check(Sample::Percent(100)).unwrap().problems.is_empty());
    assert_eq!(reencrypt(&workspace).unwrap().bytes, 0);
    // A client that only has the newest state reads it all.
    let other = rig.open("other");
    assert_eq!(rig::live(&other), rig::live(&workspace));
}

#[test]
fn a_location_run_that_the_store_has_lost_is_not_passed_over() {
    let rig = Rig::new();
    let workspace = filled(&rig);
    rotate(&rig);
    rig.set_fault(|operation, key| match operation == Operation::GetRange && key.starts_with("locations/") {
        true => Fault::Fail(StoreError::NotFound { key: ObjectKey::new(key).unwrap() }),
        false => Fault::Pass,
    });
    let error = reencrypt(&workspace).unwrap_err();
    assert!(error.to_string().contains("locations/"), "{error}");
    rig.heal();
    reencrypt(&workspace).unwrap();
    assert!(reencrypt(&workspace).unwrap().unreferred.is_empty(), "all runs in force are renewed");
    assert!(workspace.check(Sample::Percent(100)).unwrap().problems.is_empty());
}

#[test]
fn what_others_publish_meanwhile_does_not_bring_old_places_back() {
    let rig = Rig::new();
    let workspace = filled(&rig);
    let other = rig.open("other");
    rotate(&rig);
    // It was made from what was there before, and is joined with what comes of that.
    rig::write(&other, "by the other", &rig::noise(300_000)[1000..]);
    rig::snapshot(&other);
    let done = reencrypt(&workspace).unwrap();
    publish(&other);
    let there = rig.memory.snapshot();
    let mut objects = there.clone();
    objects.retain(|key, _| key.as_str().starts_with("locations/") || !done.unreferred.contains(key));
    assert!(objects.len() < there.len());
    rig.memory.restore(objects);
    rig::whole(&rig.memory);
}
