import type { Deployment } from "../api/types";
import { bytes } from "../ui/time";
import { CheckLine } from "./check";
import { Progress } from "./progress";
import { isUnderWay } from "./steps";

/** All that a record has beside its comparison. */
export function DeploymentDetails({ record }: { record: Deployment }) {
  const { swapped } = record;
  return (
    <>
      <Progress record={record} />
      {record.reason !== null && <p class="reason">{record.reason}</p>}
      {record.check !== null && <CheckLine report={record.check} />}
      <dl>
        <dt>Component</dt>
        <dd>
          {record.pipeline}, {bytes(record.size)}, <code>{record.digest.slice(0, 12)}</code>
        </dd>
        {record.before !== null && (
          <>
            <dt>Before</dt>
            <dd>
              <code>{record.before}</code>
            </dd>
          </>
        )}
        <dt>Compiled</dt>
        <dd>
          {record.cached
            ? "found in the cache"
            : record.compile_ms === null
              ? isUnderWay(record)
                ? "not yet"
                : "no"
              : `in ${record.compile_ms} ms`}
        </dd>
        {swapped && (
          <>
            <dt>Changed over</dt>
            <dd>
              in {swapped.total_ms.toFixed(0)} ms
              {swapped.gap_ms !== null && `, ${swapped.gap_ms.toFixed(0)} ms between results`}
              {swapped.state_bytes !== null && `, ${bytes(swapped.state_bytes)} of state`}
              {swapped.fresh && ", begun without the state"}
            </dd>
          </>
        )}
        <dt>Settings</dt>
        <dd>
          <code>{JSON.stringify(record.settings)}</code>
        </dd>
      </dl>
    </>
  );
}
