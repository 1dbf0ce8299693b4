//! Promise: a workspace always opens with the old or the new secret, whatever happens while keys are changed; who was
//! shut out reads nothing that is written later.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kura::base::ids::SlotId;
use kura::control::{Exit, Failure};
use kura::crypto::slots::{Credential, KdfParams, NewSlot, Secret, SlotError, members, rotate};
use kura::crypto::{Keys, envelope_epoch};
use kura::store::{Fault, FaultStore, MemoryStore, ObjectKey, ObjectStore, Operation, PutCondition, StoreError};
use kura::workspace::{KeySlots, OpenOptions, SlotState, Workspace, WorkspaceError};
use tempfile::TempDir;

use super::workspace_rig::{self as rig, Rig};

fn secret(text: &str) -> Credential {
    Credential::Passphrase(Secret::from_text(text.to_owned()))
}

fn options(dir: &TempDir, state: &str, text: &str) -> OpenOptions {
    let text = text.to_owned();
    let credential = Box::new(move || Ok(secret(&text)));
    OpenOptions { credential, ..rig::options(dir, state) }
}

const FIRST: &str = "correct horse";

fn slots(store: Arc<dyn ObjectStore>, dir: &TempDir, text: &str) -> Result<KeySlots, WorkspaceError> {
    KeySlots::open_in(store, &options(dir, "key-command", text))
}

fn add(slots: &KeySlots, label: &str, text: &str) -> Result<SlotId, WorkspaceError> {
    slots.add(&NewSlot { label: label.to_owned(), credential: secret(text) }, KdfParams::minimum())
}

fn change(slots: &KeySlots, text: &str) -> Result<(), WorkspaceError> {
    slots.change(&secret(text), KdfParams::minimum())
}

/// Whether a secret opens the workspace, and all that is in it.
fn opens(memory: &Arc<MemoryStore>, text: &str) -> Result<(), WorkspaceError> {
    let dir = tempfile::tempdir().unwrap();
    let workspace = Workspace::open_in(memory.clone(), OpenOptions { read_only: true, ..options(&dir, "s", text) })?;
    for version in workspace.versions()? {
        rig::recorded(&workspace, version.id);
    }
    Ok(())
}

fn exit(error: WorkspaceError) -> Exit {
    Failure::from(error).exit
}

fn key(name: impl Into<String>) -> ObjectKey {
    ObjectKey::new(name).unwrap()
}

fn head_epoch(memory: &MemoryStore) -> u32 {
    envelope_epoch(&memory.snapshot()[&key("HEAD")]).unwrap()
}

#[test]
fn slots_are_added_listed_changed_and_removed() {
    let rig = Rig::new();
    let first = slots(rig.memory.clone(), &rig.dir, FIRST).unwrap();
    let bob = add(&first, "bob", "bob's words").unwrap();
    let listed = first.list().unwrap();
    assert_eq!(listed.iter().map(|slot| slot.label.clone().unwrap()).collect::<Vec<_>>(), ["test", "bob"]);
    assert!(listed.iter().all(|slot| slot.state == SlotState::Fit && slot.kind.is_some()));
    assert_eq!(listed.iter().map(|slot| slot.is_own).collect::<Vec<_>>(), [true, false]);
    opens(&rig.memory, "bob's words").unwrap();

    let bobs = slots(rig.memory.clone(), &rig.dir, "bob's words").unwrap();
    change(&bobs, "bob's new words").unwrap();
    assert_eq!(exit(opens(&rig.memory, "bob's words").unwrap_err()), Exit::WrongKey);
    opens(&rig.memory, "bob's new words").unwrap();
    opens(&rig.memory, FIRST).unwrap();

    assert_eq!(first.find("bob").unwrap(), bob);
    assert_eq!(first.find(&bob.to_string()[..8]).unwrap(), bob);
    assert!(matches!(first.find("carol"), Err(WorkspaceError::NoSuchSlot { .. })));
    first.remove(bob).unwrap();
    assert_eq!(exit(opens(&rig.memory, "bob's new words").unwrap_err()), Exit::WrongKey);
    opens(&rig.memory, FIRST).unwrap();
    assert_eq!(first.list().unwrap().len(), 1);
}

