// The binary messages of `watch`: a header of 40 bytes, big-endian, then an access unit.
import type { Codec } from "../api/types";

export const HEADER_BYTES = 40;
const VERSION = 1;
const KEY = 1;
const DISCONTINUITY = 2;
const HIDDEN = 4;
/** Bits 4 to 6: the EXIF orientation, less 1. */
const TURN_SHIFT = 4;
const TURN_MASK = 7;
const CODECS: readonly (Codec | undefined)[] = [undefined, "h264", "h265", "mjpeg"];

/** One access unit with what the host says of it. */
export interface Unit {
  /** Decodes without others. */
  key: boolean;
  /** Pictures before it were left out, because this page read too slowly. */
  discontinuity: boolean;
  /** To be decoded, but not shown. */
  hidden: boolean;
  /** How the picture is turned to be shown: an EXIF orientation less 1, 0 being upright. */
  turn: number;
  codec: Codec;
  stream: number;
  /** In decoding order. */
  number: number;
  /**
   * The picture's time in its source, in nanoseconds. `detections.presentation_ns` is the same
   * number: beyond 2^53, after 104 days, both are rounded alike.
   */
  pts: number;
  /** Wall clock, milliseconds since 1970. */
  captured: number;
  /** Milliseconds between its receipt by the host and its sending. */
  age: number;
  /** When this page got it: of `performance.now()`. */
  arrived: number;
  data: Uint8Array;
}

/** Reads a message; null for another version's, or a damaged one. */
export function readUnit(message: ArrayBuffer, arrived: number): Unit | null {
  if (message.byteLength <= HEADER_BYTES) return null;
  const view = new DataView(message);
  const codec = CODECS[view.getUint16(2)];
  if (view.getUint8(0) !== VERSION || codec === undefined) return null;
  const flags = view.getUint8(1);
  return {
    key: (flags & KEY) !== 0,
    discontinuity: (flags & DISCONTINUITY) !== 0,
    hidden: (flags & HIDDEN) !== 0,
    turn: (flags >> TURN_SHIFT) & TURN_MASK,
    codec,
    stream: view.getUint32(4),
    number: Number(view.getBigUint64(8)),
    pts: Number(view.getBigInt64(16)),
    captured: Number(view.getBigUint64(24)) / 1e6,
    age: Number(view.getBigUint64(32)) / 1e6,
    arrived,
    data: new Uint8Array(message, HEADER_BYTES),
  };
}
