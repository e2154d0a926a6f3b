// Both versions beside each other: figures, labels, and the boxes of the frame that differs most.
import { useState } from "preact/hooks";
import type { Deployment } from "../api/types";
import { Table } from "../ui/table";
import { Picture } from "../ui/picture";
import "./deployment.css";

type Comparison = NonNullable<Deployment["comparison"]>;
type Sample = NonNullable<Comparison["sample"]>;
type Found = Sample["running"][number];

interface Props {
  comparison: Comparison;
  session: string;
}

export function ComparisonReport({ comparison, session }: Props) {
  const { detections, latency_ms: ms, events, sample } = comparison;
  const labels = Object.entries(detections.labels);
  const kinds = Object.entries(events);
  return (
    <div class="comparison">
      <dl class="figures">
        <dt>Agreement</dt>
        <dd>
          <strong>{percent(comparison.agreement)}</strong>{" "}
          <meter
            aria-label="Agreement"
            min={0}
            max={1}
            low={0.5}
            high={0.9}
            optimum={1}
            value={comparison.agreement}
          >
            {percent(comparison.agreement)}
          </meter>
        </dd>
        <dt>Frames</dt>
        <dd>
          {comparison.frames} compared, {detections.frames_that_differ} with another number of
          detections
          {comparison.missed > 0 && `, ${comparison.missed} missed: it was too slow`}
          {comparison.errors > 0 && `, ${comparison.errors} with an error`}
        </dd>
        {comparison.first_error !== null && (
          <>
            <dt>First error</dt>
            <dd>{comparison.first_error}</dd>
          </>
        )}
        <dt>Pairs</dt>
        <dd>
          {detections.matched}, overlapping by {percent(detections.mean_iou)} in the mean; scores
          differ by {detections.mean_score_difference}
        </dd>
      </dl>
      <Table
        caption="Running and new version"
        keyOf={row => row.name}
        rows={[
          { name: "Detections", running: detections.running, new: detections.new },
          { name: "Time, half of the frames", running: ms.running_p50, new: ms.new_p50 },
          { name: "Time, 95 of 100 frames", running: ms.running_p95, new: ms.new_p95 },
          ...labels.map(([name, counts]) => row(`Label ${name}`, counts)),
          ...kinds.map(([name, counts]) => row(`Event ${name}`, counts)),
        ]}
        columns={[
          { title: "Of", cell: row => row.name },
          { title: "Running", numeric: true, cell: row => figure(row.name, row.running) },
          { title: "New", numeric: true, cell: row => figure(row.name, row.new) },
        ]}
      />
      {labels.length === 0 && kinds.length === 0 && (
        <p class="quiet">The numbers of each label and kind of event are the same.</p>
      )}
      {sample && <SideBySide key={sample.frame} sample={sample} session={session} />}
    </div>
  );
}

function row(name: string, [running, next]: number[]) {
  return { name, running: running ?? 0, new: next ?? 0 };
}

function figure(name: string, value: number): string {
  return name.startsWith("Time") ? `${value.toFixed(1)} ms` : String(value);
}

function percent(share: number): string {
  return `${(share * 100).toFixed(share > 0 && share < 1 ? 1 : 0)} %`;
}

function SideBySide({ sample, session }: { sample: Sample; session: string }) {
  // One picture under both, of when the comparison was first shown.
  const [at] = useState(Date.now);
  const differs = [...sample.running, ...sample.new].some(({ matched }) => !matched);
  const side = (title: string, found: readonly Found[]) => (
    <figure>
      <div class="boxed">
        <Picture session={session} at={at} ratio={sample.width / sample.height} />
        <svg viewBox={`0 0 ${sample.width} ${sample.height}`} role="img" aria-label={title}>
          {found.map((one, index) => {
            const [x, y, width, height] = one.box as [number, number, number, number];
            return (
              <g key={index} class={one.matched ? "box" : "box alone"}>
                <rect x={x} y={y} width={width} height={height} />
                <text x={x + 3} y={Math.max(14, y - 4)} font-size={sample.width / 45}>
                  {one.label} {one.score.toFixed(2)}
                </text>
              </g>
            );
          })}
        </svg>
      </div>
      <figcaption>
        {title}: {found.length} found, {found.filter(one => !one.matched).length} of them alone
      </figcaption>
    </figure>
  );
  return (
    <section aria-label="Boxes of one frame">
      <h3>
        Frame {sample.frame}, {differs ? "on which they differ most" : "on which nothing differs"}
      </h3>
      <div class="sides">
        {side("Running", sample.running)}
        {side("New", sample.new)}
      </div>
      <p class="quiet">
        Dashed boxes are those that the other version does not have. The picture below them is the
        camera's of now, not of that frame.
      </p>
    </section>
  );
}
