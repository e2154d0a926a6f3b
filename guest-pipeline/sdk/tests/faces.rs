//! Decoding and alignment of faces, held to what `tests/golden/make_faces.py` computed without this
//! crate.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy takes helpers of tests for production code"
)]

use ocelli_sdk::centerface::{Face, Maps};
use ocelli_sdk::{Affine, Letterbox, align, embedding, faceres, letterbox};
use serde_json::Value;

fn numbers<const N: usize>(list: &Value) -> [f32; N] {
    let list: Vec<f32> =
        list.as_array().unwrap().iter().map(|n| n.as_f64().unwrap() as f32).collect();
    list.try_into().unwrap()
}

fn reference() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/faces.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// What the network said of a picture, as far as it said that there are faces, decoded.
fn decoded(picture: &Value, [width, height]: [u32; 2]) -> Vec<Face> {
    let (columns, rows) = (width as usize / 4, height as usize / 4);
    let cells = columns * rows;
    let (mut heatmap, mut numbers_of) = (vec![0.0; cells], vec![0.0; 14 * cells]);
    for face in picture["faces"].as_array().unwrap() {
        let [column, row] = numbers(&face["cell"]).map(|n| n as usize);
        let cell = row * columns + column;
        heatmap[cell] = face["score"].as_f64().unwrap() as f32;
        for (plane, number) in numbers::<14>(&face["network"]).into_iter().enumerate() {
            numbers_of[plane * cells + cell] = number;
        }
    }
    let (scale, rest) = numbers_of.split_at(2 * cells);
    let (offset, landmarks) = rest.split_at(2 * cells);
    let maps = Maps::new((width, height), &heatmap, scale, offset, landmarks).unwrap();
    let side = |name: &str| u32::try_from(picture[name].as_u64().unwrap()).unwrap();
    let (w, h) = (side("width"), side("height"));
    let placement = letterbox::place(w, h, width, height).unwrap();
    let picture = Letterbox { width: w, height: h, placement };
    maps.faces(0.5, 0.3).iter().map(|face| face.in_frame(&picture)).collect()
}

#[test]
fn faces_are_decoded_and_aligned_as_the_reference_has_them() {
    let reference = reference();
    let size = numbers(&reference["detector_size"]).map(|n: f32| n as u32);
    let mut count = 0;
    for picture in reference["pictures"].as_array().unwrap() {
        let (found, expected) = (decoded(picture, size), picture["faces"].as_array().unwrap());
        assert_eq!(found.len(), expected.len(), "{}", picture["file"]);
        for (face, expected) in found.iter().zip(expected) {
            count += 1;
            let near = |got: f32, want: f32, tolerance: f32| {
                assert!((got - want).abs() <= tolerance, "{}: {got} for {want}", picture["file"]);
            };
            let [x, y, width, height] = numbers(&expected["box"]);
            let bbox = face.bbox;
            for (got, want) in
                [(bbox.left, x), (bbox.top, y), (bbox.width(), width), (bbox.height(), height)]
            {
                near(got, want, 0.02);
            }
            let points = expected["landmarks"].as_array().unwrap();
            for ((x, y), point) in face.landmarks.into_iter().zip(points) {
                let [want_x, want_y] = numbers(point);
                near(x, want_x, 0.02);
                near(y, want_y, 0.02);
            }
            let Affine { a, b, c, d, e, f } =
                align::face_to_frame(&face.landmarks, faceres::SIZE).unwrap();
            let want: [f32; 6] = numbers(&expected["to_image"]);
            for (got, want) in [a, b, d, e].into_iter().zip([want[0], want[1], want[3], want[4]]) {
                near(got, want, 1e-4);
            }
            near(c, want[2], 0.02);
            near(f, want[5], 0.02);
        }
    }
    assert_eq!(count, 10);
}

#[test]
fn the_reference_tells_one_person_from_another() {
    let reference = reference();
    let pictures = reference["pictures"].as_array().unwrap().iter();
    let embedding = |file: &str| {
        let picture = pictures.clone().find(|picture| picture["file"] == file).unwrap();
        numbers::<{ faceres::DIMENSION }>(&picture["faces"][0]["embedding"])
    };
    let cosine =
        |one: &str, other: &str| embedding::cosine(&embedding(one), &embedding(other)).unwrap();
    let same = [
        ("obama-1.jpg", "obama-2.jpg"),
        ("obama-2.jpg", "obama-3.jpg"),
        ("biden-1.jpg", "biden-2.jpg"),
    ];
    for (one, other) in same {
        assert!(cosine(one, other) > 0.68, "{one}, {other}");
    }
    for (one, other) in [("obama-1.jpg", "biden-1.jpg"), ("collins-1.jpg", "obama-2.jpg")] {
        assert!(cosine(one, other) < 0.62, "{one}, {other}");
    }
}
