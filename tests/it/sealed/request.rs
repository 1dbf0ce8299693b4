//! What is secret in a request is taken out of its text; what is left may be shown to anybody.

use kura::apps::sealed::{SealedError, take_secrets};
use proptest::prelude::*;
use serde_json::{Value, json};

#[test]
fn secrets_are_taken_out_and_the_rest_stays() {
    let request = r#" { "op":"update" , "file":"a b.sealed","password":"c\u00f6rrect \"horse\"", "ids" : [40, 3,17],
        "document":{"n": 1.50,"é":"\u00e9"}, "no_backup":true}
    "#;
    let (rest, secrets) = take_secrets(request.as_bytes()).unwrap();
    let rest: Value = serde_json::from_slice(&rest).unwrap();
    assert_eq!(rest, json!({ "op": "update", "file": "a b.sealed", "no_backup": true }));
    assert_eq!(secrets.credentials.password.as_bytes(), "cörrect \"horse\"".as_bytes());
    assert_eq!(secrets.credentials.ids.as_slice(), [3, 17, 40]);
    assert_eq!(secrets.document.as_bytes(), r#"{"n": 1.50,"é":"\u00e9"}"#.as_bytes(), "byte for byte");
    let shown = format!("{secrets:?}");
    assert!(!shown.contains("horse") && !shown.contains("1.5") && !shown.contains("17"), "{shown}");
    // However the names are written, and with nothing else in it.
    let (rest, secrets) = take_secrets(br#"{"\u0070assword":"x","i\u0064s":[1,2],"document":{}}"#).unwrap();
    assert_eq!((&rest[..], secrets.credentials.password.as_bytes()), (&b"{}"[..], &b"x"[..]));
}

#[test]
fn requests_that_are_none_are_refused_without_repeating_them() {
    let of = |password: &str, ids: &str, document: &str| {
        format!(r#"{{"file":"f","password":{password},"ids":{ids},"document":{document}}}"#)
    };
    let good = of("\"hush\"", "[1,2]", r#"{"key":"hush"}"#);
    assert!(take_secrets(good.as_bytes()).is_ok());
    let several = good.replace("\"file\":\"f\"", r#""document":{"key":"hush"}"#);
    for bad in [
        of("1", "[1,2]", "{}"),
        of("null", "[1,2]", "{}"),
        of("[\"hush\"]", "[1,2]", "{}"),
        of("\"hush\"", "[1,2]", "[{\"key\":\"hush\"},{}]"),
        of("\"hush\"", "[1,2]", "\"hush\""),
        of("\"hush\"", "{}", "{}"),
        of("\"hush\"", "\"1,2\"", "{}"),
        several,
        good.replace("password", "passwd"),
        good.replace("document", "doc"),
        good.replace("\"ids\"", "\"id\""),
        good.replace("{\"key\"", "{\"key\":1,\"key\""),
        good[..good.len() - 1].to_owned(),
        good.clone() + &good,
        format!("[{good}]"),
        String::new(),
    ] {
        let refused = take_secrets(bad.as_bytes()).unwrap_err();
        assert!(matches!(refused, SealedError::Request(_)), "{bad}: {refused:?}");
        assert!(!format!("{refused:?} {refused}").contains("hush"), "{refused:?}");
    }
    for ids in ["[]", "[1]", "[1,1]", "[0,1]", "[1,65536]", "[1,-2]", "[1,2.0]", "[[1],2]", "[1,\"2\"]"] {
        let refused = take_secrets(of("\"hush\"", ids, "{}").as_bytes()).unwrap_err();
        assert!(matches!(refused, SealedError::Ids(_)), "{ids}: {refused:?}");
    }
}

proptest! {
    /// Any request: what is left is the object without the three, and they are what a parser finds.
    #[test]
    fn nothing_is_lost_and_nothing_added(
        password in ".{0,40}",
        names in prop::collection::hash_set("x[a-z\"\\\\é ]{0,6}", 0..5),
        place in any::<prop::sample::Index>(),
        pretty in any::<bool>(),
    ) {
        let mut members: Vec<(String, Value)> = names.into_iter().map(|name| (name.clone(), json!([name, 1]))).collect();
        let expected: serde_json::Map<String, Value> = members.iter().cloned().collect();
        let at = place.index(members.len() + 1);
        let document = json!({ "a": [password, null] });
        members.insert(at, ("password".to_owned(), json!(password)));
        members.insert(at, ("ids".to_owned(), json!([9, 4])));
        members.push(("document".to_owned(), document.clone()));
        let space = if pretty { " \n" } else { "" };
        let text: Vec<String> = members.iter().map(|(n, v)| format!("{}{space}:{space}{v}", json!(n))).collect();
        let text = format!("{{{space}{}{space}}}", text.join(&format!("{space},{space}")));
        let (rest, secrets) = take_secrets(text.as_bytes()).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Value>(&rest).unwrap(), Value::Object(expected));
        prop_assert_eq!(secrets.credentials.password.as_bytes(), password.as_bytes());
        prop_assert_eq!(serde_json::from_slice::<Value>(secrets.document.as_bytes()).unwrap(), document);
    }
}
