//! Which host is to have which camera.
//!
//! [`plan`] is a function of the site alone: any host can be the one that plans. A camera stays where
//! it is, or is going, as long as that host may have it. One whose host is gone goes by weighted
//! rendezvous hashing, so that the cameras of a dead host spread over all, and only they move; a load
//! cap keeps chance from filling one host. Cameras move between hosts that live for three reasons:
//! a wish, a host that is to be emptied, and a host that has clearly less than its share. Such moves
//! are bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// How many cameras move at a time from a host that lives to another: each needs a second worker for
/// a while, and has a gap of some frames.
pub const MOVES: usize = 20;

/// What a host offers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The sum of the costs of the cameras that it can have.
    pub capacity: u32,
    pub labels: BTreeSet<String>,
    pub networks: BTreeSet<String>,
    /// It gets no camera, and loses those that it has.
    pub draining: bool,
}

/// What a camera asks of its host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    pub labels: BTreeSet<String>,
    pub networks: BTreeSet<String>,
    pub cost: u32,
}

/// Why a camera has no host, or only one that is to be emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unplaced {
    /// No host is there.
    NoHost,
    /// No host has its labels.
    Labels,
    /// No host with its labels reaches its networks.
    Networks,
    /// Each host that it could go to is being drained.
    Draining,
    /// Each host that it could go to is full.
    Full,
}

impl fmt::Display for Unplaced {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NoHost => "no host is there",
            Self::Labels => "no host has its labels",
            Self::Networks => "no host with its labels reaches its networks",
            Self::Draining => "each host that it could go to is being drained",
            Self::Full => "each host that it could go to is full",
        })
    }
}

/// Which host is to have which camera.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Counts the plans of a site.
    pub version: u64,
    /// The host of each camera that has one.
    pub cameras: BTreeMap<String, String>,
    /// The cameras that no host can take; those that stay on a draining host have one, too.
    pub unplaced: BTreeMap<String, Unplaced>,
}

/// How much more than its share of the load a host gets by rendezvous hashing, in percent.
const CAP_PERCENT: u128 = 125;

/// A host with less than this of its share, in percent, is lean: chance leaves few hosts there, and the
/// death of one of many lifts none below it.
const LEAN_PERCENT: u64 = 67;

/// Where there is a lean host, those with less than this get cameras of others.
const FILL_PERCENT: u64 = 90;

/// How often a plan is looked through until nothing changes: two or three times do.
const ROUNDS: usize = 16;

/// Plans anew. `owners` has the host of each camera that is owned by one that lives, `pins` the hosts
/// that cameras are wished to. The plan keeps the version of `previous` where it is the same.
pub fn plan(
    hosts: &BTreeMap<String, Place>,
    cameras: &BTreeMap<String, Needs>,
    owners: &BTreeMap<String, String>,
    previous: &Plan,
    pins: &BTreeMap<String, String>,
) -> Plan {
    let mut planned = previous.clone();
    // A camera that leaves a host may make room for one that was looked at before.
    for _ in 0..ROUNDS {
        let mut planner = Planner::new(hosts, cameras, owners, &planned, pins);
        planner.keep();
        planner.fulfil_pins();
        planner.place_homeless();
        planner.empty_draining();
        planner.make_room();
        planner.fill_lean_hosts();
        let next = planner.finish();
        if next == planned {
            break;
        }
        planned = next;
    }
    let same = planned.cameras == previous.cameras && planned.unplaced == previous.unplaced;
    Plan { version: previous.version + u64::from(!same), ..planned }
}

/// A host, with what it is to have so far.
struct Loaded<'a> {
    place: &'a Place,
    load: u64,
    /// What rendezvous hashing gives it at most.
    cap: u64,
    hash: u64,
}

impl Loaded<'_> {
    fn fits(&self, needs: &Needs) -> bool {
        needs.labels.is_subset(&self.place.labels) && needs.networks.is_subset(&self.place.networks)
    }

    fn has_room(&self, needs: &Needs) -> bool {
        self.load + cost(needs) <= u64::from(self.place.capacity)
    }

    /// It may have a camera that it does not have yet.
    fn may_get(&self, needs: &Needs) -> bool {
        !self.place.draining && self.fits(needs) && self.has_room(needs)
    }

    /// Its load in millionths of its capacity.
    fn fullness(&self) -> u64 {
        fraction(self.load, self.place.capacity)
    }
}

