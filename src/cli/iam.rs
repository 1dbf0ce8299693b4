//! `kura iam`: policies for the users of a bucket.

use clap::Args;

use super::Context;
use super::config::store_url;
use super::output::warn;
use crate::control::{Exit, Failure};
use crate::store::{Role, StoreUrl, policy};

/// Print the least that a user of the bucket must be allowed, as a policy of AWS IAM
///
/// A reader mounts read-only. A writer publishes versions, and can neither remove nor overwrite what
/// is stored. A maintainer makes the workspace, manages keys and removes what nobody needs. What a
/// version holds is protected by the keys, not by these policies.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kura iam --role reader -w s3://my-bucket/work
  kura iam --role writer --bucket my-bucket --prefix work > policy.json")]
pub struct IamArgs {
    /// reader, writer or maintainer
    #[arg(long, default_value = "writer")]
    role: Role,
    /// The bucket [default: that of the workspace]
    #[arg(long)]
    bucket: Option<String>,
    /// What stands before the names of the workspace's objects
    #[arg(long, requires = "bucket")]
    prefix: Option<String>,
    /// Leave out s3:if-none-match and s3:if-match, for servers that do not know these condition keys
    #[arg(long)]
    without_conditions: bool,
}

/// Runs `kura iam`.
pub fn run(context: &Context, args: &IamArgs) -> Result<Exit, Failure> {
    let (bucket, prefix, is_aws) = match &args.bucket {
        Some(bucket) => (bucket.clone(), args.prefix.clone().unwrap_or_default(), true),
        None => of_workspace(context)?,
    };
    let prefix = prefix.trim_matches('/');
    if bucket.is_empty() || [bucket.as_str(), prefix].iter().any(|part| part.contains(['*', '?', '$'])) {
        return Err(Failure::new(Exit::Usage, "bucket and prefix must not be patterns"));
    }
    let text = serde_json::to_string_pretty(&policy(args.role, &bucket, prefix, !args.without_conditions))
        .map_err(|error| Failure::new(Exit::Other, format!("the policy cannot be written as JSON: {error}")))?;
    context.output.line(&text)?;
    if args.role == Role::Writer && (!is_aws || args.without_conditions) {
        warn(match args.without_conditions {
            true => "without conditions a writer may overwrite what is stored; every reader would notice that",
            false => {
                "AWS knows the condition keys s3:if-none-match and s3:if-match; other servers may not, and then deny \
                 every write: --without-conditions leaves them out"
            }
        });
    }
    Ok(Exit::Ok)
}

fn of_workspace(context: &Context) -> Result<(String, String, bool), Failure> {
    let named = context.common.workspace.as_ref().or(context.config.store.as_ref());
    match named.map(|text| store_url(text)).transpose()? {
        Some(StoreUrl::S3(address)) => Ok((address.bucket, address.prefix, address.endpoint.is_none())),
        _ => {
            Err(Failure::new(Exit::Usage, "policies are for buckets: name one with --bucket or -w s3://BUCKET/PREFIX"))
        }
    }
}
