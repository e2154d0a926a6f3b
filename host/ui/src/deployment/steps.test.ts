import { expect, it } from "vitest";
import { advice, probationLeft, stepsOf } from "./steps";

const plain = { shadow: 0, shadow_only: false } as const;
const statuses = (record: Parameters<typeof stepsOf>[0]) =>
  Object.fromEntries(stepsOf(record).map(step => [step.name, step.status]));

it("shows what is done, under way and to come", () => {
  const steps = statuses({ ...plain, state: "pending", step: "start" });
  expect(steps).toMatchObject({ check: "done", admit: "done", start: "active" });
  expect(steps).toMatchObject({ catch_up: "waiting", probation: "waiting" });
  expect(steps).not.toHaveProperty("shadow");
});

it("marks the step that failed, and nothing comes after it", () => {
  const steps = statuses({ ...plain, state: "aborted", step: "dry_run" });
  expect(steps).toMatchObject({ catch_up: "done", dry_run: "failed", handoff: "left out" });
});

it("ends with the comparison where nothing else was asked for", () => {
  const record = { state: "compared", step: "shadow", shadow: 100, shadow_only: true } as const;
  expect(stepsOf(record).at(-1)).toMatchObject({ name: "shadow", status: "done" });
  expect(stepsOf({ ...record, state: "pending", step: "check" })).toHaveLength(7);
});

it("is done with all of them when the version is healthy", () => {
  const steps = stepsOf({ ...plain, state: "healthy", step: "probation" });
  expect(new Set(steps.map(step => step.status))).toEqual(new Set(["done"]));
  const lost = stepsOf({ ...plain, state: "rolled_back", step: "probation" });
  expect(lost.at(-1)?.status).toBe("failed");
});

it("counts the probation down, and never below 0", () => {
  const record = { state: "probation", probation_ends: "2026-01-01T00:00:30.000Z" } as const;
  expect(probationLeft(record, Date.parse("2026-01-01T00:00:10.500Z"))).toBe(20);
  expect(probationLeft(record, Date.parse("2026-01-01T00:01:00Z"))).toBe(0);
  expect(probationLeft({ ...record, state: "healthy" }, 0)).toBeNull();
  expect(probationLeft({ ...record, probation_ends: null }, 0)).toBeNull();
});

it("says what to do, by the code first and by the step then", () => {
  expect(advice("not_enough_memory", "admit")).toContain("reserve_mb");
  expect(advice("aborted", "restore")).toContain("fresh start");
  expect(advice("aborted", null)).toBeNull();
});
