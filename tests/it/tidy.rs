//! The house rules that a program can check.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms from the bottom up; each uses only those before it.
const ROOMS: [&str; 12] =
    ["base", "crypto", "store", "blob", "version", "worktree", "sync", "workspace", "control", "fs", "fuse", "cli"];
/// Between `workspace` and `control` when it is there; the applications in it do not see each other.
const APPS: &str = "apps";

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 80;
const LINE_WIDTH_MAX: usize = 120;
/// Tests hold scripts in strings, which the formatter does not wrap.
const LINE_WIDTH_MAX_IN_TESTS: usize = 180;

/// What may stand only where it is named: the word, and the paths (prefixes, below `src`).
const ONLY_IN: &[(&str, &[&str])] = &[
    ("fuser", &["fuse/"]),
    ("tokio", &["store/s3/", "apps/release/trust.rs", "cli/web/"]),
    ("aws_sdk", &["store/s3/"]),
    ("aws_lc", &["crypto/cipher.rs", "apps/batch/tls.rs", "apps/release/keys.rs", "apps/release/http.rs"]),
    ("println!", &["cli/", "main.rs"]),
    ("print!", &["cli/", "main.rs"]),
    ("fs::OpenOptions", &["base/disk.rs", "cli/"]),
    ("File::create", &["base/disk.rs", "cli/"]),
    ("SystemTime::now", &["base/clock.rs"]),
    ("getrandom::", &["base/random.rs"]),
    ("unsafe ", &[]),
    ("dbg!", &[]),
];
/// Rooms that write files of the user's own, outside kura's local state.
const FILES_OF_THE_USER: [&str; 4] =
    ["workspace/export.rs", "workspace/import.rs", "apps/batch/local.rs", "apps/batch/work.rs"];
/// What is no write: all that is allowed of `std::fs` outside the disk and the command line.
const READING: [&str; 8] =
    ["read", "read_to_string", "read_dir", "read_link", "metadata", "symlink_metadata", "canonicalize", "exists"];
/// Unfinished business.
const BANNED_WORDS: [&str; 4] =
    [concat!("to", "do!"), concat!("unimpl", "emented!"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Exceptions: path, function and why.
const LONG_FUNCTIONS: &[(&str, &str)] = &[];

struct Source {
    /// Below the package, e.g. `src/base/disk.rs`.
    path: String,
    text: String,
    /// The text with comments, strings and characters blanked; the same lines.
    code: String,
}

impl Source {
    fn in_src(&self) -> Option<&str> {
        self.path.strip_prefix("src/")
    }

    fn room(&self) -> Option<&str> {
        self.in_src()?.split_once('/').map(|(room, _)| room)
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> =
        ["src", "tests", "benches"].iter().map(|dir| root.join(dir)).filter(|dir| dir.exists()).collect();
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = code_of(&text);
                assert_eq!(text.lines().count(), code.lines().count(), "{}", path.display());
                let path = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.push(Source { path, text, code });
            }
        }
    }
    assert!(found.len() > 20, "the sources are where they are looked for");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Blanks comments, strings and characters, keeping the lines.
fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skipped(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Where the comment, string or character that starts at `at` ends; `at` when none does.
fn skipped(chars: &[char], at: usize) -> usize {
    let find =
        |from: usize, stop: &dyn Fn(usize) -> bool| (from..chars.len()).find(|i| stop(*i)).unwrap_or(chars.len());
    let starts = |i: usize, text: &str| text.chars().enumerate().all(|(n, c)| chars.get(i + n) == Some(&c));
    let in_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    if starts(at, "//") {
        return find(at, &|i| chars[i] == '\n');
    }
    if starts(at, "/*") {
        return (find(at + 2, &|i| starts(i, "*/")) + 2).min(chars.len());
    }
    if chars[at] == 'r' && (!in_word || chars[at - 1] == 'b') {
        let quote = find(at + 1, &|i| chars[i] != '#');
        if chars.get(quote) == Some(&'"') {
            let close = format!("\"{}", "#".repeat(quote - at - 1));
            return (find(quote + 1, &|i| starts(i, &close)) + close.len()).min(chars.len());
        }
    }
    let quoted = |quote: char| {
        let mut i = at + 1;
        while i < chars.len() && chars[i] != quote {
            i += if chars[i] == '\\' { 2 } else { 1 };
        }
        (i + 1).min(chars.len())
    };
    match chars[at] {
        '"' => quoted('"'),
        // A character, not a lifetime.
        '\'' if starts(at + 1, "\\") || chars.get(at + 2) == Some(&'\'') => quoted('\''),
        _ => at,
    }
}

fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// All places of a word in the code, as line numbers; a word is not part of a longer one.
fn lines_with(source: &Source, word: &str) -> Vec<usize> {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let holds = |line: &str| {
        line.match_indices(word).any(|(at, _)| {
            let open_end = !word.ends_with(|c: char| c.is_alphanumeric());
            !part(line[..at].chars().next_back()) && (open_end || !part(line[at + word.len()..].chars().next()))
        })
    };
    source.code.lines().enumerate().filter(|(_, line)| holds(line)).map(|(number, _)| number + 1).collect()
}

#[test]
fn the_scanner_sees_code_only() {
    let code = code_of("a(\"}\\\"{\"); // {\nlet c = '{'; fn f<'a>(x: &'a u8) { r#\"{\"#; b'\\'' }");
    assert_eq!(code.matches('{').count(), 1);
    assert_eq!(code.matches('}').count(), 1);
    assert!(code.contains("fn f<'a>(x: &'a u8)"));
    let long = format!("fn f() {{\n{}}}\n", "x();\n".repeat(100));
    assert_eq!(functions(&code_of(&long)), [("f".to_owned(), 1, 102)]);
}

#[test]
fn rooms_use_only_rooms_below_them() {
    let lib = sources().into_iter().find(|source| source.path == "src/lib.rs").unwrap();
    let mods: Vec<&str> =
        lib.code.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let mut order: Vec<&str> = ROOMS.to_vec();
    if mods.contains(&APPS) {
        order.insert(order.iter().position(|room| *room == "control").unwrap(), APPS);
    }
    assert_eq!(mods, order, "lib.rs lists the rooms in their order");
    let rank = |room: &str| order.iter().position(|known| *known == room);
    let mut problems = Vec::new();
    for source in sources() {
        let Some(room) = source.room() else { continue };
        let own = rank(room).unwrap_or_else(|| panic!("{}: no such room", source.path));
        for (number, line) in source.code.lines().enumerate() {
            for (at, _) in line.match_indices("crate::") {
                let rest = &line[at + "crate::".len()..];
                let used: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if rank(&used).is_none_or(|used| used > own) {
                    problems.push(format!("{}:{}: `crate::{used}` is not below {room}", source.path, number + 1));
                }
            }
        }
        if room == APPS {
            let app = source.in_src().unwrap().split('/').nth(1).unwrap().trim_end_matches(".rs").to_owned();
            for (number, line) in source.code.lines().enumerate() {
                let foreign = line.split("apps::").skip(1).any(|rest| !rest.starts_with(&app) && app != "mod");
                if foreign {
                    problems.push(format!("{}:{}: an application uses another", source.path, number + 1));
                }
            }
        }
    }
    report(&problems);
}

#[test]
fn dependencies_stay_in_their_rooms() {
    let mut problems = Vec::new();
    for source in sources() {
        let Some(path) = source.in_src() else { continue };
        for (word, homes) in ONLY_IN {
            if !homes.iter().any(|home| path.starts_with(home)) {
                for line in lines_with(&source, word) {
                    problems.push(format!("{}:{line}: `{word}` belongs in {homes:?}", source.path));
                }
            }
        }
        for (number, line) in source.code.lines().enumerate() {
            if FILES_OF_THE_USER.contains(&path) || path == "base/disk.rs" || path.starts_with("cli/") {
                continue;
            }
            for rest in line.split("std::fs").skip(1) {
                let name: String =
                    rest.trim_start_matches(':').chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if !READING.contains(&name.as_str()) {
                    problems.push(format!("{}:{}: `std::fs` writes only in base/disk.rs", source.path, number + 1));
                }
            }
        }
    }
    report(&problems);
}

#[test]
fn nothing_is_left_unfinished() {
    let mut problems = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            for word in BANNED_WORDS.iter().filter(|word| line.contains(**word)) {
                problems.push(format!("{}:{}: {word}", source.path, number + 1));
            }
        }
    }
    report(&problems);
}

