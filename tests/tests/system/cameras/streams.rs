//! Times, rates and encodings.

use std::time::Duration;

use ocelli_testkit::camera::{Footage, Report, Script};

use super::{Case, plays, says};

fn time(time: fn(u64) -> u32) -> Script {
    Script::default().time(time)
}

fn reports(reports: fn(Report) -> Vec<Vec<u8>>) -> Script {
    Script::default().reports(reports)
}

const SECOND: u64 = 90_000;
const STEP: u64 = SECOND / 10;

pub(super) fn times() -> Vec<Case> {
    let cases = vec![
        plays(
            "jumps-back",
            "RTP times jump back by 4 s every three seconds",
            time(|i| (i * STEP).wrapping_sub(i / 30 * 4 * SECOND) as u32),
        ),
        plays(
            "jumps-day",
            "RTP times jump on by a day every three seconds",
            time(|i| (i * STEP + i / 30 * 86_400 * SECOND) as u32),
        ),
        plays(
            "jumps-hour",
            "RTP times jump on by an hour every three seconds",
            time(|i| (i * STEP + i / 30 * 3600 * SECOND) as u32),
        ),
        plays("time-zero", "RTP times are all 0", time(|_| 0)),
        plays("time-wraps", "RTP times wrap", time(|i| (i * STEP).wrapping_sub(25 * STEP) as u32)),
        plays("time-wrong-rate", "RTP times of 25 pictures a second", time(|i| (i * 3600) as u32)),
        plays("time-slow", "RTP times in milliseconds", time(|i| (i * 100) as u32)),
        plays(
            "time-jitters",
            "RTP times jitter by up to a picture",
            time(|i| (i * STEP + i * 7919 % 5000) as u32),
        ),
        plays("report-1970", "sender reports say 1970", reports(|r| vec![r.at(5).bytes()])),
        plays(
            "report-2036",
            "sender reports say 2036, where their seconds wrap",
            reports(|r| vec![r.at(2_085_978_495).bytes()]),
        ),
        plays(
            "report-ahead",
            "sender reports are nine years ahead",
            reports(|r| vec![Report { ntp: r.ntp + ((9 * 365 * 86_400) << 32), ..r }.bytes()]),
        ),
        plays(
            "report-zero",
            "sender reports say 0",
            reports(|r| vec![Report { ntp: 0, ..r }.bytes()]),
        ),
        plays(
            "report-other-time",
            "sender reports with an RTP time of no picture's",
            reports(|r| vec![Report { time: r.time.wrapping_add(0x7000_0000), ..r }.bytes()]),
        ),
        plays(
            "report-other-source",
            "sender reports of another source",
            reports(|r| vec![Report { ssrc: 0, ..r }.bytes()]),
        ),
        plays("report-never", "no sender report", reports(|_| vec![])),
        plays("rtcp-short", "RTCP of three bytes", reports(|_| vec![vec![0x80, 200, 0]])),
        plays("rtcp-empty", "RTCP of no byte", reports(|_| vec![vec![]])),
        plays(
            "rtcp-application",
            "RTCP that begins with an APP packet",
            reports(|_| {
                vec![vec![0x80, 204, 0, 2, 0x12, 0x34, 0x56, 0x78, b'M', b'I', b'N', b'E']]
            }),
        ),
        plays(
            "rtcp-wrong-length",
            "RTCP that says it is longer than it is",
            reports(|r| {
                let mut bytes = r.bytes();
                bytes[3] = 200;
                vec![bytes]
            }),
        ),
        plays(
            "rtcp-junk",
            "RTCP of junk",
            reports(|_| vec![(0..=255).collect(), vec![0; 40], vec![0xff; 40]]),
        ),
    ];
    cases.into_iter().map(|case| case.pictures(70)).collect()
}

pub(super) fn encodings() -> Vec<Case> {
    use Footage::{
        H264IntraRefresh, H264Keys, H264OpenGop, H265OpenGop, Jpeg, Jpeg422, JpegRestart, JpegWide,
    };
    vec![
        plays("open-gop", "key pictures are recovery points", Script::of(H264OpenGop)).pictures(50),
        plays("intra-refresh", "no key picture at all", Script::of(H264IntraRefresh)).pictures(50),
        plays("h265-open-gop", "key pictures are CRA pictures", Script::of(H265OpenGop))
            .pictures(50),
        plays("keys-alone", "key pictures alone, one a second", Script::of(H264Keys).rate(1.0))
            .pictures(6),
        plays("every-3-s", "a picture in three seconds", Script::of(H264Keys).rate(1.0 / 3.0))
            .pictures(4),
        plays("every-6-s", "a picture in six seconds", Script::of(H264Keys).rate(1.0 / 6.0))
            .pictures(4),
        plays("rate-30", "30 pictures a second", Script::default().rate(30.0)).pictures(90),
        plays(
            "pauses",
            "no picture for 3 s behind each 40",
            Script::default().pause(|picture| {
                let pauses = picture > 0 && picture % 40 == 0;
                Duration::from_secs(if pauses { 3 } else { 0 })
            }),
        )
        .pictures(90),
        plays("mjpeg", "Motion JPEG", Script::of(Jpeg)),
        plays("mjpeg-422", "Motion JPEG in 4:2:2", Script::of(Jpeg422)),
        plays("mjpeg-restart", "Motion JPEG with restart markers", Script::of(JpegRestart)),
        says(
            "mjpeg-wide",
            "Motion JPEG of 2560x1440, its size in SDP alone",
            Script::of(JpegWide)
                .rate(2.0)
                .sdp(|lines| lines.push("a=x-dimensions:2560,1440".to_owned())),
            "no picture is sound",
        )
        .pictures(6),
        says(
            "mjpeg-onvif",
            "Motion JPEG of 2560x1440, its size in ONVIF's extension",
            Script::of(JpegWide).rate(2.0).packets(|_, packets| {
                let segments = [
                    0xff, 0xd8, 0, 5, 0xff, 0xd8, 0xff, 0xc0, 0, 17, 8, 5, 0xa0, 10, 0, 3, 0, 0, 0,
                    0, 0, 0, 0, 0,
                ];
                packets[0].extension = segments.to_vec();
            }),
            "no picture is sound",
        )
        .pictures(6),
        says(
            "all-damaged",
            "every picture decodes to damage",
            Script::default().units(|_, units| {
                // The beginning of the headers of the slices alone.
                for unit in units.iter_mut().filter(|unit| matches!(unit[0] & 0x1f, 1 | 5)) {
                    unit.truncate(3);
                }
            }),
            "no picture is sound",
        ),
    ]
}
