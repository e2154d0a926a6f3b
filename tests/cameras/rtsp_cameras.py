#!/usr/bin/python3
"""Plays video clips as live RTSP cameras, for the demo and the whole-system tests.

Debian's gst-rtsp-server does all of RTSP, RTP, RTCP and authentication. This
program demultiplexes each clip into memory once and then feeds its access
units to the server in real time, over and over, with timestamps that keep
growing without a gap from one round to the next.

    /usr/bin/python3 rtsp_cameras.py --port 0 /people=people.mp4 /bikes=bikes.mp4

prints "READY <port>" as its only line on standard output once cameras can
connect (here to rtsp://127.0.0.1:<port>/people). It ends on SIGINT or SIGTERM,
and is killed when the thread that started it ends, so that no run leaves
cameras behind. With --hold each round begins with a still scene: the first
picture, over and over, for so many seconds. With --still there is nothing but
that picture, encoded anew as by a camera before which nothing moves.

Run it with the system's Python: the GObject bindings are a Debian package.
"""

import argparse
import ctypes
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, replace
from statistics import median_low

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
ROLE = "viewer"  # the one role of an authenticated client
LOAD_TIMEOUT = 10 * Gst.SECOND  # a local file delivers its first access unit in milliseconds
STILL_PICTURES = 40  # four seconds between two key frames, as many cameras have them
STILL_QP = 26  # about as sharp as the clips
STILL_NOISE = 0.05  # the share of snow at which pictures between key frames have about a kilobyte
SESSION_CLEANUP_SECONDS = 2  # how often sessions of vanished clients are looked for


@dataclass(frozen=True)
class Codec:
    """How to cut a stream into access units, and how to put them into RTP."""

    parser: str
    caps: str
    payloader: str


CODECS = {
    "video/x-h264": Codec(
        "h264parse",
        "video/x-h264,stream-format=byte-stream,alignment=au",
        "rtph264pay pt=96 config-interval=-1 aggregate-mode=zero-latency",
    ),
    "video/x-h265": Codec(
        "h265parse",
        "video/x-h265,stream-format=byte-stream,alignment=au",
        "rtph265pay pt=96 config-interval=-1",
    ),
    "image/jpeg": Codec("jpegparse", "image/jpeg", "rtpjpegpay pt=26"),
}


class ClipError(Exception):
    """A clip cannot be played; the message names it and says why."""


@dataclass(frozen=True)
class AccessUnit:
    """One coded picture; times in nanoseconds of the clip's own clock."""

    pts: int
    dts: int
    data: bytes
    is_key: bool


class Clip:
    """A clip in memory: its access units in decoding order."""

    def __init__(self, path, hold=0, still=False):
        self.codec, self.caps, self.units = _demultiplex(path)
        if still:
            self.codec, self.caps, self.units = _still(path, self.caps)
        if len(self.units) < 2:
            raise ClipError(f"{path}: a clip needs at least two pictures, this has {len(self.units)}")
        times = sorted(unit.pts for unit in self.units)
        self.frame_duration = median_low(later - earlier for earlier, later in zip(times, times[1:]))
        # A clip that was cut can end in a picture whose B frames, shown before it, are missing: that would be a gap.
        while len(times) > 2 and self.units[-1].pts == times[-1] and times[-1] - times[-2] > 1.5 * self.frame_duration:
            del self.units[-1], times[-1]
        self.start = min(unit.dts for unit in self.units)
        self.duration = times[-1] - times[0] + self.frame_duration
        self._hold(round(hold * Gst.SECOND / self.frame_duration))

    def _hold(self, count):
        """Shows the first picture, a key frame, `count` times before the clip."""
        held, first = count * self.frame_duration, self.units[0]
        still = [_later(first, number * self.frame_duration) for number in range(count)]
        self.units = still + [_later(unit, held) for unit in self.units]
        self.duration += held


