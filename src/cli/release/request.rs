//! From arguments to a request.

use std::path::{Path, PathBuf};

use super::args::{At, Carry, Command, FollowArgs, RolloutArgs};
use crate::apps::release::{Access, Limits, Notify, Request as ReleaseRequest, Rollout};
use crate::cli::config::absolute;
use crate::control::{Exit, Failure, release_values as values};

fn usage(text: String) -> Failure {
    Failure::new(Exit::Usage, text)
}

fn text(path: &Path) -> Result<String, Failure> {
    let path = absolute(path)?.into_os_string().into_string();
    path.map_err(|_| usage("a path of releases has to be UTF-8".to_owned()))
}

/// A repository, with a directory made absolute.
fn place(repository: &str) -> Result<String, Failure> {
    match repository {
        address if address == "store" || address.contains("://") => Ok(address.to_owned()),
        dir => text(Path::new(dir)),
    }
}

impl At {
    fn parts(&self) -> Result<(String, String), Failure> {
        Ok((place(&self.repository)?, text(&self.keys)?))
    }
}

impl Carry {
    /// The request, or that what it takes be written for others to sign.
    fn of(self, request: ReleaseRequest) -> Result<ReleaseRequest, Failure> {
        let Some(to) = self.to_sign else { return Ok(request) };
        Ok(ReleaseRequest::Propose { to: text(&to)?, request: Box::new(request) })
    }
}

fn texts(paths: &[PathBuf]) -> Result<Vec<String>, Failure> {
    paths.iter().map(|path| text(path)).collect()
}

impl FollowArgs {
    fn request(self) -> Result<ReleaseRequest, Failure> {
        let file = |path: Option<PathBuf>| path.map(|path| text(&path)).transpose();
        let access = Access {
            token_file: file(self.token_file)?,
            client_cert: file(self.client_cert)?,
            client_key: file(self.client_key)?,
            ca: file(self.ca)?,
            limit: self.limit,
        };
        let (repository, trust) = (place(&self.repository)?, text(&self.trust)?);
        let (ring, every_ms, install) = (self.ring, self.every.unwrap_or(0), self.install);
        Ok(ReleaseRequest::Follow { repository, trust, access, ring, every_ms, install })
    }
}

impl RolloutArgs {
    fn rollout(self) -> Result<Rollout, Failure> {
        values::rollout(self.percent, self.rings, self.emergency, &self.steps)
    }
}

/// The request that a command makes.
pub(super) fn of(command: Command) -> Result<ReleaseRequest, Failure> {
    Ok(match command {
        Command::Keygen { dir, count, threshold, with, carry } => {
            carry.of(ReleaseRequest::Keygen { keys: text(&dir)?, count, threshold, with: texts(&with)? })?
        }
        Command::Key { dir, to } => ReleaseRequest::Key { keys: text(&dir)?, to: text(&to)? },
        Command::Sign { file, keys, trust, dry_run } => {
            let trust = trust.map(|trust| text(&trust)).transpose()?;
            ReleaseRequest::Sign { file: text(&file)?, keys: text(&keys)?, trust, dry_run }
        }
        Command::Complete { files, keys, repository } => {
            let repository = repository.map(|repository| place(&repository)).transpose()?;
            ReleaseRequest::Complete { files: texts(&files)?, keys: text(&keys)?, repository }
        }
        Command::Trust { channel, keys, to } => ReleaseRequest::Trust { keys: text(&keys)?, channel, to: text(&to)? },
        Command::Pack { dir } => ReleaseRequest::Pack { dir: text(&dir)? },
        Command::Test { dir, scratch } => {
            ReleaseRequest::Test { dir: text(&dir)?, scratch: scratch.map(|dir| text(&dir)).transpose()? }
        }
        command => publisher(command)?,
    })
}

fn publisher(command: Command) -> Result<ReleaseRequest, Failure> {
    Ok(match command {
        Command::Publish { dir, at, channel, rollout, carry } => {
            let ((repository, keys), rollout) = (at.parts()?, rollout.rollout()?);
            carry.of(ReleaseRequest::Publish { dir: text(&dir)?, repository, keys, channel, rollout })?
        }
        Command::Promote { release, at, from, channel, rollout, carry } => {
            let ((repository, keys), rollout) = (at.parts()?, rollout.rollout()?);
            carry.of(ReleaseRequest::Promote { packages: vec![release], repository, keys, from, channel, rollout })?
        }
        Command::Rollout { release, change: text, at, channel, carry } => {
            let ((repository, keys), change) = (at.parts()?, values::change(&text)?);
            carry.of(ReleaseRequest::Rollout { packages: vec![release], repository, keys, channel, change })?
        }
        Command::Channel { channel, at, windows, epochs: list, carry } => {
            let ((repository, keys), min_epoch) = (at.parts()?, values::epochs(&list)?);
            let windows = values::windows(&windows)?;
            carry.of(ReleaseRequest::Channel { repository, keys, channel, windows, min_epoch })?
        }
        Command::Advance { channel, at, dry_run, carry } => {
            let (repository, keys) = at.parts()?;
            match dry_run {
                true => ReleaseRequest::Report { repository, keys, channel },
                false => carry.of(ReleaseRequest::Advance { repository, keys, channel })?,
            }
        }
        Command::Report { channel, at, .. } => {
            let (repository, keys) = at.parts()?;
            ReleaseRequest::Report { repository, keys, channel }
        }
        Command::Alert { channel, failures, rollbacks, install_time, samples, none } => {
            let (failure_bps, rollback_bps) =
                (failures.map(values::bps).transpose()?, rollbacks.map(values::bps).transpose()?);
            let limits = Limits { failure_bps, rollback_bps, install_ms: install_time, min_samples: samples };
            let limits = (none || !limits.is_empty()).then_some(limits);
            ReleaseRequest::Alert { channel, limits }
        }
        Command::Cleanup { channel, at, keep, dry_run, carry } => {
            let (repository, keys) = at.parts()?;
            let request = ReleaseRequest::Cleanup { repository, keys, channel, keep, dry_run };
            if dry_run { request } else { carry.of(request)? }
        }
        command => client(command)?,
    })
}

fn client(command: Command) -> Result<ReleaseRequest, Failure> {
    Ok(match command {
        Command::Follow(args) => args.request()?,
        Command::Notify { webhook, template, only, none, command } => {
            let changes = none || webhook.is_some() || !command.is_empty();
            let notify = changes.then_some(Notify { webhook, command, template, only, told: 0 });
            ReleaseRequest::Notify { notify }
        }
        Command::Plan { packages } => ReleaseRequest::Plan { packages },
        Command::Install { packages, dry_run: true, .. } => ReleaseRequest::Plan { packages },
        Command::Install { packages, force, .. } => ReleaseRequest::Install { packages, force },
        Command::Update {} => ReleaseRequest::Update {},
        Command::Rollback { package } => ReleaseRequest::Rollback { packages: vec![package] },
        Command::Verify {} => ReleaseRequest::Verify {},
        Command::Pin { release } => ReleaseRequest::Pin { packages: vec![release] },
        Command::Skip { release } => ReleaseRequest::Skip { packages: vec![release] },
        Command::Feedback { release, note } => ReleaseRequest::Feedback { packages: vec![release], note },
        Command::Ack { number } => ReleaseRequest::Ack { number },
        Command::History {} => ReleaseRequest::History {},
        _ => ReleaseRequest::Check {},
    })
}
