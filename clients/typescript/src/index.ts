/**
 * A client of an Ocelli host, for browsers and Node.js.
 *
 *     import { Client } from "@ocelli/client";
 *
 *     const host = new Client("http://127.0.0.1:8001");
 *     for await (const message of host.subscribe("gate", { after: 0 })) {
 *       if (message.type === "event") console.log(message.seq, message.kind);
 *     }
 *
 * Messages and answers are the host's JSON. What the host refuses is a `Problem` with its stable
 * `code`.
 */
export { Client } from "./client.js";
export type {
  AnalyzeOptions,
  ClientOptions,
  DeployOptions,
  EventFilter,
  SubscribeOptions,
  Wait,
} from "./client.js";
export { Disconnected, OcelliError, Problem } from "./errors.js";
export type * from "./types.js";
