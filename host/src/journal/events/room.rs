//! The room on the journal's disk, and what has to go where it is little: clips, then pictures, then
//! events.

use std::io;
use std::path::Path;

use rusqlite::ErrorCode;

/// Percent of the disk that the reserve is at most, whatever `events.reserve_mb` says: below the 5 at
/// which the `disk` alert is raised, so that a person hears of it before a picture goes.
const RESERVE_PERCENT: u64 = 3;

/// The part of the reserve at which old events go too: 64 MiB of the 512 by default, four times
/// what the log of a file that readers hold up may take.
const EVENTS_PART: u64 = 8;

/// The room on a disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// What may still be written.
    pub(super) free: u64,
    /// All of it.
    pub(super) size: u64,
}

/// What is to go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Shortage {
    /// Bytes of clips, or where there is none of pictures.
    pub(super) pictures: u64,
    /// Whether old events make way for new ones, once there is no picture.
    pub(super) events: bool,
}

impl Room {
    /// Of the disk with this folder; none where the system does not say.
    pub(super) fn of(folder: &Path) -> Option<Self> {
        let disk = rustix::fs::statvfs(folder).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Some(Self { free: bytes(disk.f_bavail), size: bytes(disk.f_blocks) })
    }

    /// What is to go so that the reserve, in bytes, stays free.
    pub(super) fn shortage(self, reserve: u64) -> Shortage {
        let reserve = reserve.min(self.size / 100 * RESERVE_PERCENT);
        Shortage {
            pictures: reserve.saturating_sub(self.free),
            events: self.free < reserve / EVENTS_PART,
        }
    }
}

impl Shortage {
    /// Where a write has found no room, whatever the system says of the disk: a quota may bound it.
    /// As much as a large commit takes.
    pub(super) const ACUTE: Self = Self { pictures: 16 << 20, events: true };

    pub(super) fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// Whether a file could not be written for want of room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether the database could not be written for want of room.
pub(super) fn is_database_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn pictures_go_before_events_and_a_small_disk_has_a_small_reserve() {
        let room = |free, size| Room { free: free * MIB, size: size * MIB };
        let reserve = 512 * MIB;
        assert!(room(512, 100_000).shortage(reserve).is_none());
        let little = room(500, 100_000).shortage(reserve);
        assert_eq!(little, Shortage { pictures: 12 * MIB, events: false });
        assert!(room(63, 100_000).shortage(reserve).events);
        assert!(!room(64, 100_000).shortage(reserve).events);
        assert!(room(4, 100).shortage(reserve).is_none(), "3 of 100 MiB");
        assert!(room(0, 100).shortage(reserve).events);
        assert!(room(0, 100).shortage(0).is_none(), "turned off");
    }
}
