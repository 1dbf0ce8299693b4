//! What happens to a path, case by case.

use kura::base::clock::Timestamp;
use kura::version::entry::{Entry, Ino};
use kura::version::merge::{Changes, Clash, Policy, backup_name, conflict_name};

use super::model::*;

struct Case {
    io: Pages,
    world: World,
    base: Model,
    ours: Model,
    theirs: Model,
    setting: Setting,
}

/// Paths with contents, `/` for directories, joined by spaces.
fn case(paths: &str) -> Case {
    let (world, mut base) = (World::new(), Model::default());
    for path in paths.split_whitespace() {
        match path.strip_suffix('/') {
            Some(dir) => base.mkdir(&world, dir),
            None => base.write(&world, path, &format!("old {path}")),
        }
    }
    let (ours, theirs) = (base.clone(), base.clone());
    Case { io: Pages::default(), world, base, ours, theirs, setting: Setting::default() }
}

impl Case {
    fn ours(&mut self, change: impl FnOnce(&mut Model, &World)) -> &mut Self {
        change(&mut self.ours, &self.world);
        self
    }

    fn theirs(&mut self, change: impl FnOnce(&mut Model, &World)) -> &mut Self {
        change(&mut self.theirs, &self.world);
        self
    }

    fn policy(&mut self, policy: Policy) -> &mut Self {
        self.setting.policy = policy;
        self
    }

