//! Documentation that is made from the program.

use std::path::Path;

/// `KURA_WRITE_DOCS=1` writes the file anew.
#[test]
fn the_reference_of_control_files_is_that_of_the_command_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/control.md");
    let reference = kura::control::reference();
    if std::env::var_os("KURA_WRITE_DOCS").is_some() {
        std::fs::write(&path, &reference).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(written == reference, "docs/control.md is not what the table says: KURA_WRITE_DOCS=1 writes it anew");
}

/// What the Debian package lists is there, or made by the script that makes the package.
#[test]
fn the_package_lists_what_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest: toml::Table = std::fs::read_to_string(root.join("Cargo.toml")).unwrap().parse().unwrap();
    let script = std::fs::read_to_string(root.join("packaging/deb")).unwrap();
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().unwrap();
    let mut places = std::collections::HashSet::new();
    for asset in assets {
        let [source, place, mode] = [0, 1, 2].map(|at| asset[at].as_str().unwrap());
        let (dir, name) = source.rsplit_once('/').unwrap_or(("", source));
        match dir.strip_prefix("target/package") {
            Some("") => assert!(script.contains(&format!("\"$out/{name}\"")), "{source}"),
            Some(below) => assert!(script.contains(&format!("\"$out{below}\"")), "{source}"),
            None if source == "target/release/kura" => {}
            None => match name.strip_prefix('*') {
                Some(end) => {
                    let mut found = std::fs::read_dir(root.join(dir)).unwrap().flatten();
                    assert!(found.any(|entry| entry.file_name().to_string_lossy().ends_with(end)), "{source}");
                }
                None => assert!(root.join(source).is_file(), "{source}"),
            },
        }
        assert!(place.starts_with("usr/") && ["644", "755"].contains(&mode), "{source}");
        assert!(places.insert(place) || place.ends_with('/'), "{place}");
    }
    assert!(places.len() >= 8, "{places:?}");
}
