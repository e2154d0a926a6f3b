import type { Deployment } from "../../api/types";
import { ComparisonReport } from "../../deployment/comparison";
import { DeploymentDetails } from "../../deployment/details";
import { Outcome } from "../../deployment/outcome";
import { local } from "../../ui/time";

const CAUSES: Record<Deployment["cause"], string> = {
  request: "asked for",
  rollback: "rollback",
  file: "changed file",
  config: "config",
  subscription: "subscriber",
};

/** The deployments of a session, the newest first; each opens. */
export function DeploymentHistory({
  records,
  running,
}: {
  records: readonly Deployment[];
  running: string;
}) {
  return (
    <ul class="history">
      {records.map(record => (
        <li key={record.number}>
          <Entry record={record} runs={runs(records, record, running)} />
        </li>
      ))}
    </ul>
  );
}

/** The newest that has become active with the component that runs. */
function runs(records: readonly Deployment[], record: Deployment, running: string): boolean {
  const active = records.find(
    one =>
      one.deployment === running &&
      ["probation", "healthy", "superseded", "unverified"].includes(one.state),
  );
  return active?.number === record.number;
}

function asker({ cause, by }: Deployment): string {
  return cause === "config" ? "by the config" : `${CAUSES[cause]} by ${by}`;
}

function Entry({ record, runs }: { record: Deployment; runs: boolean }) {
  const { comparison, changed } = record;
  return (
    <details>
      <summary>
        <span class="numeric quiet">{record.number}</span> <Outcome state={record.state} />{" "}
        <strong>{record.name ?? record.pipeline}</strong> {record.version}{" "}
        <code>{record.deployment}</code> {runs && <span class="tag">runs now</span>}
        {changed.length > 0 && <span class="quiet"> {changed.join(", ")}</span>}
        <span class="quiet when">
          {" "}
          {local(record.requested)}, {asker(record)}
        </span>
      </summary>
      <DeploymentDetails record={record} />
      {comparison && <ComparisonReport comparison={comparison} session={record.session} />}
    </details>
  );
}
