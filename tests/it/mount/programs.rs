//! Programs people use.

use super::guard::{Place, sh};

/// Git without anybody's settings.
const GIT: &str = "export HOME=/nonexistent GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null \
                   GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b;";

#[test]
fn git_makes_commits_and_clones() {
    let place = Place::new();
    let mount = place.mount();
    let git = |line: &str| sh(mount.path(), &format!("{GIT} {line}"));
    git("git init -q repo && cd repo && for d in a b c; do mkdir $d; for i in $(seq 60); do seq $i > $d/$i; \
            done; done; \
         ln -s a link; printf '#!/bin/sh\\n' > run; chmod +x run; git add -A && git commit -qm one && git \
             status --porcelain | wc -l | grep -qx 0");
    git("cd repo && git checkout -qb side && echo x >> a/1 && git commit -qam two && git mv b d && git commit \
            -qm three \
         && git checkout -q - && git merge -q side && git gc -q && git fsck --full --strict 2>&1");
    git("git clone -q repo copy && diff -r --no-dereference --exclude .git repo copy && cd copy && git log \
            --oneline | wc -l | grep -qx 3");
    git("cd repo && git reset -q --hard HEAD~2 && git stash list && git worktree add -q ../tree HEAD && ls \
            ../tree/a | wc -l | grep -qx 60");
    mount.end();
    let mount = place.mount();
    sh(
        mount.path(),
        &format!("{GIT} cd repo && git fsck --full --strict && git status --porcelain | wc -l | grep -qx 0"),
    );
    mount.end();
}

#[test]
fn tar_and_rsync_carry_trees_there_and_back() {
    let place = Place::new();
    let mount = place.mount();
    let (inside, outside) = (mount.path().display().to_string(), place.path().join("tree").display().to_string());
    sh(
        place.path(),
        "mkdir -p tree/a/b; cd tree; for i in $(seq 200); do seq $i > a/$i; done; ln a/1 a/b/hard; ln -s ../1 \
            a/b/soft; \
         truncate -s 5M a/sparse; printf x >> a/sparse; chmod 711 a/b; mkfifo a/pipe; \
         touch -d '2001-02-03T04:05:06.789Z' a/*; \
         head -c 2000000 /dev/urandom > random; ln -s nowhere dangling",
    );
    sh(
        place.path(),
        &format!(
            "tar -C tree --format=posix -cSf - . | tar -C {inside} -xpSf - && diff -r --no-dereference tree/a/b \
                {inside}/a/b"
        ),
    );
    let list = "find . -mindepth 1 -printf '%p %y %m %n %s %T@ %l\\n' | sed 's/^\\(\\S* d [0-9]* [0-9]*\\) \
        [0-9]*/\\1/' | sort";
    assert_eq!(sh(mount.path(), list), sh(&place.path().join("tree"), list));
    sh(place.path(), &format!("tar -C {inside} --format=posix -cf - . | tar -C tree -df - 2>&1"));
    let first = sh(place.path(), &format!("mkdir {inside}/r && rsync -aHS --stats {outside}/ {inside}/r/"));
    assert!(!first.contains("Number of regular files transferred: 0"), "{first}");
    let second = sh(place.path(), &format!("rsync -aHS --stats {outside}/ {inside}/r/"));
    assert!(second.contains("Number of regular files transferred: 0"), "{second}");
    sh(
        place.path(),
        &format!(
            "rsync -aHSc --delete {inside}/r/ back/ && diff -r --no-dereference {outside}/random \
            back/random"
        ),
    );
    mount.end();
}

#[test]
fn sqlite_keeps_its_databases_whole() {
    let place = Place::new();
    let mount = place.mount();
    for mode in ["delete", "truncate", "persist", "wal"] {
        let line = format!(
            "(echo 'pragma journal_mode={mode}; create table t(i integer primary key, v text);'; \
              for i in $(seq 60); do echo \"begin; insert into t(v) values(hex(randomblob(2000))); \
              update t set v = v || 'x' where i % 7 = 0; commit;\"; done) | sqlite3 {mode}.db > /dev/null; \
             sqlite3 {mode}.db 'pragma integrity_check; select count(*) from t;'"
        );
        assert_eq!(sh(mount.path(), &line), "ok\n60\n", "{mode}");
    }
    // Two writers at once: the locks keep them apart.
    sh(
        mount.path(),
        "for w in 1 2; do (for i in $(seq 30); do sqlite3 -cmd '.timeout 20000' wal.db \"insert into t(v) \
            values('w$w')\"; done) & done; wait; \
         sqlite3 wal.db 'pragma integrity_check; select count(*) from t' | tr '\\n' ' ' | grep -qx 'ok 120 '",
    );
    mount.end();
    let mount = place.mount();
    assert_eq!(sh(mount.path(), "sqlite3 wal.db 'pragma integrity_check; select count(*) from t'"), "ok\n120\n");
    mount.end();
}

#[test]
fn editors_save() {
    let place = Place::new();
    let mount = place.mount();
    for (name, options) in [("copy", "set backupcopy=yes"), ("rename", "set backupcopy=no")] {
        let line = format!(
            "printf 'one\\ntwo\\n' > {name}; chmod 640 {name}; \
             vim -u NONE -es -c '{options}' -c 'set nobackup writebackup' \
             -c '%s/two/three/' -c wq {name} < /dev/null; \
             cat {name}; stat -c %a {name}"
        );
        assert_eq!(sh(mount.path(), &line), "one\nthree\n640\n");
    }
    assert_eq!(sh(mount.path(), "ls -A"), "copy\nrename\n", "no backup stays");
    sh(mount.path(), "printf 'a\\nb\\n' > s; sed -i s/a/c/ s; printf 'c\\nb\\n' | cmp - s");
    sh(
        mount.path(),
        "truncate -s 3M holes; printf x >> holes; cp --sparse=always holes two; cmp holes two; cp \
            --reflink=auto holes three; cmp holes three",
    );
    mount.end();
}

#[test]
fn cargo_builds_a_crate() {
    let place = Place::new();
    let mount = place.mount();
    sh(
        mount.path(),
        "mkdir -p hello/src && cd hello && printf '[package]\\nname = \"hello\"\\nversion = \"0.1.0\"\\nedition \
            = \"2021\"\\n[workspace]\\n' > Cargo.toml && \
         echo 'fn main() { println!(\"it runs\"); }' > src/main.rs && env -u RUSTFLAGS CARGO_TARGET_DIR=target \
             cargo build --offline -q && \
         ./target/debug/hello | grep -qx 'it runs' && CARGO_TARGET_DIR=target cargo build --offline 2>&1 | grep \
             -q Finished",
    );
    mount.end();
}
