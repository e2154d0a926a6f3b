import { expect, it } from "vitest";
import { nameFault, parted, sourceOf, substreamOf } from "./source";

const typed = (url: string, user = "", password = "") => sourceOf({ url, user, password });

it("puts user and password into the URL, encoded", () => {
  expect(typed("rtsp://192.0.2.1/main")).toEqual({ source: "rtsp://192.0.2.1/main" });
  expect(typed(" RTSP://cam:8554/a?b=1 ", "eye", "p@ss/w:rd!")).toEqual({
    source: "rtsp://eye:p%40ss%2Fw%3Ard%21@cam:8554/a?b=1",
  });
  expect(typed("rtsp://old:one@cam/a", "new", "two")).toEqual({ source: "rtsp://new:two@cam/a" });
  expect(typed("rtsp://cam/a@b", "u", "p")).toEqual({ source: "rtsp://u:p@cam/a@b" });
  expect(typed("file:/videos/a.mp4")).toEqual({ source: "file:/videos/a.mp4" });
});

it("gives a substream the camera's login", () => {
  const camera = { url: "rtsp://cam/main", user: "eye", password: "s" };
  expect(substreamOf(camera, " ")).toEqual({ source: "" });
  expect(substreamOf(camera, "rtsp://cam/sub")).toEqual({ source: "rtsp://eye:s@cam/sub" });
  expect(substreamOf(camera, "rtsp://a:b@cam/sub")).toEqual({ source: "rtsp://eye:s@cam/sub" });
  expect(substreamOf(camera, "http://cam/")).toEqual({
    fault: expect.stringContaining("Substream: "),
  });
});

it("says what is wrong with an address", () => {
  for (const [url, words] of [
    ["", "Type the camera's address"],
    ["http://cam/", "not http:"],
    ["cam/a", "begins with rtsp://"],
    ["rtsp:///a", "no host"],
  ] as const) {
    expect(typed(url), url).toEqual({ fault: expect.stringContaining(words) });
  }
  expect(typed("rtsp://cam/", "", "secret")).toEqual({ fault: "A password needs a user." });
  expect(typed("file:/a", "eye")).toHaveProperty("fault");
});

it("takes a pasted password out of the URL", () => {
  expect(parted("rtsp://eye:p%40ss@cam/a")).toEqual({
    url: "rtsp://cam/a",
    user: "eye",
    password: "p@ss",
  });
  expect(parted("rtsp://cam/a@b")).toEqual({ url: "rtsp://cam/a@b", user: "", password: "" });
  expect(parted("rtsp://%zz@cam/").user).toBe("%zz");
});

it("knows which names a camera may have", () => {
  expect(nameFault("gate", ["yard"])).toBeNull();
  expect(nameFault("gate", ["gate"])).toContain("already");
  for (const name of ["", " a", "a\nb", "ä".repeat(101)])
    expect(nameFault(name, [])).not.toBeNull();
});
