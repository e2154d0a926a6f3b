import { beforeEach, expect, it, vi } from "vitest";

/** The modules as they are in a page with this address of the host. */
async function page(written: string, href = "http://127.0.0.1/") {
  vi.resetModules();
  vi.stubGlobal("document", { querySelector: () => ({ content: written }) });
  vi.stubGlobal("location", { href });
  vi.stubGlobal("addEventListener", () => undefined);
  const [{ below, within }, { path }, router] = await Promise.all([
    import("./base"),
    import("./api/client"),
    import("./router"),
  ]);
  return { below, within, path, router };
}

beforeEach(() => vi.unstubAllGlobals());

it("puts every address below the path that the host has written", async () => {
  const { below, within, path } = await page("/cams/site/");
  expect(below("/v1/ws")).toBe("/cams/site/v1/ws");
  expect(path("sessions", "a/b")).toBe("/cams/site/v1/sessions/a%2Fb");
  expect(within("/cams/site")).toBe("");
  expect(within("/cams/site/events")).toBe("/events");
  expect(within("/cams/sites")).toBe("/cams/sites");
});

it("leaves addresses of a host without a path as they are", async () => {
  for (const written of ["/", "./"]) {
    const { below, within } = await page(written);
    expect(below("/events"), written).toBe("/events");
    expect(within("/events"), written).toBe("/events");
  }
});

it("finds the page of an address below the path, and stays below it", async () => {
  const states: string[] = [];
  const history = { pushState: (_: unknown, __: string, url: URL) => states.push(url.href) };
  vi.stubGlobal("scrollTo", () => undefined);
  const { router } = await page("/cams/", "http://host/cams/cameras/gate?x=1");
  vi.stubGlobal("history", history);
  vi.stubGlobal("scrollTo", () => undefined);
  expect(router.route.value).toEqual({ page: "camera", id: "gate" });
  router.navigate(router.pathOf("zones", "gate"));
  expect(router.route.value).toEqual({ page: "zones", id: "gate" });
  router.navigate("http://host/cams/events?a=1");
  expect(router.route.value).toEqual({ page: "events" });
  expect(states).toEqual(["http://host/cams/zones/gate", "http://host/cams/events?a=1"]);
});
