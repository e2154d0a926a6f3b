import { expect, it } from "vitest";
import { type Abilities, Ladder } from "./ladder";

const all: Abilities = {
  secure: true,
  videoDecoder: true,
  decodes: codec => Promise.resolve(codec.startsWith("avc1")),
  plays: codec => codec.startsWith("avc1"),
};
const AVC = "avc1.64001e";
const HEVC = "hev1.1.6.L93.B0";

it("takes the best rung that the browser has, and says why it is not the first", async () => {
  const cases = [
    [all, "h264", AVC, "webcodecs", /^$/],
    [{ ...all, videoDecoder: false }, "h264", AVC, "mse", /no WebCodecs/],
    [{ ...all, videoDecoder: false, secure: false }, "h264", AVC, "mse", /plain http/],
    [{ ...all, videoDecoder: false, plays: () => false }, "h264", AVC, "jpeg", /Media Source/],
    [all, "h265", HEVC, "jpeg", /does not decode H.265/],
    [all, "mjpeg", null, "jpeg", /JPEG/],
  ] as const;
  for (const [abilities, codec, name, rung, why] of cases) {
    const chosen = await new Ladder(abilities, null).choose(codec, name);
    expect(chosen.rung, codec).toBe(rung);
    expect(chosen.why).toMatch(why);
  }
});

it("takes an error instead of an answer for a codec that is not decoded", async () => {
  const refuses = { ...all, decodes: () => Promise.reject(new TypeError("no such codec")) };
  const chosen = await new Ladder(refuses, null).choose("h264", AVC);
  expect(chosen).toEqual({ rung: "mse", why: "this browser does not decode H.264" });
});

it("keeps to a forced rung", async () => {
  const ladder = new Ladder(all, "still");
  expect((await ladder.choose("h264", AVC)).rung).toBe("still");
});

it("goes down with the reason, to the still at last, and tries again after minutes", async () => {
  const ladder = new Ladder(all, null);
  ladder.down("webcodecs", "too slow", 0);
  expect(await ladder.choose("h264", AVC)).toEqual({ rung: "mse", why: "too slow" });
  ladder.down("mse", "it broke", 0);
  expect(await ladder.choose("h264", AVC)).toEqual({ rung: "jpeg", why: "it broke" });
  ladder.down("jpeg", "no", 0);
  ladder.down("still", "no", 0);
  expect((await ladder.choose("h264", AVC)).rung).toBe("still");
  expect(ladder.upAgain(1000)).toBe(false);
  expect(ladder.upAgain(3_600_000)).toBe(true);
  expect((await ladder.choose("h264", AVC)).rung).toBe("webcodecs");
});
