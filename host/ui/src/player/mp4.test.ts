import { expect, it } from "vitest";
import { fragment, initialisation } from "./mp4";
import { h264Parameters, h265Codec, nalUnits } from "./nal";

const bytes = (hex: string) => Uint8Array.from(hex.match(/../g) ?? [], pair => parseInt(pair, 16));

// tests/clips/people-576-high.mp4: 768x576, high profile, level 3.1; and its PPS.
const SPS = bytes("6764001facb2018024d080000003008000000a078c1924");
const PPS = bytes("68ebe3cb22c0");
const KEY = bytes("6588840021ff");

const annexB = (...units: Uint8Array[]) =>
  Uint8Array.from(units.flatMap((unit, index) => [...(index === 0 ? [0] : []), 0, 0, 1, ...unit]));

interface Box {
  name: string;
  body: Uint8Array;
}

function boxes(data: Uint8Array): Box[] {
  const found: Box[] = [];
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  for (let at = 0; at < data.length;) {
    const size = view.getUint32(at);
    expect(size).toBeGreaterThanOrEqual(8);
    const name = String.fromCharCode(...data.subarray(at + 4, at + 8));
    found.push({ name, body: data.subarray(at + 8, at + size) });
    at += size;
  }
  return found;
}

function inside(data: Uint8Array, ...names: string[]): Uint8Array {
  const [first, ...rest] = names;
  const found = boxes(data).find(box => box.name === first);
  if (found === undefined) throw new Error(`no ${first}`);
  return rest.length === 0 ? found.body : inside(found.body, ...rest);
}

it("finds NAL units after start codes of three and four bytes, without trailing zeros", () => {
  const data = bytes("00000001091000000001671122000001688000000165000003010000");
  const found = nalUnits(data).map(unit => [...unit]);
  expect(found).toEqual([
    [0x09, 0x10],
    [0x67, 0x11, 0x22],
    [0x68, 0x80],
    [0x65, 0, 0, 3, 1],
  ]);
  expect(nalUnits(new Uint8Array())).toEqual([]);
  expect(nalUnits(bytes("010203"))).toEqual([]);
});

it("reads codec and size of an SPS", () => {
  const found = h264Parameters(nalUnits(annexB(SPS, PPS, KEY)));
  expect(found).toMatchObject({ codec: "avc1.64001f", width: 768, height: 576 });
  // Cropped from 1088 lines; baseline; from tests/clips, too.
  const sizes = [
    ["67640028acd940780227e584000003000400000300503c60c658", 1920, 1080],
    ["6742c01fd900c0126840000003004000000503c60c92", 768, 576],
  ] as const;
  for (const [sps, width, height] of sizes) {
    expect(h264Parameters([bytes(sps), PPS])).toMatchObject({ width, height });
  }
  expect(h264Parameters([KEY])).toBeNull();
  expect(h264Parameters([SPS.subarray(0, 6), PPS])).toBeNull();
});

it("names the codec of an H.265 SPS", () => {
  // tests/clips/people-1080-hevc.mp4: main profile, main tier, level 4.
  const sps = bytes("420101016000000300900000030000030078a003c08010e5965659");
  expect(h265Codec([sps])).toBe("hev1.1.6.L120.90");
  expect(h265Codec([SPS])).toBeNull();
});

it("writes an initialisation segment with the parameters and the size", () => {
  const found = h264Parameters([SPS, PPS]);
  if (found === null) throw new Error("no parameters");
  const segment = initialisation(found);
  expect(boxes(segment).map(box => box.name)).toEqual(["ftyp", "moov"]);
  const entries = inside(segment, "moov", "trak", "mdia", "minf", "stbl", "stsd");
  const entry = inside(entries.subarray(8), "avc1");
  const view = new DataView(entry.buffer, entry.byteOffset);
  expect([view.getUint16(24), view.getUint16(26)]).toEqual([768, 576]);
  const avcc = [...inside(entry.subarray(78), "avcC")];
  expect(avcc).toEqual([
    ...[1, 0x64, 0x00, 0x1f, 0xff, 0xe1, 0, SPS.length, ...SPS],
    ...[1, 0, PPS.length, ...PPS],
  ]);
  expect(boxes(inside(segment, "moov")).map(box => box.name)).toEqual(["mvhd", "trak", "mvex"]);
});

it("writes a fragment whose offset leads to its picture", () => {
  const units = [KEY, Uint8Array.of(0x65, 1)];
  const written = fragment({
    sequence: 3,
    decode: 2 ** 33 + 5,
    presentation: 2 ** 33 - 95,
    duration: 40_000,
    key: true,
    units,
  });
  const head = written.subarray(0, written.length - 18 - 2);
  expect(boxes(written).map(box => box.name)).toEqual(["moof", "mdat"]);
  const time = inside(written, "moof", "traf", "tfdt");
  expect(new DataView(time.buffer, time.byteOffset).getBigUint64(4)).toBe(2n ** 33n + 5n);
  const run = inside(written, "moof", "traf", "trun");
  const view = new DataView(run.buffer, run.byteOffset);
  const [count, offset, duration, size] = [4, 8, 12, 16].map(at => view.getUint32(at));
  expect([count, duration, size]).toEqual([1, 40_000, 16]);
  expect(view.getUint32(20)).toBe(0x02000000);
  expect(view.getInt32(24)).toBe(-100);
  expect(head.length).toBeLessThan(offset ?? 0);
  const sample = written.subarray(offset);
  expect([...sample]).toEqual([0, 0, 0, 6, ...KEY, 0, 0, 0, 2, 0x65, 1]);
});
