/** The SDK for camera pipelines in JavaScript and TypeScript: one class is a pipeline. */

/** A rectangle in frame pixels, as the contract has it. */
export interface Rect {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** A box by its edges, in pixels of the frame or of a tensor. The y axis points down. */
export class Box {
  constructor(left: number, top: number, right: number, bottom: number);
  /** A box by its left and upper edge and its size. */
  static of(x: number, y: number, width: number, height: number): Box;
  /** A box by its middle and its size. */
  static about(x: number, y: number, width: number, height: number): Box;
  left: number;
  top: number;
  right: number;
  bottom: number;
  get width(): number;
  get height(): number;
  /** The middle of the lower edge: where an object stands. */
  get foot(): [number, number];
  /** Whether all edges are finite and the box has an area. */
  get proper(): boolean;
  /** Square pixels, never below 0. */
  get area(): number;
  /** Intersection over union: 0 for boxes that do not overlap, 1 for equal ones. */
  iou(other: Box): number;
  /** The part of the box within 0 to `width` and 0 to `height`. */
  clip(width: number, height: number): Box;
  /** The box grown by `factor` about its middle. */
  expanded(factor: number): Box;
  rect(): Rect;
}

/** A box that competes with others of its class. */
export interface Scored {
  box: Box;
  score: number;
  class?: number;
}

/** Non-maximum suppression within each class, by the host: the boxes that stand, best first. */
export function suppress<S extends Scored>(scored: S[], iou?: number): S[];

/** An error whose text says all that the operator needs: it is shown without a stack. */
export class PipelineError extends Error {}

/** Settings that make no sense; the text begins with the setting's path. */
export class SettingsError extends PipelineError {}

/** A call to the host that failed. `kind` is its code, such as `out-of-memory`. */
export class HostError extends Error {
  kind: string;
}

/** A handle of the host's. It is given back when the call ends that took it. */
export interface Handle {
  /** Gives it back now. */
  close(): void;
  /** Keeps it beyond the call; `close()` is up to you then. */
  keep(): this;
}

/** The order of the last two axes of a table: [rows, columns], or [columns, rows]. */
export type Axes = 'rows-columns' | 'columns-rows';

/** A row of a table whose score is high enough. */
export interface Candidate {
  row: number;
  /** The column of its largest value, counted from the first that was looked at. */
  class: number;
  score: number;
}

/** A tensor in the session's shared memory: of a frame, or a model's output. */
export class Tensor implements Handle {
  private constructor();
  /** A tensor of f32 of these numbers. */
  static ofFloats(dimensions: number[], values: ArrayLike<number>): Tensor;
  /** A tensor of i64 of these numbers. */
  static ofIntegers(dimensions: number[], values: number[]): Tensor;
  get dimensions(): number[];
  get type(): 'FP16' | 'FP32' | 'FP64' | 'BF16' | 'U8' | 'I32' | 'I64';
  /** A copy of the data. */
  bytes(): Uint8Array;
  /** A copy of the numbers of a tensor of f32. */
  floats(): Float32Array;
  /**
   * The rows whose largest value is at least `threshold`, the largest first, found by the host.
   * `classes` are the first of the columns to look at and their count, all unless said.
   */
  best(
    threshold: number,
    options?: { limit?: number; axes?: Axes; classes?: [number, number] },
  ): Candidate[];
  /** These rows with all their columns. */
  rows(rows: number[], options?: { axes?: Axes }): Float32Array[];
  close(): void;
  keep(): this;
}

/** A JPEG on the host's side, to attach to an event. */
export class Image implements Handle {
  private constructor();
  /** Its bytes. */
  get size(): number;
  close(): void;
  keep(): this;
}

type Triple = [number, number, number];

/** The tensor that a model takes. */
export interface TensorSpec {
  width: number;
  height: number;
  fit: 'letterbox' | 'stretch';
  channels: 'rgb' | 'bgr';
  layout: 'nchw' | 'nhwc';
  element: 'f32' | 'u8';
  /** Pixel value, 0 to 255, of what a letterbox leaves empty. */
  fill: Triple;
  /** An f32 element is (pixel - mean) / std. */
  mean: Triple;
  std: Triple;
}

/** A letterboxed f32 NCHW tensor in RGB with black borders, unless `other` says otherwise. */
export function tensorSpec(
  width: number,
  height: number,
  other?: Partial<TensorSpec>,
): TensorSpec;

/** tensor x = (frame x) * scaleX + offsetX, y alike. */
export interface Placement {
  scaleX: number;
  scaleY: number;
  offsetX: number;
  offsetY: number;
}

/** Where a frame lies in a tensor, and back from there. */
export class Letterbox {
  constructor(width: number, height: number, placement: Placement);
  /** A box of the tensor in frame pixels, clipped to the frame. */
  inFrame(box: Box): Box;
  /** A box of the frame in tensor pixels. */
  inTensor(box: Box): Box;
}

/** Takes tensor coordinates to the frame: x = a * x + b * y + c, y = d * x + e * y + f. */
export interface Affine {
  a: number;
  b: number;
  c: number;
  d: number;
  e: number;
  f: number;
}

/** What changes in a frame, beside a background that follows the camera. */
export interface Motion {
  /** Boxes around what changes, the largest first; at most 32, none while `calibrating`. */
  regions: Box[];
  /** Of the picture's area, 0 to 1. */
  share: number;
  /** Most of the picture changed at once, or it is not known yet: what moves is not said. */
  calibrating: boolean;
}

/** One decoded picture of the camera; it is there until `process` returns. */
export class Frame {
  private constructor();
  /** The frame's number in the source. Skipped frames leave gaps. */
  get index(): number;
  /** Nanoseconds since 1970 at which the camera took the picture. */
  get captureTime(): bigint;
  /** Nanoseconds since the source began; it never runs backwards. */
  get presentationTime(): bigint;
  /** `presentationTime` in seconds. */
  get seconds(): number;
  get width(): number;
  get height(): number;
  /** Frames of the source between the one before and this one. */
  get skipped(): number;
  /** The frame, or a region of it, as the tensor that a model takes, and its place there. */
  tensor(spec: TensorSpec, region?: Box): [Tensor, Letterbox];
  /** A batch of up to 64 regions, for a second stage. */
  tensors(spec: TensorSpec, regions: Box[]): [Tensor, Letterbox[]];
  /** An affine warp: an aligned face, say. */
  warp(toFrame: Affine, spec: TensorSpec): Tensor;
  /** A small grey picture, one byte a pixel, row by row. At most 640 x 640. */
  luma(width: number, height: number): Uint8Array;
  /** What changes in this frame. The first call of a pipeline begins to look. */
  motion(): Motion;
  /**
   * Where points of the frame for which this was called last are in this one; undefined for one
   * that is lost. Call it with no points too, for a frame that is to be followed from.
   */
  flow(points: [number, number][]): ([number, number] | undefined)[];
  /**
   * A JPEG of the frame or of a region, made smaller where a side is longer than `longest` pixels.
   * `quality` is 1 to 100, 80 unless said.
   */
  image(region?: Box, quality?: number, longest?: number): Image;
}

/** The session's log. */
export const log: Record<
  'debug' | 'info' | 'warn' | 'error',
  (message: string, context?: string) => void
>;

/** The host's time for models, shared between its cameras. */
export const budget: {
  /**
   * Asks, once a frame, whether models may run for it. `want`, 0 to 1: how much of the picture the
   * results no longer describe. False: go on without, and ask again at the next frame. Of a file,
   * in a dry run and for a single picture it is always true.
   */
  ask(want: number): boolean;
};

/** A model by its name. Load it in `init`: the first use of it on this host takes a while. */
export class Model {
  constructor(name: string);
  readonly name: string;
  /** Runs it on named tensors, which it consumes; gives its outputs by name. */
  run(inputs: Record<string, Tensor>): Record<string, Tensor>;
}

/** An input or output of a model; -1 stands for a dimension that is known at run time alone. */
export interface TensorDescription {
  name: string;
  ty: Tensor['type'];
  shape: number[];
}

/** What the host knows of a model, by its `model.toml`. */
export interface ModelDescription {
  inputs: TensorDescription[];
  outputs: TensorDescription[];
  /** The input that takes a picture, and what a frame is to be asked for. */
  picture?: { name: string; spec: TensorSpec };
  /** The form of the outputs, such as `yolov8`. */
  family?: string;
  /** The whole table `[decoder]`: the names of the outputs, and what else the family needs. */
  decoder: Record<string, unknown>;
  /** Names of the classes by their index. Empty where they are unknown. */
  labels: string[];
}

/** Describes a model. An error names the models that there are. */
export function describeModel(name: string): ModelDescription;

/** What a detector is asked for. Of two boxes that overlap by more than `iou` one stands. */
interface Search {
  score?: number;
  iou?: number;
  classes?: number[];
}

/**
 * A model of the host's catalogue that finds boxes, as the host describes it: YOLOv5 to 12, YOLOX,
 * NanoDet, DETR and SSD. An error names what its `model.toml` lacks.
 */
export class Detector {
  constructor(name: string);
  readonly name: string;
  readonly family: string;
  readonly labels: string[];
  readonly input: string;
  readonly spec: TensorSpec;
  /** What is in the frame, or in a region of it; best first, boxes in frame pixels. */
  detect(frame: Frame, options?: Search & { region?: Box }): Required<Scored>[];
  /** The name of a class: "class 3" where the model has none for it. */
  label(number: number): string;
  /** The classes of these names; undefined, which is all, without one. `at` names the setting. */
  classes(labels: string[], at?: string): number[] | undefined;
}

/** A classifier of the host's catalogue, as the host describes it. Load it in `init`. */
export class Classifier {
  constructor(name: string);
  readonly name: string;
  readonly labels: string[];
  readonly input: string;
  readonly spec: TensorSpec;
  /** The best `count` classes of the frame, or of a region of it, with their scores. */
  classify(
    frame: Frame,
    options?: { region?: Box; count?: number },
  ): { label: string; score: number }[];
  /** The name of a class: "class 3" where the model has none for it. */
  label(number: number): string;
}

/** The vector at length 1. One without a direction is an error: it resembles nothing. */
export function unit(vector: ArrayLike<number>): Float32Array;

/** How alike two vectors are: the cosine of the angle between them, -1 to 1. */
export function cosine(one: ArrayLike<number>, other: ArrayLike<number>): number;

/** NanoDet, the detector that comes with the host. */
export class NanoDet {
  constructor(name?: string, size?: number);
  /** What is in the frame, best first, boxes in frame pixels. */
  detect(frame: Frame, options?: Search): Required<Scored>[];
}

/**
 * A YOLO of the host's catalogue. `form` is that of its output: `yolov8` is [1, 4 + classes, N]
 * (YOLOv8, v9, 11, 12), `yolov5` is [1, N, 5 + classes] (YOLOv5 to v7), `yolov10` is [1, N, 6]
 * (YOLOv10, and exports with NMS). `spec` changes the tensor: letterboxed on grey, RGB, 0 to 1.
 */
export class Yolo {
  constructor(
    name: string,
    options?: {
      size?: number | [number, number];
      form?: 'yolov8' | 'yolov5' | 'yolov10';
      classes?: number;
      input?: string;
      output?: string;
      spec?: Partial<TensorSpec>;
    },
  );
  /** What is in the frame, or in a region of it; best first, boxes in frame pixels. */
  detect(frame: Frame, options?: Search & { region?: Box }): Required<Scored>[];
}

/** The label of each of NanoDet's classes. */
export const COCO_LABELS: string[];

/** A property of an object, `score` 0 to 1. */
export interface Attribute {
  name: string;
  value: string;
  score: number;
}

/** An object in the frame. `score` is 0 to 1, `box` in frame pixels. */
export interface Detection {
  label: string;
  score: number;
  box: Box;
  track?: number;
  attributes?: Attribute[];
  embedding?: ArrayLike<number>;
}

/** Something that happened. `data` is a JSON object with what else there is to say. */
export interface Event {
  kind: string;
  detections?: Detection[];
  data?: Record<string, unknown>;
  attachments?: Image[];
}

/** What a frame's detections rest on. */
export interface Basis {
  /** The least certain of them: a model's run, pixels followed since, or extrapolation. */
  source: 'model' | 'flow' | 'predicted';
  /** Presentation time since the frame on which a model ran last, in nanoseconds. */
  modelAge?: bigint | number;
}

/** The result of a frame. Without `detections` the frame was not looked at. */
export interface Output {
  detections?: Detection[];
  events?: Event[];
  /** Where the model does not run on every frame. */
  basis?: Basis;
}

/** What a pipeline says of itself. */
export interface Description {
  /** Lowercase words with hyphens. */
  name: string;
  /** Semantic version. */
  version: string;
  /** Models that are loaded by name, perhaps with inputs and their shapes (-1: open). */
  models?: (string | { name: string; inputs?: Record<string, number[]> })[];
  /** Without: settings are an object with no rules. */
  settings?: Settings<unknown>;
  /** Formats that `restore` reads, [1] unless said. The last one is what `snapshot` gives. */
  stateFormats?: number[];
}

type Awaitable<T> = T | Promise<T>;

/**
 * What a pipeline inherits from; one instance serves one camera. What a method throws becomes an
 * error with its text and its stack in the session's log.
 */
export abstract class CameraPipeline<S = any, State = any> {
  static description: Description;
  /** Called once, before the first frame; a deployment calls it on two or three instances. */
  init(settings: S): Awaitable<void>;
  /** Looks at a frame. A list is an output without events; nothing: it was not looked at. */
  abstract process(frame: Frame): Awaitable<Output | Detection[] | undefined | void>;
  /** Answers a question of anyone who sees the session: JSON in, JSON out. */
  query(request: any): Awaitable<unknown>;
  /** Does what an operator asks: JSON in, JSON out. */
  command(request: any): Awaitable<unknown>;
  /** The state that a following version goes on from, as JSON. Undefined: there is none. */
  snapshot(): Awaitable<State | undefined>;
  /** Takes over what a `snapshot` gave, in one of `stateFormats`. */
  restore(state: State, format: number): Awaitable<void>;
}

/** What the component exports: `export const pipeline = exportPipeline(MyPipeline)`. */
export function exportPipeline(
  author: (new () => CameraPipeline) & { description: Description },
): unknown;

/** A declared setting whose values are of type `T`. */
export interface Settings<T> {
  schema: Record<string, unknown>;
  read(value: unknown, at?: string): T;
}

/** The type of declared settings: `type Options = SettingsOf<typeof options>`. */
export type SettingsOf<D> = D extends Settings<infer T> ? T : never;

type About = { about?: string };
type Range = About & { default?: number; minimum?: number; maximum?: number };
type Length = { minLength?: number; maxLength?: number };

/** A whole number. */
export function integer(rules?: Range): Settings<number>;
/** A number. */
export function decimal(rules?: Range): Settings<number>;
/** True or false. */
export function flag(rules?: About & { default?: boolean }): Settings<boolean>;
/** A text, or one of `choices`. */
export function text<const C extends string = string>(
  rules?: About & Length & { default?: C; choices?: readonly C[] },
): Settings<C>;
/** A list of values of one kind. */
export function list<T>(
  item: Settings<T>,
  rules?: About & Length & { default?: T[] },
): Settings<T[]>;
/** A value that may be null, as it is by default. */
export function optional<T>(inner: Settings<T>): Settings<T | null>;
/** An object of named settings. `check` may return what is wrong with the whole. */
export function settings<F extends Record<string, Settings<any>>>(
  fields: F,
  rules?: About & { check?: (made: { [K in keyof F]: SettingsOf<F[K]> }) => string | void },
): Settings<{ [K in keyof F]: SettingsOf<F[K]> }>;

/** A named part of the session's store. A call is a transaction: its writes are kept together. */
export class Bucket {
  constructor(name: string);
  get(key: string): Uint8Array | undefined;
  set(key: string, value: Uint8Array): void;
  delete(key: string): void;
  getJson(key: string): unknown;
  setJson(key: string, value: unknown): void;
  /** Adds to a number, kept as decimal text; gives the sum. */
  increment(key: string, by?: number): number;
}

/** An object. `number` is the same in all frames and never given again. */
export interface Track {
  number: number;
  class: number;
  box: Box;
  score: number;
  firstSeen: number;
  lastSeen: number;
}

/**
 * Tracks of one camera. `iou`: least overlap of an object with itself a frame later. `hits`:
 * frames until a track is confirmed. `lostS`: seconds that it may be out of sight.
 */
export class Tracker {
  constructor(options?: { iou?: number; hits?: number; lostS?: number });
  get tracks(): Track[];
  /** `tracks` has the track of each of the given boxes, once it is confirmed. */
  update(
    found: Scored[],
    seconds: number,
  ): { tracks: (Track | undefined)[]; began: Track[]; ended: Track[] };
  /** The tracks as JSON, for a snapshot. */
  state(): unknown;
  restore(state: any): void;
}

/** A track that has entered (no `dwell`) or left a zone after `dwell` seconds. */
export interface Change {
  zone: string;
  track: Track;
  dwell?: number;
}

/** A polygon with a name. Corners are parts of the picture, 0 to 1. */
export class Zone {
  constructor(name: string, polygon: number[][]);
  readonly name: string;
  /** What the frame at `seconds`, of `width` x `height` pixels, changes. */
  update(
    tracks: Track[],
    ended: Track[],
    seconds: number,
    width: number,
    height: number,
  ): Change[];
  /** Seconds that a track has been inside; 0 for one that is not. */
  dwell(track: Track, seconds: number): number;
  state(): unknown;
  restore(state: any): void;
}

/** Whether a point lies in a polygon, by the even-odd rule. */
export function contains(polygon: number[][], x: number, y: number): boolean;