def _demultiplex(path):
    """Returns the codec of the first video stream in the file, its caps and its access units."""
    pipeline = Gst.Pipeline.new(None)
    source = Gst.ElementFactory.make("filesrc")
    source.set_property("location", path)
    streams = Gst.ElementFactory.make("parsebin")
    sink = Gst.ElementFactory.make("appsink")
    sink.set_property("sync", False)
    for element in (source, streams, sink):
        pipeline.add(element)
    source.link(streams)
    found = []

    def take_first_video(_streams, pad):
        codec = CODECS.get(pad.query_caps(None).get_structure(0).get_name())
        if codec is None or found:
            return
        found.append(codec)
        parser = Gst.parse_bin_from_description(f'{codec.parser} ! capsfilter caps="{codec.caps}"', True)
        pipeline.add(parser)
        parser.link(sink)
        parser.sync_state_with_parent()
        pad.link(parser.get_static_pad("sink"))

    streams.connect("pad-added", take_first_video)
    caps, units = _pull(path, pipeline, sink)
    return found[0], caps, units


def _still(path, caps):
    """Returns the same of the first picture, whose pixels tremble from one to the next as a camera's do."""
    codec, shape = CODECS["video/x-h264"], caps.get_structure(0)
    size = [f"sink_1::{key}={shape.get_value(key)}" for key in ("width", "height")]
    pipeline = Gst.parse_launch(
        f"compositor name=both background=black sink_1::alpha={STILL_NOISE} {' '.join(size)}"
        f" ! videoconvert ! openh264enc gop-size={STILL_PICTURES} rate-control=off qp-min={STILL_QP} qp-max={STILL_QP}"
        f" ! {codec.parser} ! {codec.caps} ! appsink name=sink sync=false"
        f" filesrc name=clip ! decodebin ! videoconvert ! imagefreeze num-buffers={STILL_PICTURES}"
        f" ! video/x-raw,framerate=10/1 ! both.sink_0"
        f" videotestsrc pattern=snow num-buffers={STILL_PICTURES} ! video/x-raw,framerate=10/1 ! both.sink_1"
    )
    pipeline.get_by_name("clip").set_property("location", path)
    return codec, *_pull(path, pipeline, pipeline.get_by_name("sink"))


def _pull(path, pipeline, sink):
    """Runs a pipeline to its end; returns caps and access units of what comes out."""
    pipeline.set_state(Gst.State.PLAYING)
    try:
        units, caps = [], None
        while sample := sink.emit("try-pull-sample", LOAD_TIMEOUT):
            caps = sample.get_caps()
            units.append(_access_unit(sample.get_buffer()))
        error = pipeline.get_bus().pop_filtered(Gst.MessageType.ERROR)
        if error:
            raise ClipError(f"{path}: {error.parse_error()[0].message}")
        if not units:
            raise ClipError(f"{path}: no H.264, H.265 or MJPEG video in it")
        return caps, units
    finally:
        pipeline.set_state(Gst.State.NULL)


def _access_unit(buffer):
    dts = buffer.dts if buffer.dts != Gst.CLOCK_TIME_NONE else buffer.pts
    is_key = not buffer.has_flags(Gst.BufferFlags.DELTA_UNIT)
    return AccessUnit(buffer.pts, dts, buffer.extract_dup(0, buffer.get_size()), is_key)


def _later(unit, nanoseconds):
    return replace(unit, pts=unit.pts + nanoseconds, dts=unit.dts + nanoseconds)


class Feeder:
    """Plays a clip into one prepared medium, in real time, on a thread of its own."""

    def __init__(self, source, clip):
        self._source = source
        self._clip = clip
        self._stopped = threading.Event()
        source.set_property("caps", clip.caps)
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self):
        """Ends the thread; callable more than once."""
        self._stopped.set()

    def _run(self):
        started = time.monotonic_ns()
        offset = -self._clip.start
        while True:
            for unit in self._clip.units:
                ahead = started + unit.dts + offset - time.monotonic_ns()
                if self._stopped.wait(max(ahead, 0) / Gst.SECOND):
                    return
                if self._source.emit("push-buffer", self._buffer(unit, offset)) != Gst.FlowReturn.OK:
                    return
            offset += self._clip.duration

    def _buffer(self, unit, offset):
        buffer = Gst.Buffer.new_wrapped(unit.data)
        buffer.pts = unit.pts + offset
        buffer.dts = unit.dts + offset
        buffer.duration = self._clip.frame_duration
        if not unit.is_key:
            buffer.set_flags(Gst.BufferFlags.DELTA_UNIT)
        return buffer


