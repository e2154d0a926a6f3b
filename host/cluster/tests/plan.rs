//! What holds for each plan, whatever the site.

#![allow(clippy::indexing_slicing, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};

use ocelli_cluster::plan::{MOVES, Needs, Place, Plan, Unplaced, plan};
use proptest::prelude::*;

type Hosts = BTreeMap<String, Place>;
type Cameras = BTreeMap<String, Needs>;
type Names = BTreeMap<String, String>;

#[derive(Debug, Clone)]
struct Site {
    hosts: Hosts,
    cameras: Cameras,
    owners: Names,
    previous: Plan,
    pins: Names,
}

impl Site {
    fn plan(&self) -> Plan {
        plan(&self.hosts, &self.cameras, &self.owners, &self.previous, &self.pins)
    }

    fn fits(&self, camera: &str, host: &str) -> bool {
        let (needs, place) = (&self.cameras[camera], &self.hosts[host]);
        needs.labels.is_subset(&place.labels) && needs.networks.is_subset(&place.networks)
    }

    fn load(&self, plan: &Plan, host: &str) -> u64 {
        let at = plan.cameras.iter().filter(|(_, at)| *at == host);
        at.map(|(camera, _)| u64::from(self.cameras[camera].cost.max(1))).sum()
    }

    fn draining(&self, host: &str) -> bool {
        self.hosts[host].draining
    }

    /// All hosts do as planned.
    fn follow(&mut self, plan: Plan) {
        self.owners = plan.cameras.clone();
        self.previous = plan;
    }

    /// Plans and follows until nothing changes.
    fn settle(&mut self) -> usize {
        for step in 0.. {
            let plan = self.plan();
            assert!(step < 200, "it does not come to rest: {self:?}");
            if plan == self.previous && self.owners == plan.cameras {
                return step;
            }
            self.follow(plan);
        }
        unreachable!()
    }
}

fn set(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|name| (*name).to_owned()).collect()
}

fn host(capacity: u32) -> Place {
    Place { capacity, ..Place::default() }
}

fn camera() -> Needs {
    Needs { cost: 1, ..Needs::default() }
}

fn some_of(names: &'static [&'static str], weight: u32) -> impl Strategy<Value = BTreeSet<String>> {
    let none = Just(BTreeSet::new());
    let some = prop::collection::btree_set(prop::sample::select(names), 0..=names.len());
    let some = some.prop_map(|names| names.into_iter().map(str::to_owned).collect());
    prop_oneof![weight => none, 1 => some]
}

fn places() -> impl Strategy<Value = Hosts> {
    let place = (0_u32..30, some_of(&["gpu", "hall"], 1), some_of(&["net-1", "net-2"], 1))
        .prop_flat_map(|(capacity, labels, networks)| {
            prop::bool::weighted(0.2).prop_map(move |draining| Place {
                capacity,
                labels: labels.clone(),
                networks: networks.clone(),
                draining,
            })
        });
    prop::collection::btree_map("[a-h]", place, 0..8)
}

fn needs() -> impl Strategy<Value = Cameras> {
    let needs = (some_of(&["gpu", "hall"], 5), some_of(&["net-1", "net-2"], 5), 0_u32..4)
        .prop_map(|(labels, networks, cost)| Needs { labels, networks, cost });
    prop::collection::btree_map("c[0-9]{2}", needs, 0..60)
}

