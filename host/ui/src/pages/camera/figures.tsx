import type { Session, SessionStats } from "../../api/types";
import type { Player } from "../../player/player";
import { RUNG_TITLES } from "../../player/ladder";
import { Table } from "../../ui/table";
import { bytes, local, span } from "../../ui/time";

const rate = (value: number) => `${value.toFixed(1)} /s`;

/** What the camera sends, how this page shows it, and what becomes of its pictures. */
export function Figures(props: {
  session: Session;
  stats: SessionStats | null;
  player: Player | null;
}) {
  const { session, stats, player } = props;
  const shown = player?.state.value;
  const size = shown?.size;
  return (
    <dl>
      {session.host && (
        <>
          <dt>Host</dt>
          <dd>{session.host}</dd>
        </>
      )}
      <dt>Source</dt>
      <dd>{session.source}</dd>
      {session.reader && (
        <>
          <dt>Reader</dt>
          <dd title={session.reader.reason}>{session.reader.kind}</dd>
        </>
      )}
      <dt>Codec</dt>
      <dd>
        {session.codec ?? "unknown yet"}
        {size && `, ${size.width} × ${size.height}`}
      </dd>
      <dt>Shown by</dt>
      <dd>
        {shown?.rung ? RUNG_TITLES[shown.rung] : "nothing yet"}
        {shown?.why && <span class="quiet"> ({shown.why})</span>}
      </dd>
      <dt>Pipeline</dt>
      <dd>
        {session.pipeline_version ?? session.pipeline} <code>{session.deployment}</code>
      </dd>
      {stats && (
        <>
          <dt>Received</dt>
          <dd>{rate(stats.rates.received)}</dd>
          <dt>Decoded</dt>
          <dd>{rate(stats.rates.decoded)}</dd>
          <dt>Processed</dt>
          <dd>{rate(stats.rates.processed)}</dd>
          <dt>Last result</dt>
          <dd>{stats.result_age_s === null ? "none yet" : span(stats.result_age_s * 1000)}</dd>
          <dt>Memory</dt>
          <dd>
            {stats.memory.private === null ? "no worker" : bytes(stats.memory.private)} of{" "}
            {bytes(stats.memory.limit)}
            <Meter value={stats.memory.private ?? 0} limit={stats.memory.limit} />
          </dd>
          <dt>Subscribers</dt>
          <dd>{stats.subscribers}</dd>
        </>
      )}
      <dt>Restarts</dt>
      <dd>{session.restarts}</dd>
      <dt>Running for</dt>
      <dd>{span(session.uptime_s * 1000)}</dd>
      {session.alerts.length > 0 && (
        <>
          <dt>Alerts</dt>
          <dd>{session.alerts.join(", ").replaceAll("_", " ")}</dd>
        </>
      )}
    </dl>
  );
}

function Meter({ value, limit }: { value: number; limit: number }) {
  return (
    <meter
      class="camera-meter"
      aria-label="Memory"
      min={0}
      max={limit}
      high={limit * 0.8}
      value={value}
    />
  );
}

const REASONS: Record<string, string> = {
  newer: "a newer frame had come",
  setting: "the setting asks for fewer",
  no_key: "before the first key frame",
  corrupt: "damaged",
  hidden: "outside of the file's edit list",
  no_picture: "the decoder made no picture of them",
  queue: "the worker's queue was full",
  unreadable: "the file cannot be read there",
};

/** Frames that no pipeline saw, by reason. */
export function Skips({ session, stats }: { session: Session; stats: SessionStats | null }) {
  const rates: Readonly<Record<string, number | undefined>> = stats?.rates.skipped ?? {};
  const rows = Object.entries(session.frames.skipped).filter(([, count]) => count > 0);
  if (rows.length === 0) return <p class="quiet">No frame has been skipped.</p>;
  return (
    <Table
      caption="Skipped frames by reason"
      rows={rows}
      keyOf={([reason]) => reason}
      columns={[
        { title: "Reason", cell: ([reason]) => REASONS[reason] ?? reason },
        { title: "Frames", cell: ([, count]) => count.toLocaleString(), numeric: true },
        { title: "Now", cell: ([reason]) => rate(rates[reason] ?? 0), numeric: true },
      ]}
    />
  );
}

const CAUSES: Record<string, string> = {
  lost: "worker lost",
  rolled_back: "rolled back",
  asked: "asked for",
};

/** The last restarts, the newest first. */
export function Restarts({ stats }: { stats: SessionStats | null }) {
  if (stats === null || stats.restarts.length === 0) {
    return <p class="quiet">It has not been restarted.</p>;
  }
  return (
    <Table
      caption="Restarts"
      rows={stats.restarts}
      keyOf={({ time }) => time}
      columns={[
        { title: "Time", cell: ({ time }) => local(time) },
        { title: "Cause", cell: ({ cause }) => CAUSES[cause] ?? cause },
        { title: "Reason", cell: ({ reason }) => reason ?? "–" },
      ]}
    />
  );
}
