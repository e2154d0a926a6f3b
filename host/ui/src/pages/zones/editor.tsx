// Shapes over a picture. The mouse, a finger and the keyboard do the same to them; what they do is
// in polygon.ts, and the draft keeps it.
import { type Signal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { Draft } from "../../settings/draft";
import { type Path, place } from "../../settings/json";
import type { Schema } from "../../settings/schema";
import { Picture } from "../../ui/picture";
import {
  type Point,
  type Points,
  arrow,
  edges,
  first,
  inside,
  moved,
  placed,
  point,
  shifted,
  split,
  without,
} from "./polygon";
import { type Drawables, type Shape, type Slot, added } from "./shapes";

interface Props {
  session: string;
  at: number;
  draft: Draft;
  schema: Schema;
  found: Drawables;
  /** The key of the chosen shape. */
  chosen: Signal<string | null>;
  disabled: boolean;
}

/** Pixels between a click and the first corner at which the shape closes. */
const CLOSE_PX = 12;
/** Presses so close in the window are those of a double click. */
const SAME_PX = 3;

interface Drawing {
  slot: Slot;
  points: Points;
  /** Where the next corner would be. */
  cursor: Point;
}

export function Editor({ session, at, draft, schema, found, chosen, disabled }: Props) {
  const stage = useRef<HTMLDivElement>(null);
  const drawing = useSignal<Drawing | null>(null);
  const grabbed = useRef<{ shape: Shape; from: Point; points: Points } | null>(null);
  const wantFocus = useRef<string | null>(null);
  useEffect(() => {
    // The corner that has just been added or that took a deleted one's place.
    if (wantFocus.current === null) return;
    const all = stage.current?.querySelectorAll<HTMLElement>("[data-corner]") ?? [];
    [...all].find(corner => corner.dataset["corner"] === wantFocus.current)?.focus();
    wantFocus.current = null;
  });

  const where = (event: { clientX: number; clientY: number }): Point => {
    const area = stage.current?.getBoundingClientRect();
    if (!area) return [0, 0];
    return point(
      (event.clientX - area.left) / area.width,
      (event.clientY - area.top) / area.height,
    );
  };
  const write = (path: Path, points: Points, key?: string) =>
    draft.set(
      path,
      points.map(([x, y]) => [x, y]),
      key,
    );
  const add = (slot: Slot, points: Points) => {
    const next = added(slot, schema, draft.value.value, points);
    draft.set(next.path, next.value);
    const key = place(next.points);
    chosen.value = key;
    wantFocus.current = `${key} 0`;
  };
  const finish = () => {
    const now = drawing.value;
    if (now === null) return;
    drawing.value = null;
    const least = now.slot.kind.closed ? Math.max(3, now.slot.kind.least) : 2;
    if (now.points.length >= least) add(now.slot, now.points);
  };
  const put = (at: Point) => {
    const now = drawing.value;
    if (now === null) return;
    const [start] = now.points;
    const area = stage.current?.getBoundingClientRect();
    const away = ([x, y]: Point) =>
      area ? Math.hypot((x - at[0]) * area.width, (y - at[1]) * area.height) : Infinity;
    if (start && away(start) < CLOSE_PX && now.points.length > 2) return finish();
    const last = now.points.at(-1);
    // The second press of a double click.
    if (last && away(last) < SAME_PX) return;
    const points = [...now.points, at];
    drawing.value = { ...now, points };
    const isLine = !now.slot.kind.closed && now.slot.kind.most === points.length;
    if (isLine || points.length >= now.slot.kind.most) finish();
  };

  const pressed = (event: PointerEvent) => {
    if (disabled || event.button !== 0) return;
    const at = where(event);
    if (drawing.value !== null) {
      event.preventDefault();
      return put(at);
    }
    // The chosen one first, so that a shape under another can be moved.
    const order = [...found.shapes].sort(
      (one, other) => Number(other.key === chosen.value) - Number(one.key === chosen.value),
    );
    const hit = order.find(shape => shape.kind.closed && inside(shape.points, at));
    chosen.value = hit?.key ?? null;
    if (hit === undefined) return;
    grabbed.current = { shape: hit, from: at, points: hit.points };
    (event.currentTarget as HTMLElement).setPointerCapture(event.pointerId);
  };
  const dragged = (event: PointerEvent) => {
    const at = where(event);
    if (drawing.value !== null) {
      drawing.value = { ...drawing.value, cursor: at };
      return;
    }
    const now = grabbed.current;
    if (now === null) return;
    const by: Point = [at[0] - now.from[0], at[1] - now.from[1]];
    write(now.shape.path, shifted(now.points, ...by), `drag ${now.shape.key}`);
  };
  const released = () => {
    if (grabbed.current !== null) draft.settle();
    grabbed.current = null;
  };
  const typed = (event: KeyboardEvent) => {
    const now = drawing.value;
    if (now === null) return;
    const step = arrow(event.key, event.shiftKey);
    if (step !== null) {
      drawing.value = { ...now, cursor: point(now.cursor[0] + step[0], now.cursor[1] + step[1]) };
    } else if (event.key === " ") {
      put(now.cursor);
    } else if (event.key === "Enter") {
      finish();
    } else if (event.key === "Escape") {
      drawing.value = null;
    } else if (event.key === "Backspace" || event.key === "Delete") {
      drawing.value = { ...now, points: now.points.slice(0, -1) };
    } else {
      return;
    }
    event.preventDefault();
  };
  const begin = (slot: Slot) => {
    drawing.value = { slot, points: [], cursor: [0.5, 0.5] };
    chosen.value = null;
    stage.current?.focus();
  };

  const now = drawing.value;
  return (
    <div class="editor">
      <Tools
        draft={draft}
        slots={found.slots}
        drawing={now}
        disabled={disabled}
        onDraw={begin}
        onAdd={slot => add(slot, first(slot.kind.closed))}
        onFinish={finish}
        onGiveUp={() => (drawing.value = null)}
      />
      <div
        ref={stage}
        class={now ? "stage drawing" : "stage"}
        tabIndex={now ? 0 : -1}
        role="group"
        aria-label={
          now
            ? "Drawing: arrows move the mark, Space sets a corner, Enter finishes, Escape gives up"
            : "Shapes on the picture"
        }
        onPointerDown={pressed}
        onPointerMove={dragged}
        onPointerUp={released}
        onPointerCancel={released}
        onDblClick={finish}
        onKeyDown={typed}
      >
        <Picture session={session} at={at} />
        <Lines shapes={found.shapes} chosen={chosen.value} drawing={now} />
        {found.shapes.map(shape => (
          <Name key={shape.key} shape={shape} chosen={shape.key === chosen.value} />
        ))}
        {now === null &&
          !disabled &&
          found.shapes.map(shape => (
            <Corners
              key={shape.key}
              shape={shape}
              chosen={shape.key === chosen.value}
              where={where}
              onChoose={() => (chosen.value = shape.key)}
              onChange={(points, key) => write(shape.path, points, key)}
              onSettle={() => draft.settle()}
              onFocusNext={index => (wantFocus.current = `${shape.key} ${index}`)}
            />
          ))}
      </div>
      <p class="quiet hint" role="status">
        {now ? drawingHint(now) : CORNER_HINT}
      </p>
    </div>
  );
}

const CORNER_HINT =
  "Drag a corner or a whole shape. On a corner: arrows move it by 1 % (with Shift 5 %), " +
  "Enter adds one after it, Delete takes it away.";

function drawingHint({ points }: Drawing): string {
  return (
    `${points.length} corners. Click each in turn; Enter or a double click finishes, ` +
    "Escape gives up. With the keyboard: arrows, Space, Enter."
  );
}

interface ToolProps {
  draft: Draft;
  slots: readonly Slot[];
  drawing: Drawing | null;
  disabled: boolean;
  onDraw: (slot: Slot) => void;
  onAdd: (slot: Slot) => void;
  onFinish: () => void;
  onGiveUp: () => void;
}

function Tools(props: ToolProps) {
  const { draft, slots, drawing, disabled } = props;
  if (disabled) return null;
  return (
    <div class="tools actions" role="toolbar" aria-label="Drawing">
      {drawing ? (
        <>
          <button type="button" class="primary" onClick={props.onFinish}>
            Finish
          </button>
          <button type="button" onClick={props.onGiveUp}>
            Give up
          </button>
        </>
      ) : (
        slots.map(slot => (
          <span key={`${slot.path.join(".")}`} class="actions">
            <button type="button" disabled={slot.full} onClick={() => props.onDraw(slot)}>
              Draw {slot.noun}
            </button>
            <button type="button" disabled={slot.full} onClick={() => props.onAdd(slot)}>
              Add {slot.noun} in the middle
            </button>
          </span>
        ))
      )}
      <button type="button" disabled={!draft.canUndo.value} onClick={() => draft.undo()}>
        Undo
      </button>
      <button type="button" disabled={!draft.canRedo.value} onClick={() => draft.redo()}>
        Redo
      </button>
    </div>
  );
}

/** Units of the drawing's coordinates: parts of the picture times this. */
const UNITS = 1000;

function path(points: Points, closed: boolean): string {
  const drawn = points.map(([x, y]) => `${x * UNITS} ${y * UNITS}`).join("L");
  return drawn === "" ? "" : `M${drawn}${closed ? "Z" : ""}`;
}

interface LineProps {
  shapes: readonly Shape[];
  chosen: string | null;
  drawing: Drawing | null;
}

function Lines({ shapes, chosen, drawing }: LineProps) {
  return (
    <svg
      class="lines"
      viewBox={`0 0 ${UNITS} ${UNITS}`}
      preserveAspectRatio="none"
      aria-hidden="true"
    >
      {shapes.map(({ key, points, kind }) => (
        <g key={key} class={key === chosen ? "shape chosen" : "shape"}>
          <path class="under" d={path(points, kind.closed)} />
          <path class={kind.closed ? "area" : "line"} d={path(points, kind.closed)} />
        </g>
      ))}
      {drawing && (
        <g class="shape chosen">
          <path class="under" d={path([...drawing.points, drawing.cursor], false)} />
          <path class="line" d={path([...drawing.points, drawing.cursor], false)} />
          {drawing.points.map(([x, y], index) => (
            <path key={index} class="dot" d={`M${x * UNITS} ${y * UNITS}h0`} />
          ))}
          <path class="dot" d={`M${drawing.cursor[0] * UNITS} ${drawing.cursor[1] * UNITS}h0`} />
        </g>
      )}
    </svg>
  );
}

function Name({ shape, chosen }: { shape: Shape; chosen: boolean }) {
  const [top] = [...shape.points].sort((one, other) => one[1] - other[1]);
  if (top === undefined) return null;
  // Above the picture's edge nobody would see it.
  const classes = `shape-name${chosen ? " chosen" : ""}${top[1] < 0.1 ? " below" : ""}`;
  const style = { left: `${top[0] * 100}%`, top: `${top[1] * 100}%` };
  return (
    <span class={classes} style={style} aria-hidden="true">
      {shape.name}
    </span>
  );
}

interface CornerProps {
  shape: Shape;
  chosen: boolean;
  where: (event: PointerEvent) => Point;
  onChoose: () => void;
  onChange: (points: Points, key?: string) => void;
  onSettle: () => void;
  onFocusNext: (index: number) => void;
}

/** The corners of a shape as buttons, and those between them that add one. */
function Corners(props: CornerProps) {
  const { shape, chosen, where, onChoose, onChange, onSettle, onFocusNext } = props;
  const { points, kind, key, name } = shape;
  const typed = (event: KeyboardEvent, index: number) => {
    const step = arrow(event.key, event.shiftKey);
    if (step !== null) {
      onChange(moved(points, index, ...step), `arrows ${key} ${index}`);
    } else if (event.key === "Enter") {
      if (points.length >= kind.most) return;
      const isEnd = !kind.closed && index === points.length - 1;
      onFocusNext(isEnd ? index : index + 1);
      onChange(split(points, index, kind.closed));
    } else if (event.key === "Delete" || event.key === "Backspace") {
      onFocusNext(Math.max(0, index - 1));
      onChange(without(points, index, Math.max(kind.least, kind.closed ? 3 : 2)));
    } else {
      return;
    }
    event.preventDefault();
  };
  const at = ([x, y]: Point) => ({ left: `${x * 100}%`, top: `${y * 100}%` });
  return (
    <div role="group" aria-label={name} class={chosen ? "corners chosen" : "corners"}>
      {points.map((corner, index) => (
        <button
          key={index}
          type="button"
          class="corner"
          style={at(corner)}
          data-corner={`${key} ${index}`}
          aria-label={
            `Corner ${index + 1} of ${points.length} of ${name}: ` +
            `${percent(corner[0])} from the left, ${percent(corner[1])} from the top`
          }
          onFocus={onChoose}
          onKeyDown={event => typed(event, index)}
          onPointerDown={event => {
            event.stopPropagation();
            event.currentTarget.focus();
            event.currentTarget.setPointerCapture(event.pointerId);
          }}
          onPointerMove={event => {
            event.stopPropagation();
            if (!event.currentTarget.hasPointerCapture(event.pointerId)) return;
            onChange(placed(points, index, where(event)), `drag ${key} ${index}`);
          }}
          onPointerUp={event => {
            event.stopPropagation();
            onSettle();
          }}
        />
      ))}
      {chosen &&
        points.length < kind.most &&
        edges(points, kind.closed).map(([i, j]) => {
          const [one, other] = [points[i], points[j]];
          if (!one || !other) return null;
          const middle = point((one[0] + other[0]) / 2, (one[1] + other[1]) / 2);
          return (
            <button
              key={`${i}-${j}`}
              type="button"
              class="corner between"
              style={at(middle)}
              // The keyboard adds corners with Enter.
              tabIndex={-1}
              aria-label={`Add a corner between ${i + 1} and ${j + 1} of ${name}`}
              onPointerDown={event => event.stopPropagation()}
              onClick={() => {
                onFocusNext(i + 1);
                onChange([...points.slice(0, i + 1), middle, ...points.slice(i + 1)]);
              }}
            />
          );
        })}
    </div>
  );
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}
