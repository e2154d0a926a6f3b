import type { Deployment } from "../api/types";
import { now } from "../ui/time";
import { type StepStatus, meaning, probationLeft, stepsOf } from "./steps";
import "./deployment.css";

/** A mark for each status: none is told by colour alone. */
const MARKS: Record<StepStatus, string> = {
  done: "✓",
  active: "●",
  failed: "✕",
  waiting: "○",
  "left out": "–",
};

/** A deployment step by step; screen readers hear the step under way. */
export function Progress({ record }: { record: Deployment }) {
  const steps = stepsOf(record);
  const at = steps.find(step => step.status === "active" || step.status === "failed");
  const left = probationLeft(record, now.value);
  return (
    <div class="progress">
      <ol class="steps">
        {steps.map(step => (
          <li
            key={step.name}
            class={`step ${step.status.replace(" ", "-")}`}
            aria-current={step === at ? "step" : undefined}
            title={step.says}
          >
            <span class="mark" aria-hidden="true">
              {MARKS[step.status]}
            </span>
            <span>{step.title}</span>
            <span class="hidden"> ({step.status})</span>
          </li>
        ))}
      </ol>
      <p role="status">
        <strong>{at ? at.title : spoken(record.state)}.</strong>{" "}
        {at && record.state === "pending" ? `${at.says}. ` : ""}
        {meaning(record.state)}
      </p>
      {left !== null && <Countdown left={left} record={record} />}
    </div>
  );
}

function spoken(state: Deployment["state"]): string {
  return `${state.charAt(0).toUpperCase()}${state.slice(1).replace("_", " ")}`;
}

function Countdown({ left: seconds, record }: { left: number; record: Deployment }) {
  const { requested, probation_ends: ends, swapped } = record;
  const begun = Date.parse(requested) + (swapped?.total_ms ?? 0);
  const whole = Math.max(1, Math.ceil((Date.parse(ends ?? requested) - begun) / 1000));
  // The page's clock ticks once a second, and may be behind.
  const left = Math.min(seconds, whole);
  return (
    <p class="countdown">
      <progress value={whole - left} max={whole} aria-label="Probation" />
      <span class="numeric">{left > 0 ? `${left} s of probation left` : "probation ends now"}</span>
    </p>
  );
}
