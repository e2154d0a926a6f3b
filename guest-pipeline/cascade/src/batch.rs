//! Batches that fit into the memory that there is.

use ocelli_sdk::FrameError;

/// Makes one tensor of the first `most` items, or of half as many, and half of those, until it
/// fits. Gives the tensor and the number of items in it.
///
/// # Errors
/// The error of `make` for a single item, and any error but out of memory.
pub fn make<I, T>(
    items: &[I],
    most: usize,
    mut make: impl FnMut(&[I]) -> Result<T, FrameError>,
) -> Result<(T, usize), FrameError> {
    let mut count = most.clamp(1, items.len().max(1));
    loop {
        match make(items.get(..count).unwrap_or_default()) {
            Err(FrameError::OutOfMemory(_)) if count > 1 => count /= 2,
            made => return made.map(|tensor| (tensor, count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes up to `room` items.
    fn within(room: usize) -> impl Fn(&[u8]) -> Result<Vec<u8>, FrameError> {
        move |items| {
            let full = || FrameError::OutOfMemory(format!("{} do not fit", items.len()));
            (items.len() <= room).then(|| items.to_vec()).ok_or_else(full)
        }
    }

    #[test]
    fn a_batch_shrinks_until_it_fits() {
        let items = [0, 1, 2, 3, 4, 5, 6];
        assert_eq!(make(&items, 8, within(64)).unwrap().1, 7);
        assert_eq!(make(&items, 4, within(64)).unwrap(), (vec![0, 1, 2, 3], 4));
        assert_eq!(make(&items, 8, within(3)).unwrap().1, 3);
        assert_eq!(make(&items, 8, within(1)).unwrap(), (vec![0], 1));
        assert!(
            matches!(make(&items, 8, within(0)), Err(FrameError::OutOfMemory(e)) if e == "1 do not fit")
        );
    }

    #[test]
    fn another_error_is_passed_on_at_once() {
        let mut calls = 0;
        let made = make(&[0; 4], 4, |_| -> Result<(), _> {
            calls += 1;
            Err(FrameError::InvalidRegion("empty".into()))
        });
        assert!(matches!(made, Err(FrameError::InvalidRegion(_))));
        assert_eq!(calls, 1);
    }
}
