use proptest::prelude::*;
use serde_json::json;

use super::*;

/// The YAML in `testdata` is what kubectl 1.33 printed for the JSON beside it (`kubectl label --local -o yaml`).
#[test]
fn documents_print_byte_for_byte_as_kubectl_prints_them() {
    for (json, yaml) in [
        (include_str!("../../testdata/odd_scalars.json"), include_str!("../../testdata/odd_scalars.yaml")),
        (include_str!("../../testdata/odd_shapes.json"), include_str!("../../testdata/odd_shapes.yaml")),
    ] {
        let value: Value = serde_json::from_str(json).unwrap();
        let printed = to_string(&value);
        for (i, (ours, theirs)) in printed.lines().zip(yaml.lines()).enumerate() {
            assert_eq!(ours, theirs, "line {}", i + 1);
        }
        assert_eq!(printed, yaml);
        assert_eq!(to_string(&parse_all(yaml).unwrap()[0]), yaml);
    }
}

#[test]
fn scalars_are_read_as_yaml_1_1() {
    let text = "a: yes\nb: 0644\nc: 'no'\nd: 1_000\ne: 2026-01-01\nf: ~\ng: 1e3\nh: 0x1F\ni: on\nj: 012345678\nk: .5\n";
    assert_eq!(
        parse_all(text).unwrap(),
        [json!({"a": true, "b": 420, "c": "no", "d": 1000, "e": "2026-01-01", "f": null, "g": 1000.0, "h": 31,
            "i": true, "j": 12345678.0, "k": 0.5})]
    );
}

#[test]
fn several_documents_are_read_and_empty_ones_skipped() {
    let text = "# comment\n---\na: 1\n---\n---\n# nothing\n---\n- b\n...\n";
    assert_eq!(parse_all(text).unwrap(), [json!({"a": 1}), json!(["b"])]);
    assert_eq!(parse_all("").unwrap(), [Value::Null; 0]);
    assert_eq!(parse_all("{\n\t\"a\": [\n\t\t1\n\t]\n}").unwrap(), [json!({"a": [1]})]);
    assert_eq!(parse_all("a: |\n  x\n  \ty\n").unwrap(), [json!({"a": "x\n\ty\n"})]);
}

#[test]
fn bad_yaml_is_refused_with_its_line() {
    for (text, error) in [
        ("a: 1\nb: 2\na: 3\n", "yaml: unmarshal errors:\n  line 3: key \"a\" already set in map"),
        ("x:\n- a: 1\n  a: 2\n", "line 3: key \"a\" already set in map"),
        ("a:\n\tb: 1\n", "yaml: line 2: found character that cannot start any token"),
        ("a: [1\n", "yaml: line "),
        ("a: b: c\n", "yaml: line 1"),
        ("a: .nan\n", "yaml: line 1"),
    ] {
        let found = parse_all(text).unwrap_err().to_string();
        assert!(found.starts_with("error converting YAML to JSON: "), "{found}");
        assert!(found.contains(error), "{text}: {found}");
    }
}

#[test]
fn alias_bombs_are_refused() {
    let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..12 {
        let before = format!("*a{},", i - 1).repeat(10);
        text.push_str(&format!("a{i}: &a{i} [{before}]\n"));
    }
    assert!(parse_all(&text).is_err());
    assert!(parse_all(&"[".repeat(100_000)).is_err());
}

fn any_value() -> impl Strategy<Value = Value> {
    let text =
        prop_oneof!["\\PC{0,12}", "[-+0-9._:xeobTZ~yn ]{0,8}", "[ab\\n\\t #:'\"-]{0,10}", "([a-z]{1,9} {0,2}){0,30}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9f64).prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map("\\PC{0,6}|[0-9a-z.~ ]{0,4}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

#[test]
fn what_is_as_deep_as_may_be_is_read_and_what_is_deeper_refused() {
    let blocks = |n: usize| (0..n).map(|level| format!("{}a:\n", " ".repeat(level))).collect::<String>();
    let lists = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    // On a stack as small as a worker's.
    let read = |text: String| {
        std::thread::Builder::new().stack_size(256 * 1024).spawn(move || parse_all(&text)).unwrap().join().unwrap()
    };
    assert!(read(blocks(120)).is_ok() && read(lists(120)).is_ok());
    for deep in [blocks(1000), lists(1000), "[".repeat(100_000), "- ".repeat(50_000), "{a: ".repeat(50_000)] {
        assert!(read(deep).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_is_printed_is_read_back(value in any_value()) {
        let printed = to_string(&json!({"a": value}));
        prop_assert_eq!(parse_all(&printed).unwrap(), [json!({"a": value})], "{}", printed);
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "[a-z:\\[\\]{}&*!|>'\"%@`#,? \\n\\t0-9-]{0,40}") {
        let _ = parse_all(&text);
    }
}
