//! The page in a real browser, and what it is made from.

use std::fs;
use std::path::Path;
use std::process::Command;

use kura::base::clock::Timestamp;
use kura::base::ids::VersionId;
use kura::crypto::slots::{Credential, Secret};
use kura::store::StoreUrl;
use kura::version::index::IndexRecord;
use kura::version::refs::add_version;
use kura::version::tree::Edits;
use kura::workspace::{OpenOptions, Workspace};
use serde_json::{Value, json};

use super::rig::{Web, becomes, fill};
use crate::cli::support::{Home, PASSPHRASE, Running, run, tree};

const MINUTE_NS: i64 = 60_000_000_000;

fn script(name: &str) -> Command {
    let mut command = Command::new("python3");
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/seeing").join(name));
    command
}

#[test]
fn browse_compare_restore_and_resolve_in_a_browser() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "work");
    fill(&home, &mount);
    let web = Web::start(&home, &mount.path);
    let mut command = script("page.py");
    let child = command.arg(&web.address).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = Running(child.spawn().unwrap());
    let (mut out, mut err) = (String::new(), String::new());
    std::io::Read::read_to_string(child.0.stdout.as_mut().unwrap(), &mut out).unwrap();
    std::io::Read::read_to_string(child.0.stderr.as_mut().unwrap(), &mut err).unwrap();
    assert!(child.0.wait().unwrap().success(), "{out}\n{err}");
    becomes(&mount.file("notes.txt"), "alpha\nbeta\ngamma\n");
    becomes(&mount.file("plan.md"), "theirs\nshared\n");
    assert!(!mount.file("conflict-20261121.101500.plan.md").exists());
}

fn parsed(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {body:?}"))
}

