//! Sessions that last: keepalives, and what cameras say in between.

use ocelli_testkit::camera::{Answer, Request, Script};

use super::{Case, plays, says};

/// Pictures within which a session of 4 s has seen some keepalives.
const LONG: u64 = 100;

/// A camera whose session lasts 4 s, with this answer to keepalives.
fn keepalive(bend: impl Fn(&Request, &mut Answer) + Send + Sync + 'static) -> Script {
    let is_keepalive = |request: &Request| request.is(&["GET_PARAMETER", "SET_PARAMETER"]);
    Script::default().timeout(4, false).answers(move |request, a| {
        if is_keepalive(request) {
            bend(request, a);
        }
    })
}

fn methods(script: Script, methods: &'static str) -> Script {
    script.answer("OPTIONS", |_, a| {
        if !a.get("Public").is_empty() {
            a.set("Public", methods);
        }
    })
}

/// A camera that says this behind one picture in ten.
fn between(bytes: &'static [u8]) -> Script {
    Script::default().says(|moment| if moment.each(10) { bytes.to_vec() } else { Vec::new() })
}

pub(super) fn keepalives() -> Vec<Case> {
    let refused = |status: &'static str| keepalive(move |_, a| a.refuse(status));
    let cases = vec![
        plays("keepalive", "sessions of 4 s that end without one", keepalive(|_, _| {}))
            .script(|script| script.timeout(4, true)),
        plays(
            "keepalive-by-options",
            "sessions of 4 s, and OPTIONS alone to keep them",
            methods(Script::default().timeout(4, true), "OPTIONS, DESCRIBE, SETUP, TEARDOWN, PLAY"),
        ),
        plays(
            "keepalive-by-set-parameter",
            "SET_PARAMETER is offered, and refused with the CSeq before",
            methods(
                keepalive(|request, a| {
                    a.refuse("400 Bad Request");
                    a.set("CSeq", &request.cseq().saturating_sub(1).to_string());
                }),
                "OPTIONS, DESCRIBE, SETUP, TEARDOWN, PLAY, SET_PARAMETER",
            ),
        ),
        plays("keepalive-silent", "keepalives are not answered", keepalive(|_, a| a.withhold())),
        plays("keepalive-454", "454 to keepalives", refused("454 Session Not Found")),
        plays("keepalive-405", "405 to keepalives", refused("405 Method Not Allowed")),
        plays("keepalive-451", "451 to keepalives", refused("451 Parameter Not Understood")),
        plays(
            "keepalive-501",
            "501 without CSeq to keepalives",
            keepalive(|_, a| {
                a.refuse("501 Not Implemented");
                a.remove("CSeq");
            }),
        ),
        plays(
            "keepalive-cseq",
            "keepalives are answered with CSeq 0",
            keepalive(|_, a| a.set("CSeq", "0")),
        ),
        plays(
            "keepalive-body",
            "keepalives are answered with a body",
            keepalive(|_, a| {
                a.add("Content-Type", "text/parameters");
                a.add("Content-Length", "9");
                a.body = b"alive: 1\n".into();
            }),
        ),
        plays(
            "keepalive-session",
            "keepalives are answered for another session",
            keepalive(|_, a| a.set("Session", "0")),
        ),
        plays("timeout-1", "sessions of 1 s", Script::default().timeout(1, false)),
        plays("timeout-0", "sessions of 0 s", Script::default().timeout(0, false)),
    ];
    cases.into_iter().map(|case| case.pictures(LONG)).collect()
}

pub(super) fn talk() -> Vec<Case> {
    vec![
        plays("asks-options", "the camera asks OPTIONS", Script::default().asks("OPTIONS", 20))
            .pictures(LONG),
        plays(
            "asks-get",
            "the camera asks GET_PARAMETER",
            Script::default().asks("GET_PARAMETER", 20),
        )
        .pictures(LONG),
        plays(
            "asks-set",
            "the camera asks SET_PARAMETER",
            Script::default().asks("SET_PARAMETER", 20),
        )
        .pictures(LONG),
        plays(
            "announces",
            "the camera announces a new description",
            Script::default().says(|moment| {
                let head = "ANNOUNCE * RTSP/1.0\r\nCSeq: 7\r\nSession: 12345678\r\n\
                            Content-Type: application/sdp\r\nContent-Length: 5\r\n\r\nv=0\r\n";
                if moment.each(30) { head.into() } else { Vec::new() }
            }),
        )
        .pictures(LONG),
        plays(
            "answer-unasked",
            "an answer that belongs to no request",
            between(b"RTSP/1.0 200 OK\r\nCSeq: 9999\r\n\r\n"),
        ),
        plays("empty-lines", "empty lines between packets", between(b"\r\n")),
        plays(
            "other-channel-used",
            "packets on a channel that nothing set up",
            between(b"$\x09\0\x15metadata of the maker"),
        ),
        plays("packet-of-nothing", "interleaved packets of no byte", between(b"$\0\0\0")),
        plays(
            "bye",
            "a goodbye of RTCP, and pictures all the same",
            between(&[b'$', 1, 0, 8, 0x81, 203, 0, 1, 0x12, 0x34, 0x56, 0x78]),
        ),
        says(
            "closes",
            "the connection ends after each DESCRIBE",
            Script::default().answer("SETUP", |_, a| a.close()),
            "SETUP",
        ),
        says("not-found", "404", describe_refused("404 Not Found"), "404"),
        says("busy", "503", describe_refused("503 Service Unavailable"), "503"),
        says(
            "no-bandwidth",
            "453 to SETUP",
            Script::default().answer("SETUP", |_, a| a.refuse("453 Not Enough Bandwidth")),
            "453",
        ),
        says(
            "no-tcp",
            "461 to SETUP",
            Script::default().answer("SETUP", |_, a| a.refuse("461 Unsupported Transport")),
            "461",
        ),
        says(
            "play-refused",
            "455 to PLAY",
            Script::default().answer("PLAY", |_, a| a.refuse("455 Method Not Valid in This State")),
            "455",
        ),
        says(
            "no-video",
            "audio alone",
            Script::default().sdp(|lines| {
                lines.truncate(6);
                lines.extend(["m=audio 0 RTP/AVP 0", "a=control:trackID=1"].map(str::to_owned));
            }),
            "video",
        ),
        says(
            "vp8",
            "VP8",
            Script::default()
                .without_sdp_line("a=fmtp")
                .sdp_line("a=rtpmap", |_| "a=rtpmap:96 VP8/90000".to_owned()),
            "vp8",
        ),
        says(
            "no-packet",
            "PLAY is answered, and no packet comes",
            Script::default().packets(|_, packets| packets.clear()).reports(|_| Vec::new()),
            "no picture",
        ),
    ]
}

fn describe_refused(status: &'static str) -> Script {
    Script::default().answer("DESCRIBE", |_, a| a.refuse(status))
}
