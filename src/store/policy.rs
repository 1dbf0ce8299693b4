//! What the users of a bucket need to be allowed, as a policy of AWS IAM.

use std::str::FromStr;

use serde_json::{Value, json};

/// What somebody does with a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reads versions and mounts read-only.
    Reader,
    /// Writes versions; can neither remove nor overwrite what is stored, HEAD and leases aside.
    Writer,
    /// Makes the workspace, manages keys, removes what nobody needs.
    Maintainer,
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "reader" => Ok(Role::Reader),
            "writer" => Ok(Role::Writer),
            "maintainer" => Ok(Role::Maintainer),
            _ => Err("the roles are reader, writer and maintainer".to_owned()),
        }
    }
}

/// Objects that are only ever written once. Conditional puts without a tag may make them.
const NEW_ONLY: [&str; 8] =
    ["kura.json", "HEAD", "keys/*", "epochs/*", "indexes/*", "objects/*", "packs/*", "locations/*"];
/// What a writer may replace and remove: nothing that a version needs.
const PASSING: [&str; 3] = ["leases/*", "probe/*", "releases/feedback/*"];

/// The policy of a role on the workspace below `prefix` (without slashes at its ends; may be empty) of a bucket.
///
/// With `conditions`, the writer's puts are allowed only as conditional ones, by the condition keys
/// `s3:if-none-match` and `s3:if-match` of AWS. A server that does not know these keys refuses such puts; without
/// `conditions`, a writer may overwrite what is stored (which every reader would notice), but still removes nothing.
pub fn policy(role: Role, bucket: &str, prefix: &str, conditions: bool) -> Value {
    let below = |name: &str| match prefix {
        "" => format!("arn:aws:s3:::{bucket}/{name}"),
        prefix => format!("arn:aws:s3:::{bucket}/{prefix}/{name}"),
    };
    let all_below = |names: &[&str]| names.iter().map(|name| below(name)).collect::<Vec<String>>();
    let listed = if prefix.is_empty() { "*".to_owned() } else { format!("{prefix}/*") };
    let mut statements = vec![
        json!({
            "Sid": "List", "Effect": "Allow", "Action": ["s3:ListBucket"],
            "Resource": [format!("arn:aws:s3:::{bucket}")], "Condition": { "StringLike": { "s3:prefix": [listed] } },
        }),
        json!({ "Sid": "Read", "Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [below("*")] }),
    ];
    let present = |key: &str| json!({ "Null": { key: "false" } });
    if role == Role::Writer {
        let put = |sid: &str, resources: Vec<String>, condition: Value| {
            let mut statement =
                json!({ "Sid": sid, "Effect": "Allow", "Action": ["s3:PutObject"], "Resource": resources });
            if conditions {
                statement["Condition"] = condition;
            }
            statement
        };
        statements.push(put("PutNew", all_below(&NEW_ONLY), present("s3:if-none-match")));
        statements.push(put("SwingHead", vec![below("HEAD")], present("s3:if-match")));
        let actions = ["s3:PutObject", "s3:DeleteObject"];
        statements
            .push(json!({ "Sid": "Passing", "Effect": "Allow", "Action": actions, "Resource": all_below(&PASSING) }));
    }
    if role == Role::Maintainer {
        let actions = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:DeleteObject"];
        statements.push(json!({ "Sid": "Maintain", "Effect": "Allow", "Action": actions, "Resource": [below("*")] }));
    }
    json!({ "Version": "2012-10-17", "Statement": statements })
}
