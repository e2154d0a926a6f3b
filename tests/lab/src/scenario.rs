//! What is lost, and when it comes back.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use fastrand::Rng;
use tokio::time::sleep;

use crate::figures::Window;
use crate::history::{Host, now};
use crate::host::Request;
use crate::network::Cut;
use crate::world::{ENGINES, Kind, World};

/// How long a fault lasts that ends by itself: three times what a lease lives.
const LASTS: Duration = Duration::from_secs(15);

/// How long a host is frozen.
const FROZEN: Duration = Duration::from_secs(15);

/// How long a site has to settle after a fault.
const SETTLES: Duration = Duration::from_secs(90);

/// How long no owner may have changed before a site counts as settled.
const CALM: Duration = Duration::from_secs(4);

/// Changes of owners through which a follower has to see every event.
const TAKEOVERS: usize = 50;

/// A fault. Machines and hosts are chosen by the seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub(crate) enum Scenario {
    /// kill -9 of a tenth of the hosts
    Hosts,
    /// A tenth of the hosts frozen for 15 s (SIGSTOP)
    Freeze,
    /// Power loss of a machine without engines
    Power,
    /// Power loss of the machine of the event leader
    PowerEvents,
    /// Power loss of the machine of both leaders
    PowerBoth,
    /// A machine without engines cut off for 15 s and healed
    Cut,
    /// The machine of etcd's leader cut off for 15 s and healed
    CutLeader,
    /// A machine that hears nothing for 15 s
    Deaf,
    /// A machine that nobody hears for 15 s
    Mute,
    /// kill -9 of etcd's leader
    EtcdLeader,
    /// kill -9 of the leader of the events
    NatsLeader,
    /// Two of three etcd servers lost for 15 s
    EtcdQuorum,
    /// Two of three nats-servers lost for 15 s
    NatsQuorum,
    /// The disk of etcd's leader is full for 15 s
    DiskEtcd,
    /// The disk of the event leader is full for 15 s
    DiskNats,
    /// The clocks of a tenth of the hosts set an hour ahead, then an hour back
    Clock,
    /// Every host restarted in order, a tenth at a time
    Rolling,
    /// Fifty changes of owners while another host follows all events
    Takeovers,
    /// A frozen host that goes on as if nothing had happened, against lease and plan
    Disobey,
    /// A few hosts: one dies, another is frozen
    Small,
}

impl Scenario {
    /// Those of a whole run, in this order.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::value_variants().iter().copied().filter(|scenario| *scenario != Self::Small)
    }

    /// Whether it needs engines whose disks can be filled.
    pub(crate) fn fills_disks(self) -> bool {
        matches!(self, Self::DiskEtcd | Self::DiskNats)
    }

    /// How it is called on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// In words, for a table.
    pub(crate) fn title(self) -> String {
        let value = self.to_possible_value();
        let help = value.as_ref().and_then(|value| value.get_help());
        help.map(ToString::to_string).unwrap_or_default()
    }

    /// Does it to a settled site, takes it back, and waits until the site has settled again.
    pub(crate) async fn run(self, world: &mut World, rng: &mut Rng) -> (Window, Result<()>) {
        let mut run = Run { world, rng, window: Window::default() };
        run.window.begun = now();
        run.window.from = run.window.begun;
        let played = run.play(self).await;
        (run.window, played)
    }
}

/// One run of a scenario.
struct Run<'a> {
    world: &'a mut World,
    rng: &'a mut Rng,
    window: Window,
}

