//! Addresses of stores.

use std::path::Path;
use std::sync::Arc;

use kura::base::disk::RealDisk;
use kura::store::{StoreError, StoreUrl, UrlError, create, open};

fn parse(text: &str) -> Result<StoreUrl, UrlError> {
    text.parse()
}

#[test]
fn addresses_are_read() {
    for path in ["/srv/store", "relative/dir", "odd name", "C:/x", "a:b", "~/x"] {
        assert_eq!(parse(path).unwrap(), StoreUrl::Dir(path.into()));
    }
    assert_eq!(parse("file:///srv/a%20b").unwrap(), StoreUrl::Dir("/srv/a b".into()));
    assert_eq!(parse("file://localhost/srv").unwrap(), StoreUrl::Dir("/srv".into()));
    let StoreUrl::S3(plain) = parse("s3://bucket").unwrap() else { panic!() };
    assert_eq!((plain.bucket.as_str(), plain.prefix.as_str(), plain.path_style), ("bucket", "", None));
    let text =
        "S3://my.bucket/a/b%20c/?endpoint=http%3A%2F%2F127.0.0.1%3A9000/&region=eu-1&profile=me&path_style=false";
    let StoreUrl::S3(full) = parse(text).unwrap() else { panic!() };
    assert_eq!(full.bucket, "my.bucket");
    assert_eq!(full.prefix, "a/b c");
    assert_eq!(full.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
    assert_eq!((full.region.as_deref(), full.profile.as_deref()), (Some("eu-1"), Some("me")));
    assert_eq!(full.path_style, Some(false));
}

#[test]
fn an_address_written_out_reads_back_the_same() {
    for text in [
        "/srv/store",
        "rel",
        "file:///odd%3A//name",
        "s3://bucket",
        "s3://bucket/a/b%20%25c%3F",
        "s3://bucket/p?endpoint=https://host:9000/base&region=r%26d&profile=a%3Db&path_style=true",
    ] {
        let url = parse(text).unwrap();
        assert_eq!(parse(&url.to_string()).unwrap(), url, "{text} -> {url}");
    }
}

#[test]
fn bad_addresses_are_refused_in_words() {
    for (text, part) in [
        ("", "empty"),
        ("http://host/x", "`http://`"),
        ("ftp://host", "`ftp://`"),
        ("file://host/x", "file:///"),
        ("file://rel", "file:///"),
        ("s3://", "bucket"),
        ("s3:///prefix", "bucket"),
        ("s3://ab", "bucket"),
        ("s3://buc ket", "bucket"),
        ("s3://bucket/a//b", "prefix"),
        ("s3://bucket/../b", "prefix"),
        ("s3://bucket/a%00", "prefix"),
        ("s3://bucket?color=red", "`color`"),
        ("s3://bucket?region=a&region=b", "twice"),
        ("s3://bucket?region=", "region"),
        ("s3://bucket?endpoint=127.0.0.1:9000", "endpoint"),
        ("s3://bucket?endpoint=http://", "endpoint"),
        ("s3://bucket?path_style=maybe", "true or false"),
        ("s3://bucket/a%2", "hexadecimal"),
        ("s3://bucket/a%zz", "hexadecimal"),
        ("s3://bucket/a%ff", "UTF-8"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    for text in ["s3://AKID:hunter2@bucket/x", "s3://bucket?endpoint=http://me:hunter2@host"] {
        let error = parse(text).unwrap_err();
        assert_eq!(error, UrlError::Credentials);
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}

#[test]
fn a_store_is_opened_by_its_address() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("new/store");
    let url = parse(root.to_str().unwrap()).unwrap();
    assert!(matches!(open(&url, Arc::new(RealDisk)).err(), Some(StoreError::NoStore { .. })));
    let store = create(&url, Arc::new(RealDisk)).unwrap();
    assert!(store.is_local() && Path::new(store.address()) == root);
    open(&url, Arc::new(RealDisk)).unwrap();
    let url = parse("s3://bucket/prefix?endpoint=http://127.0.0.1:1&region=us-east-1").unwrap();
    let store = open(&url, Arc::new(RealDisk)).unwrap();
    assert!(!store.is_local());
    assert_eq!(store.address(), url.to_string());
}