/// Two texts of 50 MiB that differ in the middle are lines beside each other, and two that share nothing are cut.
#[test]
fn large_files_stay_usable_side_by_side() {
    let home = Home::new();
    let store = home.store("store");
    let size = if std::env::var_os("KURA_TEST_LONG").is_some() { 50 << 20 } else { 4 << 20 };
    let lines: Vec<String> = (0..size / 64).map(|number| format!("{number:062}\n")).collect();
    let mut other = lines.clone();
    other[lines.len() / 2] = "another\n".to_owned();
    let files = home.dir("files");
    fs::write(files.join("same.txt"), lines.concat()).unwrap();
    fs::write(files.join("apart.txt"), lines.concat()).unwrap();
    home.ok(&store, ["import".as_ref(), files.as_os_str()]);
    fs::write(files.join("same.txt"), other.concat()).unwrap();
    fs::write(files.join("apart.txt"), "nothing alike\n".repeat(size / 14)).unwrap();
    home.ok(&store, ["import".as_ref(), files.as_os_str()]);
    let web = Web::start(&home, &store);
    let cookie = web.session();
    let log = parsed(&web.post("/api/ask", &cookie, &json!({ "op": "log", "max": 2 })).body);
    let id = |at: usize| log["data"][at]["id"].as_str().unwrap().to_owned();
    let compare = |name: &str| {
        let place = |version: String| json!({ "version": version, "path": name });
        let pair = json!({ "before": place(id(1)), "after": place(id(0)), "context": 3 });
        parsed(&web.post("/api/compare", &cookie, &pair).body)
    };
    let near = compare("same.txt");
    assert_eq!((&near["kind"], &near["removed"], &near["added"]), (&json!("text"), &json!(1), &json!(1)), "{near}");
    let rows = near["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 9, "a gap, three lines, the change, three lines, a gap: {near}");
    assert_eq!(rows[4]["after"], json!([lines.len() / 2 + 1, "another"]));
    let apart = compare("apart.txt");
    assert_eq!((&apart["kind"], &apart["truncated"]), (&json!("text"), &json!(true)));
    assert!(apart["rows"].as_array().unwrap().len() <= 4_100);
}

#[test]
fn a_long_history_comes_in_pages() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "work");
    for number in 0..7 {
        fs::write(mount.file("counted.txt"), format!("{number}\n").repeat(number + 1)).unwrap();
        let message = format!("number {number}");
        run(home.kura(["snapshot", "-m", &message, "-w"]).arg(&mount.path)).ok();
    }
    let all = home.ok(&mount.path, ["log", "--json", "-w", mount.path.to_str().unwrap()]);
    let ids: Vec<String> = all.lines().map(|line| parsed(line)["id"].as_str().unwrap().to_owned()).collect();
    let web = Web::start(&home, &mount.path);
    let cookie = web.session();
    let mut found = Vec::new();
    let mut from: Option<String> = None;
    loop {
        let mut request = json!({ "op": "log", "max": 4 });
        if let Some(from) = &from {
            request["from"] = json!(from);
        }
        let answer = parsed(&web.post("/api/ask", &cookie, &request).body);
        let mut page: Vec<String> =
            answer["data"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect();
        from = (page.len() == 4).then(|| page.pop().unwrap());
        found.extend(page);
        if from.is_none() {
            break;
        }
    }
    assert_eq!(found, ids);
    // One file's history goes on in the same way.
    let from = &ids[3];
    let answer =
        parsed(&web.post("/api/ask", &cookie, &json!({ "op": "log", "path": "counted.txt", "from": from })).body);
    let later: Vec<&str> = answer["data"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect();
    assert!(!later.is_empty() && later.iter().all(|id| ids[3..].iter().any(|known| known == id)), "{later:?}");
    let curve = parsed(&web.get("/api/sizes", &format!("Cookie: {cookie}\r\n")).body);
    assert_eq!(curve["versions"], json!(ids.len()));
    assert_eq!(curve["points"].as_array().unwrap().len(), ids.len());
    // What is stored is counted when that is asked for, and kept.
    let stored = |query: &str| parsed(&web.get(&format!("/api/stored{query}"), &format!("Cookie: {cookie}\r\n")).body);
    assert!(stored("").is_null(), "the store is not listed for every look");
    let counted = stored("?again=true");
    assert_eq!(stored(""), counted);
    let points = counted["points"].as_array().unwrap();
    let bytes: u64 = tree(&store).iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let counted_bytes = counted["bytes"].as_u64().unwrap();
    assert!(counted_bytes <= bytes && counted_bytes > bytes / 2, "{bytes} {counted}");
    assert_eq!(points.last().unwrap()["bytes"], counted["bytes"]);
    assert!(points.iter().map(|point| point["bytes"].as_u64().unwrap()).is_sorted(), "{counted}");
    let kept = parsed(&web.post("/api/retention", &cookie, &json!({ "last": 3 })).body);
    assert_eq!(kept["kept"].as_u64().unwrap() + kept["forgotten"].as_u64().unwrap(), ids.len() as u64);
    assert_eq!(
        home.ok(&mount.path, ["log", "--json", "-w", mount.path.to_str().unwrap()]),
        all,
        "nothing was forgotten"
    );
}

/// Lists so many versions in a workspace, a minute apart, before its newest; what they hold is that of the newest. Their
/// ids, oldest first.
fn list_versions(home: &Home, store: &Path, count: i64) -> Vec<String> {
    let credential = || Ok(Credential::Passphrase(Secret::from_text(PASSPHRASE.to_owned())));
    let url = StoreUrl::Dir(store.canonicalize().unwrap());
    let options = OpenOptions::new(url, home.path("state"), home.path("cache"), Box::new(credential));
    let workspace = Workspace::open(options).unwrap();
    let newest = workspace.version(workspace.newest().unwrap()).unwrap();
    let (mut edits, mut ids, mut parent) = (Edits::new(), Vec::new(), None);
    let begin = newest.time.unix_ns() - count * MINUTE_NS;
    for number in 0..count {
        let mut record = (*newest).clone();
        let ms = (begin + number * MINUTE_NS) / 1_000_000;
        // UUIDv7: milliseconds, then what tells apart.
        let bits = (ms as u128) << 80 | 7 << 76 | 2 << 62 | number as u128;
        record.id = VersionId(uuid::Uuid::from_u128(bits));
        (record.time, record.generation) = (Timestamp::from_unix_ns(begin + number * MINUTE_NS), 1 + number as u64);
        record.parents = parent.into_iter().collect();
        record.counts.bytes = number as u64;
        add_version(&mut edits, &record);
        ids.push(record.id.to_string());
        parent = Some(record.id);
    }
    let generation = 1 + count as u64;
    add_version(&mut edits, &IndexRecord { generation, parents: parent.into_iter().collect(), ..(*newest).clone() });
    workspace.tree().edit_refs(&edits).unwrap();
    workspace.close(true).unwrap();
    ids
}

/// Whatever is asked about a history of any length is answered by a page of it.
#[test]
fn a_hundred_thousand_versions_stay_usable() {
    let count = if std::env::var_os("KURA_TEST_LONG").is_some() { 100_000 } else { 5_000 };
    let home = Home::new();
    let store = home.store("store");
    let ids = list_versions(&home, &store, count);
    let listed = |args: &[&str]| -> Vec<Value> {
        let all = home.ok(&store, [&["log", "--json"], args].concat());
        all.lines().map(|line| parsed(line)["id"].clone()).collect()
    };
    let older: Vec<Value> = ids.iter().rev().map(|id| json!(id)).collect();
    assert_eq!(listed(&[])[1..], older, "read by pages, each once");
    assert_eq!(listed(&["-n", "1001"])[1..], older[..1000]);
    assert_eq!(listed(&["-n", "600", "--from", ids.last().unwrap()]), older[..600]);
    let web = Web::start(&home, &store);
    let cookie = web.session();
    let log = |request: Value| {
        let started = std::time::Instant::now();
        let answer = web.post("/api/ask", &cookie, &request);
        println!("{request}: {} bytes after {} ms", answer.body.len(), started.elapsed().as_millis());
        assert!(answer.body.len() < 200_000, "a page and not the history: {} bytes", answer.body.len());
        parsed(&answer.body)
    };
    let first = log(json!({ "op": "log", "max": 101 }));
    assert_eq!(first["data"].as_array().unwrap().len(), 101);
    assert_eq!(first["data"][1]["id"], json!(ids[ids.len() - 1]));
    assert_eq!(first["message"], json!(format!("{} versions", count + 1)));
    let middle = &ids[ids.len() / 2];
    let page = log(json!({ "op": "log", "max": 101, "from": middle }));
    assert_eq!(page["data"][0]["id"], json!(middle));
    assert_eq!(page["data"][100]["id"], json!(ids[ids.len() / 2 - 100]));
    let end = log(json!({ "op": "log", "max": 101, "from": ids[0] }));
    assert_eq!(end["data"].as_array().unwrap().len(), 1, "the oldest of these");
    let curve = parsed(&web.get("/api/sizes", &format!("Cookie: {cookie}\r\n")).body);
    assert_eq!(curve["versions"], json!(count + 1));
    assert!(curve["points"].as_array().unwrap().len() <= 500);
    let kept = parsed(&web.post("/api/retention", &cookie, &json!({ "last": 10 })).body);
    let (stay, go) = (kept["kept"].as_u64().unwrap(), kept["forgotten"].as_u64().unwrap());
    assert!(stay >= 10 && stay + go == count as u64 + 1, "{stay} {go}");
    assert!(kept["first_forgotten"].as_array().unwrap().len() <= 200);
}

/// Lines of a small alphabet, some without an end.
fn text(seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut text: String = (0..next(30)).map(|_| format!("{}\n", ["a", "b", "", "c d"][next(4) as usize])).collect();
    if next(3) == 0 {
        text.push_str("end");
    }
    text
}

/// Whatever two texts are, what is shown of each side is that side, in its order, and lines that are said to be alike are.
#[test]
fn what_is_shown_side_by_side_is_both_texts() {
    let pairs = if std::env::var_os("KURA_TEST_LONG").is_some() { 2_000 } else { 60 };
    let home = Home::new();
    let store = home.store("store");
    let files = home.dir("files");
    for side in 0..2 {
        for pair in 0..pairs {
            fs::write(files.join(format!("{pair}.txt")), text(pair * 2 + side)).unwrap();
        }
        home.ok(&store, ["import".as_ref(), files.as_os_str()]);
    }
    let web = Web::start(&home, &store);
    let cookie = web.session();
    let log = parsed(&web.post("/api/ask", &cookie, &json!({ "op": "log", "max": 2 })).body);
    for pair in 0..pairs {
        let place = |at: usize| json!({ "version": log["data"][at]["id"], "path": format!("{pair}.txt") });
        let request = json!({ "before": place(1), "after": place(0), "context": 1000 });
        let found = parsed(&web.post("/api/compare", &cookie, &request).body);
        let (old, new) = (text(pair * 2), text(pair * 2 + 1));
        assert_eq!(found["same"], json!(old == new), "{pair}");
        let side = |name: &str| -> Vec<String> {
            let rows = found["rows"].as_array().unwrap().iter().filter_map(|row| row[name][1].as_str());
            rows.map(str::to_owned).collect()
        };
        if old != new {
            assert_eq!(side("before"), old.lines().collect::<Vec<&str>>(), "{pair}: {found}");
            assert_eq!(side("after"), new.lines().collect::<Vec<&str>>(), "{pair}: {found}");
        }
        for row in found["rows"].as_array().unwrap().iter().filter(|row| row["tag"] == "=") {
            assert_eq!(row["before"][1], row["after"][1], "{pair}");
        }
    }
}