impl Run<'_> {
    async fn play(&mut self, scenario: Scenario) -> Result<()> {
        match scenario {
            Scenario::Hosts => self.kill_hosts(self.tenth()).await,
            Scenario::Freeze => self.freeze(self.tenth()).await,
            Scenario::Power => {
                let machine = self.machine_without_engines();
                self.lose_power(machine).await
            }
            Scenario::PowerEvents => {
                let machine = self.event_leader()?;
                self.lose_power(machine).await
            }
            Scenario::PowerBoth => {
                let machine = self.both_leaders().await?;
                self.lose_power(machine).await
            }
            Scenario::Cut => {
                let machine = self.machine_without_engines();
                self.cut(machine, Cut::Both).await
            }
            Scenario::CutLeader => {
                let machine = self.etcd_leader()?;
                self.cut(machine, Cut::Both).await
            }
            Scenario::Deaf => {
                let machine = self.machine();
                self.cut(machine, Cut::Deaf).await
            }
            Scenario::Mute => {
                let machine = self.machine();
                self.cut(machine, Cut::Mute).await
            }
            Scenario::EtcdLeader => {
                let leader = self.etcd_leader()?;
                self.world.etcd.kill(leader);
                self.restored_after(LASTS).await
            }
            Scenario::NatsLeader => {
                let leader = self.event_leader()?;
                self.world.nats.kill(leader);
                self.restored_after(LASTS).await
            }
            Scenario::EtcdQuorum => self.lose_quorum(true).await,
            Scenario::NatsQuorum => self.lose_quorum(false).await,
            Scenario::DiskEtcd => {
                let leader = self.etcd_leader()?;
                self.fill_disk(leader, 0).await
            }
            Scenario::DiskNats => {
                let leader = self.event_leader()?;
                self.fill_disk(leader, 1).await
            }
            Scenario::Clock => self.step_clocks().await,
            Scenario::Rolling => self.restart_all().await,
            Scenario::Takeovers => self.take_over_often().await,
            Scenario::Disobey => self.disobey().await,
            Scenario::Small => {
                self.kill_hosts(1).await?;
                self.freeze(1).await
            }
        }
    }

    fn tenth(&self) -> usize {
        usize::from(self.world.size.hosts / 10).max(1)
    }

    /// Hosts by chance, of those that do not follow.
    fn some_hosts(&mut self, count: usize) -> BTreeSet<Host> {
        let mut hosts: Vec<Host> = (0..self.world.follower()).collect();
        self.rng.shuffle(&mut hosts);
        hosts.into_iter().take(count).collect()
    }

    fn machine(&mut self) -> usize {
        self.rng.usize(..self.world.size.machines)
    }

    fn machine_without_engines(&mut self) -> usize {
        self.rng.usize(ENGINES..self.world.size.machines)
    }

    fn etcd_leader(&self) -> Result<usize> {
        self.world.etcd.leader().context("etcd has no leader")
    }

    fn event_leader(&self) -> Result<usize> {
        self.world.nats.stream_leader("OCELLI_lab_EV_0").context("the events have no leader")
    }

    /// Has etcd's leader move to the machine of the event leader.
    async fn both_leaders(&self) -> Result<usize> {
        let machine = self.event_leader()?;
        let urls = self.world.etcd.urls();
        if let Some(leader) = self.world.etcd.leader().filter(|leader| *leader != machine) {
            let ask = async |url: &String| etcd_client::Client::connect([url], None).await;
            let target = ask(&urls[machine]).await?.status().await?;
            let id = target.header().context("etcd does not say who it is")?.member_id();
            ask(&urls[leader]).await?.move_leader(id).await?;
            self.pause(Duration::from_secs(3)).await;
        }
        Ok(machine)
    }

    async fn pause(&self, duration: Duration) {
        sleep(duration).await;
    }

    async fn settle(&mut self) -> Result<()> {
        self.world.settle(CALM, SETTLES).await
    }

    fn begins(&mut self) {
        self.window.begun = now();
        self.window.from = self.window.begun;
    }

    async fn kill_hosts(&mut self, count: usize) -> Result<()> {
        let victims = self.some_hosts(count);
        self.begins();
        for host in &victims {
            self.world.kill_host(*host).await?;
        }
        self.window.touched.extend(victims);
        self.settle().await
    }

    async fn freeze(&mut self, count: usize) -> Result<()> {
        let mut victims = self.some_hosts(usize::from(self.world.size.hosts));
        victims.retain(|host| self.world.runs(*host));
        while victims.len() > count {
            let surplus: Vec<Host> = victims.iter().copied().collect();
            victims.remove(&surplus[self.rng.usize(..surplus.len())]);
        }
        if self.window.touched.is_empty() {
            self.begins();
        }
        victims.iter().for_each(|host| self.world.freeze_host(*host, true));
        self.window.touched.extend(&victims);
        self.pause(FROZEN).await;
        victims.iter().for_each(|host| self.world.freeze_host(*host, false));
        self.settle().await
    }

    async fn lose_power(&mut self, machine: usize) -> Result<()> {
        self.window.touched = self.world.hosts_on(machine);
        self.begins();
        self.world.power_off(machine).await?;
        self.pause(LASTS).await;
        self.world.power_on(machine).await?;
        self.settle().await
    }

    async fn cut(&mut self, machine: usize, cut: Cut) -> Result<()> {
        self.window.touched = self.world.hosts_on(machine);
        self.begins();
        self.world.network.cut(machine, cut)?;
        self.pause(LASTS).await;
        self.world.network.heal(machine)?;
        self.settle().await
    }

    async fn restored_after(&mut self, duration: Duration) -> Result<()> {
        self.pause(duration).await;
        self.world.repair().await?;
        self.settle().await
    }

    /// Two servers of an engine are lost, and come back. What silences everybody is counted from
    /// its end.
    async fn lose_quorum(&mut self, etcd: bool) -> Result<()> {
        let stays = self.rng.usize(..ENGINES);
        if etcd {
            self.window.touched = (0..self.world.size.hosts).collect();
        }
        self.begins();
        let engine = if etcd { &mut *self.world.etcd } else { &mut *self.world.nats };
        (0..ENGINES).filter(|number| *number != stays).for_each(|number| engine.kill(number));
        self.pause(LASTS).await;
        self.window.from = now();
        self.restored_after(Duration::ZERO).await
    }

    async fn fill_disk(&mut self, machine: usize, engine: usize) -> Result<()> {
        self.begins();
        self.world.disks[machine][engine].fill();
        self.pause(LASTS).await;
        self.world.disks[machine][engine].free();
        // As an operator does: nats-server does without JetStream from then on.
        match engine {
            0 => self.world.etcd.kill(machine),
            _ => self.world.nats.kill(machine),
        }
        self.restored_after(Duration::ZERO).await
    }

    /// Restarts every host, a tenth at a time, as an operator would.
    async fn restart_all(&mut self) -> Result<()> {
        let (hosts, tenth) = (self.world.size.hosts, self.tenth());
        let all: Vec<Host> = (0..hosts).collect();
        self.begins();
        for group in all.chunks(tenth) {
            for host in group {
                self.world.ask_to_leave(*host).await?;
            }
            for host in group {
                self.world.await_left(*host).await?;
                self.world.start_host(*host).await?;
            }
        }
        self.settle().await
    }

    /// Moves cameras and kills hosts until there were enough changes of owners.
    async fn take_over_often(&mut self) -> Result<()> {
        self.begins();
        let before = self.world.epochs();
        let follower = self.world.follower();
        loop {
            let now = self.world.epochs();
            let changed = now
                .iter()
                .filter(|(camera, epoch)| before.get(camera).is_some_and(|before| before < epoch));
            if changed.count() >= TAKEOVERS.min(usize::from(self.world.size.cameras)) {
                break;
            }
            if self.rng.u8(..5) == 0 {
                for host in self.some_hosts(1) {
                    self.world.kill_host(host).await?;
                }
                self.pause(Duration::from_secs(8)).await;
                self.world.repair().await?;
            } else {
                let camera = self.rng.u16(..self.world.size.cameras);
                let host = self.rng.u16(..self.world.size.hosts);
                self.world.ask(follower, &Request::Move { camera, host }).await?;
                self.pause(Duration::from_millis(500)).await;
            }
        }
        self.settle().await
    }

    /// Starts some hosts anew with a clock of their own, and sets it.
    async fn step_clocks(&mut self) -> Result<()> {
        let victims = self.some_hosts(self.tenth());
        let clock = self.world.clock(0)?;
        for host in &victims {
            self.world.leave(*host).await?;
            self.world.start_host_as(*host, Kind::OwnClock(clock.clone())).await?;
        }
        self.settle().await?;
        self.begins();
        for hours in [1, -1] {
            self.world.clock(hours)?;
            self.pause(LASTS / 2).await;
        }
        for host in &victims {
            self.world.leave(*host).await?;
        }
        self.settle().await
    }

    async fn disobey(&mut self) -> Result<()> {
        let victims = self.some_hosts(1);
        for host in &victims {
            self.world.leave(*host).await?;
            self.world.start_host_as(*host, Kind::Disobedient).await?;
        }
        self.settle().await?;
        // It has cameras: those of another host that leaves.
        for host in self.some_hosts(self.tenth() + 1).difference(&victims) {
            self.world.leave(*host).await?;
        }
        self.settle().await?;
        self.begins();
        self.window.touched.clone_from(&victims);
        victims.iter().for_each(|host| self.world.freeze_host(*host, true));
        self.pause(FROZEN).await;
        victims.iter().for_each(|host| self.world.freeze_host(*host, false));
        self.pause(LASTS).await;
        for host in &victims {
            self.world.kill_host(*host).await?;
        }
        self.settle().await
    }
}
