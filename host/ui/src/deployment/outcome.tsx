import type { Deployment } from "../api/types";
import { Mark, type MarkKind } from "../ui/status";

const KINDS: Record<Deployment["state"], MarkKind> = {
  pending: "busy",
  probation: "busy",
  healthy: "good",
  superseded: "off",
  compared: "off",
  refused: "bad",
  aborted: "bad",
  rolled_back: "warn",
  unverified: "warn",
  interrupted: "off",
};

/** A deployment's state by shape, colour and word. */
export function Outcome({ state }: { state: Deployment["state"] }) {
  return <Mark kind={KINDS[state]} label={state.replace("_", " ")} />;
}
