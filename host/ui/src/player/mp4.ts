// Fragmented MP4 (ISO/IEC 14496-12 and -15) for Media Source Extensions: an initialisation segment,
// then one fragment for each picture, so that none waits for the next.
import type { Parameters } from "./nal";

/** Units of a second: those of the pictures' times, in microseconds. */
const TIMESCALE = 1_000_000;
const TRACK = 1;
/** `sample_flags`: others depend on it and it on none; it depends on others. */
const KEY_SAMPLE = 0x02000000;
const OTHER_SAMPLE = 0x01010000;

type Part = Uint8Array | number[];

/** A box of its name and its parts. */
function box(name: string, ...parts: Part[]): Uint8Array {
  const size = parts.reduce((sum, part) => sum + part.length, 8);
  const out = new Uint8Array(size);
  new DataView(out.buffer).setUint32(0, size);
  for (let index = 0; index < 4; index += 1) out[4 + index] = name.charCodeAt(index);
  let at = 8;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

const u16 = (value: number) => [(value >> 8) & 0xff, value & 0xff];
const u32 = (value: number) => [...u16((value >>> 16) & 0xffff), ...u16(value & 0xffff)];
const u64 = (value: number) => [...u32(Math.floor(value / 2 ** 32)), ...u32(value % 2 ** 32)];
const full = (version: number, flags: number) => u32(version * 2 ** 24 + flags);
const zeros = (count: number) => new Array<number>(count).fill(0);
const text = (value: string) => [...value].map(letter => letter.charCodeAt(0));
/** Turns and mirrors nothing. */
const MATRIX = [1, 0, 0, 0, 1, 0, 0, 0, 0x4000].flatMap((value, index) =>
  u32(index === 8 ? 0x40000000 : value === 0 ? 0 : 0x10000),
);

/** What comes once, before all fragments: the codec's parameters and the size. */
export function initialisation(of: Parameters): Uint8Array {
  const { sps, pps, width, height } = of;
  const avcc = box(
    "avcC",
    [1, ...sps.subarray(1, 4), 0xff, 0xe1, ...u16(sps.length)],
    sps,
    [1, ...u16(pps.length)],
    pps,
  );
  const entry = box(
    "avc1",
    [...zeros(6), ...u16(1), ...zeros(16), ...u16(width), ...u16(height)],
    [...u32(0x480000), ...u32(0x480000), ...u32(0), ...u16(1), ...zeros(32)],
    [...u16(24), 0xff, 0xff],
    avcc,
  );
  const empty = full(0, 0);
  const samples = box(
    "stbl",
    box("stsd", empty, u32(1), entry),
    box("stts", empty, u32(0)),
    box("stsc", empty, u32(0)),
    box("stsz", empty, u32(0), u32(0)),
    box("stco", empty, u32(0)),
  );
  const media = box(
    "mdia",
    box("mdhd", empty, u32(0), u32(0), u32(TIMESCALE), u32(0), u16(0x55c4), u16(0)),
    box("hdlr", empty, u32(0), text("vide"), zeros(12), text("camera\0")),
    box(
      "minf",
      box("vmhd", full(0, 1), zeros(8)),
      box("dinf", box("dref", empty, u32(1), box("url ", full(0, 1)))),
      samples,
    ),
  );
  const track = box(
    "tkhd",
    full(0, 3),
    [...u32(0), ...u32(0), ...u32(TRACK), ...u32(0), ...u32(0), ...zeros(8), ...zeros(8)],
    MATRIX,
    [...u32(width * 0x10000), ...u32(height * 0x10000)],
  );
  const movie = box(
    "mvhd",
    empty,
    [...u32(0), ...u32(0), ...u32(TIMESCALE), ...u32(0), ...u32(0x10000), ...u16(0x100)],
    zeros(10),
    MATRIX,
    [...zeros(24), ...u32(TRACK + 1)],
  );
  const extends_ = box("trex", empty, u32(TRACK), u32(1), u32(0), u32(0), u32(0));
  const brands = box("ftyp", text("isom"), u32(0x200), text("isomiso6avc1mp41"));
  return join([brands, box("moov", movie, box("trak", track, media), box("mvex", extends_))]);
}

/** One picture, with its times in microseconds. */
export interface Sample {
  /** From 1. */
  sequence: number;
  /** Grows from sample to sample. */
  decode: number;
  presentation: number;
  duration: number;
  key: boolean;
  /** NAL units without start codes. */
  units: readonly Uint8Array[];
}

/** The fragment of one picture. */
export function fragment(sample: Sample): Uint8Array {
  const { sequence, decode, presentation, duration, key, units } = sample;
  const size = units.reduce((sum, unit) => sum + 4 + unit.length, 0);
  const run = (offset: number) =>
    box(
      "trun",
      // Version 1, whose composition offset has a sign; data offset, then all four of the sample.
      full(1, 0xf01),
      [...u32(1), ...u32(offset)],
      [...u32(duration), ...u32(size), ...u32(key ? KEY_SAMPLE : OTHER_SAMPLE)],
      u32(presentation - decode),
    );
  const moof = (offset: number) =>
    box(
      "moof",
      box("mfhd", full(0, 0), u32(sequence)),
      box(
        "traf",
        // The offset counts from the fragment's own beginning.
        box("tfhd", full(0, 0x20000), u32(TRACK)),
        box("tfdt", full(1, 0), u64(decode)),
        run(offset),
      ),
    );
  const head = moof(moof(0).length + 8);
  return join([head, box("mdat", ...units.flatMap(unit => [u32(unit.length), unit]))]);
}

function join(parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
