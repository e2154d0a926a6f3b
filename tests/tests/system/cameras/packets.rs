//! Odd packets: what they carry, how they are numbered and marked, and how they come.

use ocelli_testkit::camera::{Footage, Packet, Script};

use super::{Case, plays};

/// A camera that puts this NAL unit before each IDR picture.
fn unit_before_key(footage: Footage, unit: &'static [u8]) -> Script {
    Script::of(footage).units(|moment, units| {
        if moment.key {
            units.insert(0, unit.to_vec());
        }
    })
}

/// A camera that bends each packet.
fn each_packet(bend: fn(&mut Packet)) -> Script {
    Script::default().packets(move |_, packets| packets.iter_mut().for_each(bend))
}

/// A camera that puts a packet behind the fifth picture of each ten.
fn extra(footage: Footage, bend: fn(&mut Packet)) -> Script {
    Script::of(footage).packets(move |moment, packets| {
        if moment.picture % 10 == 5 {
            let mut packet = packets[0].beside(&[]);
            bend(&mut packet);
            packets.push(packet);
        }
    })
}

pub(super) fn units() -> Vec<Case> {
    use Footage::{H264, H265};
    let h264 = |name, odd, unit| plays(name, odd, unit_before_key(H264, unit));
    let h265 = |name, odd, unit| plays(name, odd, unit_before_key(H265, unit));
    vec![
        plays("h265", "nothing, in H.265", Script::of(H265)),
        h264("nal-0", "NAL units of type 0", b"\x00metadata of the maker's own"),
        h264("nal-12", "filler", b"\x0c\xff\xff\xff\xff\x80"),
        h264("nal-14", "prefix NAL units", b"\x6e\x40\x80\x0f"),
        h264("nal-22", "a reserved type", b"\x76metadata"),
        h264("nal-29", "type 29, that is FU-B", b"\x7dmetadata of the maker's own"),
        h264("nal-30", "type 30", b"\x7emetadata of the maker's own"),
        h264("nal-31", "type 31", b"\x1fmetadata of the maker's own"),
        h264("forbidden-bit", "the forbidden bit", b"\x86metadata of the maker's own"),
        h264("sei-long", "SEI of 1,000 bytes of the maker's", &[0x06; 1000]),
        h265("h265-nal-41", "a reserved type in H.265", b"\x52\x01metadata"),
        h265("h265-nal-50", "type 50, that is PACI", b"\x64\x01metadata of the maker's own"),
        h265("h265-nal-63", "type 63", b"\x7e\x01metadata of the maker's own"),
        h265("h265-forbidden-bit", "the forbidden bit in H.265", b"\x80\x01metadata"),
        plays(
            "end-of-sequence",
            "each GOP ends with an end of sequence",
            Script::default().units(|moment, units| {
                if moment.each(10) {
                    units.push(vec![0x0a]);
                }
            }),
        ),
        plays(
            "delimiters",
            "a delimiter before each picture",
            Script::default().units(|_, units| units.insert(0, vec![0x09, 0xf0])),
        ),
        plays(
            "annex-b",
            "start codes within packets: a picture is one NAL unit",
            Script::default().units(|_, units| {
                let all = units.join(&[0u8, 0, 0, 1][..]);
                *units = vec![all];
            }),
        ),
        plays(
            "start-code-first",
            "a start code before each NAL unit",
            Script::default().packets(|_, packets| {
                for packet in packets.iter_mut().filter(|packet| packet.payload[0] & 0x1f < 24) {
                    packet.payload.splice(0..0, [0, 0, 0, 1]);
                }
            }),
        ),
        plays(
            "zeros-behind",
            "zeros behind each NAL unit",
            Script::default()
                .units(|_, units| units.iter_mut().for_each(|unit| unit.extend([0, 0, 0]))),
        ),
        plays("aggregated", "parameter sets in one packet (STAP-A)", aggregated(&[])),
        plays("aggregated-empty", "STAP-A with a unit of no byte at its end", aggregated(&[0, 0])),
        plays("aggregated-cut", "STAP-A that is cut short", aggregated(&[0, 9, 1])),
        plays(
            "set-of-another-time",
            "parameter sets with the time of the picture before",
            Script::default().packets(|_, packets| {
                for packet in packets.iter_mut() {
                    if matches!(packet.payload[0] & 0x1f, 7 | 8) {
                        packet.time = packet.time.wrapping_sub(9000);
                    }
                }
            }),
        ),
        plays(
            "sets-marked",
            "parameter sets with markers of their own",
            Script::default().packets(|_, packets| {
                for packet in packets.iter_mut() {
                    packet.marker |= matches!(packet.payload[0] & 0x1f, 7 | 8);
                }
            }),
        ),
        plays("mode-0", "fragments, and packetization-mode=0", {
            Script::default().sdp_line("a=fmtp", |line| line.replace("mode=1", "mode=0"))
        }),
        plays("mtu-60000", "packets of up to 60,000 bytes", Script::default().mtu(60_000)),
        plays("mtu-100", "packets of at most 100 bytes", Script::default().mtu(100)),
    ]
}

