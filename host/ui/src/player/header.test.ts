import { expect, it } from "vitest";
import { HEADER_BYTES, readUnit } from "./header";

/** A message as docs/subscriber.md has it. */
function message(of: {
  version?: number;
  flags?: number;
  codec?: number;
  stream?: number;
  unit?: bigint;
  pts?: bigint;
  captured?: bigint;
  age?: bigint;
  data?: number[];
}): ArrayBuffer {
  const data = of.data ?? [0, 0, 1, 9];
  const buffer = new ArrayBuffer(HEADER_BYTES + data.length);
  const view = new DataView(buffer);
  view.setUint8(0, of.version ?? 1);
  view.setUint8(1, of.flags ?? 0);
  view.setUint16(2, of.codec ?? 1);
  view.setUint32(4, of.stream ?? 0);
  view.setBigUint64(8, of.unit ?? 0n);
  view.setBigInt64(16, of.pts ?? 0n);
  view.setBigUint64(24, of.captured ?? 0n);
  view.setBigUint64(32, of.age ?? 0n);
  new Uint8Array(buffer).set(data, HEADER_BYTES);
  return buffer;
}

it("reads every field", () => {
  const unit = readUnit(
    message({
      flags: 0b0101_0111,
      codec: 2,
      stream: 0xfffffffe,
      unit: 12n,
      pts: -5_000_000n,
      captured: 1_764_000_000_123_000_000n,
      age: 4_500_000n,
    }),
    77,
  );
  expect(unit).toMatchObject({
    key: true,
    discontinuity: true,
    hidden: true,
    turn: 5,
    codec: "h265",
    stream: 0xfffffffe,
    number: 12,
    pts: -5_000_000,
    captured: 1_764_000_000_123,
    age: 4.5,
    arrived: 77,
  });
  expect([...(unit?.data ?? [])]).toEqual([0, 0, 1, 9]);
});

it("rounds a time beyond 2^53 as JSON does, so that both still join", () => {
  const pts = 9_223_372_036_854_775_000n;
  expect(readUnit(message({ pts }), 0)?.pts).toBe(JSON.parse(String(pts)));
});

it("refuses another version, an unknown codec and a message without a unit", () => {
  expect(readUnit(message({ version: 2 }), 0)).toBeNull();
  expect(readUnit(message({ codec: 9 }), 0)).toBeNull();
  expect(readUnit(message({}).slice(0, HEADER_BYTES), 0)).toBeNull();
  expect(readUnit(new ArrayBuffer(3), 0)).toBeNull();
});
