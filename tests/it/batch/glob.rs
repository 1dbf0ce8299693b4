//! The table of patterns, which is what the documentation of patterns means.

use kura::apps::batch::Glob;
use proptest::prelude::*;

/// Pattern, what it matches, what it does not.
const TABLE: &[(&str, &[&str], &[&str])] = &[
    ("*.csv", &["a.csv", "ä.csv", "a b.csv"], &["a.txt", "d/a.csv", ".csv", ".a.csv", "a.csv.gz", "A.CSV"]),
    ("**/*.csv", &["a.csv", "d/a.csv", "d/e/f/a.csv"], &["a.txt", ".d/a.csv", "d/.a.csv", "d/a.csv/b"]),
    ("**", &["a", "d/a", "d/e/a"], &[".a", "d/.a"]),
    ("d/**", &["d/a", "d/e/a"], &["d", "dd/a", "d/.a", "e/d/a"]),
    ("d/**/a", &["d/a", "d/e/a", "d/e/f/a"], &["a", "d/ea", "d/e/fa", "da"]),
    ("**/e/**", &["e/a", "d/e/a", "d/e/f/a"], &["e", "d/e", "ee/a"]),
    ("d/*/a", &["d/e/a"], &["d/a", "d/e/f/a", "d/.e/a"]),
    ("a?c", &["abc", "aäc", "a.c"], &["ac", "a/c", "abbc"]),
    ("?a", &["xa"], &[".a", "a"]),
    ("[a-c]x", &["ax", "bx", "cx"], &["dx", "x", "[a-c]x"]),
    ("[!a-c]x", &["dx", "-x"], &["ax", "x", ".x"]),
    ("[^a]x", &["bx"], &["ax"]),
    ("[]a]x", &["]x", "ax"], &["bx"]),
    ("[[:digit:][:upper:]]", &["7", "Q"], &["q", "77"]),
    ("[a", &["[a"], &["a"]),
    ("a[/]b", &["a[/]b"], &["a/b"]),
    ("{a,b}.txt", &["a.txt", "b.txt"], &["c.txt", "{a,b}.txt"]),
    ("{a,b{c,d}}", &["a", "bc", "bd"], &["b", "ac"]),
    ("{,x}a", &["a", "xa"], &["ya"]),
    ("f{1..3}", &["f1", "f2", "f3"], &["f4", "f1..3"]),
    ("f{3..1}", &["f2"], &["f0"]),
    ("{a}", &["{a}"], &["a"]),
    ("{**/x,y}/z", &["x/z", "d/x/z", "y/z"], &["z", "d/y/z"]),
    ("?(a|b)c", &["c", "ac", "bc"], &["abc"]),
    ("*(ab|c)", &["ab", "abc", "cab", "ccc"], &["a", "abd"]),
    ("+(a|b)c", &["ac", "abbac"], &["c"]),
    ("@(a|b*)c", &["ac", "bc", "bxxc"], &["c", "axc"]),
    ("+(a|+(b))", &["abba"], &["c"]),
    (r"\*", &["*"], &["a"]),
    (r"a\{b", &["a{b"], &["ab"]),
    ("!*.csv", &["a.txt", "d/a.csv"], &["a.csv"]),
    ("!!*.csv", &["a.csv"], &["a.txt"]),
    ("/a", &["a"], &["d/a"]),
    (".*", &[".a", ".ab"], &["a"]),
    ("d/.*/a", &["d/.e/a"], &["d/e/a"]),
    ("a**b", &["ab", "axxb"], &["a/b"]),
    ("***", &["abc"], &["a/b"]),
    ("a\nb", &["a\nb"], &["ab"]),
];

#[test]
fn patterns_match_what_the_table_says() {
    for (pattern, matched, unmatched) in TABLE {
        let glob = Glob::new(pattern, false).unwrap();
        for path in *matched {
            assert!(glob.matches(path.as_bytes()), "`{pattern}` matches `{path}`");
        }
        for path in *unmatched {
            assert!(!glob.matches(path.as_bytes()), "`{pattern}` does not match `{path}`");
        }
    }
}

/// The same table as the documentation has it; `KURA_WRITE_DOCS=1` writes it there anew.
#[test]
fn the_documentation_has_the_table() {
    let cell = |text: &str| format!("`{}`", text.replace('\n', "\\n").replace('|', "\\|"));
    let cells = |paths: &[&str]| paths.iter().map(|path| cell(path)).collect::<Vec<_>>().join(" ");
    let rows: String = TABLE
        .iter()
        .map(|(pattern, matched, unmatched)| {
            format!("| {} | {} | {} |\n", cell(pattern), cells(matched), cells(unmatched))
        })
        .collect();
    let table = format!("| pattern | matches | does not match |\n|---|---|---|\n{rows}");
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/batch.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once("<!-- patterns -->\n").unwrap();
    let (found, after) = rest.split_once("<!-- end of patterns -->\n").unwrap();
    if std::env::var_os("KURA_WRITE_DOCS").is_some() {
        let whole = format!("{before}<!-- patterns -->\n{table}<!-- end of patterns -->\n{after}");
        return std::fs::write(&path, whole).unwrap();
    }
    assert!(found == table, "docs/batch.md has another table of patterns: KURA_WRITE_DOCS=1 writes it anew");
}

