//! What a host and its children hold of the machine, as rows of a table, and whether that has
//! grown.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::path::Path;

use ocelli_testkit::{Ocelli, ProcessResources, children};

/// A figure: its heading, its unit's decimals, and by how much it may have grown in the end.
struct Column {
    heading: &'static str,
    decimals: usize,
    allowance: f64,
}

const fn column(heading: &'static str, decimals: usize, allowance: f64) -> Column {
    Column { heading, decimals, allowance }
}

/// The allowances are for what is no leak. Memory: the allocator keeps what it once had, in pieces
/// of up to a few MiB for each of its arenas, and fills them anew in another order; a leak of a
/// single access unit per reconnect would be ten times as much. Threads: the runtime ends those for
/// blocking work ten seconds after the last, and there is work for one every few seconds. The
/// store: the journal's log of changes, which is emptied at 4 MiB. All else is counted exactly.
const COLUMNS: [Column; 11] = [
    column("host MiB", 1, 8.0),
    column("fds", 0, 0.0),
    column("threads", 0, 2.0),
    column("children", 0, 0.0),
    column("inference MiB", 1, 16.0),
    column("fds", 0, 0.0),
    column("threads", 0, 0.0),
    column("memfds", 0, 0.0),
    column("memfds MiB", 1, 0.0),
    column("store files", 0, 0.0),
    column("store MiB", 1, 5.0),
];

/// The figures at one moment, in the order of the columns.
pub(crate) struct Figures([f64; COLUMNS.len()]);

impl Figures {
    /// Looks at a host and its children.
    pub(crate) fn of(host: &Ocelli) -> Self {
        let pid = host.process().pid;
        let (files, bytes) = store(&host.folder().join("data"));
        let children = children(pid);
        let host = ProcessResources::of(pid);
        // The kernel keeps 15 bytes of a program's name.
        // One serves, one stands by: their figures together.
        let inference = children.iter().filter(|child| child.name == "ocelli-inferenc");
        let inference: Vec<ProcessResources> =
            inference.map(|process| ProcessResources::of(process.pid)).collect();
        let sum = |figure: fn(&ProcessResources) -> u64| inference.iter().map(figure).sum::<u64>();
        // What several processes map counts once.
        let mut shared: BTreeMap<u64, u64> = BTreeMap::new();
        for child in &children {
            shared.extend(ProcessResources::of(child.pid).shared);
        }
        shared.extend(&host.shared);
        let mib = |kib: u64| kib as f64 / 1024.0;
        Self([
            mib(host.resident_kib),
            host.descriptors_but_logs() as f64,
            host.threads as f64,
            children.len() as f64,
            mib(sum(|held| held.resident_kib)),
            sum(|held| held.descriptors_but_logs() as u64) as f64,
            sum(|held| held.threads) as f64,
            shared.len() as f64,
            shared.values().sum::<u64>() as f64 / f64::from(1 << 20),
            files as f64,
            bytes as f64 / f64::from(1 << 20),
        ])
    }

    /// What has grown beyond its allowance since `before`, each in words.
    pub(crate) fn grown_since(&self, before: &Self) -> Vec<String> {
        let grown =
            COLUMNS.iter().zip(self.0.iter().zip(before.0)).filter_map(
                |(column, (now, before))| {
                    let Column { heading, decimals, allowance } = column;
                    let by = now - before;
                    (by > *allowance).then(|| {
                format!("{heading}: {before:.decimals$} -> {now:.decimals$}, of which {allowance} \
                    is allowed")
            })
                },
            );
        grown.collect()
    }

    /// The first line of a table of figures.
    pub(crate) fn heading() -> String {
        COLUMNS.iter().map(|column| format!("{:>w$}", column.heading, w = width(column))).collect()
    }
}

/// Files below a folder and their bytes. A file may go between the listing and the look at it.
fn store(folder: &Path) -> (u64, u64) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.fold((0, 0), |(files, bytes), entry| match entry.metadata() {
        Ok(about) if about.is_dir() => {
            let (more, their) = store(&entry.path());
            (files + more, bytes + their)
        }
        Ok(about) => (files + 1, bytes + about.len()),
        Err(_) => (files, bytes),
    })
}

fn width(column: &Column) -> usize {
    column.heading.len().max(6) + 3
}

impl Display for Figures {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        COLUMNS.iter().zip(self.0).try_for_each(|(column, figure)| {
            write!(f, "{figure:>w$.d$}", w = width(column), d = column.decimals)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_beyond_its_allowance_is_named() {
        let before = Figures([10.0; COLUMNS.len()]);
        let mut after = Figures([10.0; COLUMNS.len()]);
        after.0[0] = 18.0;
        after.0[4] = 1.0;
        assert!(after.grown_since(&before).is_empty());
        after.0[1] = 11.0;
        assert_eq!(after.grown_since(&before), ["fds: 10 -> 11, of which 0 is allowed"]);
    }
}
