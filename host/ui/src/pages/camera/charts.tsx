import { Chart } from "../../ui/chart";
import type { Look } from "./stats";

const MIB = 1024 * 1024;

const STAGES = [
  { stage: "decode", colour: "--accent", dash: [] },
  { stage: "wait", colour: "--warn", dash: [6, 3] },
  { stage: "inference", colour: "--good", dash: [] },
  { stage: "pipeline", colour: "--bad", dash: [2, 2] },
  { stage: "total", colour: "--text", dash: [] },
] as const;

/** Rates, latencies and memory over the last minutes; one time cursor runs through all. */
export default function Charts({ looks }: { looks: readonly Look[] }) {
  const times = looks.map(({ time }) => time);
  const rate = (name: "received" | "decoded" | "processed") =>
    looks.map(({ stats }) => stats.rates[name]);
  const skipped = looks.map(({ stats }) =>
    Object.values(stats.rates.skipped).reduce((sum, value) => sum + value, 0),
  );
  const latency = (stage: string) =>
    looks.map(({ stats }) => stats.latency.find(one => one.stage === stage)?.p95_ms ?? null);
  const memory = looks.map(({ stats }) =>
    stats.memory.private === null ? null : stats.memory.private / MIB,
  );
  const limit = (looks.at(-1)?.stats.memory.limit ?? 0) / MIB;
  return (
    <div class="camera-charts">
      <Chart
        title="Frames in a second"
        unit="/s"
        times={times}
        series={[
          { label: "received", values: rate("received"), colour: "--text" },
          { label: "decoded", values: rate("decoded"), colour: "--accent", dash: [6, 3] },
          { label: "processed", values: rate("processed"), colour: "--good" },
          { label: "skipped", values: skipped, colour: "--warn", dash: [2, 2] },
        ]}
      />
      <Chart
        title="Latency by stage, 95 of 100 frames"
        unit="ms"
        times={times}
        series={STAGES.map(({ stage, colour, dash }) => ({
          label: stage,
          values: latency(stage),
          colour,
          dash,
        }))}
      />
      <Chart
        title="Memory of the worker"
        unit="MiB"
        times={times}
        atLeast={limit}
        series={[
          { label: "private", values: memory, colour: "--accent" },
          { label: "limit", values: times.map(() => limit), colour: "--bad", dash: [6, 3] },
        ]}
      />
    </div>
  );
}