/// A camera that sends parameter sets in one packet, with these bytes behind them.
fn aggregated(end: &'static [u8]) -> Script {
    Script::default().units(move |_, units| {
        let is_set = |unit: &Vec<u8>| matches!(unit[0] & 0x1f, 7 | 8);
        if !units.iter().any(is_set) {
            return;
        }
        let mut packed = vec![0x78];
        for set in units.iter().filter(|unit| is_set(unit)) {
            packed.extend((set.len() as u16).to_be_bytes());
            packed.extend(set);
        }
        packed.extend(end);
        units.retain(|unit| !is_set(unit));
        units.insert(0, packed);
    })
}

pub(super) fn headers() -> Vec<Case> {
    use Footage::{H264, H265};
    vec![
        plays("empty-packet", "packets without payload", extra(H264, |_| {})),
        plays("h265-empty-packet", "packets without payload, in H.265", extra(H265, |_| {})),
        plays("padding-alone", "packets of padding", extra(H264, |p| p.padding = vec![0, 0, 0, 4])),
        plays("padding", "padding on each packet", each_packet(|p| p.padding = vec![0, 0, 0, 4])),
        plays(
            "padding-too-long",
            "padding that is longer than its packet",
            extra(H264, |p| (p.payload, p.padding) = (vec![0x41, 0xe0], vec![0, 200])),
        ),
        plays("version-0", "packets of version 0 among others", extra(H264, |p| p.version = 0)),
        plays(
            "extension",
            "a header extension on each packet",
            each_packet(|p| p.extension = vec![0xab, 0xac, 0, 1, 1, 2, 3, 4]),
        ),
        plays("contributors", "contributing sources", each_packet(|p| p.contributors = vec![1, 2])),
        plays(
            "other-type",
            "packets of another payload type among others",
            extra(H264, |p| (p.payload, p.payload_type) = (b"<xml/>".into(), 107)),
        ),
        plays("marker-always", "a marker on every packet", each_packet(|p| p.marker = true)),
        plays("marker-never", "no marker at all", each_packet(|p| p.marker = false)),
        plays("ssrc-other", "another SSRC than SETUP names", each_packet(|p| p.ssrc = 0xdead_beef)),
        plays("ssrc-zero", "an SSRC of 0", each_packet(|p| p.ssrc = 0)),
        plays(
            "ssrc-changes",
            "another SSRC every three seconds",
            Script::default().packets(|moment, packets| {
                packets.iter_mut().for_each(|p| p.ssrc = (moment.picture / 30) as u32 + 1);
            }),
        )
        .pictures(80),
        plays("sequence-restarts", "numbers begin anew every three seconds", renumbered(|_| 1))
            .pictures(80),
        plays(
            "sequence-jumps",
            "numbers jump every three seconds",
            renumbered(|picture| (picture * 7001) as u16),
        )
        .pictures(80),
        plays("sequence-wraps", "numbers wrap", renumbered(|_| 65_530)).pictures(80),
        plays(
            "twice",
            "every fifth picture's packets come twice",
            Script::default().packets(|moment, packets| {
                if moment.each(5) {
                    packets.iter_mut().for_each(|p| p.times = 2);
                }
            }),
        ),
        plays(
            "swapped",
            "packets in the wrong order",
            small_packets().packets(|moment, packets| {
                if moment.each(10) {
                    packets[0].late = true;
                }
            }),
        ),
        plays("lost", "a fragment is lost in one picture of 25", lost(0)).pictures(60),
        plays("lost-last", "the last fragment is lost in one picture of 25", lost(usize::MAX))
            .pictures(60),
        plays(
            "lost-picture",
            "all packets of one picture of 25 are lost",
            Script::default().packets(|moment, packets| {
                if moment.each(25) {
                    packets.iter_mut().for_each(|p| p.lost = true);
                }
            }),
        )
        .pictures(60),
        plays(
            "fragment-without-start",
            "one picture in 25 lacks its first fragment, with no gap",
            small_packets().packets(|moment, packets| {
                if moment.each(25) && packets.len() > 1 {
                    packets.remove(0);
                }
            }),
        )
        .pictures(60),
        plays(
            "fragment-without-end",
            "one picture in 25 lacks its last fragment, with no gap",
            small_packets().packets(|moment, packets| {
                if moment.each(25) && packets.len() > 1 {
                    packets.pop();
                }
            }),
        )
        .pictures(60),
    ]
}