#[test]
fn the_last_slot_that_opens_cannot_be_removed() {
    let rig = Rig::new();
    let first = slots(rig.memory.clone(), &rig.dir, FIRST).unwrap();
    let own = first.own();
    for refused in [first.remove(own), first.revoke(own).map(|_| ())] {
        assert!(matches!(refused, Err(WorkspaceError::Slot(SlotError::LastSlot { id })) if id == own));
    }
    // A second slot whose record is damaged or gone is no way in.
    let bob = add(&first, "bob", "bob's words").unwrap();
    let mut objects = rig.memory.snapshot();
    let whole = objects.clone();
    objects.get_mut(&key(format!("keys/{bob}"))).unwrap()[60] ^= 1;
    rig.memory.restore(objects.clone());
    assert!(matches!(first.list().unwrap()[1].state, SlotState::Damaged(_)));
    assert!(matches!(first.remove(own), Err(WorkspaceError::Slot(SlotError::LastSlot { .. }))));
    objects.remove(&key(format!("keys/{bob}")));
    rig.memory.restore(objects);
    assert_eq!(first.list().unwrap()[1].state, SlotState::Missing);
    assert!(matches!(first.remove(own), Err(WorkspaceError::Slot(SlotError::LastSlot { .. }))));
    rig.memory.restore(whole);
    first.remove(own).unwrap();
    opens(&rig.memory, "bob's words").unwrap();
}

#[test]
fn an_open_client_follows_a_rotation_at_its_next_publishing() {
    let rig = Rig::new();
    let workspace = rig.open("state");
    rig::write(&workspace, "before", b"before the rotation");
    rig::snapshot(&workspace);
    workspace.flush(Some(Duration::from_secs(60))).unwrap();
    // Recorded before, published after: sealed under the old key, readable all the same.
    rig::write(&workspace, "waiting", &rig::noise(500_000));
    rig::snapshot(&workspace);
    assert_eq!(slots(rig.memory.clone(), &rig.dir, FIRST).unwrap().rotate().unwrap(), 1);
    assert_eq!(head_epoch(&rig.memory), 1);
    assert_eq!(workspace.flush(Some(Duration::from_secs(60))).unwrap().unpublished_versions, 0);
    rig::write(&workspace, "after", b"after the rotation");
    let version = rig::snapshot(&workspace);
    assert_eq!(workspace.flush(Some(Duration::from_secs(60))).unwrap().unpublished_versions, 0);
    assert_eq!(envelope_epoch(&rig.memory.snapshot()[&key(format!("indexes/{version}"))]), Some(1));
    opens(&rig.memory, FIRST).unwrap();

    // Without the store, the copies in the state directory open the newest epoch.
    workspace.close(true).unwrap();
    drop(workspace);
    rig.set_fault(|_, _| Fault::Unreachable);
    let offline = rig.open("state");
    assert_eq!(rig::read(&offline, "after"), b"after the rotation");
}

