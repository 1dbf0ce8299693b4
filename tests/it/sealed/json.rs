//! The strict reader of JSON, against serde's and by cases.

use kura::apps::sealed::{JsonError, check_object};
use proptest::prelude::*;

#[test]
fn objects_are_taken_and_nothing_else() {
    for good in [
        "{}",
        " \t\r\n{ } \n",
        r#"{"a":1}"#,
        r#"{"a":[],"b":{},"c":[1,-0,0.5,1e9,1E-2,2e+3,true,false,null,"x"]}"#,
        r#"{"":"","\u0061b":"\ud83d\ude00","é":"日本"}"#,
        r#"{"a":{"x":1},"b":{"x":1}}"#,
        "{\"a\":\"\u{7f}\u{10ffff}\"}",
    ] {
        assert_eq!(check_object(good.as_bytes()), Ok(()), "{good}");
        assert!(serde_json::from_str::<serde_json::Value>(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        " ",
        "{",
        "}",
        "{]",
        "{,}",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a":1,}"#,
        r#"{a:1}"#,
        "{'a':1}",
        r#"{"a":01}"#,
        r#"{"a":+1}"#,
        r#"{"a":.5}"#,
        r#"{"a":1.}"#,
        r#"{"a":1e}"#,
        r#"{"a":NaN}"#,
        r#"{"a":Infinity}"#,
        r#"{"a":-}"#,
        r#"{"a":"\ud800"}"#,
        r#"{"a":"\ud800\u0041"}"#,
        r#"{"a":"\udc00"}"#,
        r#"{"a":"\x41"}"#,
        r#"{"a":"\u00g0"}"#,
        "{\"a\":\"\n\"}",
        "{\"a\":\"\0\"}",
        r#"{"a":1} x"#,
        r#"{"a":1}{}"#,
        r#"{"a":tru}"#,
        r#"{"a":[1,]}"#,
        "\u{feff}{}",
        "// c\n{}",
        "{\"a\":1\u{a0}}",
    ] {
        assert!(matches!(check_object(bad.as_bytes()), Err(JsonError::Syntax { .. })), "{bad}");
        assert!(serde_json::from_str::<serde_json::Value>(bad).is_err(), "{bad}");
    }
    for bytes in
        [&b"{\"a\":\"\xff\"}"[..], b"{\"a\":\"\xc0\x80\"}", b"{\"a\":\"\xed\xa0\x80\"}", b"{\"a\":\"\xf0\x9f\""]
    {
        assert!(matches!(check_object(bytes), Err(JsonError::Syntax { .. })), "{bytes:?}");
    }
    for other in ["[]", "1", "\"x\"", "null", "true", " [1] "] {
        assert_eq!(check_object(other.as_bytes()), Err(JsonError::NoObject), "{other}");
    }
}

#[test]
fn names_come_once_and_nesting_ends() {
    for twice in [r#"{"a":1,"a":2}"#, r#"{"a":1,"\u0061":2}"#, r#"{"x":{"é":1,"\u00e9":2}}"#, r#"{"":1,"":2}"#] {
        assert!(matches!(check_object(twice.as_bytes()), Err(JsonError::Duplicate { .. })), "{twice}");
    }
    let nested = |depth: usize| format!("{{\"a\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(check_object(nested(120).as_bytes()), Ok(()));
    assert_eq!(check_object(nested(200).as_bytes()), Err(JsonError::TooDeep));
    assert_eq!(check_object(nested(1_000_000).as_bytes()), Err(JsonError::TooDeep));
}

proptest! {
    /// Pieces of JSON in any order: what we take, serde takes; what serde takes as an object without repeated names,
    /// we take. The exponent is negative, since serde refuses numbers beyond an `f64`, which the grammar allows.
    #[test]
    fn it_agrees_with_serde(
        pieces in prop::collection::vec(
            prop::sample::select(vec!["{", "}", "[", "]", ",", ":", "\"a\"", "\"b\"", "\"\\n\"", "1", "-2.5e-3", "null", " ", "\"\\ud83d\\ude00\"", "\"", "\\"]),
            0..12,
        ),
        wrapped in any::<bool>(),
    ) {
        let text = if wrapped { format!("{{\"k\":{}}}", pieces.concat()) } else { pieces.concat() };
        let ours = check_object(text.as_bytes());
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        match ours {
            Ok(()) => prop_assert!(theirs.is_ok_and(|value| value.is_object())),
            Err(JsonError::NoObject) => prop_assert!(theirs.is_ok_and(|value| !value.is_object())),
            Err(JsonError::Syntax { .. }) => prop_assert!(theirs.is_err(), "{text}"),
            Err(JsonError::Duplicate { .. } | JsonError::TooDeep) => {}
        }
    }
}
