use proptest::prelude::*;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn selectors_print_as_upstream_prints_them() {
    for (text, printed) in [
        ("", ""),
        ("x=a,y=b,z=c", "x=a,y=b,z=c"),
        ("x!=a,y==b", "x!=a,y=b"),
        ("z, !y ,x", "x,!y,z"),
        ("x in (b,a,,)", "x in (,a,b)"),
        ("x in ()", "x in ()"),
        ("x notin (in)", "x notin (in)"),
        ("in=notin", "in=notin"),
        ("x>1,z<5", "x>1,z<5"),
        ("x=,z= ", "x=,z="),
        ("a.b/c  =  d ", "a.b/c=d"),
    ] {
        assert_eq!(Selector::parse(text).unwrap().to_string(), printed, "{text}");
    }
}

#[test]
fn bad_selectors_are_refused_in_upstreams_words() {
    for (text, error) in [
        ("x=a||y=b", "values[0][x]: Invalid value: \"a||y\""),
        ("x,,y", "found ',', expected: identifier after ','"),
        ("x in (a", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("x in a", "unable to parse requirement: found 'a' expected: '('"),
        ("x a", "unable to parse requirement: found 'a', expected: in, notin, =, ==, !=, gt, lt"),
        ("!x=a", "found '=', expected: ',' or 'end of string'"),
        ("=a", "found '=', expected: !, identifier, or 'end of string'"),
        ("x>a", "values[0]: Invalid value: \"a\": for 'Gt', 'Lt' operators, the value must be an integer"),
        ("-x", "unable to parse requirement: <nil>: Invalid value: \"-x\": name part must consist of"),
        ("x in (", "found '', expected: ',', ')' or identifier"),
        ("x=a b", "found 'b', expected: ',' or 'end of string'"),
    ] {
        let got = Selector::parse(text).unwrap_err().to_string();
        assert!(got.contains(error), "{text}: {got}");
    }
}

#[test]
fn labels_are_matched() {
    let web = labels(&[("app", "web"), ("size", "7")]);
    for (text, matched) in [
        ("", true),
        ("app=web", true),
        ("app!=web", false),
        ("tier!=x", true),
        ("app in (db,web),!tier", true),
        ("tier notin (x)", true),
        ("tier in (x)", false),
        ("size>6,size<8", true),
        ("size>7", false),
        ("app>1", false),
        ("app", true),
        ("!app", false),
    ] {
        assert_eq!(Selector::parse(text).unwrap().matches(Some(&web)), matched, "{text}");
    }
    assert!(!Selector::parse("app").unwrap().matches(None));
    assert!(Selector::from_map(&labels(&[("app", "web")])).matches(Some(&web)));
}

#[test]
fn label_selectors_become_selectors() {
    let selector: LabelSelector = serde_json::from_value(serde_json::json!({
        "matchLabels": {"b": "1"},
        "matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["y", "x"]}, {"key": "c", "operator": "Exists"}],
    }))
    .unwrap();
    assert_eq!(Selector::from_label_selector(&selector).unwrap().to_string(), "a notin (x,y),b=1,c");
    let wrong: LabelSelector =
        serde_json::from_value(serde_json::json!({"matchExpressions": [{"key": "a", "operator": "Is"}]})).unwrap();
    assert_eq!(
        Selector::from_label_selector(&wrong).unwrap_err().to_string(),
        "\"Is\" is not a valid label selector operator"
    );
}

#[test]
fn field_selectors_are_parsed_and_matched() {
    let fields = |field: &str| match field {
        "metadata.name" => Some("a,b"),
        "status.phase" => Some("Running"),
        _ => None,
    };
    for (text, matched) in [
        ("", true),
        (r"metadata.name=a\,b", true),
        ("status.phase==Running", true),
        ("status.phase!=Running", false),
        ("status.phase!=Pending,,metadata.name!=x", true),
        ("spec.other=", false),
        ("spec.other!=x", false),
    ] {
        assert_eq!(FieldSelector::parse(text).unwrap().matches(fields), matched, "{text}");
    }
    assert_eq!(FieldSelector::parse("a=b").unwrap().exact_match("a"), Some("b"));
    for (text, error) in [
        ("a", "invalid selector: 'a'; can't understand 'a'"),
        (r"a=\x", r"invalid field selector: invalid escape sequence: \x"),
        (r"a=\", r"invalid field selector: invalid escape sequence: \"),
        ("a=b=c", "invalid field selector: unescaped character in value: 61"),
    ] {
        assert_eq!(FieldSelector::parse(text).unwrap_err().to_string(), error);
    }
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in ".{0,40}", odd in "[ab,=!()<> \\\\]{0,30}|(a|in|notin|,|\\(|\\)| |=)*") {
        let _ = (Selector::parse(&text), FieldSelector::parse(&text), FieldSelector::parse(&odd));
        if let Ok(selector) = Selector::parse(&odd) {
            prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
        }
    }

    #[test]
    fn printing_and_parsing_is_the_identity(
        pairs in proptest::collection::vec(("[a-z]{1,5}(/[a-z]{1,3})?", "[a-zA-Z0-9]{0,4}", 0..6), 0..5)
    ) {
        let terms: Vec<String> = pairs.iter().map(|(key, value, operator)| match operator {
            0 => format!("{key}={value}"),
            1 => format!("{key}!={value}"),
            2 => format!("{key} in ({value},b)"),
            3 => format!("{key} notin ({value})"),
            4 => format!("!{key}"),
            _ => key.clone(),
        }).collect();
        let selector = Selector::parse(&terms.join(",")).unwrap();
        prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
    }

    #[test]
    fn field_selectors_survive_printing(value in "[a,=\\\\!é]{0,8}", equal: bool) {
        let requirement = FieldRequirement { field: "metadata.name".to_owned(), equal, value };
        let text = format!("metadata.name{}{}", if equal { "=" } else { "!=" },
            requirement.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\="));
        let parsed = FieldSelector::parse(&text).unwrap();
        prop_assert_eq!(parsed.requirements(), std::slice::from_ref(&requirement));
        prop_assert_eq!(FieldSelector::parse(&parsed.to_string()).unwrap(), parsed);
    }
}