/// What a camera takes of a capacity: none that takes nothing, so that each host has a bound.
fn cost(needs: &Needs) -> u64 {
    u64::from(needs.cost.max(1))
}

fn fraction(load: u64, capacity: u32) -> u64 {
    (load * 1_000_000).checked_div(u64::from(capacity)).unwrap_or(u64::MAX)
}

struct Planner<'a> {
    hosts: BTreeMap<&'a str, Loaded<'a>>,
    cameras: &'a BTreeMap<String, Needs>,
    owners: &'a BTreeMap<String, String>,
    previous: &'a Plan,
    pins: &'a BTreeMap<String, String>,
    /// The hosts of the cameras that have one in the new plan.
    at: BTreeMap<&'a str, &'a str>,
    unplaced: BTreeMap<&'a str, Unplaced>,
    /// How many cameras are to move from a host that lives.
    moves: usize,
}

impl<'a> Planner<'a> {
    fn new(
        hosts: &'a BTreeMap<String, Place>,
        cameras: &'a BTreeMap<String, Needs>,
        owners: &'a BTreeMap<String, String>,
        previous: &'a Plan,
        pins: &'a BTreeMap<String, String>,
    ) -> Self {
        let room = |place: &Place| if place.draining { 0 } else { u64::from(place.capacity) };
        let capacity = hosts.values().map(room).sum::<u64>().max(1);
        let wanted: u64 = cameras.values().map(cost).sum();
        let loaded = |(id, place): (&'a String, &'a Place)| {
            let [wanted, room, capacity] = [wanted, room(place), capacity].map(u128::from);
            let share = (wanted * room * CAP_PERCENT).div_ceil(capacity * 100).min(room);
            let cap = u64::try_from(share).unwrap_or(u64::MAX);
            (id.as_str(), Loaded { place, load: 0, cap, hash: hash(id) })
        };
        Self {
            hosts: hosts.iter().map(loaded).collect(),
            cameras,
            owners,
            previous,
            pins,
            at: BTreeMap::new(),
            unplaced: BTreeMap::new(),
            moves: 0,
        }
    }

