//! Which versions fit together.

use std::collections::{BTreeMap, BTreeSet};

use pubgrub::{DefaultStringReporter, OfflineDependencyProvider, PubGrubError, Ranges, Reporter, resolve};
use semver::{Comparator, Op, Prerelease, Version, VersionReq};

use super::error::{ReleaseError, Result};
use super::package::Package;

/// The name of what asks for everything; no package can be called so.
const ROOT: &str = "this workspace";

/// Chooses the newest versions that fit together, for `wanted` and all they need.
pub fn solve(wanted: &BTreeMap<String, VersionReq>, known: &[Package]) -> Result<BTreeMap<String, Version>> {
    let requirements = || known.iter().flat_map(|package| &package.dependencies).chain(wanted);
    // A pre-release is for those who ask for it.
    let is_open = |package: &&Package| {
        package.version.pre.is_empty()
            || requirements().any(|(name, wanted)| *name == package.name && wanted.matches(&package.version))
    };
    let mut provider = OfflineDependencyProvider::<String, Ranges<Version>>::new();
    let of = |requirements: &BTreeMap<String, VersionReq>| -> Vec<(String, Ranges<Version>)> {
        requirements.iter().map(|(name, wanted)| (name.clone(), range(wanted))).collect()
    };
    let root = Version::new(0, 0, 0);
    provider.add_dependencies(ROOT.to_owned(), root.clone(), of(wanted));
    for package in known.iter().filter(is_open) {
        // The solver takes one that needs itself for one that is not needed.
        let mut needs = of(&package.dependencies);
        let itself = needs.extract_if(.., |(name, _)| *name == package.name).next();
        if itself.is_none_or(|(_, range)| range.contains(&package.version)) {
            provider.add_dependencies(package.name.clone(), package.version.clone(), needs);
        }
    }
    let unsolvable = |reason: String| ReleaseError::Unsolvable { reason };
    let chosen = resolve(&provider, ROOT.to_owned(), root).map_err(|error| match error {
        PubGrubError::NoSolution(mut tree) => {
            tree.collapse_no_versions();
            unsolvable(DefaultStringReporter::report(&tree).replace("this workspace 0.0.0", ROOT))
        }
        error => unsolvable(error.to_string()),
    })?;
    let chosen: BTreeMap<String, Version> = chosen.into_iter().filter(|(name, _)| name != ROOT).collect();
    let parts: BTreeSet<String> = known
        .iter()
        .filter(|package| chosen.get(&package.name) == Some(&package.version))
        .flat_map(|package| package.conflicts.iter().map(move |conflict| (package, conflict)))
        .filter(|(_, (name, range))| chosen.get(*name).is_some_and(|version| range.matches(version)))
        .map(|(package, (name, range))| {
            format!(
                "{} {} conflicts with {name} {range}, and {name} {} is needed",
                package.name, package.version, chosen[name]
            )
        })
        .collect();
    match parts.is_empty() {
        true => Ok(chosen),
        false => Err(unsolvable(parts.into_iter().collect::<Vec<_>>().join("; "))),
    }
}

/// The versions that a requirement allows.
fn range(wanted: &VersionReq) -> Ranges<Version> {
    wanted.comparators.iter().map(of_comparator).fold(Ranges::full(), |all, one| all.intersection(&one))
}

fn of_comparator(part: &Comparator) -> Ranges<Version> {
    let version = |major, minor, patch| Version::new(major, minor, patch);
    let (major, minor, patch) = (part.major, part.minor.unwrap_or(0), part.patch.unwrap_or(0));
    let low = Version { pre: part.pre.clone(), ..version(major, minor, patch) };
    // Where the range ends that the given digits mean; before the pre-releases of what follows.
    let before = |major, minor, patch| Version {
        pre: Prerelease::new("0").unwrap_or(Prerelease::EMPTY),
        ..version(major, minor, patch)
    };
    let after = match (part.minor, part.patch) {
        (None, _) => before(major.saturating_add(1), 0, 0),
        (Some(minor), None) => before(major, minor.saturating_add(1), 0),
        (Some(_), Some(_)) => before(major, minor, patch.saturating_add(1)),
    };
    let caret = match (major, part.minor, part.patch) {
        (0, Some(0), Some(patch)) => before(0, 0, patch.saturating_add(1)),
        (0, Some(minor), _) => before(0, minor.saturating_add(1), 0),
        _ => before(major.saturating_add(1), 0, 0),
    };
    match part.op {
        Op::Exact if part.patch.is_some() => Ranges::singleton(low),
        Op::Exact | Op::Wildcard => Ranges::between(low, after),
        Op::Greater if part.patch.is_some() => Ranges::strictly_higher_than(low),
        Op::Greater => Ranges::higher_than(after),
        Op::GreaterEq => Ranges::higher_than(low),
        Op::Less => Ranges::strictly_lower_than(low),
        Op::LessEq if part.patch.is_some() => Ranges::lower_than(low),
        Op::LessEq => Ranges::strictly_lower_than(after),
        Op::Tilde => {
            let end = if part.minor.is_some() { before(major, minor.saturating_add(1), 0) } else { after };
            Ranges::between(low, end)
        }
        _ => Ranges::between(low, caret),
    }
}
