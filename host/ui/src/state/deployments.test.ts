import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { RequestOptions } from "../api/client";

type Answer = (where: string, options?: RequestOptions) => unknown;
const asked = vi.hoisted(() => ({ answer: undefined as Answer | undefined }));
vi.mock("../api/client", async original => ({
  ...(await original<typeof import("../api/client")>()),
  request: async (where: string, options?: RequestOptions) => asked.answer?.(where, options),
}));
const { ApiError } = await import("../api/client");
const { Deployments } = await import("./deployments");
const { SettingsStore } = await import("./settings");

const record = (number: number, state: string) => ({ number, state, step: "start", shadow: 0 });
const plain = { shadow: 0, shadowOnly: false, threshold: null, state: null } as const;

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

it("asks with what was chosen and nothing else", async () => {
  const queries: unknown[] = [];
  asked.answer = (where, options) => {
    if (options?.method === "PUT") queries.push([where, options.query, options.body]);
    return { deployments: [] };
  };
  const store = new Deployments("a/b");
  const file = new Blob(["x"]);
  await store.deploy({ ...plain, component: { file, name: "eye.wasm" } });
  await store.deploy({
    component: { pipeline: "eye" },
    settings: { score: 0.5 },
    shadow: 50,
    shadowOnly: true,
    threshold: null,
    state: "fresh",
  });
  const where = "/v1/sessions/a%2Fb/pipeline";
  expect(queries).toEqual([
    [where, { name: "eye.wasm" }, file],
    [
      where,
      {
        pipeline: "eye",
        settings: '{"score":0.5}',
        shadow: 50,
        shadow_only: true,
        state: "fresh",
      },
      undefined,
    ],
  ]);
  store.end();
});

it("follows its own deployment until it ends, and not one from before", async () => {
  let records = [record(3, "healthy")];
  let finish: (answer: unknown) => void = () => undefined;
  asked.answer = (_, options) =>
    options?.method === "PUT"
      ? new Promise(resolve => (finish = resolve))
      : { deployments: records };
  const store = new Deployments("gate");
  await vi.advanceTimersByTimeAsync(0);
  const done = store.deploy({ ...plain, component: { pipeline: "eye" } });
  expect(store.own).toBeNull();
  records = [record(4, "pending"), ...records];
  await vi.advanceTimersByTimeAsync(500);
  expect(store.own).toMatchObject({ number: 4, state: "pending" });
  records = [record(4, "probation"), record(3, "superseded")];
  finish(record(4, "probation"));
  await done;
  records = [record(4, "healthy"), record(3, "superseded")];
  await vi.advanceTimersByTimeAsync(2500);
  expect(store.own).toMatchObject({ number: 4, state: "healthy" });
  store.end();
});

it("keeps the reason and the record of a failure", async () => {
  const failed = record(1, "refused");
  asked.answer = (_, options) => {
    if (options?.method !== "POST") return { deployments: [] };
    throw new ApiError(507, "not_enough_memory", "no room", { deployment: failed });
  };
  const store = new Deployments("gate");
  expect(await store.rollBack()).toBeNull();
  expect(store.attempt.value).toMatchObject({ state: "failed", error: { status: 507 } });
  expect(store.own).toEqual(failed);
  store.discard();
  expect(store.own).toBeNull();
  store.end();
});

it("shows the host's words at their setting until it is changed", async () => {
  const words = 'start: settings: settings.labels[0]: no label "persn"';
  asked.answer = (where, options) => {
    if (options?.method === "PUT") throw new ApiError(409, "aborted", words);
    if (where.endsWith("/settings")) {
      const schema = { type: "object", properties: { labels: { type: "array" } } };
      return { pipeline: "eye", deployment: "0a1b", settings: { labels: ["persn"] }, schema };
    }
    if (where.endsWith("/pipelines")) return { pipelines: [{ name: "eye", digest: "0a1b22" }] };
    return { deployments: [] };
  };
  const store = new SettingsStore("gate");
  await vi.advanceTimersByTimeAsync(0);
  expect(store.stored.value).toBe("eye");
  store.draft.set(["labels"], ["persn", "car"]);
  expect(await store.save()).toBe(false);
  expect(store.faults.value).toEqual([
    { place: "settings.labels[0]", message: 'no label "persn"' },
  ]);
  store.draft.set(["labels"], ["person"]);
  expect(store.faults.value).toEqual([]);
  expect(store.written.value).toBeNull();
  store.end();
});
