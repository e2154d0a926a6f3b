//! Answers that are slightly off: lines, headers, numbers, sessions, transports.

use ocelli_testkit::camera::{Answer, Request, Script};

use super::{Case, plays, says};

fn answers(bend: impl Fn(&Request, &mut Answer) + Send + Sync + 'static) -> Script {
    Script::default().answers(bend)
}

/// A camera whose `Session` header in the answer to SETUP is this.
fn session(value: &'static str) -> Script {
    Script::default().answer("SETUP", |_, a| a.set("Session", value))
}

/// A camera whose `Transport` header is this.
fn transport(value: &'static str) -> Script {
    Script::default().answer("SETUP", |_, a| a.set("Transport", value))
}

/// A camera whose `RTP-Info` header is this.
fn rtp_info(value: &'static str) -> Script {
    Script::default().answer("PLAY", |_, a| a.set("RTP-Info", value))
}

pub(super) fn lines() -> Vec<Case> {
    let number = |bend: fn(u32) -> u32| {
        answers(move |request, a| a.set("CSeq", &bend(request.cseq()).to_string()))
    };
    vec![
        plays("well-behaved", "nothing", Script::default()),
        plays("lf-only", "lines end with LF alone", answers(|_, a| a.line_end = "\n")),
        plays(
            "no-reason",
            "no reason phrase",
            answers(|_, a| a.status_line = "RTSP/1.0 200".into()),
        ),
        plays(
            "blank-reason",
            "an empty reason phrase",
            answers(|_, a| a.status_line = "RTSP/1.0 200 ".into()),
        ),
        says("blank-before-colon", "`Name : value`", answers(|_, a| a.colon = " : "), "DESCRIBE"),
        plays("no-blank", "`Name:value`", answers(|_, a| a.colon = ":")),
        plays("many-blanks", "`Name:   value`", answers(|_, a| a.colon = ":   ")),
        plays("empty-header", "a header without a value", answers(|_, a| a.add("Server", ""))),
        plays(
            "lower-case",
            "names of headers in lower case",
            answers(|_, a| a.rename(str::to_lowercase)),
        ),
        plays(
            "upper-case",
            "names of headers in capitals",
            answers(|_, a| a.rename(str::to_uppercase)),
        ),
        plays(
            "long-header",
            "a header of 3,000 characters",
            answers(|_, a| a.add("X-Build", &"f".repeat(3000))),
        ),
        plays(
            "odd-date",
            "a date that is none, and a colon in a value",
            answers(|_, a| a.add("Date", ": -1 UTC 1970 25:61")),
        ),
        plays(
            "latin-1",
            "bytes in a header that are no UTF-8",
            answers(|_, a| a.before = b"".into()).answers(|_, a| a.add("Server", "caméra")),
        ),
        plays(
            "empty-line-first",
            "an empty line before each answer",
            answers(|_, a| {
                a.before = b"\r\n".into();
            }),
        ),
        plays("cseq-zero", "CSeq 0 in each answer", number(|_| 0)),
        plays("cseq-behind", "CSeq one too low", number(|cseq| cseq.saturating_sub(1))),
        plays("cseq-missing", "no CSeq", answers(|_, a| a.remove("CSeq"))),
        plays(
            "cseq-twice",
            "two CSeq headers",
            answers(|request, a| a.add("CSeq", &request.cseq().to_string())),
        ),
        plays(
            "options-refused",
            "OPTIONS is refused with 501",
            Script::default().answer("OPTIONS", |_, a| a.refuse("501 Not Implemented")),
        ),
        plays(
            "public-empty",
            "OPTIONS says nothing of methods",
            Script::default().answer("OPTIONS", |_, a| a.remove("Public")),
        ),
    ]
}

pub(super) fn sessions() -> Vec<Case> {
    vec![
        plays("session-blanks", "blanks in `Session`", session("12345678 ; timeout = 60")),
        plays("session-bare", "`Session` without a timeout", session("12345678")),
        plays("session-semicolon", "`Session` ends with `;`", session("12345678;")),
        plays("session-timeout-empty", "`Session` with `timeout=`", session("12345678;timeout=")),
        plays(
            "session-other-parameter",
            "`Session` with a parameter that no standard has",
            session("12345678;timeout=60;mode=live"),
        ),
        plays("session-odd", "an id of odd characters", session("{a-b}.c_d+e$f;timeout=60")),
        plays(
            "session-twice",
            "two `Session` headers",
            Script::default().answer("SETUP", |_, a| a.add("Session", "12345678;timeout=60")),
        ),
        plays(
            "session-in-setup-alone",
            "PLAY is answered without `Session`",
            Script::default().answer("PLAY", |_, a| a.remove("Session")),
        ),
        plays(
            "session-changes",
            "PLAY names another session",
            Script::default().answer("PLAY", |_, a| a.set("Session", "87654321")),
        ),
        plays("transport-bare", "no `interleaved=`", transport("RTP/AVP/TCP;unicast")),
        plays(
            "transport-blanks",
            "blanks behind semicolons",
            transport("RTP/AVP/TCP; unicast; interleaved=0-1"),
        ),
        plays(
            "transport-semicolon",
            "`Transport` ends with `;`",
            transport("RTP/AVP/TCP;unicast;interleaved=0-1;"),
        ),
        plays(
            "transport-one-channel",
            "`interleaved=0`",
            transport("RTP/AVP/TCP;unicast;interleaved=0"),
        ),
        plays(
            "transport-full",
            "`Transport` says all that there is",
            transport(
                "RTP/AVP/TCP;unicast;destination=127.0.0.1;source=127.0.0.1;interleaved=0-1;\
                 ssrc=12345678;mode=\"PLAY\"",
            ),
        ),
        plays(
            "ssrc-decimal",
            "an SSRC of ten digits",
            transport("RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=3054198966"),
        ),
        plays(
            "ssrc-empty",
            "an SSRC without a value",
            transport("RTP/AVP/TCP;unicast;interleaved=0-1;ssrc="),
        ),
        plays(
            "ssrc-odd",
            "an SSRC that is no number",
            transport("RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=0x12345678"),
        ),
        plays(
            "other-channel",
            "packets on channels of its own choice",
            Script::default().channel(4),
        ),
        plays(
            "rtp-info-missing",
            "no `RTP-Info`",
            Script::default().answer("PLAY", |_, a| a.remove("RTP-Info")),
        ),
        plays("rtp-info-without-url", "`RTP-Info` without a URL", rtp_info("seq=1;rtptime=0")),
        plays("rtp-info-empty", "an empty `RTP-Info`", rtp_info("")),
        plays(
            "rtp-info-other-url",
            "`RTP-Info` with the URL of another stream",
            rtp_info("url=rtsp://192.168.1.64/Streaming/Channels/1/trackID=9;seq=1;rtptime=0"),
        ),
        plays(
            "rtp-info-negative",
            "`RTP-Info` with numbers below 0",
            rtp_info("url=trackID=0;seq=-1;rtptime=-1"),
        ),
        plays(
            "rtp-info-blanks",
            "`RTP-Info` with blanks",
            rtp_info("url=trackID=0; seq=1; rtptime=0"),
        ),
    ]
}
