import type { Deployment, Session } from "../api/types";
import type { ApiError } from "../api/client";
import type { Deployments, DeployRequest } from "../state/deployments";
import { CheckProblems } from "./check";
import { ComparisonReport } from "./comparison";
import { DeploymentDetails } from "./details";
import { Progress } from "./progress";
import { advice, isUnderWay } from "./steps";

type Problems = NonNullable<Deployment["check"]>["problems"];

interface Props {
  store: Deployments;
  session: Session;
  /** What takes a compared version over, and what the button says; else it is deployed. */
  onTake?: () => void;
  take?: string;
}

/** What this page has asked for: on its way, compared, active, or failed with what to do. */
export function Attempted({ store, session, onTake, take = "Take over" }: Props) {
  const attempt = store.attempt.value;
  const record = store.own;
  if (attempt === null) return null;
  const compared = attempt.state === "done" && record?.state === "compared";
  return (
    <section class="panel attempt" aria-label="This deployment">
      <h2>{title(attempt.request, record)}</h2>
      {record === null && attempt.state === "asked" && (
        <p role="status">
          Sent to the host … <progress aria-label="Waiting for the host" />
        </p>
      )}
      {attempt.state === "failed" && <Refused error={attempt.error} record={record} />}
      {record &&
        (attempt.state === "failed" ? (
          <Progress record={record} />
        ) : (
          <DeploymentRecord record={record} />
        ))}
      {record?.comparison && (
        <ComparisonReport comparison={record.comparison} session={session.id} />
      )}
      {compared && attempt.request && (
        <Decide store={store} request={attempt.request} onTake={onTake} take={take} />
      )}
      {attempt.state !== "asked" && !compared && !(record && isUnderWay(record)) && (
        <button type="button" onClick={() => store.discard()}>
          Close
        </button>
      )}
    </section>
  );
}

/** One deployment as it goes. */
export function DeploymentRecord({ record }: { record: Deployment }) {
  return isUnderWay(record) ? <Progress record={record} /> : <DeploymentDetails record={record} />;
}

function title(request: DeployRequest | null, record: Deployment | null): string {
  if (request === null) return "Rollback";
  const { component } = request;
  const name = record?.name ?? ("file" in component ? component.name : component.pipeline);
  return `${request.shadowOnly ? "Comparison with" : "Deployment of"} ${name}`;
}

interface DecideProps {
  store: Deployments;
  request: DeployRequest;
  onTake: (() => void) | undefined;
  take: string;
}

/** Take over or discard, after a comparison. */
function Decide({ store, request, onTake, take }: DecideProps) {
  const deploy = () =>
    void store.deploy({ ...request, shadow: 0, shadowOnly: false, threshold: null });
  return (
    <div class="actions">
      <button type="button" class="primary" onClick={onTake ?? deploy}>
        {take}
      </button>
      <button type="button" onClick={() => store.discard()}>
        Discard
      </button>
    </div>
  );
}

/** Why it failed, all that is wrong with the component, and what to do. */
function Refused({ error, record }: { error: ApiError; record: Deployment | null }) {
  const problems = (error.problem["problems"] ?? []) as Problems;
  const step = record?.step ?? (error.problem["step"] as Deployment["step"] | undefined);
  const todo = advice(error.code, step);
  return (
    <div class="failure" role="alert">
      <p>
        <strong>Not deployed.</strong> {error.message}{" "}
        <span class="quiet">
          ({error.code}
          {step && `, at ${step.replace("_", " ")}`})
        </span>
      </p>
      {todo !== null && <p>{todo}</p>}
      {problems.length > 0 && <CheckProblems problems={problems} />}
    </div>
  );
}
