//! What is done to files: each processing on good and bad input, and commands in their private place.

use kura::apps::batch::{Job, WorkDir};

use super::rig::{Rig, job};

/// Why a processing refuses a content, of which it would make too much.
fn refused(process: &str, content: &[u8]) -> String {
    made(process, content).map(|made| made.len()).unwrap_err()
}

/// What a processing makes of a content; the reason where it refuses.
fn made(process: &str, content: &[u8]) -> Result<Vec<u8>, String> {
    let rig = Rig::new();
    rig.put("file", content);
    let report = rig.run(&job(process), rig.files());
    match report.failures.first() {
        Some(failure) => {
            assert_eq!((failure.code.as_str(), rig.get("file").as_slice()), ("processing", content));
            Err(failure.reason.clone())
        }
        None => Ok(rig.get("file")),
    }
}

#[test]
fn texts_are_replaced() {
    let replace = r#"{"kind": "replace", "find": "ab", "with": "b"}"#;
    assert_eq!(made(replace, b"ab aab abab").unwrap(), b"b ab bb");
    assert_eq!(made(replace, b"").unwrap(), b"");
    assert_eq!(made(replace, b"\xffab\0").unwrap(), b"\xffb\0");
    let regex = r#"{"kind": "regex", "find": "(\\d+)-(\\d+)", "with": "$2/$1"}"#;
    assert_eq!(made(regex, b"1-2, 3-4").unwrap(), b"2/1, 4/3");
}

