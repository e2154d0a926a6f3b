import { expect, it, vi } from "vitest";

// The router reads the browser's address when it is loaded.
vi.stubGlobal("location", { href: "http://127.0.0.1/" });
vi.stubGlobal("addEventListener", () => undefined);
const { parse, pathOf } = await import("./router");

it("finds the page of each path", () => {
  for (const path of ["/", "/cameras", "/deployments/", "/zones"]) {
    expect(parse(path), path).toEqual({ page: "wall" });
  }
  expect(parse("/cameras/gate")).toEqual({ page: "camera", id: "gate" });
  expect(parse("/zones/gate/")).toEqual({ page: "zones", id: "gate" });
  expect(parse("/events")).toEqual({ page: "events" });
  for (const path of ["/nothing", "/cameras/a/b", "/system/x", "/cameras/%ff"]) {
    expect(parse(path), path).toEqual({ page: "missing" });
  }
});

it("reads back the path of every name", () => {
  for (const id of ["gate", "display-001;cam-001", "a/b", "100 %", "größe?#&"]) {
    expect(parse(pathOf("cameras", id))).toEqual({ page: "camera", id });
  }
});
