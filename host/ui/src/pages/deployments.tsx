import { useEffect, useMemo } from "preact/hooks";
import type { Deployment, Session } from "../api/types";
import { pathOf } from "../router";
import { type DeployRequest, Deployments } from "../state/deployments";
import { mayOperate } from "../state/me";
import { listing, sessions } from "../state/sessions";
import { confirmed } from "../ui/dialog";
import { NoCamera } from "../ui/empty";
import { Link } from "../ui/link";
import { Status } from "../ui/status";
import { Attempted, DeploymentRecord } from "../deployment/attempt";
import { Drift } from "./deployments/drift";
import { DeployForm } from "./deployments/form";
import { DeploymentHistory } from "./deployments/history";
import { isUnderWay } from "../deployment/steps";
import "./deployments.css";

/** Changes of a pipeline and its settings. */
export default function DeploymentsPage({ id }: { id: string }) {
  const store = useMemo(() => new Deployments(id), [id]);
  useEffect(() => () => store.end(), [store]);
  const session = sessions.value.get(id);
  if (session === undefined) {
    if (listing.value.state === "loading") return <p class="quiet">Loading …</p>;
    return <NoCamera id={id} />;
  }
  return <Content store={store} session={session} />;
}

function Content({ store, session }: { store: Deployments; session: Session }) {
  const { id } = session;
  const history = store.history.value;
  const records = store.records;
  const attempt = store.attempt.value;
  const busy = attempt?.state === "asked";
  // One that someone else has asked for, or the config.
  const other = records.find(isUnderWay);
  const deploy = async (request: DeployRequest) => {
    await store.deploy(request);
  };
  return (
    <>
      <div class="bar">
        <h1>Deployments of {id}</h1>
        <Status state={session.state} />
        <Link href={pathOf("cameras", id)}>Camera</Link>
        <Link href={pathOf("zones", id)}>Zones and settings</Link>
      </div>
      <div class="deployments">
        <section class="panel running" aria-label="What runs now">
          <h2>Runs now</h2>
          <p>
            <strong>{session.pipeline_version ?? session.pipeline}</strong>{" "}
            <code>{session.deployment || "nothing"}</code>
          </p>
          {session.reason !== null && <p class="reason">{session.reason}</p>}
          <Drift session={session} onDeploy={deploy} busy={busy} />
          {mayOperate.value && <Rollback store={store} records={records} busy={busy} />}
        </section>
        {mayOperate.value && <DeployForm session={session} busy={busy} onDeploy={deploy} />}
        {attempt !== null ? (
          <Attempted store={store} session={session} />
        ) : (
          other && <Elsewhere record={other} />
        )}
        <section aria-label="History">
          <h2>History</h2>
          {history.state === "loading" && <p class="quiet">Loading …</p>}
          {history.state === "failed" && (
            <p class="reason">The history cannot be shown: {history.reason}</p>
          )}
          {history.state === "ready" && records.length === 0 && (
            <p class="quiet">
              Nothing yet. The first version appears here once it was checked and compiled.
            </p>
          )}
          <DeploymentHistory records={records} running={session.deployment} />
        </section>
      </div>
    </>
  );
}

function Elsewhere({ record }: { record: Deployment }) {
  return (
    <section class="panel" aria-label="Under way">
      <h2>
        Deployment {record.number}, by {record.by}
      </h2>
      <DeploymentRecord record={record} />
    </section>
  );
}

function Rollback({
  store,
  records,
  busy,
}: {
  store: Deployments;
  records: readonly Deployment[];
  busy: boolean;
}) {
  const served = records.filter(record => ["healthy", "superseded"].includes(record.state));
  const roll = async () => {
    const wanted = await confirmed({
      title: "Roll back?",
      text:
        "The camera gets the last other version that served, with its settings. " +
        "No frame is lost, and you can deploy the present version again.",
      action: "Roll back",
      danger: true,
    });
    if (wanted) await store.rollBack();
  };
  const onProbation = records[0]?.state === "probation";
  if (served.length === 0 || (served.length === 1 && !onProbation)) {
    return <p class="quiet">There is no version to roll back to yet.</p>;
  }
  return (
    <button type="button" class="danger" disabled={busy} onClick={() => void roll()}>
      Roll back
    </button>
  );
}
