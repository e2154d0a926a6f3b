//! Embedding, gender and age of a face by the FaceRes model (HSE-asavchenko/HSE_FaceRec_tf;
//! Savchenko, "Efficient facial representations for age, gender and identity recognition in
//! organizing photo albums using multi-output ConvNet", PeerJ Computer Science 2019).

use crate::geometry::BBox;
use crate::nn::Model;
use crate::{Channels, Fit, Tensor, TensorSpec, embedding};

/// The model's name in the host's catalogue.
pub const MODEL: &str = "faceres-224";

/// The name of the model's input, [1, 3, 224, 224].
pub const INPUT: &str = "input";

/// Width and height of the input in pixels.
pub const SIZE: u32 = 224;

/// Numbers of an embedding.
pub const DIMENSION: usize = 1024;

/// The channel means of VGG-Face in BGR, as the model was trained with.
const MEAN: (f32, f32, f32) = (103.939, 116.779, 123.68);

/// How much larger than the face's box a square crop is that shows the model what it was trained
/// on.
pub const CROP: f32 = 1.2;

/// Years to both sides of an age that its score covers: about the mean error that the model's
/// authors report.
const AGE_MARGIN: f32 = 5.0;

/// The tensor that the model takes. A crop of another aspect ratio keeps it.
#[must_use]
pub fn input() -> TensorSpec {
    TensorSpec {
        fit: Fit::Letterbox,
        channels: Channels::Bgr,
        mean: MEAN,
        // What lies outside the frame is grey as the model's mean is, so it is 0 to the model.
        fill: MEAN,
        ..TensorSpec::letterbox(SIZE, SIZE)
    }
}

/// The square crop about a face's box, in the box's pixels.
#[must_use]
pub fn crop(face: &BBox) -> BBox {
    face.square().expanded(CROP)
}

/// The model's reading of one face.
#[derive(Debug, Clone, PartialEq)]
pub struct FaceReading {
    /// [`DIMENSION`] numbers, of length 1.
    pub embedding: Vec<f32>,
    /// The more likely gender.
    pub gender: Gender,
    /// The expected age.
    pub age: Age,
}

/// How the face looks, not who somebody is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gender {
    /// "female" or "male".
    pub label: &'static str,
    /// 0.5 to 1.
    pub score: f32,
}

/// The age that the face looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Age {
    /// The mean of the model's distribution over 1 to 100.
    pub years: f32,
    /// The distribution's share within five years of the mean, 0 to 1.
    pub score: f32,
}

/// The model, loaded.
pub struct Embedder {
    model: Model,
}

impl Embedder {
    /// Loads the model of this name.
    ///
    /// # Errors
    /// The host has no such model or cannot run it.
    pub fn load(name: &str) -> Result<Self, String> {
        Ok(Self { model: Model::load(name)? })
    }

    /// Reads one face, a tensor made as [`input`] says.
    ///
    /// # Errors
    /// A run that failed, outputs of another size than expected or not finite.
    pub fn read(&self, face: Tensor) -> Result<FaceReading, String> {
        let outputs = self.model.run([(INPUT, face)])?;
        let [embedding, gender, age] =
            ["embedding", "gender", "age"].map(|name| outputs.floats(name));
        reading(&embedding?.values(), &gender?.values(), &age?.values())
            .map_err(|e| format!("model {}: {e}", self.model.name()))
    }
}

/// Makes a reading of the outputs: `embedding`, 1024 numbers; `gender`, the probability of "male";
/// and `age`, the probabilities of 1 to 100 years.
///
/// # Errors
/// An output of another length, with both lengths; numbers that are not finite; an embedding
/// without direction.
pub fn reading(embedding: &[f32], gender: &[f32], age: &[f32]) -> Result<FaceReading, String> {
    let expect = |what: &str, values: &[f32], count: usize| {
        if values.len() == count {
            Ok(())
        } else {
            Err(format!(
                "output {what} has {} numbers, this pipeline expects {count}",
                values.len()
            ))
        }
    };
    expect("embedding", embedding, DIMENSION)?;
    expect("gender", gender, 1)?;
    expect("age", age, 100)?;
    let embedding = embedding::unit(embedding)?;
    let male = gender.first().copied().unwrap_or(f32::NAN);
    if !(0.0..=1.0).contains(&male) {
        return Err(format!("output gender is {male}, not 0 to 1"));
    }
    let gender = if male > 0.5 {
        Gender { label: "male", score: male }
    } else {
        Gender { label: "female", score: 1.0 - male }
    };
    Ok(FaceReading { embedding, gender, age: mean_age(age)? })
}

fn mean_age(probabilities: &[f32]) -> Result<Age, String> {
    let ages = || (1u8..).map(f32::from).zip(probabilities.iter().copied());
    let total: f32 = probabilities.iter().sum();
    let years = ages().map(|(age, share)| age * share).sum::<f32>() / total;
    if !years.is_finite() {
        return Err("output age is not finite".into());
    }
    let near = ages().filter(|(age, _)| (age - years).abs() <= AGE_MARGIN);
    let score = near.map(|(_, share)| share).sum::<f32>() / total;
    Ok(Age { years, score: score.clamp(0.0, 1.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ages(shares: &[(usize, f32)]) -> Vec<f32> {
        let mut ages = vec![0.0; 100];
        shares.iter().for_each(|&(age, share)| ages[age - 1] = share);
        ages
    }

    #[test]
    fn outputs_become_a_unit_vector_a_gender_and_an_age() {
        let mut raw = vec![0.0; DIMENSION];
        (raw[3], raw[700]) = (3.0, 4.0);
        let FaceReading { embedding, gender, age } =
            reading(&raw, &[0.2], &ages(&[(30, 0.5), (32, 0.25), (40, 0.25)])).unwrap();
        assert_eq!((embedding[3], embedding[700]), (0.6, 0.8));
        assert_eq!(gender, Gender { label: "female", score: 0.8 });
        assert_eq!(age, Age { years: 33.0, score: 0.75 });
        let male = reading(&raw, &[0.9], &ages(&[(1, 1.0)])).unwrap();
        assert_eq!((male.gender.label, male.gender.score), ("male", 0.9));
        assert_eq!(male.age, Age { years: 1.0, score: 1.0 });
    }

    #[test]
    fn another_dimension_is_an_error_with_both() {
        let error = reading(&[0.1; 512], &[0.5], &ages(&[(1, 1.0)])).unwrap_err();
        assert!(error.contains("512") && error.contains("1024"), "{error}");
        assert!(
            reading(&[0.1; DIMENSION], &[0.5; 2], &ages(&[(1, 1.0)]))
                .is_err_and(|e| e.contains("gender"))
        );
        assert!(reading(&[0.1; DIMENSION], &[0.5], &[1.0; 99]).is_err_and(|e| e.contains("age")));
    }

    #[test]
    fn numbers_that_are_not_finite_are_errors() {
        let (good, age) = ([0.1; DIMENSION], ages(&[(1, 1.0)]));
        let mut bad = good;
        bad[9] = f32::NAN;
        assert!(reading(&bad, &[0.5], &age).is_err_and(|e| e.contains("not finite")));
        assert!(reading(&[0.0; DIMENSION], &[0.5], &age).is_err_and(|e| e.contains("zero")));
        assert!(reading(&good, &[f32::NAN], &age).is_err_and(|e| e.contains("gender")));
        assert!(reading(&good, &[0.5], &[0.0; 100]).is_err_and(|e| e.contains("age")));
    }
}
