//! Embeddings: vectors whose directions say how alike two things are.

/// The vector at length 1, so that the scalar product of two is their cosine.
///
/// # Errors
/// A vector with a number that is not finite, or of length 0: what has no direction resembles
/// nothing.
pub fn unit(vector: &[f32]) -> Result<Vec<f32>, String> {
    // In double precision a square of any f32 and the sum of many are finite.
    let length = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if !length.is_finite() {
        return Err(format!("an embedding of {} numbers is not finite", vector.len()));
    }
    if length == 0.0 {
        return Err(format!("an embedding of {} numbers is zero throughout", vector.len()));
    }
    Ok(vector.iter().map(|&x| (f64::from(x) / length) as f32).collect())
}

/// The cosine of the angle between two vectors, -1 to 1. `None` where one of them has no direction
/// or their lengths differ.
#[must_use]
pub fn cosine(one: &[f32], other: &[f32]) -> Option<f32> {
    if one.len() != other.len() {
        return None;
    }
    let product = |p: &[f32], q: &[f32]| {
        p.iter().zip(q).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>()
    };
    let cosine = product(one, other) / (product(one, one) * product(other, other)).sqrt();
    cosine.is_finite().then_some(cosine.clamp(-1.0, 1.0) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_unit_vector_has_length_one_and_the_same_direction(
            vector in prop::collection::vec(-1e6f32..1e6, 1..1100),
        ) {
            prop_assume!(vector.iter().any(|x| x.abs() > 1e-3));
            let unit = unit(&vector).unwrap();
            let length: f64 = unit.iter().map(|&x| f64::from(x).powi(2)).sum();
            prop_assert!((length - 1.0).abs() < 1e-5);
            prop_assert!((cosine(&vector, &unit).unwrap() - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn what_has_no_direction_is_refused() {
        assert!(unit(&[0.0; 4]).is_err_and(|e| e.contains("zero")));
        assert!(unit(&[]).is_err());
        for bad in [f32::NAN, f32::INFINITY] {
            assert!(unit(&[1.0, bad]).is_err_and(|e| e.contains("not finite")));
        }
        assert!(unit(&[f32::MAX, f32::MAX]).is_ok(), "large is not infinite");
    }

    #[test]
    fn cosine_is_that_of_the_angle() {
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 3.0]), Some(0.0));
        assert_eq!(cosine(&[1.0, 1.0], &[-2.0, -2.0]), Some(-1.0));
        assert!((cosine(&[1.0, 0.0], &[1.0, 1.0]).unwrap() - 0.5f32.sqrt()).abs() < 1e-6);
        assert_eq!(cosine(&[1.0], &[1.0, 0.0]), None);
        assert_eq!(cosine(&[0.0], &[1.0]), None);
        assert_eq!(cosine(&[f32::NAN], &[1.0]), None);
    }
}
