use serde_json::json;

use super::*;

const TOLERANCE: Tolerance = Tolerance { score: 0.02, pixels: 2.0 };

fn frame(detections: Value, events: Value) -> Value {
    json!({"frame": 3, "presentation_ns": 5, "width": 64, "height": 48,
        "detections": detections, "events": events})
}

fn person(score: f64, x: f64) -> Value {
    json!({"label": "person", "score": score, "box": [x, 2.0, 3.0, 4.0], "track": 7,
        "attributes": {"colour": {"value": "red", "score": 0.5}}})
}

fn differ(expected: &Value, found: &Value) -> Option<String> {
    difference(expected, found, &TOLERANCE)
}

#[test]
fn scores_and_boxes_may_differ_a_little_and_the_order_does_not_count() {
    let golden = frame(json!([person(0.5, 10.0), person(0.9, 40.0)]), json!([]));
    for good in [
        json!([person(0.5, 10.0), person(0.9, 40.0)]),
        json!([person(0.88, 38.0), person(0.52, 12.0)]),
    ] {
        assert_eq!(differ(&golden, &frame(good, json!([]))), None);
    }
    let mut other = person(0.5, 10.0);
    other["attributes"]["colour"]["value"] = json!("blue");
    for (bad, said) in [
        (json!([person(0.5, 10.0)]), "person 0.9 at [40.0,2.0,3.0,4.0] #7 colour \"red\" expected"),
        (json!([person(0.47, 10.0), person(0.9, 40.0)]), "left of that label: person 0.47"),
        (json!([person(0.5, 12.1), person(0.9, 40.0)]), "person 0.5 at [10.0"),
        (json!([other, person(0.9, 40.0)]), "colour \"blue\""),
        (
            json!([person(0.5, 10.0), person(0.9, 40.0), person(0.6, 1.0)]),
            "person 0.6 at [1.0,2.0,3.0,4.0] #7 colour \"red\" found, and not expected",
        ),
        (Value::Null, "it was to be looked at, and was not"),
    ] {
        let words = differ(&golden, &frame(bad, json!([]))).unwrap();
        assert!(words.contains(said), "{words} for {said}");
    }
}

#[test]
fn events_come_in_their_order_with_their_data() {
    let event = |kind: &str, count: Value, bytes: u32| {
        json!({"kind": kind, "detections": [person(0.5, 1.0)], "data": {"n": count},
            "attachments": [{"type": "image/jpeg", "digest": bytes.to_string(), "bytes": bytes}]})
    };
    let golden = frame(json!([]), json!([event("a", json!(2), 9), event("b", json!(0.1), 9)]));
    let found = |events: Value| differ(&golden, &frame(json!([]), events));
    let same = json!([event("a", json!(2), 8), event("b", json!(0.100_000_01), 8)]);
    assert_eq!(found(same), None);
    let turned = found(json!([event("b", json!(0.1), 9), event("a", json!(2), 9)])).unwrap();
    assert_eq!(turned, r#"events ["a", "b"] expected, ["b", "a"] found"#);
    let other = found(json!([event("a", json!(3), 9), event("b", json!(0.1), 9)])).unwrap();
    assert!(other.contains(r#""data":{"n":2}"#) && other.contains(r#""data":{"n":3}"#), "{other}");
    assert!(found(json!([event("a", json!(2), 9), event("b", json!(0.2), 9)])).is_some());
}

#[test]
fn errors_and_times_are_held_too() {
    let (mut expected, found) = (frame(json!([]), json!([])), frame(json!([]), json!([])));
    assert_eq!(differ(&expected, &found), None);
    expected["error"] = json!("no");
    assert_eq!(differ(&expected, &found).unwrap(), "error \"no\" expected, none found");
    let mut later = found.clone();
    later["presentation_ns"] = json!(6);
    assert_eq!(differ(&found, &later).unwrap(), "presentation_ns 5 expected, 6 found");
}

#[test]
fn a_golden_file_is_read_as_it_was_written_and_is_of_one_thing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.golden.jsonl");
    let header = |name: &str, footage: &str, settings: Value| {
        let settings = serde_json::from_value(settings).unwrap();
        GoldenHeader::new(name, "1.0.0", footage.into(), settings)
    };
    let (mine, lines) =
        (header("eye", "f", json!({})), [FrameLine::example(0), FrameLine::example(1)]);
    write(&path, &mine, &lines).unwrap();
    let golden = Golden::load(&path).unwrap();
    let judged = golden.judge(&mine, &lines, &TOLERANCE).unwrap();
    let good = |words: &str| words.starts_with("2 frames as in ");
    assert!(matches!(&judged, TestVerdict::Good(words) if good(words)), "{judged:?}");
    let short = golden.judge(&mine, &lines[..1], &TOLERANCE).unwrap();
    assert_eq!(short, TestVerdict::Bad("2 frames expected, 1 found".into()));
    for (other, said) in [
        (header("ear", "f", json!({})), "of the pipeline \"eye\""),
        (header("eye", "g", json!({})), "other frames"),
        (header("eye", "f", json!({"a": 1})), "other settings"),
    ] {
        let error = golden.judge(&other, &lines, &TOLERANCE).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn what_is_no_golden_file_of_this_form_is_told_on_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.golden.jsonl");
    let mut texts = vec![(None, "--bless makes it")];
    for (text, said) in [
        ("", "is empty"),
        ("{\"ocelli_golden\":2}\n", "of form 2, and this program reads form 1"),
        ("{\"frame\":0}\n", "is no golden file"),
        ("{\"ocelli_golden\":1}\n", "line 1 is not what a golden file begins with"),
        ("{\"ocelli_golden\":1}\n{", "line 2 is not JSON"),
    ] {
        texts.push((Some(text), said));
    }
    for (text, said) in texts {
        text.iter().for_each(|text| std::fs::write(&path, text).unwrap());
        let error = format!("{:#}", Golden::load(&path).err().unwrap());
        assert!(error.contains(said) && error.contains("a.golden.jsonl"), "{error} for {said}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn two_runs_that_differ_in_the_last_digit_are_not_the_same() {
    let lines = [FrameLine::example(0), FrameLine::example(1)];
    assert_eq!(first_difference(&lines, &lines).unwrap(), None);
    let other = [lines[0].clone(), FrameLine { width: Some(65), ..lines[1].clone() }];
    assert_eq!(
        first_difference(&lines, &other).unwrap().unwrap(),
        "frame 1: width 64 expected, 65 found"
    );
    assert_eq!(
        first_difference(&lines, &lines[..1]).unwrap().unwrap(),
        "2 frames expected, 1 found"
    );
}
