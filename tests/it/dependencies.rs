//! Promise: dependencies have licences, sources and names that `deny.toml` allows. What `cargo deny check licenses bans
//! sources` says, without having to build that first; its advisories need the advisory database.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The only registry.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read_toml(path: &Path) -> toml::Value {
    toml::from_str(&std::fs::read_to_string(path).unwrap())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn strings(list: &toml::Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

/// The packages that are built for a target: name and version, and the licence.
fn packages(target: &str) -> BTreeSet<(String, String)> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["tree", "--locked", "--offline", "--prefix", "none", "--format", "{p}|{l}", "--target", target])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let packages = lines.lines().filter_map(|line| line.trim_end_matches(" (*)").split_once('|'));
    packages.map(|(package, licence)| (package.to_owned(), licence.to_owned())).collect()
}

/// Whether an SPDX expression can be satisfied; `/` is the old form of `OR`.
fn is_allowed(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let verdict = any_of(&words, &mut at, allowed);
    verdict && at == words.len()
}

fn any_of(words: &[&str], at: &mut usize, allowed: &[&str]) -> bool {
    let mut verdict = all_of(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        verdict |= all_of(words, at, allowed);
    }
    verdict
}

fn all_of(words: &[&str], at: &mut usize, allowed: &[&str]) -> bool {
    let mut verdict = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        verdict &= one(words, at, allowed);
    }
    verdict
}

fn one(words: &[&str], at: &mut usize, allowed: &[&str]) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let verdict = any_of(words, at, allowed);
        *at += 1;
        return verdict && words.get(*at - 1) == Some(&")");
    }
    if words.get(*at) == Some(&"WITH") {
        let exception = words.get(*at + 1).copied().unwrap_or_default();
        *at += 2;
        return allowed.contains(&format!("{word} WITH {exception}").as_str());
    }
    allowed.contains(word)
}

#[test]
fn licences_are_read_as_they_are_meant() {
    let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"];
    for yes in
        ["MIT", "GPL-3.0 OR MIT", "GPL-3.0/MIT", "(MIT OR GPL-3.0) AND Apache-2.0", "Apache-2.0 WITH LLVM-exception"]
    {
        assert!(is_allowed(yes, &allowed), "{yes}");
    }
    for no in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND (ISC)", "MIT WITH x", "MIT MIT", "(MIT", "OR"] {
        assert!(!is_allowed(no, &allowed), "{no}");
    }
}

#[test]
fn every_dependency_has_an_allowed_licence_and_none_is_banned() {
    let rules = read_toml(&root().join("deny.toml"));
    let allowed = strings(&rules["licenses"]["allow"]);
    let banned: Vec<&str> =
        rules["bans"]["deny"].as_array().unwrap().iter().map(|ban| ban["crate"].as_str().unwrap()).collect();
    assert!(banned.contains(&"openssl") && rules["bans"]["wildcards"].as_str() == Some("deny"));
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    assert!(strings(&rules["graph"]["targets"]).contains(&target.as_str()), "{target} is not among the targets");
    let packages = packages(&target);
    assert!(packages.len() > 200, "only {} packages", packages.len());
    let mut wrong = Vec::new();
    for (package, licence) in &packages {
        if !is_allowed(licence, &allowed) {
            wrong.push(format!("{package} has licence `{licence}`"));
        }
        if package.split(' ').next().is_some_and(|name| banned.contains(&name)) {
            wrong.push(format!("{package} is banned"));
        }
    }
    let own = read_toml(&root().join("Cargo.toml"));
    for (name, needed) in ["dependencies", "dev-dependencies"].iter().flat_map(|of| own[of].as_table().unwrap()) {
        let version = needed.as_str().or_else(|| needed.get("version")?.as_str());
        if version.is_none_or(|version| version.contains('*')) {
            wrong.push(format!("{name} is needed in any version"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn everything_comes_from_the_one_registry_and_can_be_checked() {
    let rules = read_toml(&root().join("deny.toml"));
    assert_eq!(rules["sources"]["unknown-registry"].as_str(), Some("deny"));
    for lock in ["Cargo.lock", "fuzz/Cargo.lock"] {
        let lock = read_toml(&root().join(lock));
        for package in lock["package"].as_array().unwrap() {
            let name = package["name"].as_str().unwrap();
            let Some(source) = package.get("source") else {
                assert!(name.starts_with("kura") || name == "mount-helper", "{name} comes from nowhere");
                continue;
            };
            assert_eq!(source.as_str(), Some(REGISTRY), "{name}");
            assert!(package.get("checksum").is_some(), "{name} has no checksum");
        }
    }
}
