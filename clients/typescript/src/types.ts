// The host's JSON, by the names that its documents have. docs/subscriber.md explains each member;
// one that a newer host adds comes through undeclared.

export type SessionState =
  | "starting"
  | "running"
  | "degraded"
  | "restarting"
  | "failed"
  | "stopped";
export type Clock = "camera" | "host";

/** An object in a frame. */
export interface Detection {
  label: string;
  /** 0 to 1. */
  score: number;
  /** Left, top, width, height in frame pixels. */
  box: number[];
  /** The same number for the same object from frame to frame. */
  track?: number;
  /** Results of further models, by name. */
  attributes: Record<string, { value: string; score: number }>;
  embedding?: number[];
}

/** A picture of an event: `Client.attachment` has it. */
export interface Attachment {
  digest: string;
  type: string;
  bytes: number;
}

/** An event as a pipeline gives it for a single picture. */
export interface PipelineEvent {
  kind: string;
  detections: Detection[];
  data: Record<string, unknown>;
  attachments?: Attachment[];
}

/** Something happened. `seq` counts the session's events, without gaps. */
export interface Event extends PipelineEvent {
  type: "event";
  session: string;
  seq: number;
  /** Its number among the events of all sessions, where all are subscribed to. */
  position?: number;
  time: string;
  clock: Clock;
  deployment: string;
  /** Left out of the host's own events. */
  frame?: number;
  /** A clip of it was begun: `Client.clip` has it, soon and until it is deleted. */
  clip?: true;
}

/** What a frame shows; the list may be empty. */
export interface Detections {
  type: "detections";
  session: string;
  frame: number;
  presentation_ns: number;
  time: string;
  clock: Clock;
  deployment: string;
  width: number;
  height: number;
  detections: Detection[];
  source?: "model" | "flow" | "predicted";
  model_age_ms?: number;
  latency_ms: Record<string, number>;
}

/** The session has another state. */
export interface State {
  type: "session";
  session: string;
  state: SessionState;
  reason: string | null;
}

/** The subscription has begun, again after each connection. */
export interface Subscribed {
  type: "subscribed";
  session: string;
  state: SessionState;
}

/** This program reads too slowly: so many detections are lost. */
export interface Lagged {
  type: "lagged";
  session: string;
  missed: number;
}

/** How a part of the host is. */
export interface HostPart {
  state: "ok" | "degraded" | "failed";
  reason: string | null;
  since: string;
}

/** How the host is: when that changes, and at first where it is not well. */
export interface HostStatus {
  type: "host";
  storage: HostPart;
  clock: HostPart;
  config: HostPart;
  inference: HostPart;
  events_waiting: number;
  events_lost: number;
  pictures_lost: number;
}

/** The host tells of something that the subscriber misses: `events_gone`. */
export interface Refusal {
  type: "error";
  code: string;
  message: string;
  session?: string;
  after?: number;
  oldest?: number;
  newest?: number;
}

/** What a subscription brings. */
export type Message = Event | Detections | State | Subscribed | Lagged | HostStatus | Refusal;

/** A session. A dozen figures more are there than are declared. */
export interface Session {
  id: string;
  state: SessionState;
  reason: string | null;
  pid: number | null;
  source: string;
  codec: string | null;
  size: number[] | null;
  pipeline: string;
  deployment: string;
  uptime_s: number;
  restarts: number;
  last_error: string | null;
  results: number;
  events: number;
  alerts: string[];
}

/** A page of a session's events, oldest first. */
export interface EventPage {
  session: string;
  events: Event[];
  oldest: number;
  newest: number;
  /** The `after` of the next page; null after the last. */
  next: number | null;
  /** Events that were asked for and are no longer stored. */
  gone?: { from: number; to: number };
}

/** The record of a deployment. */
export interface Deployment {
  number: number;
  session: string;
  deployment: string;
  digest: string;
  pipeline: string;
  name: string | null;
  version: string | null;
  before: string | null;
  cause: string;
  by: string;
  step: string;
  /** `pending`, `probation`, or the outcome: `healthy`, `aborted`, ... */
  state: string;
  reason: string | null;
  requested: string;
  ended: string | null;
  probation_ends: string | null;
}

/** A pipeline that has a name on the host. */
export interface Pipeline {
  name: string;
  file: string;
  size: number;
  digest: string;
  sessions: string[];
}

/** What a single picture shows. */
export interface Analysis {
  pipeline: string;
  deployment: string;
  width: number;
  height: number;
  detections: Detection[];
  events: PipelineEvent[];
  latency_ms: Record<string, number>;
}

/** Why one picture of several has no result. */
export interface AnalysisFailure {
  index: number;
  filename?: string;
  error: { status: number; code: string; detail: string };
}
