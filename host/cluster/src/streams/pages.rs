//! Pages of a camera's events, read straight from its stream.

use super::events::Tries;
use super::{Stored, StreamError, Streams};

/// The most events of a page, and about the most bytes.
const PAGE: (usize, usize) = (1000, 4 << 20);

/// Events of one camera, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    pub events: Vec<Stored>,
    /// Whether there were more when the page was read.
    pub more: bool,
}

/// Where an event is, and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spot {
    place: u64,
    seq: u64,
}

impl Streams {
    /// Up to `limit` (1,000 at most) events of the camera with numbers greater than `after`,
    /// straight from the stream, found by binary search. Any replica answers: events of the last
    /// moment may be missing.
    pub async fn page(&self, camera: &str, after: u64, limit: usize) -> Result<Page, StreamError> {
        let (stream, subject) = self.events_of(camera)?;
        let mut tries = Tries::new();
        loop {
            let page = self.page_of(&stream, &subject, after, limit).await;
            if let Some(page) = tries.settle(page).await? {
                return Ok(page);
            }
        }
    }

    async fn page_of(
        &self,
        stream: &str,
        subject: &str,
        after: u64,
        limit: usize,
    ) -> Result<Page, StreamError> {
        let Some(from) = self.find(stream, subject, after).await? else {
            return Ok(Page::default());
        };
        let limit = limit.clamp(1, PAGE.0);
        let (kept, more) = self.link().read(stream, subject, from, limit, PAGE.1).await?;
        let mut events = kept.iter().map(Stored::read).collect::<Result<Vec<_>, _>>()?;
        events.retain(|stored| stored.record.seq > after);
        Ok(Page { events, more })
    }

    /// From which place on the events greater than `after` are.
    async fn find(
        &self,
        stream: &str,
        subject: &str,
        after: u64,
    ) -> Result<Option<u64>, StreamError> {
        let Some(last) = self.spot(stream, subject, None).await?.filter(|last| last.seq > after)
        else {
            return Ok(None);
        };
        let first = self.spot(stream, subject, Some(1)).await?;
        let Some(first) = first.filter(|first| first.seq <= after) else {
            return Ok(Some(1));
        };
        let mut search = Search::new(first, last, after);
        loop {
            match search.step() {
                Step::Found(place) => return Ok(Some(place)),
                Step::Probe(place) => search.met(self.spot(stream, subject, Some(place)).await?),
            }
        }
    }

    async fn spot(
        &self,
        stream: &str,
        subject: &str,
        from: Option<u64>,
    ) -> Result<Option<Spot>, StreamError> {
        let kept = self.link().probe(stream, subject, from).await?;
        let stored = kept.as_ref().map(Stored::read).transpose()?;
        Ok(stored.map(|stored| Spot { place: stored.place, seq: stored.record.seq }))
    }
}

/// Finds from which place on the numbers are greater than `after`. Every other guess is where the
/// event would be if all came evenly: cameras mostly do.
struct Search {
    after: u64,
    /// Is not greater.
    low: Spot,
    /// Is greater.
    high: Spot,
    /// What is here and up to `high` is known to be nothing.
    end: u64,
    probed: u64,
    evenly: bool,
}

/// What a search wants.
enum Step {
    Found(u64),
    /// The first event at this place or behind it.
    Probe(u64),
}

impl Search {
    fn new(low: Spot, high: Spot, after: u64) -> Self {
        Self { after, low, high, end: high.place, probed: 0, evenly: false }
    }

    fn step(&mut self) -> Step {
        if self.low.seq == self.after || self.low.place + 1 >= self.end {
            return Step::Found(self.low.place + 1);
        }
        if self.high.seq == self.after + 1 {
            return Step::Found(self.high.place);
        }
        self.evenly = !self.evenly;
        let middle = if self.evenly { self.guess() } else { self.low.place.midpoint(self.end) };
        self.probed = middle.clamp(self.low.place + 1, self.end - 1);
        Step::Probe(self.probed)
    }

    /// What was met at the place that was asked for.
    fn met(&mut self, spot: Option<Spot>) {
        match spot {
            Some(spot) if spot.seq <= self.after && spot.place > self.low.place => self.low = spot,
            Some(spot) if spot.seq > self.after && spot.place < self.high.place => {
                self.high = spot;
                self.end = self.probed;
            }
            _ => self.end = self.probed,
        }
    }

    /// Where the event after `after` would be if all came evenly.
    fn guess(&self) -> u64 {
        let places = u128::from(self.high.place.saturating_sub(self.low.place));
        let wanted = u128::from((self.after + 1).saturating_sub(self.low.seq));
        let numbers = u128::from(self.high.seq.saturating_sub(self.low.seq)).max(1);
        self.low.place + u64::try_from(places * wanted / numbers).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Searches among events at the given places, numbered from `first`.
    fn found(places: &[u64], first: u64, after: u64) -> (u64, usize) {
        let spots: Vec<Spot> =
            (first..).zip(places).map(|(seq, &place)| Spot { place, seq }).collect();
        let mut search = Search::new(spots[0], spots[spots.len() - 1], after);
        let mut probes = 0;
        loop {
            match search.step() {
                Step::Found(place) => return (place, probes),
                Step::Probe(place) => {
                    probes += 1;
                    search.met(spots.iter().find(|spot| spot.place >= place).copied());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_search_finds_the_first_event_after(
            gaps in prop::collection::vec(1u64..200, 2..300),
            first in 1u64..1000,
            at in any::<prop::sample::Index>(),
        ) {
            let mut place = 0;
            let places: Vec<u64> = gaps.iter().map(|gap| { place += gap; place }).collect();
            let index = at.index(places.len() - 1);
            let after = first + u64::try_from(index).unwrap();
            let (from, probes) = found(&places, first, after);
            prop_assert_eq!(places.iter().find(|place| **place >= from), places.get(index + 1));
            prop_assert!(probes <= 40, "{} probes", probes);
        }
    }

    #[test]
    fn an_even_stream_takes_few_probes() {
        let places: Vec<u64> = (1..=60_000).map(|n| n * 20).collect();
        for after in [1, 17, 29_999, 59_998] {
            let (from, probes) = found(&places, 1, after);
            assert_eq!(from.div_ceil(20), after + 1);
            assert!(probes <= 4, "{probes} probes for {after}");
        }
    }
}
