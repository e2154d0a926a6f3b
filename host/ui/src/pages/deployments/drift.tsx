import type { Session } from "../../api/types";
import type { DeployRequest } from "../../state/deployments";
import { pipelines } from "../../state/deployments";
import { mayOperate } from "../../state/me";
import { pathOf } from "../../router";
import { Link } from "../../ui/link";
import { local } from "../../ui/time";

type Kind = NonNullable<Session["drift"]>["kind"];

const SAYS: Record<Kind, string> = {
  pipeline: "It runs another pipeline or version than the config says.",
  settings: "It runs with other settings than the config says.",
  refused: "Its entry in the config could not be applied, so it goes on as it was.",
  failed: "It has nothing to run.",
  ended: "An operator has ended it; it returns when the host restarts or its entry changes.",
};

interface Props {
  session: Session;
  busy: boolean;
  onDeploy: (request: DeployRequest) => void;
}

/** How what runs differs from the config, and the way back where there is one. */
export function Drift({ session, busy, onDeploy }: Props) {
  const { drift } = session;
  if (drift === null) return <p class="quiet">As the config says, where it has this camera.</p>;
  const known = pipelines.value;
  const stored = known.state === "ready" && known.all.some(({ name }) => name === drift.desired);
  return (
    <div class="drift" role="note">
      <p>
        <strong>Drift: {drift.kind}.</strong> {SAYS[drift.kind]}
      </p>
      <dl>
        <dt>Configured</dt>
        <dd>{drift.desired}</dd>
        <dt>Runs</dt>
        <dd>{drift.actual ?? "nothing"}</dd>
        {drift.keys.length > 0 && (
          <>
            <dt>Differs in</dt>
            <dd>{drift.keys.join(", ")}</dd>
          </>
        )}
        <dt>Since</dt>
        <dd>{local(drift.since)}</dd>
        <dt>Because</dt>
        <dd>{drift.reason}</dd>
      </dl>
      {mayOperate.value && drift.kind === "settings" && (
        <p>
          Roll back, or save them into the config on the page{" "}
          <Link href={pathOf("zones", session.id)}>Zones and settings</Link>.
        </p>
      )}
      {mayOperate.value && drift.kind === "pipeline" && stored && (
        <button
          type="button"
          disabled={busy}
          onClick={() =>
            onDeploy({
              component: { pipeline: drift.desired },
              shadow: 0,
              shadowOnly: false,
              threshold: null,
              state: null,
            })
          }
        >
          Deploy {drift.desired}
        </button>
      )}
    </div>
  );
}
