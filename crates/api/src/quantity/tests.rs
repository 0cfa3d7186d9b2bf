use proptest::prelude::*;

use super::*;

fn canonical(text: &str) -> String {
    let mut quantity = ApiQuantity(text.to_owned());
    canonicalize(&mut quantity);
    quantity.0
}

fn q(text: &str) -> Quantity {
    text.parse().unwrap()
}

#[test]
fn quantities_are_stored_in_canonical_form() {
    for (text, stored) in [
        ("0", "0"),
        ("0n", "0"),
        ("0Ki", "0"),
        ("0.0", "0"),
        ("-0", "0"),
        ("1", "1"),
        ("100m", "100m"),
        ("1000m", "1"),
        ("0.5", "500m"),
        ("1.5", "1500m"),
        ("0.1m", "100u"),
        ("0.9n", "1n"),
        ("-0.9n", "-1n"),
        ("0.0000000001", "1n"),
        ("1e-100", "1e-9"),
        ("1.1.", "1.1."),
        ("1024Mi", "1Gi"),
        ("1536Mi", "1536Mi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("0.1Ki", "102400m"),
        ("1023", "1023"),
        ("1000", "1k"),
        ("1000000", "1M"),
        ("100000", "100k"),
        ("1E", "1E"),
        ("1Ei", "1Ei"),
        ("7Ei", "7Ei"),
        ("8Ei", "9223372036854775807"),
        ("1000E", "1e21"),
        ("18446744073709551616", "18446744073709551616"),
        ("1e3", "1e3"),
        ("1E3", "1E3"),
        ("10e2", "1e3"),
        ("100e0", "100e0"),
        ("12e6", "12e6"),
        ("1.5e3", "1500"),
        ("1e-3", "1e-3"),
        ("1e-1", "100e-3"),
        ("9223372036854775807", "9223372036854775807"),
        ("1.2345", "1234500u"),
        ("-1.5", "-1500m"),
        ("-1Mi", "-1Mi"),
        ("3.001", "3.001"),
        ("+1", "+1"),
        ("01", "01"),
        (".5", "500m"),
        ("5.", "5."),
        ("1.10", "1100m"),
    ] {
        assert_eq!(canonical(text), stored, "{text}");
    }
}

#[test]
fn what_is_no_quantity_is_refused_in_upstreams_words() {
    for text in ["", "1 ", " 1", "1.1.M", "aoeu", "1+1.0M", "0.1am", "ä", "1e3e", "1m5x"] {
        assert_eq!(text.parse::<Quantity>(), Err(ParseQuantityError::Format), "{text}");
    }
    for text in ["0.1mi", ".5i", "1i", "-3.01i", "-3.01e-", "1Mi5", "1ee3", "1e", "1K", "1e99999999999999999999"] {
        assert_eq!(text.parse::<Quantity>(), Err(ParseQuantityError::Suffix), "{text}");
    }
}

#[test]
fn amounts_are_exact() {
    assert_eq!(q("1Gi"), q("1024Mi"));
    assert_eq!(q("1E3"), q("1k"));
    assert!(q("1Gi") > q("1G") && q("-1") < q("0"));
    assert_eq!((q("1.5").units(), q("1.5").milli(), q("-1.5").units()), (2, 1500, -2));
    assert_eq!((q("1n").units(), q("1n").milli()), (1, 1));
    assert_eq!((q("1E").milli(), q("1e30").units()), (i64::MAX, i64::MAX));
    assert_eq!(q("0.1m").rounded_to_milli().to_string(), "1m");
    assert!(q("1e1000000000") == q("1e2000000000"));
    let long = format!("0.{}1", "0".repeat(100_000));
    assert_eq!(canonical(&long), "1n");
}

#[test]
fn sums_keep_the_format_of_the_first_that_is_not_zero() {
    assert_eq!((q("1Gi") + q("500M")).to_string(), "1573741824");
    assert_eq!((q("1Gi") + q("1Mi")).to_string(), "1025Mi");
    assert_eq!((q("500M") + q("1Gi")).to_string(), "1573741824");
    assert_eq!((q("0") + q("2Ki")).to_string(), "2Ki");
    assert_eq!((q("1") - q("100m")).to_string(), "900m");
    assert_eq!(["1Ki", "1Ki"].iter().map(|t| q(t)).sum::<Quantity>().to_string(), "2Ki");
    assert_eq!(Quantity::from_milli(250).to_api().0, "250m");
    assert_eq!(Quantity::from_units(2048, Format::BinarySi).to_string(), "2Ki");
}

proptest! {
    #[test]
    fn printing_and_parsing_is_the_identity(
        text in "[+-]?[0-9]{0,12}(\\.[0-9]{0,12})?(n|u|m||k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e-?[0-9]{1,2})"
    ) {
        if let Ok(quantity) = text.parse::<Quantity>() {
            let printed = quantity.to_string();
            prop_assert_eq!(q(&printed), quantity, "{}", printed);
            prop_assert_eq!(q(&printed).to_string(), printed);
            let stored = canonical(&text);
            prop_assert_eq!(canonical(&stored), stored.clone());
            prop_assert_eq!(q(&stored), quantity);
        }
    }

    #[test]
    fn order_and_sums_are_those_of_numbers(a in -1_000_000i64..1_000_000, b in -1_000_000i64..1_000_000) {
        let (qa, qb) = (q(&format!("{a}m")), q(&format!("{b}m")));
        prop_assert_eq!(qa.cmp(&qb), a.cmp(&b));
        prop_assert_eq!((qa + qb).milli(), a + b);
        prop_assert_eq!((qa - qb).milli(), a - b);
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "\\PC{0,20}|[-+0-9.eEinumkKMGTP]{0,30}") {
        let _ = text.parse::<Quantity>().map(|quantity| (quantity.to_string(), quantity.units(), quantity + quantity));
        canonical(&text);
    }
}