def camera(clip, drop, tcp_only, with_password):
    """Returns the media factory of one camera; all its clients watch the same picture."""
    factory = GstRtspServer.RTSPMediaFactory.new()
    factory.set_shared(True)
    factory.set_latency(0)
    # The server looks for the element named pay0; packets are lost after the payloader.
    lossy = f" ! identity name=pay0 drop-probability={drop}"
    payloader = clip.codec.payloader + (lossy if drop else " name=pay0")
    appsrc = "appsrc name=source is-live=true format=time do-timestamp=false max-bytes=0"
    factory.set_launch(f"( {appsrc} ! {payloader} )")
    if tcp_only:
        factory.set_protocols(GstRtsp.RTSPLowerTrans.TCP)
    if with_password:
        permissions = GstRtspServer.RTSPPermissions.new()
        permissions.add_role(ROLE)
        for permission in ("media.factory.access", "media.factory.construct"):
            permissions.add_permission_for_role(ROLE, permission, True)
        factory.set_permissions(permissions)

    def start_feeding(_factory, media):
        feeder = Feeder(media.get_element().get_by_name("source"), clip)
        media.connect("unprepared", lambda _media: feeder.stop())

    factory.connect("media-configure", start_feeding)
    return factory


def digest_auth(user, password):
    """Returns an authentication that accepts this one user, by digest only."""
    auth = GstRtspServer.RTSPAuth.new()
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    auth.set_realm("cameras")
    token = GstRtspServer.RTSPToken.new()
    token.set_string("media.factory.role", ROLE)
    auth.add_digest(user, password, token)
    return auth


def serve(options, clips):
    """Serves the clips (mount path to Clip) until a signal says to stop."""
    server = GstRtspServer.RTSPServer()
    server.set_address(options.address)
    server.set_service(str(options.port))
    if options.user:
        server.set_auth(digest_auth(options.user, options.password))
    mounts = server.get_mount_points()
    for path, clip in clips.items():
        mounts.add_factory(path, camera(clip, options.drop, options.tcp_only, bool(options.user)))
    # By default the server throws away TCP packets of clients that are slow to read,
    # which happens as soon as several join at once.
    server.connect("client-connected", lambda _server, client: client.set_property("drop-backlog", False))
    if server.attach(None) == 0:
        sys.exit(f"rtsp_cameras: cannot listen on {options.address}:{options.port}")

    loop = GLib.MainLoop()
    for number in (signal.SIGINT, signal.SIGTERM):
        GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, number, loop.quit)

    def forget_vanished_clients():
        server.get_session_pool().cleanup()
        return GLib.SOURCE_CONTINUE

    GLib.timeout_add_seconds(SESSION_CLEANUP_SECONDS, forget_vanished_clients)
    print(f"READY {server.get_bound_port()}", flush=True)
    loop.run()


def die_with_parent():
    """Asks the kernel to kill this process when its parent ends, even while it is stopped."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("rtsp_cameras: the parent has ended already")


def mount(text):
    """Parses PATH=FILE."""
    path, separator, file = text.partition("=")
    if not (separator and path.startswith("/") and len(path) > 1 and file):
        raise argparse.ArgumentTypeError(f"{text!r} is not /PATH=FILE")
    return path, file


def probability(text):
    """Parses a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def seconds(text):
    """Parses a time up to an hour."""
    value = float(text)
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 3600")
    return value


def parse_arguments():
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(description="Plays video clips in a loop as live RTSP cameras.")
    parser.add_argument("--address", default="127.0.0.1", help="where to listen (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8554, help="0 picks a free one (default: %(default)s)")
    parser.add_argument("--user", help="demand digest authentication by this user")
    parser.add_argument("--password", default="", help="the password of --user")
    parser.add_argument("--drop", type=probability, default=0, metavar="P", help="lose this share of RTP packets")
    parser.add_argument("--tcp-only", action="store_true", help="refuse RTP over UDP")
    parser.add_argument("--hold", type=seconds, default=0, metavar="S", help="begin rounds with a still scene")
    parser.add_argument("--still", action="store_true", help="play the first picture for ever, 10 a second")
    parser.add_argument("mounts", nargs="+", type=mount, metavar="/PATH=FILE", help="a camera and its clip")
    return parser.parse_args()


def main():
    """Loads the clips and serves them."""
    options = parse_arguments()
    die_with_parent()
    Gst.init(None)
    try:
        clips = {path: Clip(file, options.hold, options.still) for path, file in options.mounts}
    except ClipError as error:
        sys.exit(f"rtsp_cameras: {error}")
    serve(options, clips)


if __name__ == "__main__":
    main()
