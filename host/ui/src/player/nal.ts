// H.264 and H.265 as cameras send them: NAL units after start codes (Annex B).

/** Types of NAL units of H.264 (table 7-1) and H.265 (table 7-1). */
const H264_SPS = 7;
const H264_PPS = 8;
const H265_SPS = 33;

/** The NAL units of an access unit, without start codes and the zeros between them. */
export function nalUnits(data: Uint8Array): Uint8Array[] {
  const starts: { code: number; payload: number }[] = [];
  for (let at = data.indexOf(1, 2); at >= 0; at = data.indexOf(1, at + 1)) {
    if (data[at - 1] !== 0 || data[at - 2] !== 0) continue;
    starts.push({ code: at - 2, payload: at + 1 });
  }
  return starts.flatMap(({ payload }, index) => {
    let end = starts[index + 1]?.code ?? data.length;
    while (end > payload && data[end - 1] === 0) end -= 1;
    return end > payload ? [data.subarray(payload, end)] : [];
  });
}

/** What a decoder must know of an H.264 stream before its first picture. */
export interface Parameters {
  sps: Uint8Array;
  pps: Uint8Array;
  /** As in RFC 6381. */
  codec: string;
  width: number;
  height: number;
}

/** The parameter sets of an H.264 key unit; null if it has none that can be read. */
export function h264Parameters(units: readonly Uint8Array[]): Parameters | null {
  const of = (type: number) => units.find(unit => ((unit[0] ?? 0) & 0x1f) === type);
  const [sps, pps] = [of(H264_SPS), of(H264_PPS)];
  if (sps === undefined || pps === undefined || sps.length < 5) return null;
  const size = h264Size(sps);
  if (size === null) return null;
  const profile = [...sps.subarray(1, 4)].map(byte => byte.toString(16).padStart(2, "0")).join("");
  return { sps, pps, codec: `avc1.${profile}`, ...size };
}

/** The codec string of an H.265 key unit, as in ISO/IEC 14496-15, annex E.3; null without one. */
export function h265Codec(units: readonly Uint8Array[]): string | null {
  const sps = units.find(unit => (((unit[0] ?? 0) >> 1) & 0x3f) === H265_SPS);
  if (sps === undefined) return null;
  // Two bytes of header, four bits of VPS number, three of layers, one of nesting.
  const bytes = withoutEmulation(sps).subarray(3);
  if (bytes.length < 12) return null;
  const first = bytes[0] ?? 0;
  const space = ["", "A", "B", "C"][first >> 6] ?? "";
  const tier = (first & 0x20) !== 0 ? "H" : "L";
  let flags = 0;
  // The compatibility flags are written with their order of bits reversed.
  for (let bit = 0; bit < 32; bit += 1) {
    if (((bytes[1 + (bit >> 3)] ?? 0) & (0x80 >> (bit & 7))) !== 0) flags += 2 ** bit;
  }
  const constraints = [...bytes.subarray(5, 11)];
  while (constraints.length > 0 && constraints.at(-1) === 0) constraints.pop();
  const parts = constraints.map(byte => `.${byte.toString(16).toUpperCase()}`).join("");
  return `hev1.${space}${first & 0x1f}.${flags.toString(16)}.${tier}${bytes[11] ?? 0}${parts}`;
}

/** A NAL unit without the bytes that keep start codes out of it. */
function withoutEmulation(unit: Uint8Array): Uint8Array {
  const out = new Uint8Array(unit.length);
  let [length, zeros] = [0, 0];
  for (const byte of unit) {
    if (zeros >= 2 && byte === 3) {
      zeros = 0;
      continue;
    }
    out[length] = byte;
    length += 1;
    zeros = byte === 0 ? zeros + 1 : 0;
  }
  return out.subarray(0, length);
}

/** Reads bits, and the numbers of variable length that H.264 has (9.1). Past the end are zeros. */
class Bits {
  #at = 0;
  constructor(readonly bytes: Uint8Array) {}

  get over(): boolean {
    return this.#at > this.bytes.length * 8;
  }

  bits(count: number): number {
    let value = 0;
    for (let index = 0; index < count; index += 1) {
      const byte = this.bytes[this.#at >> 3] ?? 0;
      value = value * 2 + ((byte >> (7 - (this.#at & 7))) & 1);
      this.#at += 1;
    }
    return value;
  }

  flag(): boolean {
    return this.bits(1) === 1;
  }

  unsigned(): number {
    let zeros = 0;
    while (!this.over && zeros < 32 && this.bits(1) === 0) zeros += 1;
    return 2 ** zeros - 1 + this.bits(zeros);
  }

  signed(): number {
    const value = this.unsigned();
    return value % 2 === 0 ? -value / 2 : (value + 1) / 2;
  }
}

/** Profiles whose SPS has chroma format, bit depths and scaling matrices (7.3.2.1.1). */
const HIGH = new Set([100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135]);

/** Width and height of the shown part of the picture. */
function h264Size(sps: Uint8Array): { width: number; height: number } | null {
  const reader = new Bits(withoutEmulation(sps.subarray(1)));
  const profile = reader.bits(8);
  reader.bits(16);
  reader.unsigned();
  let chroma = 1;
  if (HIGH.has(profile)) {
    chroma = reader.unsigned();
    if (chroma === 3) reader.bits(1);
    reader.unsigned();
    reader.unsigned();
    reader.bits(1);
    if (reader.flag()) skipScaling(reader, chroma === 3 ? 12 : 8);
  }
  reader.unsigned();
  const order = reader.unsigned();
  if (order === 0) {
    reader.unsigned();
  } else if (order === 1) {
    reader.bits(1);
    reader.signed();
    reader.signed();
    for (let left = Math.min(reader.unsigned(), 255); left > 0; left -= 1) reader.signed();
  }
  reader.unsigned();
  reader.bits(1);
  const columns = reader.unsigned() + 1;
  const rows = reader.unsigned() + 1;
  const fields = reader.flag() ? 1 : 2;
  if (fields === 2) reader.bits(1);
  reader.bits(1);
  const crop = reader.flag() ? [0, 0, 0, 0].map(() => reader.unsigned()) : [0, 0, 0, 0];
  const [left = 0, right = 0, top = 0, bottom = 0] = crop;
  const across = chroma === 1 || chroma === 2 ? 2 : 1;
  const down = (chroma === 1 ? 2 : 1) * fields;
  const width = columns * 16 - (left + right) * across;
  const height = rows * 16 * fields - (top + bottom) * down;
  const sound = !reader.over && width > 0 && height > 0 && width <= 16_384 && height <= 16_384;
  return sound ? { width, height } : null;
}

function skipScaling(reader: Bits, lists: number): void {
  for (let list = 0; list < lists; list += 1) {
    if (!reader.flag()) continue;
    let [last, next] = [8, 8];
    for (let entry = list < 6 ? 16 : 64; entry > 0; entry -= 1) {
      if (next !== 0) next = (last + reader.signed() + 256) % 256;
      if (next !== 0) last = next;
    }
  }
}
