import { beforeEach, expect, it, vi } from "vitest";
import type { Me } from "../api/types";

/** Answers that are due, by their paths, the oldest first. */
const due = new Map<string, ((answer: Response) => void)[]>();
vi.stubGlobal("fetch", (where: string) => {
  const [path = ""] = where.split("?");
  return new Promise<Response>(resolve => due.set(path, [...(due.get(path) ?? []), resolve]));
});
vi.stubGlobal("location", new URL("http://127.0.0.1/"));

function answer(path: string, body: object, status = 200): void {
  const next = due.get(path)?.shift();
  if (next === undefined) throw new Error(`nobody asks for ${path}`);
  next(Response.json(body, { status }));
}

const { me, logOut, whenUserGoes } = await import("./me");
const { lastResult, listing, refreshSessions, sessions } = await import("./sessions");
const { loadPipelines, pipelines } = await import("./deployments");
const { known } = await import("./events");
const { made, makeToken, system } = await import("./system");

const user = (name: string): Me => ({ name, role: "admin", sessions: null, login: true });
const GATE = { sessions: [{ id: "gate" }] };
const YARD = { sessions: [{ id: "yard" }] };

beforeEach(() => {
  due.clear();
  me.value = null;
  me.value = user("ann");
});

it("takes all that a user was shown away when they log out", async () => {
  const loads = [refreshSessions(), loadPipelines(), system.load()];
  answer("/v1/sessions", GATE);
  answer("/v1/pipelines", { pipelines: [] });
  answer("/v1/system", {});
  await Promise.all(loads);
  known.labels.value = ["person"];
  made.value = { name: "bob", token: "secret" };
  const last = lastResult("gate");
  expect(sessions.value.size).toBe(1);

  const leaving = logOut();
  answer("/v1/logout", {});
  await leaving;
  expect(me.value).toBe(null);
  expect(sessions.value.size).toBe(0);
  for (const part of [listing, pipelines, system.answer]) expect(part.value.state).toBe("loading");
  expect([known.labels.value, made.value]).toEqual([[], null]);
  expect(lastResult("gate")).not.toBe(last);
});

it("leaves an answer out whose asker has gone, whoever is there by then", async () => {
  const old = [refreshSessions(), loadPipelines(), system.load()];
  me.value = null;
  me.value = user("bob");
  const fresh = [refreshSessions(), loadPipelines(), system.load()];
  answer("/v1/sessions", GATE);
  answer("/v1/pipelines", { pipelines: [{ name: "eye" }] });
  answer("/v1/system", { version: "old" });
  await Promise.all(old);
  expect(sessions.value.size).toBe(0);
  for (const part of [listing, pipelines, system.answer]) expect(part.value.state).toBe("loading");

  answer("/v1/sessions", YARD);
  answer("/v1/pipelines", { pipelines: [] });
  answer("/v1/system", { version: "new" });
  await Promise.all(fresh);
  expect([...sessions.value.keys()]).toEqual(["yard"]);
  expect(pipelines.value).toEqual({ state: "ready", all: [] });
  expect(system.answer.value).toEqual({ state: "ready", value: { version: "new" } });
});

it("tells of a user who goes, not of one who comes or is known better", () => {
  const told = vi.fn();
  whenUserGoes(told);
  me.value = { ...user("ann"), role: "viewer" };
  expect(told).not.toHaveBeenCalled();
  me.value = null;
  me.value = null;
  me.value = user("bob");
  expect(told).toHaveBeenCalledTimes(1);
});

it("takes no refusal of what was asked before the login for the end of it", async () => {
  me.value = { ...user("operator"), login: false };
  const early = refreshSessions();
  const making = makeToken({ name: "ann", role: "admin" });
  answer("/v1/tokens", { name: "ann", token: "secret" });
  await vi.waitFor(() => expect(due.get("/v1/me")?.length).toBe(1));
  answer("/v1/sessions", {}, 401);
  await early;
  expect(made.value?.token).toBe("secret");
  answer("/v1/me", user("ann"));
  await vi.waitFor(() => expect(due.get("/v1/tokens")?.length).toBe(1));
  answer("/v1/tokens", { tokens: [] });
  await making;
  expect(me.value?.name).toBe("ann");

  const late = refreshSessions();
  answer("/v1/sessions", {}, 401);
  await late;
  expect([me.value, made.value]).toEqual([null, null]);
});
