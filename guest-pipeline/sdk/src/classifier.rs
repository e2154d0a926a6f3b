//! The best classes of a classifier's output.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::settings::Setting;
use crate::settings::limits::Limits;

/// The function from a classifier's numbers to scores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// One class applies: exp(x) over the sum of all.
    #[default]
    Softmax,
    /// Each class applies or not: 1 / (1 + exp(-x)).
    Sigmoid,
    /// The model has done it: the numbers are scores.
    None,
}

impl Setting for Activation {
    fn describe(_: &Limits) -> Map<String, Value> {
        let names = [Self::Softmax, Self::Sigmoid, Self::None].map(|one| one.to_json());
        [("enum".to_owned(), Value::from(names.to_vec()))].into_iter().collect()
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Softmax => "softmax".into(),
            Self::Sigmoid => "sigmoid".into(),
            Self::None => "none".into(),
        }
    }

    fn check(&self, _: &Limits, _: &str) -> Result<(), String> {
        Ok(())
    }
}

/// The `count` best classes of a row of `numbers`, one for each class, with their scores, best
/// first; of equals the first class.
///
/// # Errors
/// Numbers that are not finite.
pub fn best(
    numbers: &[f32],
    activation: Activation,
    count: usize,
) -> Result<Vec<(usize, f32)>, String> {
    if !numbers.iter().all(|number| number.is_finite()) {
        return Err("the classifier's output is not finite".into());
    }
    let largest = numbers.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = numbers.iter().map(|number| (number - largest).exp()).sum();
    let score = |number: f32| match activation {
        Activation::Softmax => (number - largest).exp() / sum,
        Activation::Sigmoid => 1.0 / (1.0 + (-number).exp()),
        Activation::None => number,
    };
    let mut classes: Vec<_> = numbers.iter().map(|&number| score(number)).enumerate().collect();
    classes.sort_by(|a, b| b.1.total_cmp(&a.1));
    classes.truncate(count);
    Ok(classes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first_with_their_scores() {
        let logits = [1f32.ln(), 6f32.ln(), 3f32.ln()];
        let found = best(&logits, Activation::Softmax, 2).unwrap();
        assert_eq!(found.iter().map(|f| f.0).collect::<Vec<_>>(), [1, 2]);
        assert!((found[0].1 - 0.6).abs() < 1e-6 && (found[1].1 - 0.3).abs() < 1e-6);
        assert_eq!(best(&[0.0, -1.0], Activation::Sigmoid, 1).unwrap(), [(0, 0.5)]);
        assert_eq!(
            best(&[0.1, 0.9, 0.9], Activation::None, 5).unwrap(),
            [(1, 0.9), (2, 0.9), (0, 0.1)]
        );
        assert!((best(&[1e30, -1e30], Activation::Softmax, 1).unwrap()[0].1 - 1.0).abs() < 1e-6);
    }

    #[test]
    fn numbers_that_are_not_finite_are_an_error() {
        assert!(best(&[0.0, f32::NAN], Activation::Softmax, 1).is_err());
        assert_eq!(best(&[], Activation::Softmax, 1), Ok(vec![]));
    }
}