/// A site in any state: owners and plan of hosts that may be gone or unfit.
fn sites() -> impl Strategy<Value = Site> {
    let names = || prop::collection::btree_map("c[0-9]{2}", "[a-h]", 0..60);
    (places(), needs(), names(), names(), prop::collection::btree_map("c[0-9]{2}", "[a-h]", 0..6))
        .prop_map(|(hosts, cameras, owners, planned, pins)| {
            let known = |names: Names| -> Names {
                names.into_iter().filter(|(camera, _)| cameras.contains_key(camera)).collect()
            };
            let owners = known(owners).into_iter().filter(|(_, host)| hosts.contains_key(host));
            let owners = owners.collect();
            let previous = Plan { version: 7, cameras: known(planned), ..Plan::default() };
            Site { owners, previous, pins, hosts, cameras }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn each_camera_has_a_host_that_fits_or_a_reason(site in sites()) {
        let plan = site.plan();
        for (camera, host) in &plan.cameras {
            prop_assert!(site.cameras.contains_key(camera));
            prop_assert!(site.hosts.contains_key(host));
            prop_assert!(site.fits(camera, host));
        }
        for camera in site.cameras.keys() {
            let placed = plan.cameras.get(camera);
            prop_assert!(placed.is_some() || plan.unplaced.contains_key(camera));
            // With both, it stays on a host that is to be emptied.
            let both = placed.is_some() && plan.unplaced.contains_key(camera);
            prop_assert!(!both || site.draining(&plan.cameras[camera]));
        }
        for host in site.hosts.keys() {
            prop_assert!(site.load(&plan, host) <= u64::from(site.hosts[host].capacity));
        }
    }

    #[test]
    fn a_camera_without_a_host_finds_room_nowhere(site in sites()) {
        let plan = site.plan();
        for (camera, why) in &plan.unplaced {
            let cost = u64::from(site.cameras[camera].cost.max(1));
            let fitting: Vec<_> = site.hosts.keys().filter(|host| site.fits(camera, host)).collect();
            let open: Vec<_> = fitting.iter().filter(|host| !site.draining(host)).collect();
            for host in &open {
                let load = site.load(&plan, host);
                prop_assert!(load + cost > u64::from(site.hosts[**host].capacity), "{camera} {host}");
            }
            match why {
                Unplaced::NoHost => prop_assert!(site.hosts.is_empty()),
                Unplaced::Labels | Unplaced::Networks => prop_assert!(fitting.is_empty()),
                Unplaced::Draining => prop_assert!(!fitting.is_empty() && open.is_empty()),
                Unplaced::Full => prop_assert!(!open.is_empty()),
            }
        }
    }

    #[test]
    fn a_draining_host_gets_nothing(site in sites()) {
        let plan = site.plan();
        for (camera, host) in &plan.cameras {
            if site.draining(host) {
                prop_assert_eq!(site.owners.get(camera), Some(host));
            }
        }
    }

    #[test]
    fn few_cameras_move_of_those_that_could_stay(site in sites()) {
        let before = site.owners.iter().filter(|(camera, owner)| {
            site.previous.cameras.get(*camera).is_some_and(|host| host != *owner)
        });
        let before = before.count();
        let plan = site.plan();
        let moved = site.owners.iter().filter(|(camera, owner)| {
            let stays = plan.cameras.get(*camera).is_none_or(|host| host == *owner);
            !stays && site.fits(camera, owner)
        });
        let new: Vec<_> = moved
            .filter(|(camera, owner)| {
                site.previous.cameras.get(*camera).is_none_or(|host| host == *owner)
            })
            .collect();
        // A host that has more than its capacity gives up the rest at once.
        let over = |host: &String| {
            let owned = site.owners.iter().filter(|(_, owner)| *owner == host);
            let load: u64 = owned.map(|(id, _)| u64::from(site.cameras[id].cost.max(1))).sum();
            let planned = site.previous.cameras.iter().filter(|(_, at)| *at == host);
            let planned: u64 =
                planned.map(|(id, _)| u64::from(site.cameras[id].cost.max(1))).sum();
            load + planned > u64::from(site.hosts[host].capacity)
        };
        let new = new.into_iter().filter(|(_, owner)| !over(owner)).count();
        prop_assert!(new <= MOVES, "{new} new moves, {before} before");
    }

    #[test]
    fn who_can_stay_stays(site in sites()) {
        // With no host to empty, to fill or to wish to, nothing but what has to moves.
        let mut site = site;
        site.pins.clear();
        site.settle();
        let settled = site.previous.clone();
        // One host dies.
        let Some(dead) = site.hosts.keys().next().cloned() else { return Ok(()) };
        site.hosts.remove(&dead);
        site.owners.retain(|_, owner| *owner != dead);
        let plan = site.plan();
        let orphans = settled.cameras.values().filter(|host| **host == dead).count();
        let moved = site.owners.iter().filter(|(camera, owner)| {
            plan.cameras.get(*camera) != Some(*owner)
        });
        // Room for an orphan that fits only there, cameras that a drained host can give up now, hosts
        // that have too little.
        prop_assert!(moved.count() <= MOVES);
        prop_assert!(orphans == 0 || plan.version == settled.version + 1);
    }

    #[test]
    fn it_comes_to_rest(site in sites()) {
        let mut site = site;
        let once = site.plan();
        let again = plan(&site.hosts, &site.cameras, &site.owners, &once, &site.pins);
        prop_assert_eq!(&again, &once, "planned twice, nothing having happened");
        prop_assert_eq!(once == site.previous, once.version == 7);
        site.settle();
        let plan = site.plan();
        for (camera, host) in &plan.cameras {
            let stays = site.draining(host) && !plan.unplaced.contains_key(camera);
            prop_assert!(!stays, "{camera} could leave {host}");
        }
    }
}

fn names(count: usize, of: &str) -> impl Iterator<Item = String> {
    (0..count).map(move |number| format!("{of}{number:04}"))
}

fn big(hosts: usize, cameras: usize, capacity: u32) -> Site {
    let mut site = Site {
        hosts: names(hosts, "h").map(|id| (id, host(capacity))).collect(),
        cameras: names(cameras, "c").map(|id| (id, camera())).collect(),
        owners: Names::new(),
        previous: Plan::default(),
        pins: Names::new(),
    };
    site.settle();
    site
}

#[test]
fn the_cameras_of_a_dead_host_spread_over_the_others_and_nothing_else_moves() {
    let mut site = big(50, 1000, 40);
    let before = site.previous.clone();
    let dead = "h0007".to_owned();
    site.hosts.remove(&dead);
    site.owners.retain(|_, owner| *owner != dead);
    let plan = site.plan();
    let mut got: BTreeMap<&String, usize> = BTreeMap::new();
    for (camera, host) in &plan.cameras {
        if before.cameras[camera] == dead {
            *got.entry(host).or_default() += 1;
        } else {
            assert_eq!(before.cameras[camera], *host, "{camera} could stay");
        }
    }
    assert!(got.len() > 5, "spread over {} hosts", got.len());
    assert!(plan.unplaced.is_empty());
}

#[test]
fn load_follows_capacity() {
    let mut site = big(9, 300, 50);
    site.hosts.insert("large".into(), host(200));
    site.owners.clear();
    site.previous = Plan::default();
    let plan = site.plan();
    let large = site.load(&plan, "large");
    // 200 of 650.
    assert!((60..=120).contains(&large), "{large} of 300");
    for host in site.hosts.keys().filter(|id| *id != "large") {
        let load = site.load(&plan, host);
        assert!((10..=30).contains(&load), "{load} on {host}");
    }
}

#[test]
fn a_new_host_is_filled_in_steps() {
    let mut site = big(3, 90, 60);
    site.hosts.insert("new".into(), host(60));
    let plan = site.plan();
    let moving = plan.cameras.values().filter(|host| *host == "new").count();
    assert!((1..=MOVES).contains(&moving), "{moving} at once");
    // Nothing more while they are on their way.
    site.previous = plan.clone();
    assert_eq!(site.plan(), plan);
    site.settle();
    let load = site.load(&site.previous, "new");
    assert!((17..=23).contains(&load), "{load} of 90 cameras on one of four hosts");
}

#[test]
fn a_drained_host_is_emptied_in_steps_and_filled_again_afterwards() {
    let mut site = big(3, 90, 60);
    site.hosts.get_mut("h0001").unwrap().draining = true;
    let left = |site: &Site| site.load(&site.previous, "h0001");
    let all = left(&site);
    site.follow(site.plan());
    assert_eq!(left(&site), all.saturating_sub(MOVES as u64));
    site.settle();
    assert_eq!(left(&site), 0);
    site.hosts.get_mut("h0001").unwrap().draining = false;
    site.settle();
    assert!(left(&site) > 20, "{}", left(&site));
}

#[test]
fn a_drained_host_keeps_what_nobody_else_can_take() {
    let mut site = big(2, 4, 10);
    site.hosts.get_mut("h0000").unwrap().labels = set(&["gpu"]);
    site.cameras.get_mut("c0001").unwrap().labels = set(&["gpu"]);
    site.settle();
    site.hosts.get_mut("h0000").unwrap().draining = true;
    site.settle();
    assert_eq!(site.previous.cameras["c0001"], "h0000");
    assert_eq!(site.previous.unplaced["c0001"], Unplaced::Draining);
    assert_eq!(site.load(&site.previous, "h0000"), 1);
}

#[test]
fn a_wish_is_fulfilled_while_it_can_be() {
    let mut site = big(3, 9, 5);
    let pinned = "c0004".to_owned();
    let elsewhere = site.hosts.keys().find(|id| **id != site.owners[&pinned]).unwrap().clone();
    site.pins.insert(pinned.clone(), elsewhere.clone());
    site.settle();
    assert_eq!(site.owners[&pinned], elsewhere);
    // Its host dies, and comes back.
    let place = site.hosts.remove(&elsewhere).unwrap();
    site.owners.retain(|_, owner| *owner != elsewhere);
    site.settle();
    assert_ne!(site.owners[&pinned], elsewhere);
    site.hosts.insert(elsewhere.clone(), place);
    site.settle();
    assert_eq!(site.owners[&pinned], elsewhere);
    // A host that is not there is no reason to be without one.
    site.pins.insert(pinned.clone(), "nowhere".into());
    site.settle();
    assert!(site.owners.contains_key(&pinned));
}

#[test]
fn a_camera_that_only_one_host_can_take_gets_the_room_of_another() {
    let mut site = big(2, 16, 10);
    site.hosts.get_mut("h0001").unwrap().labels = set(&["gpu"]);
    site.hosts.get_mut("h0001").unwrap().capacity = 6;
    site.settle();
    assert_eq!(site.load(&site.previous, "h0001"), 6, "it is full");
    site.hosts.get_mut("h0000").unwrap().capacity = 11;
    site.cameras.insert("special".into(), Needs { labels: set(&["gpu"]), ..camera() });
    let plan = site.plan();
    assert_eq!(plan.cameras["special"], "h0001");
    assert!(plan.unplaced.is_empty());
    site.settle();
    assert_eq!(site.owners["special"], "h0001");
}

#[test]
fn why_a_camera_has_no_host_is_said() {
    let mut site = big(0, 1, 0);
    assert_eq!(site.plan().unplaced["c0000"], Unplaced::NoHost);
    site.hosts.insert("a".into(), host(1));
    site.cameras.insert("gpu".into(), Needs { labels: set(&["gpu"]), ..camera() });
    site.cameras.insert("net".into(), Needs { networks: set(&["net-1"]), ..camera() });
    site.cameras.insert("other".into(), camera());
    let plan = site.plan();
    assert_eq!(plan.unplaced["gpu"], Unplaced::Labels);
    assert_eq!(plan.unplaced["net"], Unplaced::Networks);
    assert_eq!(plan.unplaced["other"], Unplaced::Full);
    site.hosts.get_mut("a").unwrap().draining = true;
    assert_eq!(site.plan().unplaced["other"], Unplaced::Draining);
}
