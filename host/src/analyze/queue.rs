//! The images of one pipeline that wait for a worker. Requests take turns, so that a request with
//! many images delays another by one image at most.

use std::collections::VecDeque;
use std::time::Instant;

/// An image that waits for a worker.
#[derive(Debug)]
pub(super) struct WaitingImage<P> {
    /// Unique among images: what [`ImageQueue::remove`] finds it by.
    pub(super) number: u64,
    /// The number of its request.
    pub(super) request: u64,
    pub(super) since: Instant,
    pub(super) image: P,
}

/// Images by request; the request whose turn it is comes first.
#[derive(Debug)]
pub(super) struct ImageQueue<P> {
    requests: VecDeque<VecDeque<WaitingImage<P>>>,
}

impl<P> Default for ImageQueue<P> {
    fn default() -> Self {
        Self { requests: VecDeque::new() }
    }
}

impl<P> ImageQueue<P> {
    /// Adds an image behind all others of its request; a new request comes behind all requests.
    pub(super) fn push(&mut self, waiting: WaitingImage<P>) {
        let own = |images: &&mut VecDeque<WaitingImage<P>>| {
            images.front().is_some_and(|first| first.request == waiting.request)
        };
        match self.requests.iter_mut().find(own) {
            Some(images) => images.push_back(waiting),
            None => self.requests.push_back(VecDeque::from([waiting])),
        }
    }

    /// Adds an image before all others: it had its turn, but its worker ended before it received
    /// the image.
    pub(super) fn push_first(&mut self, waiting: WaitingImage<P>) {
        self.requests.push_front(VecDeque::from([waiting]));
    }

    /// Takes the next image, after which it is the next request's turn.
    pub(super) fn pop(&mut self) -> Option<WaitingImage<P>> {
        let mut images = self.requests.pop_front()?;
        let next = images.pop_front();
        if !images.is_empty() {
            self.requests.push_back(images);
        }
        next
    }

    /// Takes out the image with this number.
    pub(super) fn remove(&mut self, number: u64) -> Option<WaitingImage<P>> {
        let found = self.requests.iter_mut().find_map(|images| {
            let index = images.iter().position(|waiting| waiting.number == number)?;
            images.remove(index)
        });
        self.requests.retain(|images| !images.is_empty());
        found
    }

    /// Takes all images out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = WaitingImage<P>> {
        std::mem::take(&mut self.requests).into_iter().flatten()
    }

    pub(super) fn len(&self) -> usize {
        self.requests.iter().map(VecDeque::len).sum()
    }

    /// When the oldest image arrived.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.requests.iter().flatten().map(|waiting| waiting.since).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn waiting(number: u64, request: u64) -> WaitingImage<()> {
        WaitingImage { number, request, since: Instant::now(), image: () }
    }

    #[test]
    fn a_single_picture_waits_for_one_picture_of_a_large_request_alone() {
        let mut queue = ImageQueue::default();
        (0..64).for_each(|number| queue.push(waiting(number, 1)));
        queue.push(waiting(64, 2));
        queue.push(waiting(65, 3));
        let order: Vec<u64> =
            std::iter::from_fn(|| queue.pop()).map(|waiting| waiting.number).collect();
        assert_eq!(order[..5], [0, 64, 65, 1, 2]);
        assert_eq!(order.len(), 66);
    }

    #[test]
    fn what_is_given_back_is_the_next() {
        let mut queue = ImageQueue::default();
        (0..3).for_each(|number| queue.push(waiting(number, number)));
        let first = queue.pop().unwrap();
        queue.push_first(first);
        assert_eq!(queue.pop().unwrap().number, 0);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_pictures_of_a_request_keep_their_order(
            requests in proptest::collection::vec(0u64..5, 0..40), removed in 0u64..40
        ) {
            let mut queue = ImageQueue::default();
            for (number, request) in requests.iter().enumerate() {
                queue.push(waiting(number as u64, *request));
            }
            let gone = queue.remove(removed).is_some();
            prop_assert_eq!(gone, (removed as usize) < requests.len());
            prop_assert_eq!(queue.len(), requests.len() - usize::from(gone));
            let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
            prop_assert_eq!(order.len(), requests.len() - usize::from(gone));
            for request in 0..5 {
                let own = order.iter().filter(|w| w.request == request);
                let own: Vec<u64> = own.map(|w| w.number).collect();
                prop_assert!(own.is_sorted(), "{:?}", own);
            }
        }
    }
}