#[test]
fn ends_of_lines_are_made_the_same() {
    let (lf, crlf) = (r#"{"kind": "line-endings", "to": "lf"}"#, r#"{"kind": "line-endings", "to": "crlf"}"#);
    assert_eq!(made(lf, b"a\r\nb\nc\rd\r\r\ne\r").unwrap(), b"a\nb\nc\rd\r\ne\r");
    assert_eq!(made(crlf, b"a\r\nb\n\n").unwrap(), b"a\r\nb\r\n\r\n");
    // Across the pieces that are read at once.
    let long = [vec![b'x'; 64 * 1024 - 1], b"\r\ny".to_vec()].concat();
    assert_eq!(made(lf, &long).unwrap(), [vec![b'x'; 64 * 1024 - 1], b"\ny".to_vec()].concat());
}

#[test]
fn encodings_are_changed_or_refused() {
    let to_utf8 = r#"{"kind": "reencode", "from": "shift_jis", "to": "utf-8"}"#;
    assert_eq!(made(to_utf8, b"\x91\xa0").unwrap(), "蔵".as_bytes());
    assert!(made(to_utf8, b"\xff\xff").unwrap_err().contains("not in Shift_JIS"));
    let to_latin = r#"{"kind": "reencode", "from": "utf-8", "to": "windows-1252"}"#;
    assert_eq!(made(to_latin, "é".as_bytes()).unwrap(), b"\xe9");
    assert!(made(to_latin, "蔵".as_bytes()).unwrap_err().contains("does not have"));
}

#[test]
fn gzip_is_read_by_gzip() {
    let packed = made(r#"{"kind": "gzip"}"#, b"text text text").unwrap();
    let mut text = Vec::new();
    std::io::copy(&mut flate2::bufread::MultiGzDecoder::new(&*packed), &mut text).unwrap();
    assert_eq!(text, b"text text text");
}

#[test]
fn json_is_patched_and_else_left_as_it_was() {
    let patch = |ops: &str| format!(r#"{{"kind": "json-patch", "patch": {ops}}}"#);
    let cases: &[(&str, &str, &str)] = &[
        (r#"[{"op":"replace","path":"/a","value":2}]"#, r#"{"z":1,"a":1}"#, r#"{"z":1,"a":2}"#),
        (
            r#"[{"op":"add","path":"/b","value":[1]}]"#,
            r#"{"n":12345678901234567890123.5e10}"#,
            r#"{"n":12345678901234567890123.5e10,"b":[1]}"#,
        ),
        (r#"[{"op":"add","path":"/1","value":9}]"#, "[1,2]", "[1,9,2]"),
        (r#"[{"op":"add","path":"/-","value":9}]"#, "[1,2]\n", "[1,2,9]\n"),
        (r#"[{"op":"remove","path":"/a~1b"}]"#, r#"{"a/b":1,"c":"\u0041"}"#, r#"{"c":"\u0041"}"#),
        (r#"[{"op":"move","from":"/a","path":"/b"}]"#, r#"{"a":{"x":1}}"#, r#"{"b":{"x":1}}"#),
        (r#"[{"op":"copy","from":"/a","path":"/b"}]"#, r#"{"a":1}"#, r#"{"a":1,"b":1}"#),
        (r#"[{"op":"test","path":"/a","value":1},{"op":"replace","path":"","value":[]}]"#, r#"{"a":1}"#, "[]"),
        (
            r#"[{"op":"replace","path":"/a","value":2}]"#,
            "{\n  \"b\": {},\n  \"a\": [\n    1\n  ]\n}\n",
            "{\n  \"b\": {},\n  \"a\": 2\n}\n",
        ),
    ];
    for (ops, before, after) in cases {
        let found = String::from_utf8(made(&patch(ops), before.as_bytes()).unwrap()).unwrap();
        assert_eq!(found, *after, "{ops}");
    }
    for (ops, document) in [
        (r#"[{"op":"remove","path":"/b"}]"#, r#"{"a":1}"#),
        (r#"[{"op":"add","path":"/5","value":1}]"#, "[]"),
        (r#"[{"op":"replace","path":"/01","value":1}]"#, "[1,2]"),
        (r#"[{"op":"test","path":"/a","value":2}]"#, r#"{"a":1}"#),
        (r#"[{"op":"move","from":"/a","path":"/a/b"}]"#, r#"{"a":{}}"#),
        (r#"[{"op":"remove","path":"/a"}]"#, "{broken"),
        (r#"[{"op":"remove","path":"a"}]"#, r#"{"a":1}"#),
        (r#"[{"op":"remove","path":"/a"}]"#, "\u{1}"),
    ] {
        made(&patch(ops), document.as_bytes()).unwrap_err();
    }
    made(&patch(r#"[{"op":"remove","path":"/a"}]"#), "[".repeat(100_000).as_bytes()).unwrap_err();
}

#[test]
fn a_json_patch_cannot_grow_a_document_without_bound() {
    let patch = |ops: &[String]| format!(r#"{{"kind": "json-patch", "patch": [{}]}}"#, ops.join(","));
    let copy = |from: &str, path: &str| format!(r#"{{"op": "copy", "from": "{from}", "path": "{path}"}}"#);
    // Each copy is as long as everything before.
    let doubling: Vec<String> = (0..10).map(|number| copy("", &format!("/b{number}"))).collect();
    let document = format!(r#"{{"a": "{}"}}"#, "x".repeat(1 << 20));
    let reason = refused(&patch(&doubling), document.as_bytes());
    assert!(reason.contains("operation 9 of the patch: with a copy of `` at `/b8`"), "{reason}");
    // Each copy is nested one deeper than the one before.
    let reason = refused(&patch(&vec![copy("/a", "/a/b"); 200]), br#"{"a": {}}"#);
    assert!(reason.contains("operation 128 of the patch: `/a/b` would be nested"), "{reason}");
    let nested = |path: &str, depth: usize| {
        format!(r#"{{"op": "add", "path": "{path}", "value": {}{}}}"#, "[".repeat(depth), "]".repeat(depth))
    };
    let deep = [nested("/a", 100), nested(&format!("/a{}", "/0".repeat(100)), 50)];
    let reason = refused(&patch(&deep), b"{}");
    assert!(reason.contains("operation 2 of the patch: ") && reason.contains("would be nested"), "{reason}");
}

#[test]
fn an_indentation_cannot_grow_a_document_without_bound() {
    let patch = r#"{"kind": "json-patch", "patch": []}"#;
    let blanks = " ".repeat(1 << 20);
    let document = format!("[\n{blanks}1,\n{blanks}2\n]\n");
    assert_eq!(made(patch, document.as_bytes()).unwrap(), b"[\n  1,\n  2\n]\n");
    let document = format!("[\n{}{}{}0{}]", " ".repeat(16), "[".repeat(120), "0,".repeat(700_000), "]".repeat(120));
    let reason = refused(patch, document.as_bytes());
    assert!(reason.contains("longer than"), "{reason}");
}

#[test]
fn what_a_regular_expression_makes_is_bounded() {
    let regex = |with: &str| format!(r#"{{"kind": "regex", "find": "(?s)(.+)", "with": "{with}"}}"#);
    let reason = refused(&regex(&"$1".repeat(200)), &vec![b'x'; 6 << 20]);
    assert!(reason.contains("longer than"), "{reason}");
    assert_eq!(made(&regex("<$1$1>"), b"ab").unwrap(), b"<abab>");
    let plain = r#"{"kind": "regex", "find": "a", "with": "bc"}"#;
    assert_eq!(made(plain, b"xaya").unwrap(), b"xbcybc");
}

#[test]
fn commands_see_one_file_and_may_change_it() {
    assert_eq!(made(r#"{"kind": "command", "argv": ["cp", "{in}", "{out}"]}"#, b"same").unwrap(), b"same");
    assert_eq!(made(r#"{"kind": "command", "argv": ["sed", "-i", "s/a/b/", "{in}"]}"#, b"a").unwrap(), b"b");
    assert_eq!(
        made(r#"{"kind": "command", "argv": ["dd", "if={in}", "of={out}", "status=none"]}"#, b"d").unwrap(),
        b"d"
    );
    let script = r#"{"kind": "command", "argv": ["sh", "-c", "tr a-z A-Z < \"$1\" > \"$2\"", "sh", "{in}", "{out}"]}"#;
    assert_eq!(made(script, b"loud").unwrap(), b"LOUD");
}

#[test]
fn commands_that_fail_are_told_with_their_words() {
    let reason = made(r#"{"kind": "command", "argv": ["sh", "-c", "echo no such luck >&2; exit 3", "{in}"]}"#, b"x");
    assert!(reason.unwrap_err().contains("no such luck"));
    let reason = made(r#"{"kind": "command", "argv": ["/no/such/program", "{in}"]}"#, b"x");
    assert!(reason.unwrap_err().contains("cannot be run"));
    let reason = made(r#"{"kind": "command", "argv": ["sh", "-c", "kill -9 $$", "{in}"]}"#, b"x");
    assert!(reason.unwrap_err().contains("signal"));
    let reason = made(r#"{"kind": "command", "argv": ["sleep", "600", "{in}"], "timeout_ms": 50}"#, b"x");
    assert!(!reason.unwrap_err().is_empty());
    let background = r#"{"kind": "command", "argv": ["sh", "-c", "sleep 600 & sleep 600", "{in}"], "timeout_ms": 50}"#;
    assert!(made(background, b"x").unwrap_err().contains("longer than"));
}

#[test]
fn jobs_that_cannot_be_done_are_refused() {
    let head = r#""name": "x", "source": {"url": "test:"}"#;
    for process in [
        r#"{"kind": "replace", "find": "", "with": "x"}"#,
        r#"{"kind": "regex", "find": "(", "with": "x"}"#,
        r#"{"kind": "reencode", "from": "klingon", "to": "utf-8"}"#,
        r#"{"kind": "reencode", "from": "utf-8", "to": "utf-16le"}"#,
        r#"{"kind": "command", "argv": []}"#,
        r#"{"kind": "command", "argv": ["true"]}"#,
        r#"{"kind": "magic"}"#,
        r#"{"kind": "gzip", "level": 9}"#,
    ] {
        assert!(Job::parse(&format!("{{{head}, \"process\": {process}}}")).is_err(), "{process}");
    }
    let none = r#""process": {"kind": "none"}"#;
    for text in [
        format!(r#"{{"name": "a/b", "source": {{"url": "x"}}, {none}}}"#),
        format!(r#"{{{head}, {none}, "unknown": 1}}"#),
        format!(r#"{{{head}, {none}, "run": {{"workers": 0}}}}"#),
        format!(r#"{{{head}, {none}, "walk": {{"include": ["!(a)"]}}}}"#),
        format!(r#"{{{head}, {none}, "source": {{"url": "x", "password": "secret"}}}}"#),
        " ".repeat(300_000),
    ] {
        assert!(Job::parse(&text).is_err(), "{text}");
    }
    let toml =
        "name = \"t\"\n[source]\nurl = \"file:///x\"\n[walk]\ninclude = [\"**/*.csv\"]\n[process]\nkind = \"gzip\"\n";
    assert_eq!(Job::parse(toml).unwrap().walk.include, ["**/*.csv"]);
}

#[test]
fn the_place_of_plaintext_is_private_in_memory_and_goes_away() {
    let work = WorkDir::make(None).unwrap();
    let file = work.file().unwrap();
    let dir = file.path().parent().unwrap().to_owned();
    let kind = nix::sys::statfs::statfs(&dir).unwrap().filesystem_type();
    assert_eq!(kind, nix::sys::statfs::TMPFS_MAGIC);
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
    // Another run leaves it alone while it is in use.
    drop(WorkDir::make(None).unwrap());
    assert!(file.path().exists());
    drop(file);
    drop(work);
    assert!(!dir.exists());
}
