//! The decoders of detectors' outputs, held to `tests/golden/families.json`, which the SDKs for
//! Python and JavaScript are held to as well.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy takes helpers of tests for production code"
)]

use std::collections::BTreeMap;

use ocelli_sdk::detect::Decoder;
use ocelli_sdk::nn::{Floats, OutputSource};
use serde_json::Value;

/// A case's outputs by their names.
struct Given<'a>(&'a Value);

impl Given<'_> {
    fn get(&self, name: &str) -> Result<&Value, String> {
        self.0.get(name).ok_or_else(|| format!("no output {name}"))
    }
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

impl OutputSource for Given<'_> {
    fn floats(&self, name: &str) -> Result<Floats, String> {
        let tensor = self.get(name)?;
        let shape: Vec<u32> = numbers(&tensor["shape"]).iter().map(|&side| side as u32).collect();
        let mut values = vec![0.0f32; shape.iter().product::<u32>() as usize];
        let columns = *shape.last().unwrap() as usize;
        let rows: BTreeMap<usize, Vec<f64>> = match tensor.get("values") {
            Some(values) => [(0, numbers(values))].into(),
            None => serde_json::from_value(tensor["rows"].clone()).unwrap(),
        };
        for (row, numbers) in rows {
            for (place, number) in values[row * columns..].iter_mut().zip(numbers) {
                *place = number as f32;
            }
        }
        Floats::new(shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn integers(&self, name: &str) -> Result<Vec<i64>, String> {
        Ok(numbers(&self.get(name)?["values"]).iter().map(|&number| number as i64).collect())
    }
}

#[test]
fn each_family_gives_the_same_boxes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/families.json");
    let shared: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let size = numbers(&shared["size"]);
    let size = (size[0] as u32, size[1] as u32);
    let least = shared["least_score"].as_f64().unwrap() as f32;
    let expected = shared["expected"].as_array().unwrap();
    let cases = shared["cases"].as_array().unwrap();
    assert!(cases.len() >= 12, "{} cases", cases.len());
    for case in cases {
        let (name, decoder) = (&case["name"], &case["decoder"]);
        let family = decoder["family"].as_str().unwrap();
        let decoder = Decoder::read(family, &decoder.to_string()).unwrap();
        let outputs = Given(&case["outputs"]);
        let mut found = decoder.candidates(size, &outputs, least, &|_| true).unwrap();
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        assert_eq!(found.len(), expected.len(), "{name}: {found:?}");
        for (one, wanted) in found.iter().zip(expected) {
            assert_eq!(Some(u64::from(one.class)), wanted["class"].as_u64(), "{name}");
            let score = wanted["score"].as_f64().unwrap() as f32;
            assert!((one.score - score).abs() < 1e-3, "{name}: {one:?}");
            let b = &one.bbox;
            let edges = [b.left, b.top, b.right, b.bottom];
            for (edge, right) in edges.into_iter().zip(numbers(&wanted["box"])) {
                assert!((edge - right as f32).abs() < 0.01, "{name}: {one:?}");
            }
        }
    }
}
