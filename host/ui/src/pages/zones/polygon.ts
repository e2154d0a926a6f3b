// Polygons and lines in parts of the picture, 0 to 1: pure functions, apart from what draws them.

export type Point = readonly [number, number];
export type Points = readonly Point[];

/** Places after the comma: a ten-thousandth is less than a pixel of 4K in most zones. */
const DIGITS = 4;

/** A coordinate within the picture, as it is stored. */
export function within(value: number): number {
  const rounded = Number(value.toFixed(DIGITS));
  return Math.min(1, Math.max(0, rounded));
}

export function point(x: number, y: number): Point {
  return [within(x), within(y)];
}

/** With a corner moved by so much; it stops at the picture's edge. */
export function moved(points: Points, index: number, dx: number, dy: number): Points {
  return points.map((old, i) => (i === index ? point(old[0] + dx, old[1] + dy) : old));
}

/** With a corner at a place. */
export function placed(points: Points, index: number, to: Point): Points {
  return points.map((old, i) => (i === index ? point(...to) : old));
}

/** All moved together; as far as the first of them reaches the picture's edge. */
export function shifted(points: Points, dx: number, dy: number): Points {
  const free = (axis: 0 | 1, by: number) => {
    const values = points.map(one => one[axis]);
    return Math.min(1 - Math.max(...values), Math.max(-Math.min(...values), by));
  };
  if (points.length === 0) return points;
  const [x, y] = [free(0, dx), free(1, dy)];
  return points.map(old => point(old[0] + x, old[1] + y));
}

/** With a corner after another, half way to the next. A line's last one gets it behind itself. */
export function split(points: Points, index: number, closed: boolean): Points {
  const here = points[index];
  if (here === undefined) return points;
  const isEnd = !closed && index === points.length - 1;
  const beside = isEnd ? points[index - 1] : points[(index + 1) % points.length];
  const next = beside ?? here;
  const middle = point((here[0] + next[0]) / 2, (here[1] + next[1]) / 2);
  return isEnd
    ? [...points.slice(0, index), middle, here]
    : [...points.slice(0, index + 1), middle, ...points.slice(index + 1)];
}

/** Without a corner; as it was where no fewer may be. */
export function without(points: Points, index: number, least: number): Points {
  return points.length <= least ? points : points.filter((_, i) => i !== index);
}

/** The edges as pairs of corners' numbers. */
export function edges(points: Points, closed: boolean): [number, number][] {
  const pairs = points.map((_, i): [number, number] => [i, (i + 1) % points.length]);
  return closed && points.length > 2 ? pairs : pairs.slice(0, -1);
}

/** Whether a place is inside, by the rule of even and odd. */
export function inside(points: Points, [x, y]: Point): boolean {
  let is = false;
  for (const [i, j] of edges(points, true)) {
    const [one, other] = [points[i], points[j]];
    if (one === undefined || other === undefined) continue;
    const crosses = one[1] > y !== other[1] > y;
    const at = one[0] + ((y - one[1]) / (other[1] - one[1])) * (other[0] - one[0]);
    if (crosses && x < at) is = !is;
  }
  return is;
}

/** The area, without its sign, as a part of the picture. */
export function area(points: Points): number {
  if (points.length < 3) return 0;
  const twice = edges(points, true).reduce((sum, [i, j]) => {
    const [one, other] = [points[i], points[j]];
    return one && other ? sum + one[0] * other[1] - other[0] * one[1] : sum;
  }, 0);
  return Math.abs(twice) / 2;
}

/** Whether two edges cross: such a polygon has parts that count as outside. */
export function crossesItself(points: Points, closed: boolean): boolean {
  const all = edges(points, closed);
  return all.some(([a, b], i) =>
    all.slice(i + 1).some(([c, d]) => {
      if (a === c || a === d || b === c || b === d) return false;
      const [p, q, r, s] = [points[a], points[b], points[c], points[d]];
      return p && q && r && s ? apart(p, q, r, s) && apart(r, s, p, q) : false;
    }),
  );
}

/** Whether c and d are on two sides of the line through a and b. */
function apart(a: Point, b: Point, c: Point, d: Point): boolean {
  const side = (p: Point) => (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0]);
  return side(c) * side(d) < 0;
}

/** What an added shape begins with: in the middle, so that it can be seen and grasped. */
export function first(closed: boolean): Points {
  const [low, high] = [0.35, 0.65];
  return closed
    ? [point(low, low), point(high, low), point(high, high), point(low, high)]
    : [point(low, 0.5), point(high, 0.5)];
}

/** How arrows move a corner: 1 % of the picture, 5 % with Shift. Null: another key. */
export function arrow(key: string, shift: boolean): Point | null {
  const step = shift ? 0.05 : 0.01;
  const ways: Record<string, Point> = {
    ArrowLeft: [-step, 0],
    ArrowRight: [step, 0],
    ArrowUp: [0, -step],
    ArrowDown: [0, step],
  };
  return ways[key] ?? null;
}

/** Points as settings have them; what is no point is left out. */
export function pointsOf(value: unknown): Points {
  if (!Array.isArray(value)) return [];
  return value.flatMap((one: unknown) => {
    if (!Array.isArray(one)) return [];
    const [x, y] = one as unknown[];
    return typeof x === "number" && typeof y === "number" ? [[x, y] as const] : [];
  });
}
