import { expect, it } from "vitest";
import { DropRule } from "./drop";
import { Lateness } from "./lateness";

/** A rule that has joined a live stream. */
function live(): DropRule {
  const rule = new DropRule();
  expect(rule.judge(true, 0, 5, 0)).toBe("decode");
  return rule;
}

it("begins with a key unit", () => {
  const rule = new DropRule();
  expect(rule.judge(false, 0, 0, 0)).toBe("skip");
  expect(rule.judge(true, 0, 0, 1)).toBe("decode");
  expect(rule.judge(false, 0, 0, 2)).toBe("decode");
});

it("skips to the next key unit when nine wait", () => {
  const rule = live();
  expect(rule.judge(false, 8, 5, 10)).toBe("decode");
  expect(rule.judge(false, 9, 5, 20)).toBe("skip");
  expect(rule.judge(false, 0, 5, 30)).toBe("skip");
  expect(rule.judge(true, 0, 5, 40)).toBe("decode");
  expect(rule.skipped).toBe(2);
});

it("skips what is older than half a second, but for key units", () => {
  const rule = live();
  expect(rule.judge(false, 0, 500, 10)).toBe("decode");
  expect(rule.judge(false, 0, 501, 20)).toBe("skip");
  expect(rule.judge(true, 0, 700, 30)).toBe("alone");
  expect(rule.judge(false, 0, 40, 40)).toBe("skip");
  expect(rule.judge(true, 0, 40, 50)).toBe("decode");
  expect(rule.judge(false, 0, 40, 60)).toBe("decode");
});

it("skips a key unit when nine wait", () => {
  const rule = live();
  expect(rule.judge(true, 9, 5, 10)).toBe("skip");
});

it("is too slow when the decoder takes nothing at all", () => {
  const rule = live();
  rule.judge(false, 9, 5, 10);
  for (const at of [2000, 4000]) expect(rule.judge(true, 9, 5, at)).toBe("skip");
  expect(rule.tooSlow(4000)).toBe(true);
});

it("blames a slow link on no decoder", () => {
  const rule = live();
  for (let key = 0; key < 10; key += 1) {
    expect(rule.judge(true, 0, 5, key * 1000)).toBe("decode");
    expect(rule.judge(false, 0, 2000, key * 1000 + 100)).toBe("skip");
  }
  expect(rule.tooSlow(10_000)).toBe(false);
});

it("decodes the old GOP of a joiner, however many wait", () => {
  const rule = new DropRule();
  expect(rule.judge(true, 0, 8000, 0)).toBe("decode");
  for (let unit = 1; unit < 80; unit += 1) {
    expect(rule.judge(false, unit, 8000 - unit * 100, unit)).toBe("decode");
  }
  // It has caught up: from now on the rule holds.
  expect(rule.judge(false, 0, 10, 90)).toBe("decode");
  expect(rule.judge(false, 9, 10, 100)).toBe("skip");
});

it("gives a joiner four seconds to catch up", () => {
  const rule = new DropRule();
  expect(rule.judge(true, 0, 9000, 0)).toBe("decode");
  expect(rule.judge(false, 0, 9000, 3999)).toBe("decode");
  expect(rule.judge(false, 0, 9000, 4001)).toBe("skip");
});

it("is too slow after three skips in ten seconds, and not after three in twenty", () => {
  const run = (apart: number) => {
    const rule = live();
    let slow = false;
    for (let trip = 0; trip < 3; trip += 1) {
      const at = trip * apart;
      rule.judge(false, 9, 5, at);
      slow = rule.tooSlow(at);
      rule.judge(true, 0, 5, at + 10);
    }
    return slow;
  };
  expect(run(3000)).toBe(true);
  expect(run(9000)).toBe(false);
});

const MS = 1e6;

it("is late by the age and by what the network holds back", () => {
  const lateness = new Lateness();
  const unit = (index: number, age: number, delay: number) =>
    lateness.of({ pts: index * 100 * MS, age, arrived: 5000 + index * 100 + age + delay });
  for (let index = 0; index < 20; index += 1) expect(unit(index, 2, 10)).toBeCloseTo(2);
  expect(unit(20, 300, 10)).toBeCloseTo(300);
  expect(unit(21, 2, 710)).toBeCloseTo(702);
});

it("does not take B frames for late, nor a clock that is set", () => {
  const lateness = new Lateness();
  const order = [0, 3, 1, 2, 6, 4, 5, 9, 7, 8, 12, 10, 11];
  const late = order.map((index, place) =>
    lateness.of({ pts: index * 100 * MS, age: 1, arrived: 1000 + place * 100 }),
  );
  expect(Math.max(...late)).toBeLessThan(250);
  const set = lateness.of({ pts: -9000 * 1000 * MS, age: 1, arrived: 2400 });
  expect(set).toBeCloseTo(1);
});
