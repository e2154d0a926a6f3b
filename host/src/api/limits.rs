//! Rate limits by caller or address, and how much of a caller's may be under way.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::util::bucket::{RateLimit, TokenBucket};

/// Most buckets; callers or addresses beyond share one. A bucket takes some 100 bytes.
const MAX_BUCKETS: usize = 10_000;

/// The least time between two sweeps for full buckets, once there are so many.
const BETWEEN_SWEEPS: Duration = Duration::from_secs(1);

/// The address of a rate limit: for IPv6 the network of a site, which has 2^64 addresses.
pub(super) fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

/// A token bucket for each caller or address.
#[derive(Debug)]
pub(super) struct RateLimits<K> {
    buckets: Mutex<Buckets<K>>,
}

#[derive(Debug)]
struct Buckets<K> {
    left: HashMap<Option<K>, TokenBucket>,
    /// The last sweep for full buckets.
    swept: Option<Instant>,
}

impl<K> Default for RateLimits<K> {
    fn default() -> Self {
        Self { buckets: Mutex::new(Buckets { left: HashMap::new(), swept: None }) }
    }
}

impl<K: Hash + Eq> RateLimits<K> {
    /// Takes one token from the bucket of `key`. An error is the time until there is one.
    pub(super) fn take(&self, key: K, pace: RateLimit, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock();
        let mut key = Some(key);
        let Buckets { left, swept } = &mut *buckets;
        if left.len() >= MAX_BUCKETS && !left.contains_key(&key) {
            // A flood must not cause a sweep with each request.
            if swept.is_none_or(|swept| now.saturating_duration_since(swept) >= BETWEEN_SWEEPS) {
                *swept = Some(now);
                // A full bucket is the same as a new one.
                left.retain(|_, left| !left.is_full(pace, now));
            }
            if left.len() >= MAX_BUCKETS {
                key = None;
            }
        }
        left.entry(key).or_insert_with(|| TokenBucket::full(pace, now)).take(pace, now)
    }
}

/// What is under way, by caller. Those that have nothing take no memory.
#[derive(Debug, Default)]
pub(super) struct Entered(Arc<Mutex<HashMap<String, usize>>>);

impl Entered {
    /// Counts one more of this caller until the answer is dropped. `None`: it has as many already.
    pub(super) fn enter(&self, caller: String, most: usize) -> Option<CallerSlot> {
        let mut entered = self.0.lock();
        let count = entered.entry(caller.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(CallerSlot { entered: Arc::clone(&self.0), caller })
    }
}

/// One of [`Entered`].
#[derive(Debug)]
pub(super) struct CallerSlot {
    entered: Arc<Mutex<HashMap<String, usize>>>,
    caller: String,
}

impl Drop for CallerSlot {
    fn drop(&mut self) {
        let mut entered = self.entered.lock();
        if let Some(count) = entered.get_mut(&self.caller) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                entered.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: RateLimit = RateLimit { burst: 3.0, per_second: 2.0 };

    #[test]
    fn a_burst_passes_and_then_the_pace_and_each_has_its_own() {
        let (limits, now) = (RateLimits::default(), Instant::now());
        let take = |key: &'static str, after_ms| {
            limits.take(key, PACE, now + Duration::from_millis(after_ms))
        };
        assert_eq!([take("a", 0), take("a", 0), take("a", 0)], [Ok(()); 3]);
        assert_eq!(take("a", 0), Err(Duration::from_millis(500)));
        assert_eq!(take("b", 0), Ok(()));
        assert_eq!(take("a", 250), Err(Duration::from_millis(250)));
        assert_eq!((take("a", 500), take("a", 500)), (Ok(()), Err(Duration::from_millis(500))));
        assert_eq!(
            [take("a", 60_000), take("a", 60_000), take("a", 60_000)],
            [Ok(()); 3],
            "no more than a burst"
        );
        assert!(take("a", 60_000).is_err());
    }

    #[test]
    fn a_flood_of_addresses_neither_grows_nor_locks_out_those_that_are_known() {
        let (limits, now) = (RateLimits::default(), Instant::now());
        let strict = RateLimit { burst: 2.0, per_second: 0.001 };
        assert!(limits.take(usize::MAX, strict, now).is_ok());
        let passed =
            (0..3 * MAX_BUCKETS).filter(|key| limits.take(*key, strict, now).is_ok()).count();
        assert_eq!(passed, MAX_BUCKETS - 1 + 2, "those beyond share one allowance");
        assert!(limits.buckets.lock().left.len() <= MAX_BUCKETS + 1);
        assert!(limits.take(usize::MAX, strict, now).is_ok());
        let later = now + Duration::from_secs(3600);
        assert!(limits.take(usize::MAX - 1, strict, later).is_ok());
        assert_eq!(limits.buckets.lock().left.len(), 1, "idle ones are forgotten");
    }

    #[test]
    fn a_caller_has_so_many_under_way_and_each_has_its_own() {
        let entered = Entered::default();
        let enter = |caller: &str| entered.enter(caller.to_owned(), 2);
        let (first, second) = (enter("a"), enter("a"));
        assert!(second.is_some() && enter("a").is_none() && enter("b").is_some());
        drop(first);
        assert!(enter("a").is_some());
        drop(second);
        assert!(entered.0.lock().is_empty(), "nothing is remembered of who has none");
    }

    #[test]
    fn an_address_is_its_site() {
        let site = |text: &str| site(text.parse().unwrap()).to_string();
        assert_eq!(site("192.0.2.7"), "192.0.2.7");
        assert_eq!(site("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(site("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
