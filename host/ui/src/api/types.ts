// The API's types, by the names that the page uses. Those of `generated/` come from the host's
// own documents (scripts/types.mjs).
import type { components as Http } from "./generated/http";
import type { components as Messages } from "./generated/messages";

type Schemas = Http["schemas"];
type Payloads = Messages["schemas"];

export type Session = Schemas["Session"];
export type SessionState = Schemas["SessionState"];
export type Frames = Schemas["Frames"];
export type SessionStats = Schemas["SessionStats"];
export type HostPart = Schemas["HostPart"];
export type Readiness = Schemas["Readiness"];
export type ConfigStatus = Schemas["ConfigStatus"];
export type Deployment = Schemas["Deployment"];
export type SessionSettings = Schemas["SessionSettings"];
export type Pipeline = Schemas["Pipeline"];
export type PipelineDescription = Schemas["PipelineDescription"];
export type Models = Schemas["Models"];
export type StoredEvent = Schemas["JournalledEvent"];
export type EventPage = Schemas["EventPage"];
export type Detection = Schemas["Detection"];
export type Problem = Schemas["Problem"];
export type Me = Schemas["Me"];
export type Token = Schemas["Token"];
export type AuditLine = Schemas["AuditLine"];
export type SystemStatus = Schemas["System"];
export type SystemProcess = SystemStatus["processes"][number];
/** A destination of events besides subscribers. */
export type SystemSink = SystemStatus["sinks"][string];
/** What is kept of events, pictures or clips, and for how long. */
export type KeptData = SystemStatus["store"]["events"];

type EventMessage = Payloads["message.event"];
/** `presentation_ns` joins a result with its picture; numbers of JSON lose nothing below 2^53. */
export type DetectionsMessage = Payloads["message.detections"];
type SessionMessage = Payloads["message.session"];
export type HostMessage = Payloads["message.host"];
type ErrorMessage = Payloads["message.error"];
type AnswerMessage = Payloads["message.answer"];
type LaggedMessage = Payloads["message.lagged"];

/** How many of a session's pictures a socket gets. */
export type Pictures = WatchingMessage["pictures"];
export type Codec = NonNullable<WatchingMessage["codec"]>;

/** Answer to `watch`: `stream` names the session in this socket's binary messages. */
export type WatchingMessage = Payloads["message.watching"];

/** Everything that the host sends as text. */
export type HostSays =
  | EventMessage
  | DetectionsMessage
  | SessionMessage
  | HostMessage
  | ErrorMessage
  | AnswerMessage
  | LaggedMessage
  | WatchingMessage
  | Payloads["message.subscribed"]
  | Payloads["message.unsubscribed"]
  | Payloads["message.pong"];

/** Answer to `POST /v1/tokens`; the only time that the host tells the token. */
export interface NewToken {
  name: string;
  token: string;
}
