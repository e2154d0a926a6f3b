//! DESCRIBE: its headers, and SDP as cameras write it.

use ocelli_testkit::camera::Script;

use super::{Case, plays};

fn describe(name: &'static str, value: &'static str) -> Script {
    Script::default().answer("DESCRIBE", |_, a| a.set(name, value))
}

fn without(name: &'static str) -> Script {
    Script::default().answer("DESCRIBE", |_, a| a.remove(name))
}

/// A camera whose SDP has this line in the place of the one that begins like `start`.
fn line(start: &'static str, new: &'static str) -> Script {
    Script::default().sdp(move |lines| {
        for line in lines.iter_mut().filter(|line| line.starts_with(start)) {
            new.clone_into(line);
        }
    })
}

/// A camera whose SDP has these lines before its video.
fn before_video(new: &'static [&'static str]) -> Script {
    Script::default().sdp(|lines| {
        let at = lines.iter().position(|line| line.starts_with("m=video")).unwrap();
        lines.splice(at..at, new.iter().map(ToString::to_string));
    })
}

/// A camera whose SDP has these lines behind its video.
fn behind_video(new: &'static [&'static str]) -> Script {
    Script::default().sdp(|lines| lines.extend(new.iter().map(ToString::to_string)))
}

pub(super) fn all() -> Vec<Case> {
    vec![
        plays(
            "type-with-charset",
            "`application/sdp; charset=utf-8`",
            describe("Content-Type", "application/sdp; charset=utf-8"),
        ),
        plays("type-capitals", "`Application/SDP`", describe("Content-Type", "Application/SDP")),
        plays("type-missing", "no `Content-Type`", without("Content-Type")),
        plays("base-missing", "no `Content-Base`", without("Content-Base")),
        plays(
            "base-elsewhere",
            "`Content-Base` with an address behind its router",
            describe("Content-Base", "rtsp://192.168.1.64:554/stream1/"),
        ),
        plays(
            "base-without-slash",
            "`Content-Base` without a slash at its end",
            Script::default().answer("DESCRIBE", |request, a| {
                a.set("Content-Base", request.base().trim_end_matches('/'));
            }),
        ),
        plays("base-empty", "an empty `Content-Base`", describe("Content-Base", "")),
        plays(
            "location-for-base",
            "`Content-Location` in the place of `Content-Base`",
            Script::default().answer("DESCRIBE", |request, a| {
                a.remove("Content-Base");
                a.add("Content-Location", &request.base());
            }),
        ),
        plays("sdp-short-origin", "a short `o=` line", line("o=", "o=- 0 0")),
        plays("sdp-no-origin", "no `o=` line", Script::default().without_sdp_line("o=")),
        plays("sdp-no-name", "no `s=` line", Script::default().without_sdp_line("s=")),
        plays("sdp-empty-name", "an empty `s=` line", line("s=", "s=")),
        plays("sdp-no-time", "no `t=` line", Script::default().without_sdp_line("t=")),
        plays("sdp-no-address", "no `c=` line", Script::default().without_sdp_line("c=")),
        plays(
            "sdp-address-with-ttl",
            "a `c=` line with a time to live",
            line("c=", "c=IN IP4 0.0.0.0/127"),
        ),
        plays(
            "sdp-lf",
            "SDP with LF alone",
            Script::default().answer("DESCRIBE", |_, a| {
                a.body.retain(|byte| *byte != b'\r');
                a.set("Content-Length", &a.body.len().to_string());
            }),
        ),
        plays(
            "sdp-zero-at-end",
            "SDP that ends with a zero byte",
            Script::default().answer("DESCRIBE", |_, a| {
                a.body.push(0);
                a.set("Content-Length", &a.body.len().to_string());
            }),
        ),
        plays("sdp-empty-line", "an empty line at the end of SDP", behind_video(&[""])),
        plays(
            "sdp-latin-1",
            "a name in SDP that is no UTF-8",
            Script::default().answer("DESCRIBE", |_, a| {
                let at = a.body.windows(6).position(|window| window == b"stream").unwrap();
                a.body[at] = 0xe9;
            }),
        ),
        plays("rtpmap-lower-case", "`h264`", line("a=rtpmap", "a=rtpmap:96 h264/90000")),
        plays("rtpmap-blank", "`a=rtpmap: 96 H264`", line("a=rtpmap", "a=rtpmap: 96 H264/90000")),
        plays(
            "rtpmap-blanks",
            "two blanks in `rtpmap`",
            line("a=rtpmap", "a=rtpmap:96  H264/90000"),
        ),
        plays(
            "rtpmap-blank-at-end",
            "a blank at the end of `rtpmap`",
            line("a=rtpmap", "a=rtpmap:96 H264/90000 "),
        ),
        plays("rtpmap-channels", "`H264/90000/1`", line("a=rtpmap", "a=rtpmap:96 H264/90000/1")),
        plays("rtpmap-no-rate", "`rtpmap` without a rate", line("a=rtpmap", "a=rtpmap:96 H264")),
        plays("fmtp-missing", "no `fmtp`", Script::default().without_sdp_line("a=fmtp")),
        plays("fmtp-bare", "`fmtp` without parameters", line("a=fmtp", "a=fmtp:96 ")),
        plays(
            "fmtp-no-sets",
            "`fmtp` without parameter sets",
            line("a=fmtp", "a=fmtp:96 packetization-mode=1;profile-level-id=42001e"),
        ),
        plays(
            "fmtp-empty-sets",
            "`fmtp` with `sprop-parameter-sets=`",
            line("a=fmtp", "a=fmtp:96 packetization-mode=1;sprop-parameter-sets="),
        ),
        plays(
            "fmtp-broken-sets",
            "parameter sets that are no base64",
            line("a=fmtp", "a=fmtp:96 packetization-mode=1;sprop-parameter-sets=%%%,!!"),
        ),
        plays(
            "fmtp-comma-at-end",
            "a comma behind the parameter sets",
            Script::default().sdp_line("a=fmtp", |line| format!("{line},")),
        ),
        plays(
            "fmtp-semicolon-at-end",
            "a semicolon and a blank at the end of `fmtp`",
            Script::default().sdp_line("a=fmtp", |line| format!("{line}; ")),
        ),
        plays(
            "fmtp-blanks",
            "blanks between the parameters of `fmtp`",
            Script::default().sdp_line("a=fmtp", |line| line.replace(';', " ; ")),
        ),
        plays(
            "sets-in-sdp-alone",
            "parameter sets in SDP alone",
            Script::default()
                .units(|_, units| units.retain(|unit| !matches!(unit[0] & 0x1f, 7 | 8))),
        ),
        plays(
            "control-missing",
            "no `control` of the video",
            Script::default().without_sdp_line("a=control:trackID"),
        ),
        plays(
            "control-absolute",
            "`control` is a URL",
            Script::default().answer("DESCRIBE", |request, a| {
                let url = format!("a=control:{}trackID=0", request.base());
                a.body = String::from_utf8_lossy(&a.body)
                    .replace("a=control:trackID=0", &url)
                    .into_bytes();
                a.set("Content-Length", &a.body.len().to_string());
            }),
        ),
        plays(
            "control-slash",
            "`control` begins with a slash",
            line("a=control:trackID", "a=control:/stream1/trackID=0"),
        ),
        plays(
            "control-query",
            "`control` with a query",
            line("a=control:trackID", "a=control:track1?session=1&x=/y"),
        ),
        plays(
            "audio-first",
            "audio before the video",
            before_video(&["m=audio 0 RTP/AVP 0", "a=control:trackID=1", "a=rtpmap:0 PCMU/8000"]),
        ),
        plays(
            "audio-odd",
            "audio that no standard knows",
            before_video(&["m=audio 0 RTP/AVP 112", "a=control:trackID=1", "a=fmtp:112 x"]),
        ),
        plays(
            "metadata",
            "a track of metadata",
            behind_video(&[
                "m=application 0 RTP/AVP 107",
                "a=control:trackID=5",
                "a=rtpmap:107 vnd.onvif.metadata/90000",
            ]),
        ),
        plays(
            "second-video",
            "a second video",
            behind_video(&[
                "m=video 0 RTP/AVP 97",
                "a=control:trackID=1",
                "a=rtpmap:97 H264/90000",
            ]),
        ),
        plays("two-types", "two payload types in `m=`", line("m=video", "m=video 0 RTP/AVP 96 97")),
        plays("media-port", "a port in `m=`", line("m=video", "m=video 50000 RTP/AVP 96")),
        plays(
            "odd-attributes",
            "attributes that are no standard's",
            behind_video(&[
                "a=framerate:10.000000",
                "a=x-dimensions:320,240",
                "a=range:npt=now-",
                "a=recvonly",
                "a=Media_header:MEDIAINFO=494D4B48010300000400000100000000;",
                "b=AS:5000",
            ]),
        ),
    ]
}