#[test]
fn dots_are_names_like_others_when_that_is_asked_for() {
    for (pattern, path) in [("*", ".a"), ("**", "d/.a"), ("**/*.csv", ".d/a.csv"), ("?a", ".a"), ("*.csv", ".csv")] {
        assert!(Glob::new(pattern, true).unwrap().matches(path.as_bytes()), "`{pattern}` matches `{path}`");
    }
}

#[test]
fn bytes_that_are_no_text_are_characters() {
    let glob = Glob::new("a?.csv", false).unwrap();
    assert!(glob.matches(b"a\xff.csv"));
    assert!(!glob.matches(b"a\xff\xfe.csv"));
    assert!(Glob::new("*", false).unwrap().matches(b"\xff\xfe"));
}

#[test]
fn a_directory_whose_content_is_excluded_is_known() {
    let below = |pattern: &str, dir: &str| Glob::new(pattern, true).unwrap().matches_all_below(dir.as_bytes());
    assert!(below("tmp/**", "tmp") && below("**/tmp/**", "a/tmp") && below("tmp/**", "tmp/x") && below("**", "a"));
    assert!(
        !below("tmp/*", "tmp") && !below("tmp/**", "tmpx") && !below("!tmp/**", "tmp") && !below("tmp/**/x", "tmp")
    );
}

#[test]
fn patterns_that_cannot_be_are_refused() {
    let long = "a".repeat(5000);
    let many = "{a,b}".repeat(12);
    let deep = format!("{}a{}", "@(".repeat(40), ")".repeat(40));
    for pattern in ["", "!", "a\\", "!(a)", "a!(b)c", "@(a", "@(a/b)", &long, &many, &deep] {
        assert!(Glob::new(pattern, false).is_err(), "`{pattern}`");
    }
}

#[test]
fn no_pattern_takes_for_ever() {
    // Backtracking would take longer than anybody lives.
    let glob = Glob::new(&format!("{}b", "*a".repeat(60)), false).unwrap();
    assert!(!glob.matches("a".repeat(4000).as_bytes()));
    let glob = Glob::new(&format!("{}b", "*(a|*(a))".repeat(6)), false).unwrap();
    assert!(!glob.matches("a".repeat(2000).as_bytes()));
}

#[test]
fn a_pattern_of_many_braces_is_refused_at_once() {
    // To read on from each brace that stays open, for each pattern on the way, would take hours.
    let open = "{".repeat(1300);
    for closed in ["{,}".repeat(600), ["{,}".repeat(8), "{1..1}".repeat(440)].concat()] {
        let error = Glob::new(&[&*open, &closed].concat(), false).unwrap_err().to_string();
        assert!(error.contains("braces"), "{error}");
    }
}

#[test]
fn braces_that_stay_open_or_hold_nothing_stand_for_themselves() {
    for (pattern, matched, unmatched) in [
        ("{a,{b,c}", ["{a,b", "{a,c"], "a"),
        ("{{a,b}}", ["{a}", "{b}"], "a"),
        ("{{1..2},x}", ["1", "x"], "{1}"),
        ("}{a,b}", ["}a", "}b"], "a"),
        (r"{a\,b,c}", ["a,b", "c"], "a"),
        ("{a,b{c}", ["{a,b{c}", "{a,b{c}"], "a"),
    ] {
        let glob = Glob::new(pattern, false).unwrap();
        assert!(matched.iter().all(|path| glob.matches(path.as_bytes())), "`{pattern}`");
        assert!(!glob.matches(unmatched.as_bytes()), "`{pattern}`");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_pattern_and_path_are_survived(pattern in "[a-c*?\\[\\]!{},.|()+@/\\\\^-]{0,24}", path in "[a-c./]{0,24}") {
        if let Ok(glob) = Glob::new(&pattern, false) {
            glob.matches(path.as_bytes());
            glob.matches_all_below(path.as_bytes());
        }
    }

    #[test]
    fn a_path_is_matched_by_itself_written_plainly(path in "[a-c.*?!{}()\\[\\]]{1,16}") {
        let escaped: String = path.chars().flat_map(|c| ['\\', c]).collect();
        prop_assert!(Glob::new(&escaped, false).unwrap().matches(path.as_bytes()));
    }
}
