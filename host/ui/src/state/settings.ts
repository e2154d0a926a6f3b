// The settings of one session's pipeline while they are edited, tried and saved.
import { type Signal, computed, signal } from "@preact/signals";
import { apiError, path, request, said } from "../api/client";
import type { SessionSettings } from "../api/types";
import { Draft } from "../settings/draft";
import { type JsonObject, isObject } from "../settings/json";
import { type Fault, type Schema, faults, toldFaults } from "../settings/schema";
import { type Written, writeSettings } from "./config";
import { Deployments, loadPipelines, pipelines } from "./deployments";

export type Loaded =
  | { state: "loading" }
  | { state: "failed"; reason: string }
  | { state: "ready"; pipeline: string; deployment: string; schema: Schema | null };

export type Saving = "no" | "deploying" | "writing";

export class SettingsStore {
  readonly loaded: Signal<Loaded> = signal({ state: "loading" });
  readonly draft = new Draft();
  readonly deployments: Deployments;
  readonly saving: Signal<Saving> = signal("no");
  readonly written: Signal<Written | null> = signal(null);
  /** What the host said of these very settings. */
  readonly #told: Signal<{ of: JsonObject; faults: readonly Fault[] } | null> = signal(null);

  /** The host's messages until the settings change, and what can be told without it. */
  readonly faults = computed((): readonly Fault[] => {
    const value = this.draft.value.value;
    const loaded = this.loaded.value;
    const told = this.#told.value;
    if (told !== null && told.of === value) return told.faults;
    if (loaded.state !== "ready" || loaded.schema === null) return [];
    return faults(loaded.schema, loaded.schema, value);
  });

  constructor(readonly session: string) {
    this.deployments = new Deployments(session);
    void this.load();
    void loadPipelines();
  }

  end(): void {
    this.deployments.end();
  }

  async load(): Promise<void> {
    try {
      const where = path("sessions", this.session, "settings");
      const answer = await request<SessionSettings>(where);
      // Any JSON: the generated types know no more.
      const schema: unknown = answer.schema;
      const settings: unknown = answer.settings;
      this.draft.load(isObject(settings) ? settings : {});
      this.loaded.value = {
        state: "ready",
        pipeline: answer.pipeline,
        deployment: answer.deployment,
        schema: isObject(schema) ? schema : null,
      };
    } catch (error) {
      this.loaded.value = { state: "failed", reason: said(error) };
    }
  }

  /** The stored pipeline that runs: by its component, else by its name; null: it came as a file. */
  readonly stored = computed((): string | null => {
    const loaded = this.loaded.value;
    const known = pipelines.value;
    if (loaded.state !== "ready" || known.state !== "ready") return null;
    const { deployment, pipeline } = loaded;
    const same = known.all.filter(({ digest }) => digest.startsWith(deployment || "-"));
    const named = [...same, ...known.all].find(({ name }) => name === pipeline);
    return (named ?? same[0])?.name ?? null;
  });

  /** Runs a second worker with these settings beside the first, and compares. */
  async tryInShadow(frames: number): Promise<void> {
    await this.#deploy(frames);
  }

  /** Deploys the settings, unless they run already, then writes them into the config. */
  async save(): Promise<boolean> {
    const value = this.draft.value.value;
    this.written.value = null;
    this.saving.value = "deploying";
    try {
      const differs = this.draft.changed.value.length > 0;
      if (differs && !(await this.#deploy(0))) return false;
      this.draft.markSaved();
      this.saving.value = "writing";
      this.written.value = await writeSettings(this.session, value);
      return true;
    } catch (error) {
      this.written.value = { state: "refused", error: apiError(error) };
      return true;
    } finally {
      this.saving.value = "no";
    }
  }

  async #deploy(frames: number): Promise<boolean> {
    const pipeline = this.stored.value;
    const settings = this.draft.value.value;
    if (pipeline === null) return false;
    this.#told.value = null;
    const record = await this.deployments.deploy({
      component: { pipeline },
      settings,
      shadow: frames,
      shadowOnly: frames > 0,
      threshold: null,
      state: null,
    });
    const attempt = this.deployments.attempt.value;
    if (attempt?.state === "failed") {
      this.#told.value = { of: settings, faults: toldFaults(attempt.error.message) };
    }
    return record !== null;
  }
}
