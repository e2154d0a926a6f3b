//! Faces in pictures: those of a reference made without Ocelli, alike where they are one person's
//! and not where they are two people's.

use ocelli_testkit::{Ocelli, root};
use serde_json::Value;

/// How far an embedding may lie from the reference's: 1 less the cosine.
const MAX_COSINE: f64 = 1e-3;

/// How far a landmark or an edge may lie from the reference's, in pixels.
const MAX_PIXELS: f64 = 2.0;

/// The threshold that `models/README.md` gives for faceres-224.
const ALIKE: f64 = 0.62;

async fn analyze(host: &Ocelli, pipeline: &str, file: &str) -> Value {
    let picture = std::fs::read(root().join("tests/faces").join(file)).unwrap();
    let (status, body) =
        host.post(&format!("/v1/analyze/{pipeline}"), "image/jpeg", &picture).await;
    assert_eq!(status, 200, "{file}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// The reference: file, then its faces.
fn reference() -> Vec<(String, Vec<Value>)> {
    let text = std::fs::read_to_string(root().join("tests/golden/faces.json")).unwrap();
    let reference: Value = serde_json::from_str(&text).unwrap();
    let pictures = reference["pictures"].as_array().unwrap().iter();
    let picture = |p: &Value| {
        (p["file"].as_str().unwrap().to_owned(), p["faces"].as_array().unwrap().clone())
    };
    pictures.map(picture).collect()
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn cosine(one: &Value, other: &Value) -> f64 {
    let (one, other) = (numbers(one), numbers(other));
    assert_eq!(one.len(), other.len());
    let product = |p: &[f64], q: &[f64]| p.iter().zip(q).map(|(x, y)| x * y).sum::<f64>();
    product(&one, &other) / (product(&one, &one) * product(&other, &other)).sqrt()
}

/// The largest difference of two lists of numbers.
fn distance(one: &[f64], other: &[f64]) -> f64 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
}

/// Of `others`, the face whose box begins nearest to this one's.
fn nearest<'a>(face: &Value, others: &'a [Value]) -> &'a Value {
    let left = |face: &Value| face["box"][0].as_f64().unwrap();
    let away = |other: &&Value| (left(other) - left(face)).abs();
    others.iter().min_by(|one, other| away(one).total_cmp(&away(other))).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn faces_and_embeddings_are_those_of_the_reference() {
    let host = Ocelli::start("").await;
    for (file, expected) in reference() {
        let answer = analyze(&host, "face-embed", &file).await;
        let found = answer["detections"].as_array().unwrap();
        assert_eq!(found.len(), expected.len(), "{file}: {answer}");
        for face in found {
            let expected = nearest(face, &expected);
            let attribute = |name: &str| face["attributes"][name]["value"].as_str().unwrap();
            assert_eq!(
                (face["label"].as_str(), attribute("dimension")),
                (Some("face"), "1024"),
                "{file}"
            );
            let embedding = numbers(&face["embedding"]);
            let length: f64 = embedding.iter().map(|x| x * x).sum();
            assert!(
                embedding.len() == 1024 && (length - 1.0).abs() < 1e-4,
                "{file}: of length {length}"
            );
            let landmarks: Value = serde_json::from_str(attribute("landmarks")).unwrap();
            for (point, expected) in
                landmarks.as_array().unwrap().iter().zip(expected["landmarks"].as_array().unwrap())
            {
                let away = distance(&numbers(point), &numbers(expected));
                assert!(
                    away <= MAX_PIXELS,
                    "{file}: a landmark {away} pixels off: {point}, {expected}"
                );
            }
            let away = distance(&numbers(&face["box"]), &numbers(&expected["box"]));
            assert!(away <= MAX_PIXELS, "{file}: the box is {away} pixels off");
            let away = 1.0 - cosine(&face["embedding"], &expected["embedding"]);
            println!("{file}: 1 - cosine to the reference {away:.1e}");
            assert!(away <= MAX_COSINE, "{file}: 1 - cosine to the reference is {away}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_in_two_pictures_is_alike_and_two_people_are_not() {
    let host = Ocelli::start("").await;
    let mut people = Vec::new();
    for (file, faces) in reference().into_iter().filter(|(_, faces)| faces.len() == 1) {
        let answer = analyze(&host, "face-embed", &file).await;
        assert_eq!(answer["detections"].as_array().unwrap().len(), faces.len(), "{file}");
        let person = file.split('-').next().unwrap().to_owned();
        people.push((person, answer["detections"][0]["embedding"].clone()));
    }
    let (mut same, mut different) = (Vec::new(), Vec::new());
    for (n, (person, embedding)) in people.iter().enumerate() {
        for (other, other_embedding) in people.iter().skip(n + 1) {
            let list = if person == other { &mut same } else { &mut different };
            list.push(cosine(embedding, other_embedding));
        }
    }
    let least = same.iter().copied().fold(f64::INFINITY, f64::min);
    let most = different.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    println!(
        "one person: at least {least:.3} ({} pairs); two: at most {most:.3} ({})",
        same.len(),
        different.len()
    );
    assert!(same.len() >= 5 && different.len() >= 10);
    assert!(least >= ALIKE && most < ALIKE, "one person {least}, two people {most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_without_a_face_gives_an_empty_list() {
    let host = Ocelli::start("").await;
    let answer = analyze(&host, "face-embed", "none.jpg").await;
    assert_eq!(answer["detections"], Value::Array(vec![]), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cascade_says_age_and_gender_of_the_face_of_each_person() {
    let host = Ocelli::start("").await;
    let answer = analyze(&host, "cascade", "three.jpg").await;
    let mut persons = answer["detections"].as_array().unwrap().clone();
    persons.sort_by(|one, other| {
        one["box"][0].as_f64().unwrap().total_cmp(&other["box"][0].as_f64().unwrap())
    });
    let said = |person: &Value, name: &str| {
        let attribute = &person["attributes"][name];
        let score = attribute["score"].as_f64().unwrap_or_else(|| panic!("no {name}: {person}"));
        assert!((0.0..=1.0).contains(&score), "{name}: {attribute}");
        attribute["value"].as_str().unwrap().to_owned()
    };
    let genders: Vec<_> = persons.iter().map(|person| said(person, "face.gender")).collect();
    assert_eq!(genders, ["male", "male", "female"], "{answer}");
    for person in &persons {
        assert_eq!(person["label"], "person");
        let years: f64 = said(person, "face.age").parse().unwrap();
        assert!((20.0..=80.0).contains(&years), "{years}");
        let face: [f64; 4] = serde_json::from_str(&said(person, "face")).unwrap();
        let person = numbers(&person["box"]);
        assert!(face[0] >= person[0] - MAX_PIXELS && face[2] < person[2], "{face:?} in {person:?}");
    }
}