/// A camera whose every picture is in fragments.
fn small_packets() -> Script {
    Script::default().mtu(100)
}

/// A camera that loses the fragment at this place, or the last one, in one picture of 25.
fn lost(place: usize) -> Script {
    small_packets().packets(move |moment, packets| {
        if moment.each(25) {
            let place = place.min(packets.len() - 1);
            packets[place].lost = true;
        }
    })
}

/// A camera whose packets are numbered from here on at every thirtieth picture.
fn renumbered(from: fn(u64) -> u16) -> Script {
    Script::default().packets(move |moment, packets| {
        if moment.picture % 30 == 0 {
            packets[0].sequence = Some(from(moment.picture));
        }
    })
}

pub(super) fn datagrams() -> Vec<Case> {
    let udp = |name, odd, script: Script| plays(name, odd, script).keys("transport = \"udp\"");
    vec![
        udp("udp", "nothing, over UDP", Script::default()),
        udp("udp-h265", "nothing, in H.265 over UDP", Script::of(Footage::H265)),
        udp(
            "udp-no-server-port",
            "UDP without `server_port`",
            Script::default().without_server_port(),
        ),
        udp(
            "udp-server-port-0",
            "UDP with `server_port=0-0`",
            Script::default().without_server_port().answer("SETUP", |_, a| {
                let transport = format!("{};server_port=0-0", a.get("Transport"));
                a.set("Transport", &transport);
            }),
        ),
        udp(
            "udp-other-port",
            "datagrams come from another port than SETUP names",
            Script::default().without_server_port().answer("SETUP", |_, a| {
                let transport = format!("{};server_port=6970-6971", a.get("Transport"));
                a.set("Transport", &transport);
            }),
        ),
        udp("udp-lost", "UDP that loses a fragment in one picture of 25", lost(0)).pictures(60),
        udp(
            "udp-swapped",
            "UDP with two packets in the wrong order, now and then",
            small_packets().packets(|moment, packets| {
                if moment.each(10) {
                    packets[0].late = true;
                }
            }),
        ),
        udp(
            "udp-twice",
            "UDP that brings every packet twice",
            each_packet(|packet| packet.times = 2),
        ),
        udp("udp-no-reports", "UDP without RTCP", Script::default().reports(|_| Vec::new())),
    ]
}
