// How the host is and what it is made of: what the page System shows.
import { path, request } from "../api/client";
import type { AuditLine, ConfigStatus, Models, NewToken, SystemStatus, Token } from "../api/types";
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

export interface TokenRequest {
  name: string;
  role: string;
  sessions?: string[];
  expires?: string;
}

/** Makes a token. The answer has its text, which nobody can read again. */
export async function makeToken(wanted: TokenRequest): Promise<NewToken> {
  const made = await request<NewToken>(path("tokens"), { method: "POST", body: wanted });
  await tokens.load();
  return made;
}

export async function revokeToken(name: string): Promise<void> {
  await request<void>(path("tokens", name), { method: "DELETE" });
  await tokens.load();
}