#[test]
fn who_was_shut_out_reads_nothing_later_and_the_others_need_no_secret() {
    let rig = Rig::new();
    let first = slots(rig.memory.clone(), &rig.dir, FIRST).unwrap();
    let bob = add(&first, "bob", "bob's words").unwrap();
    add(&first, "carol", "carol's words").unwrap();
    let bobs = Workspace::open_in(rig.memory.clone(), options(&rig.dir, "bob", "bob's words")).unwrap();
    let carols = Workspace::open_in(rig.memory.clone(), options(&rig.dir, "carol", "carol's words")).unwrap();
    let old_keys: Keys = rig.keys();
    assert_eq!(first.revoke(bob).unwrap(), 1);

    // She learns of the epoch when she publishes; what was recorded until then is under the old one.
    rig::write(&carols, "first", b"meanwhile");
    assert_eq!(carols.flush(Some(Duration::from_secs(60))).unwrap().unpublished_versions, 0);
    rig::write(&carols, "secret", b"not for bob");
    let version = rig::snapshot(&carols);
    assert_eq!(carols.flush(Some(Duration::from_secs(60))).unwrap().unpublished_versions, 0);
    let objects = rig.memory.snapshot();
    for name in ["HEAD".to_owned(), format!("indexes/{version}")] {
        assert_eq!(envelope_epoch(&objects[&key(name.as_str())]), Some(1), "{name}");
    }
    assert_eq!(old_keys.epoch(), 0);
    assert!(kura::version::head::Head::open(&old_keys, &objects[&key("HEAD")]).is_err());

    rig::write(&bobs, "mine", b"bob's own");
    rig::snapshot(&bobs);
    let report = bobs.flush(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(report.unpublished_versions, 1, "what bob wrote is kept here");
    assert!(report.reason.unwrap().contains("was removed from the workspace"));
    assert!(bobs.status().blocked.unwrap().reason.contains("ask a member to add you again"));
    assert_eq!(exit(opens(&rig.memory, "bob's words").unwrap_err()), Exit::WrongKey);
    opens(&rig.memory, "carol's words").unwrap();
    opens(&rig.memory, FIRST).unwrap();
}

/// A store that runs something right before one put.
fn interrupted(
    memory: &Arc<MemoryStore>,
    name: &'static str,
    meanwhile: impl Fn() + Send + Sync + 'static,
) -> Arc<dyn ObjectStore> {
    let ran = AtomicUsize::new(0);
    Arc::new(FaultStore::new(memory.clone(), move |operation, key| {
        let is_put = matches!(operation, Operation::Put | Operation::PutConditional);
        if is_put && key.starts_with(name) && ran.fetch_add(1, Ordering::SeqCst) == 0 {
            meanwhile();
        }
        Fault::Pass
    }))
}

#[test]
fn of_two_rotations_at_once_one_wins_and_the_other_says_so() {
    let rig = Rig::new();
    let (memory, dir) = (rig.memory.clone(), tempfile::tempdir().unwrap());
    let store = interrupted(&rig.memory, "epochs/1", move || {
        assert_eq!(slots(memory.clone(), &dir, FIRST).unwrap().rotate().unwrap(), 1);
    });
    let loser = slots(store, &rig.dir, FIRST).unwrap();
    let error = loser.rotate().unwrap_err();
    assert!(error.to_string().contains("epochs/1 was changed by somebody else"), "{error}");
    assert_eq!(exit(error), Exit::Conflict);
    opens(&rig.memory, FIRST).unwrap();
    assert_eq!(loser.rotate().unwrap(), 2);
    opens(&rig.memory, FIRST).unwrap();
}

#[test]
fn who_is_added_while_somebody_rotates_is_in_the_new_epoch() {
    // The rotation comes before, or after, the added slot gets into the epoch record.
    for name in ["epochs/0", "epochs/1"] {
        let rig = Rig::new();
        let (memory, dir) = (rig.memory.clone(), tempfile::tempdir().unwrap());
        let is_adding = name == "epochs/0";
        let store = interrupted(&rig.memory, name, move || {
            let other = slots(memory.clone(), &dir, FIRST).unwrap();
            match is_adding {
                true => drop(other.rotate().unwrap()),
                false => drop(add(&other, "bob", "bob's words").unwrap()),
            }
        });
        let one = slots(store, &rig.dir, FIRST).unwrap();
        match is_adding {
            true => drop(add(&one, "bob", "bob's words").unwrap()),
            false => drop(one.rotate().unwrap()),
        }
        assert_eq!(head_epoch(&rig.memory), 1);
        opens(&rig.memory, "bob's words").unwrap();
        opens(&rig.memory, FIRST).unwrap();
    }
}

type Command = fn(&KeySlots) -> Result<(), WorkspaceError>;

fn bob(slots: &KeySlots) -> Result<SlotId, WorkspaceError> {
    slots.find("bob")
}

#[test]
fn a_command_cut_off_anywhere_leaves_a_secret_that_opens() {
    let commands: [(&str, Command, &str); 6] = [
        ("add", |slots| add(slots, "carol", "carol's words").map(|_| ()), FIRST),
        ("remove", |slots| slots.remove(bob(slots)?), FIRST),
        ("revoke", |slots| slots.revoke(bob(slots)?).map(|_| ()), FIRST),
        ("rotate", |slots| slots.rotate().map(|_| ()), FIRST),
        ("passwd", |slots| change(slots, "new words"), "new words"),
        ("remove own", |slots| slots.remove(slots.own()), "bob's words"),
    ];
    let rig = Rig::new();
    let workspace = rig.open("state");
    rig::write(&workspace, "file", &rig::noise(300_000));
    rig::snapshot(&workspace);
    workspace.flush(Some(Duration::from_secs(60))).unwrap();
    add(&slots(rig.memory.clone(), &rig.dir, FIRST).unwrap(), "bob", "bob's words").unwrap();
    let start = rig.memory.snapshot();
    let mut cuts = 0;
    for (name, command, new) in commands {
        for is_lost in [false, true] {
            for cut in 0.. {
                rig.memory.restore(start.clone());
                let writes = AtomicUsize::new(0);
                let store = FaultStore::new(rig.memory.clone(), move |operation, _| {
                    let is_write = matches!(operation, Operation::Put | Operation::PutConditional | Operation::Delete);
                    let done = writes.load(Ordering::SeqCst);
                    match is_write && writes.fetch_add(1, Ordering::SeqCst) == cut {
                        true if is_lost => Fault::CommitThenLose,
                        _ if done > cut || is_write && done == cut => Fault::Unreachable,
                        _ => Fault::Pass,
                    }
                });
                let cut_off = slots(Arc::new(store), &rig.dir, FIRST).and_then(|slots| command(&slots));
                let (old_opens, new_opens) = (opens(&rig.memory, FIRST), opens(&rig.memory, new));
                assert!(old_opens.is_ok() || new_opens.is_ok(), "{name} cut at {cut}: {old_opens:?}, {new_opens:?}");
                cuts += 1;
                // It can be done again, or was done.
                if let Ok(again) = slots(rig.memory.clone(), &rig.dir, FIRST) {
                    command(&again)
                        .or_else(|error| match error {
                            WorkspaceError::NoSuchSlot { .. } => Ok(()),
                            error => Err(error),
                        })
                        .unwrap_or_else(|error| panic!("{name} cut at {cut}, again: {error}"));
                }
                opens(&rig.memory, new).unwrap_or_else(|error| panic!("{name} cut at {cut}, then done: {error}"));
                if cut_off.is_ok() {
                    break;
                }
            }
        }
    }
    assert!(cuts > 20, "{cuts}");
}

#[test]
fn a_store_that_hides_the_newest_epoch_is_refused() {
    let rig = Rig::new();
    let workspace = rig.open("state");
    let old = rig.memory.snapshot();
    slots(rig.memory.clone(), &rig.dir, FIRST).unwrap().rotate().unwrap();
    rig::write(&workspace, "file", b"x");
    workspace.flush(Some(Duration::from_secs(60))).unwrap();
    workspace.close(true).unwrap();
    drop(workspace);
    rig.memory.restore(old);
    let error = rig.try_open(rig.options("state")).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("epochs/1: gone"), "{error}");
    assert_eq!(exit(error), Exit::RolledBack);
    let refused = KeySlots::open_in(rig.memory.clone(), &options(&rig.dir, "state", FIRST));
    assert!(refused.is_err(), "keys are not changed on an old copy");
    // Who accepts that puts back what was hidden: local state is sealed under it.
    drop(rig.try_open(OpenOptions { accept_rollback: true, ..rig.options("state") }).unwrap());
    assert!(rig.memory.snapshot().contains_key(&key("epochs/1")));
    opens(&rig.memory, FIRST).unwrap();
}

