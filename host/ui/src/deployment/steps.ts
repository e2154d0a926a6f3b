// A deployment's way, step by step, as its record tells it.
import type { Deployment } from "../api/types";

type StepName = Deployment["step"];
export type StepStatus = "done" | "active" | "failed" | "waiting" | "left out";

export interface Step {
  name: StepName;
  title: string;
  /** What happens in it, for those who wait. */
  says: string;
  status: StepStatus;
}

const STEPS: readonly [StepName, string, string][] = [
  ["check", "Check", "Imports and exports are compared with the contract"],
  ["compile", "Compile", "Machine code is made, or found in the cache"],
  ["admit", "Memory", "Memory for a second worker is reserved"],
  ["start", "Start", "Models are found, settings checked, the pipeline initialised"],
  ["catch_up", "Catch up", "The new worker decodes from the last key frame on"],
  ["dry_run", "Dry run", "It processes one frame; the output is discarded"],
  ["shadow", "Shadow", "Both versions process the same frames and are compared"],
  ["handoff", "Hand over", "The running version stops and gives its state"],
  ["restore", "Restore", "The new version takes the state over"],
  ["first_result", "First result", "The new version is active from the next frame on"],
  ["probation", "Probation", "It serves; if it is lost, the version before returns"],
];

/** Outcomes after which all steps have been passed. */
const PASSED: readonly Deployment["state"][] = ["healthy", "superseded"];

export function isUnderWay({ state }: Pick<Deployment, "state">): boolean {
  return state === "pending" || state === "probation";
}

/** The steps of a deployment that it takes, took, or will take. */
export function stepsOf(
  record: Pick<Deployment, "state" | "step" | "shadow" | "shadow_only">,
): Step[] {
  const at = STEPS.findIndex(([name]) => name === record.step);
  const shown = STEPS.filter(([name], index) => {
    if (name === "shadow") return record.shadow > 0;
    const afterShadow = index > STEPS.findIndex(([step]) => step === "shadow");
    return !(record.shadow_only && afterShadow);
  });
  const end: StepStatus = isUnderWay(record)
    ? "active"
    : record.state === "compared" || PASSED.includes(record.state)
      ? "done"
      : "failed";
  return shown.map(([name, title, says]) => {
    const index = STEPS.findIndex(([step]) => step === name);
    return { name, title, says, status: status(index, at, end) };
  });
}

function status(index: number, at: number, end: StepStatus): StepStatus {
  if (index < at) return "done";
  if (index === at) return end;
  // Nothing is to come after the end.
  return end === "active" ? "waiting" : "left out";
}

/** What a state means to the camera, in one sentence. */
export function meaning(state: Deployment["state"]): string {
  return {
    pending: "The running version goes on meanwhile.",
    probation: "The new version serves. If it is lost now, the one before returns by itself.",
    healthy: "The new version has passed its probation.",
    superseded: "Another deployment followed during the probation.",
    refused: "Nothing has changed: the camera runs what it ran before.",
    aborted: "The new version failed before it was active. The one before has not paused.",
    rolled_back: "The new version was lost on probation. The one before is back.",
    unverified: "The new version was lost and started again: there is none to return to.",
    compared: "Only compared: the camera runs what it ran before.",
    interrupted: "The host or the session ended meanwhile.",
  }[state];
}

/** Seconds of probation that are left; null if nobody knows. */
export function probationLeft(
  { state, probation_ends: ends }: Pick<Deployment, "state" | "probation_ends">,
  now: number,
): number | null {
  if (state !== "probation" || ends == null) return null;
  return Math.max(0, Math.ceil((Date.parse(ends) - now) / 1000));
}

/** What to do about a failure, by the code of the host's answer or the step that failed. */
export function advice(code: string, step?: StepName | null): string | null {
  const byCode: Record<string, string> = {
    not_enough_memory:
      "End a session that is not needed, lower deploy.reserve_mb, or use a smaller model; " +
      "then deploy again.",
    storage_full: "Free space on the disk of the host's data directory, then deploy again.",
    component_too_large: "Build in release mode and strip it, or raise deploy.max_component_mb.",
    not_compiled: "The host's compiler gave up on it. Its message is below.",
    invalid_pipeline:
      "Build the component against a version of the contract that this host serves.",
    deployment_under_way: "Wait until one of the waiting deployments has ended.",
    no_previous_version: "There is no version to return to: deploy the one that you want.",
    component_gone: "The host no longer has that version's file: deploy it again from your build.",
    unknown_pipeline: "Choose a stored pipeline from the list, or drop a file.",
    registry_not_allowed:
      "Add the registry to [[deploy.registries]] in the config, or ask who may; then deploy again.",
    registry_failed:
      "The registry is away, refuses, or serves something else: the reason says which. When that " +
      "is mended, deploy again.",
    busy: "Four components are being uploaded already. Try again in a few seconds.",
    upload_timeout: "The upload took too long. Try again from a faster network.",
    unknown_session: "The session has ended. Go back to the cameras.",
    forbidden: "Ask for a token with the role operator.",
    bad_settings: "The settings are not a JSON object. Correct them and deploy again.",
    timed_out: "The host goes on without the page: the history shows the outcome.",
  };
  const found = byCode[code];
  if (found !== undefined) return found;
  const byStep: Partial<Record<StepName, string>> = {
    check: "Build the component against a version of the contract that this host serves.",
    admit: "End a session that is not needed, then deploy again.",
    start: "Correct the setting or add the model that the reason names, then deploy again.",
    catch_up: "The source delivers nothing to decode. See whether the camera is up.",
    dry_run:
      "It failed on the first frame: its log lines are in the camera's log. If it was too slow, " +
      "try again when the machine is less busy, or raise deploy.first_frame_ms.",
    shadow: "Look at the comparison; lower the threshold if the difference is wanted.",
    handoff: "The running version did not give its state. Deploy with a fresh start.",
    restore: "It refuses the state of the running version. Deploy with a fresh start.",
    first_result: "It gave no result in time. Its log lines are in the camera's log.",
    probation: "It was lost while it served. The reason is below.",
  };
  return (step && byStep[step]) ?? null;
}
