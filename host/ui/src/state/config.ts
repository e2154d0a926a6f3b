// The cameras of the host's config: read, written where the host lets this user, or shown to paste.
import { ApiError, path, request } from "../api/client";
import { type JsonObject, isObject } from "../settings/json";
import { mayAdmin } from "./me";

/** Milliseconds for a change: the host checks all components and settings before it writes. */
const LIMIT_MS = 60_000;

/** A camera as the config file has it; secrets of its source are masked. */
interface Entry {
  camera: JsonObject;
  digest: string;
}

/** What has become of a change of the config. */
export type Written =
  | { state: "written" }
  /** The host does not edit its config: this is to be pasted into it. */
  | { state: "paste"; toml: string; reason: string }
  | { state: "refused"; error: ApiError };

/** A camera's entry; null: the config has none of this name. */
async function entryOf(id: string): Promise<Entry | null> {
  try {
    const entry = await request<Entry>(path("config", "cameras", id));
    return isObject(entry.camera) ? entry : null;
  } catch (error) {
    if (error instanceof ApiError && error.code === "not_in_config") return null;
    throw error;
  }
}

/**
 * Gives a configured camera other settings; all else of its entry stays. null: it is not of the
 * config, so there is nothing to write.
 */
export async function writeSettings(id: string, settings: JsonObject): Promise<Written | null> {
  return attempted(async () => {
    const entry = await entryOf(id);
    if (entry === null) return null;
    // Not over a file that has changed meanwhile.
    const headers = { "If-Match": `"${entry.digest}"` };
    await put(id, { ...entry.camera, settings }, headers);
    return { state: "written" };
  });
}

/** Adds a camera. One of this name that is there already stays as it is. */
export async function addCamera(id: string, camera: JsonObject): Promise<Written | null> {
  return attempted(async () => {
    if ((await entryOf(id)) !== null) {
      const message = `The config has a camera ${id} already. Choose another name.`;
      throw new ApiError(409, "exists", message);
    }
    await put(id, camera, {});
    return { state: "written" };
  });
}

async function put(id: string, camera: JsonObject, headers: Record<string, string>) {
  const where = path("config", "cameras", id);
  await request<unknown>(where, { method: "PUT", body: camera, headers, limitMs: LIMIT_MS });
}

async function attempted(write: () => Promise<Written | null>): Promise<Written | null> {
  if (!mayAdmin.value) {
    const message = "Only an admin may write the config. Ask one, or use a token of that role.";
    return { state: "refused", error: new ApiError(403, "forbidden", message) };
  }
  try {
    return await write();
  } catch (cause) {
    if (!(cause instanceof ApiError)) throw cause;
    const { toml } = cause.problem;
    if (typeof toml === "string") return { state: "paste", toml, reason: cause.message };
    return { state: "refused", error: cause };
  }
}