/// Name, first line and number of lines of every function with a body.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = line.split_once("fn ").filter(|(before, _)| before.is_empty() || before.ends_with(' ')) else {
            continue;
        };
        let name: String = name.1.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if name.is_empty() {
            continue;
        }
        let (mut depth, mut nested, mut opened) = (0i32, 0i32, false);
        'body: for (count, line) in lines[start..].iter().enumerate() {
            for c in line.chars() {
                match c {
                    '{' => {
                        depth += 1;
                        opened = true;
                    }
                    '}' => depth -= 1,
                    '(' | '[' => nested += 1,
                    ')' | ']' => nested -= 1,
                    // A declaration without a body.
                    ';' if !opened && nested == 0 => break 'body,
                    _ => {}
                }
                if opened && depth == 0 {
                    found.push((name, start + 1, count + 1));
                    break 'body;
                }
            }
        }
    }
    found
}

#[test]
fn files_functions_and_lines_are_short() {
    let mut problems = Vec::new();
    for source in sources() {
        let count = source.text.lines().count();
        if source.in_src().is_some() && count > FILE_LINES_MAX {
            problems.push(format!("{}: {count} lines, at most {FILE_LINES_MAX}", source.path));
        }
        for (name, line, count) in functions(&source.code) {
            let excepted = LONG_FUNCTIONS.iter().any(|(path, known)| *path == source.path && *known == name);
            if count > FUNCTION_LINES_MAX && !excepted {
                problems
                    .push(format!("{}:{line}: {name} has {count} lines, at most {FUNCTION_LINES_MAX}", source.path));
            }
        }
        for (number, line) in source.text.lines().enumerate() {
            let width_max = if source.in_src().is_some() { LINE_WIDTH_MAX } else { LINE_WIDTH_MAX_IN_TESTS };
            if line.chars().count() > width_max {
                problems.push(format!("{}:{}: longer than {width_max}", source.path, number + 1));
            }
        }
    }
    report(&problems);
}

#[test]
fn every_room_opens_with_what_it_is() {
    let mut problems = Vec::new();
    for source in sources() {
        if source.path.ends_with("/mod.rs") && source.in_src().is_some() && !source.text.starts_with("//! ") {
            problems.push(format!("{}: does not open with `//!`", source.path));
        }
    }
    report(&problems);
}

#[test]
fn every_test_file_is_listed() {
    let sources = sources();
    let main = sources.iter().find(|source| source.path == "tests/it/main.rs").unwrap();
    let mut problems = Vec::new();
    for source in &sources {
        let Some(name) = source.path.strip_prefix("tests/it/") else { continue };
        let module = name.split('/').next().unwrap().trim_end_matches(".rs");
        let listed = main.code.lines().any(|line| line.trim() == format!("mod {module};"));
        if module != "main" && !listed {
            problems.push(format!("{}: tests/it/main.rs does not list `mod {module};`", source.path));
        }
    }
    report(&problems);
}
