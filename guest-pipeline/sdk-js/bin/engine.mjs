/**
 * The engine with a garbage collector for small heaps.
 *
 * SpiderMonkey first collects its old generation when that has some 30 MiB of cells or 57 MiB of
 * other memory; StarlingMonkey has no setting for it, and a component's memory never shrinks. So a
 * pipeline that makes 10 KB of garbage with each frame grows to a hundred megabytes in half an
 * hour. The limits are three constants in the constructor of `js::gc::GCSchedulingTunables`, each
 * beside another one in an `i64.const`; they are made smaller here, in a copy.
 */

const MIB = 2 ** 20;

/** Lower and upper half of each constant, as it is and as it is to be. */
export const CONSTANTS = [
  // The young generation: least and most bytes.
  { from: [MIB / 4, 64 * MIB], to: [MIB / 4, MIB] },
  // Cells of the old one until it is collected; bytes of a small heap.
  { from: [27 * MIB, 100 * MIB], to: [4 * MIB, 100 * MIB] },
  // Other memory of cells until they are collected; how far off that is urgent.
  { from: [38 * MIB, MIB], to: [4 * MIB, MIB] },
];

/** `i64.const` with at least so many bytes behind the opcode: longer forms are as good. */
export function constant([low, high], length = 1) {
  let value = BigInt.asIntN(64, (BigInt(high) << 32n) | BigInt(low));
  const bytes = [0x42];
  for (;;) {
    const part = Number(value & 0x7fn);
    value >>= 7n;
    const sign = part & 0x40 ? -1n : 0n;
    if (value === sign && bytes.length >= length) return Uint8Array.from([...bytes, part]);
    bytes.push(part | 0x80);
  }
}

/** A copy of the engine with other constants; undefined where it lacks one or has one twice. */
export function tuned(engine) {
  const copy = Buffer.from(engine);
  for (const { from, to } of CONSTANTS) {
    const old = constant(from);
    const at = copy.indexOf(old);
    if (at < 0 || copy.indexOf(old, at + 1) >= 0) return undefined;
    copy.set(constant(to, old.length - 1), at);
  }
  return copy;
}
