// Compiles where the client's types are those of the documents that the host serves: what a host
// sends is one of them, member by member.
import type * as client from "@ocelli/client";
import type { components as Http } from "GENERATED/http.js";
import type { components as Messages } from "GENERATED/messages.js";

type Answers = Http["schemas"];
type Sent = Messages["schemas"];

export const answers = (
  session: Answers["Session"],
  page: Answers["EventPage"],
  deployment: Answers["Deployment"],
  pipeline: Answers["Pipeline"],
  analysis: Answers["Analysis"],
): [client.Session, client.EventPage, client.Deployment, client.Pipeline, client.Analysis] => [
  session,
  page,
  deployment,
  pipeline,
  analysis,
];

export const messages = (
  sent:
    | Sent["message.event"]
    | Sent["message.detections"]
    | Sent["message.session"]
    | Sent["message.subscribed"]
    | Sent["message.lagged"]
    | Sent["message.host"]
    | Sent["message.error"],
): client.Message => sent;