#[test]
fn an_epoch_that_a_removed_member_forged_is_refused() {
    let rig = Rig::new();
    let first = slots(rig.memory.clone(), &rig.dir, FIRST).unwrap();
    let old = rig.memory.snapshot();
    let removed_keys = rig.keys();
    first.rotate().unwrap();
    // A client that knows epoch 1.
    rig.open("state").close(true).unwrap();
    let header = &old[&key("kura.json")];
    let record = &old[&key("epochs/0")];
    assert_eq!(members(&removed_keys, header, record).unwrap().len(), 1);
    let (_, forged) = rotate(&removed_keys, header, record, |_| true).unwrap();
    rig.memory.put(&key("epochs/1"), &forged, PutCondition::Always).unwrap();
    let error = rig.try_open(rig.options("state")).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("forged"), "{error}");
    assert_eq!(exit(error), Exit::Damaged);
}

#[test]
fn a_wrong_secret_a_missing_store_and_a_damaged_slot_are_told_apart() {
    let rig = Rig::new();
    let refusal = |text: &str| slots(rig.store.clone(), &rig.dir, text).map(|_| ()).unwrap_err();
    assert_eq!(exit(refusal("wrong")), Exit::WrongKey);
    rig.set_fault(|_, _| Fault::Unreachable);
    assert_eq!(exit(refusal(FIRST)), Exit::Unreachable);
    rig.set_fault(|_, key| match key.starts_with("kura.json") {
        true => Fault::Fail(StoreError::NoStore { store: "here".to_owned() }),
        false => Fault::Pass,
    });
    assert_eq!(exit(refusal(FIRST)), Exit::NoWorkspace);
    rig.heal();
    let mut objects = rig.memory.snapshot();
    let name = objects.keys().find(|name| name.as_str().starts_with("keys/")).unwrap().clone();
    objects.get_mut(&name).unwrap()[50] ^= 1;
    rig.memory.restore(objects);
    let error = refusal(FIRST);
    assert!(error.to_string().contains(name.as_str()), "{error}");
    assert_eq!(exit(error), Exit::Damaged);
}