    /// Paths and contents of the result, and its conflicts, as lines.
    fn shown(&self) -> (Vec<String>, Vec<String>) {
        let roots = [&self.base, &self.ours, &self.theirs].map(|model| model.root(&self.io));
        let result = merged(&self.io, &self.setting, &roots[0], &roots[1], &roots[2]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let paths = seen(&self.io, &result.root);
        let paths = paths
            .into_iter()
            .map(|(path, content)| if content == "/" { format!("{path}/") } else { format!("{path}={content}") });
        let conflicts = result.conflicts.iter().map(|conflict| {
            let beside = conflict.beside.as_deref().map(|beside| format!(" -> {}", text(beside))).unwrap_or_default();
            format!("{} {}{beside}", conflict.clash.word(), text(&conflict.path))
        });
        (paths.collect(), conflicts.collect())
    }

    #[track_caller]
    fn gives(&self, paths: &[&str], conflicts: &[&str]) {
        let (found, met) = self.shown();
        assert_eq!(found, paths);
        assert_eq!(met, conflicts);
    }
}

#[test]
fn changes_of_different_files_combine() {
    let mut case = case("a b d/ d/x d/y");
    case.ours(|m, w| {
        m.write(w, "a", "A");
        m.remove(w, "d/x");
    });
    case.theirs(|m, w| {
        m.save(w, "b", "B");
        m.write(w, "d/z", "Z");
    });
    case.gives(&["a=A", "b=B", "d/", "d/y=old d/y", "d/z=Z"], &[]);
}

#[test]
fn a_rename_and_an_edit_combine_both_ways() {
    for swap in [false, true] {
        let mut case = case("a d/");
        case.ours(|m, w| m.rename(w, "a", "d/b"));
        case.theirs(|m, w| m.save(w, "a", "new"));
        if swap {
            std::mem::swap(&mut case.ours, &mut case.theirs);
        }
        case.gives(&["d/", "d/b=new"], &[]);
    }
}

#[test]
fn an_edit_in_a_renamed_directory_follows_it() {
    let mut case = case("d/ d/e/ d/e/a d/e/b");
    case.ours(|m, w| m.rename(w, "d", "D"));
    case.theirs(|m, w| {
        m.write(w, "d/e/a", "new");
        m.write(w, "d/e/c", "more");
        m.remove(w, "d/e/b");
    });
    case.gives(&["D/", "D/e/", "D/e/a=new", "D/e/c=more"], &[]);
}

#[test]
fn what_is_changed_is_not_deleted() {
    for swap in [false, true] {
        let mut case = case("a d/ d/x");
        case.ours(|m, w| {
            m.write(w, "a", "edited");
            m.write(w, "d/x", "edited too");
        });
        case.theirs(|m, w| {
            m.remove(w, "a");
            m.remove(w, "d");
        });
        if swap {
            std::mem::swap(&mut case.ours, &mut case.theirs);
        }
        case.gives(&["a=edited", "d/", "d/x=edited too"], &["removed a", "removed d/x"]);
    }
}

#[test]
fn what_is_added_keeps_the_directory_that_the_other_side_removed() {
    for swap in [false, true] {
        let mut case = case("d/ d/e/ d/e/x");
        case.ours(|m, w| m.write(w, "d/e/new", "n"));
        case.theirs(|m, w| m.remove(w, "d"));
        if swap {
            std::mem::swap(&mut case.ours, &mut case.theirs);
        }
        case.gives(&["d/", "d/e/", "d/e/new=n"], &[]);
    }
}

#[test]
fn both_versions_of_a_file_are_kept_and_ours_keeps_its_name() {
    let mut case = case("d/ d/a");
    case.ours(|m, w| m.write(w, "d/a", "ours"));
    case.theirs(|m, w| m.save(w, "d/a", "theirs"));
    let beside = "d/conflict-20231114.231320.a";
    case.gives(&["d/", "d/a=ours", &format!("{beside}=theirs")], &[&format!("edited d/a -> {beside}")]);
}

#[test]
fn the_same_edit_is_no_conflict() {
    let mut case = case("a b");
    case.ours(|m, w| {
        m.write(w, "a", "same");
        m.write(w, "new", "fresh");
    });
    case.theirs(|m, w| {
        m.save(w, "a", "same");
        m.write(w, "new", "fresh");
    });
    case.gives(&["a=same", "b=old b", "new=fresh"], &[]);
}

#[test]
fn two_files_that_were_given_one_name_are_both_kept() {
    let mut case = case("a");
    case.ours(|m, w| m.write(w, "n", "ours"));
    case.theirs(|m, w| m.write(w, "n", "theirs"));
    case.gives(&["a=old a", "conflict-20231114.231320.n=theirs", "n=ours"], &["added n -> conflict-20231114.231320.n"]);
}

#[test]
fn conflict_names_that_are_taken_are_numbered_and_equal_ones_are_used_again() {
    let mut case = case("a conflict-20231114.231320.a");
    case.ours(|m, w| m.write(w, "a", "ours"));
    case.theirs(|m, w| m.write(w, "a", "theirs"));
    case.gives(
        &["a=ours", "conflict-20231114.231320.a=old conflict-20231114.231320.a", "conflict-20231114.231320.a-1=theirs"],
        &["edited a -> conflict-20231114.231320.a-1"],
    );
}

#[test]
fn a_directory_and_a_file_of_one_name_are_both_kept() {
    let mut case = case("a");
    case.ours(|m, w| m.write(w, "n", "file"));
    case.theirs(|m, w| {
        m.mkdir(w, "n");
        m.write(w, "n/x", "inside");
    });
    let beside = "conflict-20231114.231320.n";
    case.gives(
        &["a=old a", &format!("{beside}/"), &format!("{beside}/x=inside"), "n=file"],
        &[&format!("added n -> {beside}")],
    );
    std::mem::swap(&mut case.ours, &mut case.theirs);
    case.gives(&["a=old a", &format!("{beside}=file"), "n/", "n/x=inside"], &[&format!("added n -> {beside}")]);
}

#[test]
fn a_file_that_became_a_directory() {
    let mut case = case("n");
    case.theirs(|m, w| {
        m.remove(w, "n");
        m.mkdir(w, "n");
        m.write(w, "n/x", "inside");
    });
    case.ours(|m, w| m.write(w, "other", "o"));
    case.gives(&["n/", "n/x=inside", "other=o"], &[]);
    case.ours(|m, w| m.write(w, "n", "edited"));
    let beside = "conflict-20231114.231320.n";
    case.gives(
        &[&format!("{beside}/"), &format!("{beside}/x=inside"), "n=edited", "other=o"],
        &["removed n", &format!("added n -> {beside}")],
    );
}

#[test]
fn directories_of_one_name_become_one() {
    let mut case = case("a");
    case.ours(|m, w| {
        m.mkdir(w, "d");
        m.mkdir(w, "d/e");
        m.write(w, "d/e/ours", "1");
        m.write(w, "d/both", "ours");
    });
    case.theirs(|m, w| {
        m.mkdir(w, "d");
        m.mkdir(w, "d/e");
        m.write(w, "d/e/theirs", "2");
        m.write(w, "d/both", "theirs");
    });
    let beside = "d/conflict-20231114.231320.both";
    case.gives(
        &["a=old a", "d/", "d/both=ours", &format!("{beside}=theirs"), "d/e/", "d/e/ours=1", "d/e/theirs=2"],
        &[&format!("added d/both -> {beside}")],
    );
}

#[test]
fn a_file_that_both_moved_stays_where_we_moved_it() {
    let mut case = case("a");
    case.ours(|m, w| m.rename(w, "a", "ours"));
    case.theirs(|m, w| m.rename(w, "a", "theirs"));
    case.gives(&["ours=old a"], &["moved ours"]);
    case.policy(Policy::Theirs).gives(&["theirs=old a"], &["moved theirs"]);
}

#[test]
fn directories_that_were_moved_into_each_other_do_not_vanish() {
    let mut case = case("a/ b/ a/x b/y");
    case.ours(|m, w| m.rename(w, "a", "b/a"));
    case.theirs(|m, w| m.rename(w, "b", "a/b"));
    case.gives(&["b/", "b/a/", "b/a/x=old a/x", "b/y=old b/y"], &["moved b"]);
}

#[test]
fn a_directory_is_moved_into_one_that_took_the_place_of_another() {
    let mut case = case("d/ d/x g/ g/old");
    case.ours(|m, w| m.write(w, "new", "n"));
    case.theirs(|m, w| {
        m.remove(w, "g");
        m.mkdir(w, "g");
        m.rename(w, "d", "g/d");
    });
    case.gives(&["g/", "g/d/", "g/d/x=old d/x", "new=n"], &[]);
}

#[test]
fn a_directory_moves_into_what_was_inside_of_it() {
    let mut case = case("d/ d/e/ d/x");
    case.ours(|m, w| m.write(w, "new", "n"));
    case.theirs(|m, w| {
        m.rename(w, "d/e", "g");
        m.mkdir(w, "g/h");
        m.rename(w, "d", "g/h/d");
    });
    case.gives(&["g/", "g/h/", "g/h/d/", "g/h/d/x=old d/x", "new=n"], &[]);
}

#[test]
fn an_edit_meets_a_move_into_a_directory_that_we_removed() {
    let mut case = case("a g/");
    case.ours(|m, w| {
        m.write(w, "a", "ours");
        m.remove(w, "g");
    });
    case.theirs(|m, w| {
        m.write(w, "a", "theirs");
        m.rename(w, "a", "g/a");
    });
    let beside = "g/conflict-20231114.231320.a";
    case.gives(&["g/", "g/a=ours", &format!("{beside}=theirs")], &[&format!("edited g/a -> {beside}")]);
}

#[test]
fn a_link_moves_in_a_directory_that_we_removed() {
    let mut case = case("b d/");
    for model in [&mut case.base, &mut case.ours, &mut case.theirs] {
        model.link(&World::new(), "b", "d/b");
    }
    case.ours(|m, w| {
        m.write(w, "d/b", "ours");
        m.remove(w, "d");
    });
    case.theirs(|m, w| {
        m.write(w, "b", "theirs");
        m.rename(w, "d/b", "d/a");
    });
    let beside = "d/conflict-20231114.231320.a";
    case.gives(&["b=ours", "d/", "d/a=ours", &format!("{beside}=theirs")], &[&format!("edited d/a -> {beside}")]);
}

#[test]
fn an_edit_meets_a_link_whose_other_name_went_with_its_directory() {
    let mut case = case("d/ d/e/ d/e/f");
    for model in [&mut case.base, &mut case.ours, &mut case.theirs] {
        model.link(&World::new(), "d/e/f", "d/b");
    }
    case.ours(|m, w| m.write(w, "d/e/f", "ours"));
    case.theirs(|m, w| {
        m.remove(w, "d/e");
        m.write(w, "d/b", "theirs");
    });
    let beside = "d/conflict-20231114.231320.b";
    case.gives(&["d/", "d/b=ours", &format!("{beside}=theirs")], &[&format!("edited d/b -> {beside}")]);
}

#[test]
fn a_link_of_which_both_removed_a_name_with_its_directory_and_they_all_others_stays_where_we_have_it() {
    let mut case = case("d/ d/e/ g/ g/a");
    for model in [&mut case.base, &mut case.ours, &mut case.theirs] {
        model.link(&World::new(), "g/a", "d/e/a");
    }
    case.ours(|m, w| m.remove(w, "d"));
    case.theirs(|m, w| {
        m.remove(w, "d/e");
        m.remove(w, "g");
    });
    case.gives(&["g/", "g/a=old g/a"], &["removed g/a"]);
}

#[test]
fn names_that_change_places_meet_edits() {
    let mut case = case("a b");
    case.theirs(|m, w| {
        m.rename(w, "a", "t");
        m.rename(w, "b", "a");
        m.rename(w, "t", "b");
    });
    case.ours(|m, w| m.write(w, "a", "edited"));
    case.gives(&["a=old b", "b=edited"], &[]);
}

#[test]
fn hard_links_of_both_sides_lead_to_one_inode() {
    let mut case = case("a d/");
    case.ours(|m, w| m.link(w, "a", "d/ours"));
    case.theirs(|m, w| {
        m.link(w, "a", "theirs");
        m.write(w, "theirs", "new");
    });
    case.gives(&["a=new", "d/", "d/ours=new", "theirs=new"], &[]);
    case.ours(|m, w| m.write(w, "a", "ours"));
    case.gives(
        &["a=ours", "conflict-20231114.231320.a=new", "d/", "d/ours=ours", "theirs=ours"],
        &["edited a -> conflict-20231114.231320.a"],
    );
}

#[test]
fn the_content_of_links_that_both_sides_changed_without_touching_names() {
    let mut case = case("a d/");
    for model in [&mut case.base, &mut case.ours, &mut case.theirs] {
        model.link(&World::new(), "a", "d/b");
    }
    case.ours(|m, w| m.write(w, "a", "ours"));
    case.theirs(|m, w| m.write(w, "d/b", "theirs"));
    case.gives(
        &["a=ours", "conflict-20231114.231320.a=theirs", "d/", "d/b=ours"],
        &["edited a -> conflict-20231114.231320.a"],
    );
}

#[test]
fn names_that_differ_by_case_or_form_are_different_names() {
    let mut case = case("a");
    case.ours(|m, w| {
        m.write(w, "File", "1");
        m.write(w, "\u{e9}", "composed");
    });
    case.theirs(|m, w| {
        m.write(w, "file", "2");
        m.write(w, "e\u{301}", "decomposed");
    });
    case.gives(&["File=1", "a=old a", "e\u{301}=decomposed", "file=2", "\u{e9}=composed"], &[]);
}

#[test]
fn attributes_combine_and_the_newer_wins() {
    let mut case = case("a b");
    case.ours(|m, w| {
        m.chmod(w, "a", 0o600);
        m.write(w, "b", "edited");
    });
    case.theirs(|m, w| m.chmod(w, "b", 0o755));
    let roots = [&case.base, &case.ours, &case.theirs].map(|model| model.root(&case.io));
    let result = merged(&case.io, &case.setting, &roots[0], &roots[1], &roots[2]);
    let mode = |name: &str| result.root.find(&case.io, &[name.as_bytes()]).unwrap().unwrap().mode;
    assert_eq!((mode("a"), mode("b")), (0o600, 0o755));
    assert!(result.conflicts.is_empty());
    case.gives(&["a=old a", "b=edited"], &[]);
}

#[test]
fn the_newer_write_wins_and_the_other_goes_to_the_backup() {
    let mut case = case("d/ d/a");
    case.policy(Policy::LastWriteWins);
    case.ours(|m, w| m.write(w, "d/a", "older"));
    case.theirs(|m, w| m.write(w, "d/a", "newer"));
    let backup = "backup/d/a.20231114.221320";
    case.gives(
        &["backup/", "backup/d/", &format!("{backup}=older"), "d/", "d/a=newer"],
        &[&format!("edited d/a -> {backup}")],
    );
    std::mem::swap(&mut case.ours, &mut case.theirs);
    let backup = "backup/d/a.20231114.231320";
    case.gives(
        &["backup/", "backup/d/", &format!("{backup}=older"), "d/", "d/a=newer"],
        &[&format!("edited d/a -> {backup}")],
    );
}

#[test]
fn added_files_follow_the_policy_too() {
    let mut case = case("a");
    case.ours(|m, w| m.write(w, "n", "ours"));
    case.theirs(|m, w| m.write(w, "n", "theirs"));
    case.policy(Policy::Ours).gives(&["a=old a", "n=ours"], &["added n"]);
    case.policy(Policy::Theirs).gives(&["a=old a", "n=theirs"], &["added n"]);
    case.policy(Policy::LastWriteWins).gives(
        &["a=old a", "backup/", "backup/n.20231114.221320=ours", "n=theirs"],
        &["added n -> backup/n.20231114.221320"],
    );
}

#[test]
fn one_side_can_be_preferred() {
    let mut case = case("a");
    case.ours(|m, w| m.write(w, "a", "ours"));
    case.theirs(|m, w| m.write(w, "a", "theirs"));
    case.policy(Policy::Ours).gives(&["a=ours"], &["edited a"]);
    case.policy(Policy::Theirs).gives(&["a=theirs"], &["edited a"]);
}

#[test]
fn texts_are_merged_where_they_do_not_overlap() {
    let mut case = case("a");
    for model in [&mut case.base, &mut case.ours, &mut case.theirs] {
        model.write(&World::new(), "a", "1\n2\n3\n4\n5\n6\n7\n");
    }
    case.policy(Policy::Merge);
    case.ours(|m, w| m.write(w, "a", "one\n2\n3\n4\n5\n6\n7\n"));
    case.theirs(|m, w| m.write(w, "a", "1\n2\n3\n4\n5\n6\nseven\n"));
    case.gives(&["a=one\n2\n3\n4\n5\n6\nseven\n"], &[]);
    case.ours(|m, w| m.write(w, "a", "uno\n2\n3\n4\n5\n6\nsette\n"));
    let (_, conflicts) = case.shown();
    assert_eq!(conflicts, ["edited a -> conflict-20231114.231320.a"], "an overlap keeps both");
}

#[test]
fn a_file_that_is_being_written_is_neither_removed_nor_renumbered() {
    let mut case = case("d/ d/a b");
    let inos = ["d/a", "b"].map(|path| Ino(case.base.names[path]));
    case.setting.pins.drafts.extend(inos);
    case.setting.pins.unpublished.push(vec![b"d".to_vec(), b"new".to_vec()]);
    case.theirs(|m, w| {
        m.remove(w, "d");
        m.save(w, "b", "saved");
    });
    case.gives(&["b=saved", "d/", "d/a=old d/a"], &[]);
    let roots = [&case.base, &case.ours, &case.theirs].map(|model| model.root(&case.io));
    let result = merged(&case.io, &case.setting, &roots[0], &roots[1], &roots[2]);
    assert_eq!(result.root.find(&case.io, &[b"b"]).unwrap().unwrap().ino, inos[1]);
}

#[test]
fn a_name_that_is_being_made_here_is_taken() {
    let mut case = case("d/ e/");
    case.setting.pins.unpublished.push(vec![b"d".to_vec(), b"new".to_vec()]);
    case.setting.pins.unpublished.push(vec![b"e".to_vec(), b"new".to_vec()]);
    case.theirs(|m, w| {
        m.write(w, "d/new", "theirs");
        m.remove(w, "e");
    });
    let beside = "d/conflict-20231114.231320.new";
    case.gives(&["d/", &format!("{beside}=theirs"), "e/"], &[&format!("added d/new -> {beside}")]);
}

#[test]
fn a_file_whose_number_we_gave_to_another_gets_a_new_one() {
    let mut case = case("x y");
    // `mv x y` on our side: the inode of x is y now.
    let (x, y) = (case.ours.names["x"], case.ours.names["y"]);
    let id = case.ours.inodes[&y].file_id;
    case.ours.inodes.remove(&y);
    case.ours.inodes.get_mut(&x).unwrap().file_id = id;
    case.ours.names.remove("x");
    case.ours.names.insert("y".into(), x);
    case.theirs(|m, w| m.write(w, "x", "edited"));
    case.gives(&["x=edited", "y=old x"], &["removed x"]);
}

#[test]
fn long_names_are_shortened_between_characters() {
    let time = Timestamp::from_parts(1_700_000_000, 0);
    let name = "\u{20ac}".repeat(85);
    for number in [0, 7, 12_345] {
        let long = conflict_name(time, name.as_bytes(), number);
        assert!(long.len() <= 255 && long.len() > 245, "{}", long.len());
        assert!(std::str::from_utf8(&long).unwrap().starts_with("conflict-20231114.221320.\u{20ac}"));
        let backup = backup_name(time, name.as_bytes(), number);
        assert!(backup.len() <= 255 && std::str::from_utf8(&backup).unwrap().contains(".20231114.221320"));
    }
    assert_eq!(conflict_name(time, b"a", 2), b"conflict-20231114.221320.a-2");
    let weird = conflict_name(Timestamp::from_unix_ns(i64::MIN), b"a", 0);
    assert_eq!(weird, b"conflict-16770921.001243.a");
}

#[test]
fn moving_a_large_directory_costs_nothing_for_what_is_in_it() {
    let (io, world, mut base) = (Pages::default(), World::new(), Model::default());
    base.mkdir(&world, "big");
    base.mkdir(&world, "to");
    for file in 0..3_000 {
        base.write(&world, &format!("big/{file}"), &format!("content {file}"));
    }
    let (mut ours, mut theirs) = (base.clone(), base.clone());
    ours.write(&world, "big/7", "edited");
    theirs.rename(&world, "big", "to/large");
    let roots = [&base, &ours, &theirs].map(|model| model.root(&io));
    io.loaded.borrow_mut().clear();
    let result = merged(&io, &Setting::default(), &roots[0], &roots[1], &roots[2]);
    let loads = io.loaded.borrow().len();
    assert!(loads < 25, "{loads} pages");
    let found = result.root.find(&io, &[b"to", b"large", b"7"]).unwrap().unwrap();
    assert!(matches!(found, Entry { .. }) && seen(&io, &result.root)["to/large/7"] == "edited");
    let changes = Changes::find(&io, &roots[0], &result.root).unwrap();
    assert_eq!(changes.counts(&Default::default()).changed, 2, "the move and the edit");
    assert_eq!(Clash::Moved.word(), "moved");
}
