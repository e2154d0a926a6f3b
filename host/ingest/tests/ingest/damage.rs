//! Damaged files: what can be read is read, and what is lost is counted.

use ocelli_protocol::ingest::{IngestFaultKind, IngestStep};
use ocelli_testkit::{Random, clip, depth};

use crate::process::{own_clip, play_bytes};

/// Where the content of the box of this name begins.
fn find_box(file: &[u8], name: &[u8; 4]) -> usize {
    file.windows(4).position(|w| w == name).unwrap() + 4
}

/// A clip whose index stands before its pictures.
fn index_first(name: &str) -> Vec<u8> {
    let file = std::fs::read(clip(name)).unwrap();
    let (mdat, moov) = (find_box(&file, b"mdat") - 8, find_box(&file, b"moov") - 8);
    assert!(mdat < moov);
    let mut index = file[moov..].to_vec();
    let chunks = find_box(&index, b"stco") + 4;
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    for chunk in 0..number(&index[chunks..chunks + 4]) as usize {
        let at = chunks + 4 + 4 * chunk;
        let place = number(&index[at..at + 4]) + (file.len() - moov) as u32;
        index[at..at + 4].copy_from_slice(&place.to_be_bytes());
    }
    [&file[..mdat], &index, &file[mdat..moov]].concat()
}

#[test]
fn a_file_cut_short_plays_up_to_the_cut_and_counts_the_rest() {
    let file = index_first("people-576-baseline.mp4");
    let played = play_bytes(&file[..file.len() / 2], "mp4");
    assert!(played.ended(), "{:?}", played.end);
    let read = played.units.len();
    assert!((30..70).contains(&read), "{read} pictures");
    assert_eq!(played.info().pictures, Some(100));
    let lost: u64 = played.damage.iter().map(|(_, damage)| damage.pictures).sum();
    assert_eq!(lost + read as u64, 100, "{:?}", played.damage);
    assert_eq!(played.damage.last().unwrap().0, read, "said at the cut");
    assert!(played.damage[0].1.reason.contains("cut short"), "{:?}", played.damage);
}

#[test]
fn a_file_cut_before_its_index_or_its_first_picture_is_a_named_fault() {
    let index_last = std::fs::read(clip("people-576-baseline.mp4")).unwrap();
    let no_index = play_bytes(&index_last[..index_last.len() / 2], "mp4");
    assert_eq!(no_index.fault().kind, IngestFaultKind::InvalidData, "{:?}", no_index.fault());
    assert_eq!(no_index.fault().step, IngestStep::Open);
    assert!(no_index.fault().reason.contains("moov"), "{:?}", no_index.fault());
    let file = index_first("people-576-baseline.mp4");
    let half_an_index = play_bytes(&file[..find_box(&file, b"moov") + 20], "mp4");
    assert_eq!(half_an_index.fault().kind, IngestFaultKind::InvalidData);
    let no_picture = play_bytes(&file[..find_box(&file, b"mdat")], "mp4");
    assert_eq!(no_picture.fault().kind, IngestFaultKind::InvalidData);
    assert_eq!(no_picture.fault().step, IngestStep::Read);
    assert!(no_picture.units.is_empty());
}

#[test]
fn a_trailer_behind_the_last_box_is_passed_over() {
    let mut file = std::fs::read(clip("people-576-baseline.mp4")).unwrap();
    file.extend(b"\0\0\0\0made by a phone".repeat(3));
    let played = play_bytes(&file, "mp4");
    assert!(played.ended() && played.damage.is_empty(), "{:?}", played.damage);
    assert_eq!(played.units.len(), 100);
}

#[test]
fn a_picture_whose_place_is_wrong_is_lost_alone() {
    let mut file = std::fs::read(clip("people-576-baseline.mp4")).unwrap();
    // The first picture of the last chunk lies far behind the file's end, by its index.
    let chunks = find_box(&file, b"stco");
    let count = u32::from_be_bytes(file[chunks + 4..chunks + 8].try_into().unwrap()) as usize;
    let last = chunks + 8 + 4 * (count - 1);
    file[last..last + 4].copy_from_slice(&0x7000_0000_u32.to_be_bytes());
    let played = play_bytes(&file, "mp4");
    assert!(played.ended(), "{:?}", played.end);
    let lost: u64 = played.damage.iter().map(|(_, damage)| damage.pictures).sum();
    assert!(lost > 0 && lost + played.units.len() as u64 == 100, "{lost}: {:?}", played.damage);
}

/// Changes bytes, the headers' above all, and lengths.
fn mutate(file: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.usize(..4) {
        let length = file.len();
        if length < 64 {
            return;
        }
        let start = random.usize(..length);
        let run = start..(start + 1 + random.usize(..2000)).min(length);
        match random.usize(..7) {
            0 => file.truncate(start),
            1 => (0..1 + random.usize(..40))
                .for_each(|_| file[random.usize(..length)] = random.u8(..)),
            2 => (0..1 + random.usize(..4))
                .for_each(|_| file[random.usize(..length.min(4096))] ^= 1 << random.usize(..8)),
            3 => {
                let at = random.usize(..length.min(4096) - 4);
                let value = [0, 1, 0x7fff_ffff, u32::MAX, random.u32(..)][random.usize(..5)];
                file[at..at + 4].copy_from_slice(&value.to_be_bytes());
            }
            4 => file[run].fill(0),
            5 => drop(file.drain(run)),
            _ => {
                let again = file[run.clone()].to_vec();
                drop(file.splice(run.end..run.end, again));
            }
        }
    }
}

/// Each mutation ends with units or a named fault, within its memory and its time.
fn mutations(name: &str, file: &[u8]) {
    let ending = name.rsplit('.').next().unwrap();
    let (mut damaged, mut faults) = (0, 0);
    let rounds = depth::rounds(200);
    for seed in 0..rounds as u64 {
        let mut random = Random::with_seed(seed);
        let mut mutated = file.to_vec();
        mutate(&mut mutated, &mut random);
        let played = play_bytes(&mutated, ending);
        if let Some(Err(fault)) = &played.end {
            assert!(!fault.reason.is_empty(), "{name} seed {seed}: {fault:?}");
            assert_ne!(fault.kind, IngestFaultKind::Timeout, "{name} seed {seed}: {fault:?}");
            faults += 1;
        } else {
            assert!(!played.units.is_empty(), "{name} seed {seed}");
        }
        let corrupt = played.units.iter().any(|(unit, _)| unit.corrupt);
        damaged += usize::from(corrupt || !played.damage.is_empty());
        if let Some(pictures) = played.info.as_ref().and_then(|info| info.pictures) {
            let lost: u64 = played.damage.iter().map(|(_, damage)| damage.pictures).sum();
            let read = played.units.len() as u64;
            assert!(read + lost <= pictures, "{name} seed {seed}: {read} and {lost} of {pictures}");
        }
    }
    eprintln!("{name}: {damaged} with damage and {faults} faults in {rounds} mutations");
    assert!(damaged + faults > rounds / 10, "{name}: hardly a mutation was noticed");
}

#[test]
fn mutated_mp4_files_neither_crash_nor_hang() {
    mutations("bikes.mp4", &index_first("bikes.mp4"));
}

#[test]
fn mutated_matroska_files_neither_crash_nor_hang() {
    mutations("bikes.mkv", &std::fs::read(own_clip("bikes.mkv")).unwrap());
}

#[test]
fn mutated_transport_streams_neither_crash_nor_hang() {
    mutations("bikes.ts", &std::fs::read(own_clip("bikes.ts")).unwrap());
}
