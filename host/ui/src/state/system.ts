// How the host is and what it is made of: what the page System shows.
import { signal } from "@preact/signals";
import { path, request } from "../api/client";
import type { AuditLine, ConfigStatus, Models, NewToken, SystemStatus, Token } from "../api/types";
import type { JsonObject } from "../settings/json";
import { type Schema, modelOf, withLabels } from "../settings/schema";
import { hasLogin, loadMe, me, whenUserGoes } from "./me";
import { Part } from "./part";

const OFTEN_MS = 5000;
const SELDOM_MS = 15_000;
/** Lines of the audit log that are shown. */
const AUDIT_LINES = 100;

export const system = new Part<SystemStatus>(path("system"), OFTEN_MS);
export const models = new Part<Models>(path("models"), SELDOM_MS);
export const config = new Part<ConfigStatus>(path("config"), OFTEN_MS);
export const tokens = new Part<{ tokens: Token[] }>(path("tokens"), SELDOM_MS);
export const audit = new Part<{ lines: AuditLine[] }>(
  `${path("audit")}?lines=${AUDIT_LINES}`,
  OFTEN_MS,
);

/** A schema of settings with the labels of the model that the settings name. */
export function labelled(schema: Schema, settings: JsonObject): Schema {
  const model = modelOf(schema, settings);
  const known = models.answer.value;
  if (model === null || known.state !== "ready") return schema;
  const found = known.value.models.find(({ name }) => name === model);
  return withLabels(schema, found?.labels ?? []);
}

interface TokenRequest {
  name: string;
  role: string;
  sessions?: string[];
  expires?: string;
}

/** A token that was just made, until its user has it: the host tells it this once. */
export const made = signal<NewToken | null>(null);

whenUserGoes(() => {
  for (const part of [system, models, config, tokens, audit]) part.forget();
  made.value = null;
});

/** Makes a token. Whoever makes the first of a host is logged in with it from then on. */
export async function makeToken(wanted: TokenRequest): Promise<void> {
  made.value = await request<NewToken>(path("tokens"), { method: "POST", body: wanted });
  if (!me.peek()?.login) {
    hasLogin();
    await loadMe();
  }
  await tokens.load();
}

export async function revokeToken(name: string): Promise<void> {
  await request<void>(path("tokens", name), { method: "DELETE" });
  await tokens.load();
}
