//! As much of IAM's policies as `kura iam` prints, and nothing that would allow more.

use hyper::Request;
use serde_json::Value;

use super::BUCKET;

/// Whether some statement allows the request. A statement with anything unknown in it is a mistake of the test.
pub fn allows<B>(policy: &Value, operation: &str, key: &str, request: &Request<B>) -> bool {
    let action = match operation {
        "ListObjectsV2" => "s3:ListBucket",
        "GetObject" => "s3:GetObject",
        "DeleteObject" => "s3:DeleteObject",
        "AbortMultipartUpload" => "s3:AbortMultipartUpload",
        "PutObject" | "UploadPart" | "CreateMultipartUpload" | "CompleteMultipartUpload" => "s3:PutObject",
        _ => return false,
    };
    let resource = match operation {
        "ListObjectsV2" => format!("arn:aws:s3:::{BUCKET}"),
        _ => format!("arn:aws:s3:::{BUCKET}/{key}"),
    };
    policy["Statement"].as_array().unwrap().iter().any(|statement| {
        let fields = statement.as_object().unwrap();
        assert!(fields.keys().all(|field| ["Sid", "Effect", "Action", "Resource", "Condition"].contains(&&**field)));
        assert_eq!(statement["Effect"], "Allow");
        let any = |field: &str, matching: &dyn Fn(&str) -> bool| {
            statement[field].as_array().unwrap().iter().any(|value| matching(value.as_str().unwrap()))
        };
        any("Action", &|allowed| allowed == action)
            && any("Resource", &|pattern| is_like(pattern, &resource))
            && statement.get("Condition").is_none_or(|condition| holds(condition, request))
    })
}

/// Whether a user hears that an object is absent. S3 says so only to who may list the bucket, and a request for an object
/// has no prefix by which a condition could allow that.
pub fn tells_absence(policy: &Value) -> bool {
    policy["Statement"].as_array().unwrap().iter().any(|statement| {
        let lists = statement["Action"].as_array().unwrap().iter().any(|action| action == "s3:ListBucket");
        lists && statement.get("Condition").is_none()
    })
}

fn holds<B>(condition: &Value, request: &Request<B>) -> bool {
    condition.as_object().unwrap().iter().all(|(operator, keys)| {
        keys.as_object().unwrap().iter().all(|(key, expected)| match (operator.as_str(), key.as_str()) {
            ("Null", "s3:if-none-match") => expected == "false" && request.headers().contains_key("if-none-match"),
            ("Null", "s3:if-match") => expected == "false" && request.headers().contains_key("if-match"),
            ("StringLike", "s3:prefix") => {
                let query = request.uri().query().unwrap_or_default();
                let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).unwrap_or_default();
                let prefix = prefix.replace("%2F", "/");
                expected.as_array().unwrap().iter().any(|pattern| is_like(pattern.as_str().unwrap(), &prefix))
            }
            other => panic!("{other:?} is not known to the test's server"),
        })
    })
}

/// `*` at the end stands for anything.
fn is_like(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => text.starts_with(start),
        None => pattern == text,
    }
}
