import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import "./chart.css";

interface Series {
  label: string;
  /** One value for each time; null: there was none. */
  values: readonly (number | null)[];
  /** One of the page's colours, as `--accent`. Lines also differ by their dashes. */
  colour: string;
  dash?: readonly number[];
}

interface Props {
  title: string;
  unit: string;
  /** Seconds since 1970, one for each value. */
  times: readonly number[];
  series: readonly Series[];
  /** A value that the axis always shows, as a limit does. */
  atLeast?: number;
}

const HEIGHT = 160;
/** All charts of a page show the time under the cursor together. */
const CURSOR = "time";

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** A chart over time. Its newest values stand beside it as text, for those who do not see it. */
export function Chart({ title, unit, times, series, atLeast = 0 }: Props) {
  const parent = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const shape = series.map(({ label, colour }) => `${label}${colour}`).join();
  useEffect(() => {
    const element = parent.current;
    if (element === null) return;
    const made = new uPlot(options(element, unit, series, atLeast), [[]], element);
    plot.current = made;
    const fit = () => made.setSize({ width: element.clientWidth, height: HEIGHT });
    const sizes = new ResizeObserver(fit);
    sizes.observe(element);
    const theme = matchMedia("(prefers-color-scheme: dark)");
    const repaint = () => made.redraw(false);
    theme.addEventListener("change", repaint);
    return () => {
      theme.removeEventListener("change", repaint);
      sizes.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [shape, unit]);
  useEffect(() => {
    const made = plot.current;
    made?.setData([[...times], ...series.map(({ values }) => [...values])]);
    // Without a cursor the legend has the newest values.
    if (made && typeof made.cursor.idx !== "number") made.setLegend({ idx: times.length - 1 });
  }, [times, series]);
  const newest = series.flatMap(({ label, values }) => {
    const value = values.at(-1);
    return value === null || value === undefined ? [] : [`${label} ${value.toFixed(1)} ${unit}`];
  });
  return (
    <figure class="chart">
      <figcaption>{title}</figcaption>
      <div ref={parent} aria-hidden="true" />
      <p class="hidden">{newest.join(", ")}</p>
    </figure>
  );
}

function options(
  element: HTMLElement,
  unit: string,
  series: readonly Series[],
  atLeast: number,
): uPlot.Options {
  const colour = (name: string) => getComputedStyle(element).getPropertyValue(name).trim();
  const axis = (): uPlot.Axis => ({
    stroke: () => colour("--quiet"),
    grid: { stroke: () => colour("--line"), width: 1 },
    ticks: { show: false },
    font: "11px system-ui, sans-serif",
  });
  const shown = (value: number | null) => (value === null ? "–" : `${value.toFixed(1)} ${unit}`);
  return {
    width: element.clientWidth,
    height: HEIGHT,
    cursor: { sync: { key: CURSOR }, drag: { x: false, y: false } },
    scales: { y: { range: (_, __, most) => [0, Math.max(most, atLeast, 1) * 1.1] } },
    axes: [
      { ...axis(), values: (_, times) => times.map(time => clock.format(time * 1000)), space: 70 },
      { ...axis(), size: 44 },
    ],
    series: [
      { label: "Time", value: (_, time) => (time === null ? "–" : clock.format(time * 1000)) },
      ...series.map(one => ({
        label: one.label,
        stroke: () => colour(one.colour),
        width: 1.5,
        dash: [...(one.dash ?? [])],
        points: { show: false },
        value: (_: uPlot, value: number | null) => shown(value),
      })),
    ],
  };
}