    fn owner(&self, camera: &str) -> Option<&'a str> {
        self.owners.get(camera).map(String::as_str)
    }

    /// The host that a camera is wished to, if it may have it.
    fn pin(&self, camera: &str, needs: &Needs) -> Option<&'a str> {
        let pin = self.pins.get(camera)?.as_str();
        let fits = |host: &Loaded<'_>| !host.place.draining && host.fits(needs);
        self.hosts.get(pin).is_some_and(fits).then_some(pin)
    }

    /// Cameras stay with owners that may have them, and go on to where they are going.
    fn keep(&mut self) {
        let cameras = self.cameras;
        let planned = |camera: &str| self.previous.cameras.get(camera).map(String::as_str);
        let (settled, going): (Vec<_>, Vec<_>) = cameras.iter().partition(|(camera, _)| {
            let owner = self.owner(camera);
            owner.is_some() && planned(camera).is_none_or(|host| Some(host) == owner)
        });
        for (camera, needs) in settled.into_iter().chain(going) {
            for host in [planned(camera), self.owner(camera)].into_iter().flatten() {
                if self.hosts.get(host).is_some_and(|loaded| loaded.may_get(needs)) {
                    self.put(camera, needs, host);
                    break;
                }
            }
        }
    }

    fn fulfil_pins(&mut self) {
        let cameras = self.cameras;
        for (camera, needs) in cameras {
            let Some(pin) = self.pin(camera, needs) else { continue };
            let (at, owner) = (self.at.get(camera.as_str()).copied(), self.owner(camera));
            let going = at.is_some() && at != owner;
            let free = owner.is_none() || going || self.moves < MOVES;
            let room = self.hosts.get(pin).is_some_and(|host| host.has_room(needs));
            if at != Some(pin) && free && room {
                self.put(camera, needs, pin);
            }
        }
    }

    /// Cameras without a host go to one; those with the least choice first, of these the dearest.
    fn place_homeless(&mut self) {
        let choice = |needs: &Needs| self.hosts.values().filter(|host| host.fits(needs)).count();
        let mut homeless: Vec<_> = self
            .cameras
            .iter()
            .filter(|(camera, _)| !self.at.contains_key(camera.as_str()))
            .filter(|(camera, needs)| self.draining_owner(camera, needs).is_none())
            .map(|(camera, needs)| (choice(needs), u64::MAX - cost(needs), camera.as_str(), needs))
            .collect();
        homeless.sort_by_key(|(choice, cost, camera, _)| (*choice, *cost, *camera));
        for (_, _, camera, needs) in homeless {
            match self.choose(camera, needs) {
                Some(host) => self.put(camera, needs, host),
                None => drop(self.unplaced.insert(camera, self.reason(needs))),
            }
        }
    }

    /// The owner of a camera, where only its being drained keeps the camera from staying.
    fn draining_owner(&self, camera: &str, needs: &Needs) -> Option<&'a str> {
        let owner = self.owner(camera)?;
        let host = self.hosts.get(owner)?;
        (host.place.draining && host.fits(needs) && host.has_room(needs)).then_some(owner)
    }

    /// Hosts that are drained give cameras to others, some at a time, and keep those that nobody else
    /// can take.
    fn empty_draining(&mut self) {
        let cameras = self.cameras;
        for (camera, needs) in cameras {
            if self.at.contains_key(camera.as_str()) {
                continue;
            }
            let owner = self.draining_owner(camera, needs);
            match (self.choose(camera, needs), owner) {
                (Some(host), Some(_)) if self.moves < MOVES => self.put(camera, needs, host),
                (Some(host), None) => self.put(camera, needs, host),
                (Some(_), Some(owner)) => self.put(camera, needs, owner),
                (None, owner) => {
                    if let Some(owner) = owner {
                        self.put(camera, needs, owner);
                    }
                    self.unplaced.insert(camera, self.reason(needs));
                }
            }
        }
    }

    /// A camera that found only full hosts gets the room of one that has a choice.
    fn make_room(&mut self) {
        let full = |(camera, why): (&&'a str, &Unplaced)| {
            (*why == Unplaced::Full && !self.at.contains_key(*camera)).then_some(*camera)
        };
        let full: Vec<_> = self.unplaced.iter().filter_map(full).collect();
        for camera in full {
            if self.moves >= MOVES {
                return;
            }
            let Some(needs) = self.cameras.get(camera) else { continue };
            let Some((other, from, to)) = self.exchange(needs) else { continue };
            if let Some(needs) = self.cameras.get(other) {
                self.put(other, needs, to);
            }
            self.put(camera, needs, from);
            self.unplaced.remove(camera);
        }
    }

    /// A camera that can go elsewhere, its host, which then has room for `needs`, and where to.
    fn exchange(&self, needs: &Needs) -> Option<(&'a str, &'a str, &'a str)> {
        self.at.iter().find_map(|(other, from)| {
            let theirs = self.cameras.get(*other)?;
            let host = self.hosts.get(from)?;
            let room = u64::from(host.place.capacity) + cost(theirs) >= host.load + cost(needs);
            let fits = room && !host.place.draining && host.fits(needs);
            if !fits || !self.settled(other, from) {
                return None;
            }
            let to = self.choose(other, theirs).filter(|to| to != from)?;
            Some((*other, *from, to))
        })
    }

    /// A camera that is where it is to be, and that nobody wished there.
    fn settled(&self, camera: &str, at: &str) -> bool {
        self.owner(camera) == Some(at) && self.pins.get(camera).is_none_or(|pin| pin != at)
    }

    /// Hosts with clearly less than their share, as new ones, get cameras of those with the most.
    fn fill_lean_hosts(&mut self) {
        let open = || self.hosts.values().filter(|host| !host.place.draining);
        let load: u64 = open().map(|host| host.load).sum();
        let capacity: u64 = open().map(|host| u64::from(host.place.capacity)).sum();
        let share = (load * 1_000_000).checked_div(capacity).unwrap_or(0);
        let lean = |host: &Loaded<'_>| host.fullness() * 100 < share * LEAN_PERCENT;
        if !open().filter(|host| host.place.capacity > 0).any(lean) {
            return;
        }
        while self.moves < MOVES {
            let Some((camera, to)) = self.relief(share) else { return };
            let Some(needs) = self.cameras.get(camera) else { return };
            self.put(camera, needs, to);
        }
    }

    /// The next camera that goes to a host with less than its share, and that host.
    fn relief(&self, share: u64) -> Option<(&'a str, &'a str)> {
        let mut hosts: Vec<_> = self
            .hosts
            .iter()
            .filter(|(_, host)| !host.place.draining && host.place.capacity > 0)
            .map(|(id, host)| (host.fullness(), *id, host))
            .collect();
        hosts.sort_by_key(|(fullness, id, _)| (*fullness, *id));
        let lean =
            |(fullness, ..): &&(u64, &str, &Loaded<'_>)| fullness * 100 < share * FILL_PERCENT;
        hosts.iter().take_while(lean).find_map(|(_, to, host)| {
            let donors = hosts.iter().rev().take_while(|(fullness, ..)| *fullness > share);
            donors.into_iter().find_map(|(_, from, donor)| {
                let good = |(camera, needs): &(&'a str, &Needs)| {
                    let left = fraction(donor.load - cost(needs), donor.place.capacity);
                    let got = fraction(host.load + cost(needs), host.place.capacity);
                    host.may_get(needs) && got <= left && self.settled(camera, from)
                };
                let theirs = self.at.iter().filter(|(_, at)| *at == from);
                let theirs = theirs.filter_map(|(id, _)| Some((*id, self.cameras.get(*id)?)));
                let best = theirs.filter(good).max_by(|(one, _), (other, _)| {
                    score(hash(one), host).total_cmp(&score(hash(other), host))
                })?;
                Some((best.0, *to))
            })
        })
    }

    /// The host for a camera that has none, if one may have it: by rendezvous hashing among those that
    /// are not above their cap, else the emptiest.
    fn choose(&self, camera: &str, needs: &Needs) -> Option<&'a str> {
        let hash = hash(camera);
        let may = || self.hosts.iter().filter(|(_, host)| host.may_get(needs));
        let score = |host: &Loaded<'_>| score(hash, host);
        may()
            .filter(|(_, host)| host.load + cost(needs) <= host.cap)
            .max_by(|(_, one), (_, other)| score(one).total_cmp(&score(other)))
            .or_else(|| may().min_by_key(|(id, host)| (host.fullness(), **id)))
            .map(|(id, _)| *id)
    }

    /// Why [`Planner::choose`] found nothing.
    fn reason(&self, needs: &Needs) -> Unplaced {
        let hosts = || self.hosts.values();
        let labelled = || hosts().filter(|host| needs.labels.is_subset(&host.place.labels));
        let fitting = || labelled().filter(|host| host.fits(needs));
        if self.hosts.is_empty() {
            Unplaced::NoHost
        } else if labelled().next().is_none() {
            Unplaced::Labels
        } else if fitting().next().is_none() {
            Unplaced::Networks
        } else if fitting().all(|host| host.place.draining) {
            Unplaced::Draining
        } else {
            Unplaced::Full
        }
    }

    /// Gives a camera to a host, and takes it from where the plan had it.
    fn put(&mut self, camera: &'a str, needs: &Needs, host: &'a str) {
        let owner = self.owner(camera);
        let moving = |at: &str| owner.is_some_and(|owner| owner != at);
        if let Some(from) = self.at.insert(camera, host) {
            self.moves -= usize::from(moving(from));
            if let Some(from) = self.hosts.get_mut(from) {
                from.load -= cost(needs);
            }
        }
        self.moves += usize::from(moving(host));
        if let Some(host) = self.hosts.get_mut(host) {
            host.load += cost(needs);
        }
    }

    fn finish(self) -> Plan {
        let text = |(camera, host): (&str, &str)| (camera.to_owned(), host.to_owned());
        let cameras: BTreeMap<_, _> = self.at.into_iter().map(text).collect();
        let unplaced: BTreeMap<_, _> =
            self.unplaced.into_iter().map(|(camera, why)| (camera.to_owned(), why)).collect();
        Plan { version: self.previous.version, cameras, unplaced }
    }
}

/// How much a host wants a camera, by weighted rendezvous hashing: the host with the greatest score
/// gets it, which is each in proportion to its capacity. `-w / ln u` with `u` even in (0, 1): Schindelhauer
/// and Schomaker, "Weighted distributed hash tables", 2005.
fn score(camera: u64, host: &Loaded<'_>) -> f64 {
    let bits = mix(camera ^ host.hash.rotate_left(32)) >> 11;
    // 53 bits, as many as a double has: neither 0 nor 1.
    #[allow(clippy::cast_precision_loss, reason = "53 bits")]
    let u = (bits as f64 + 0.5) / 9_007_199_254_740_992.0;
    -f64::from(host.place.capacity) / u.ln()
}

/// FNV-1a with [`mix`]: the same in each version and on each machine.
fn hash(text: &str) -> u64 {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    mix(text.bytes().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// The finaliser of SplitMix64: each bit of the result depends on each of `x`.
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
