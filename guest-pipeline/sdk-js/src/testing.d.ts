/** Tests without a host: a pipeline, scripted frames and scripted models. */

import type { Box, CameraPipeline, Description, Rect, TensorSpec } from './index.js';

type Author = (new () => CameraPipeline) & { description: Description };

/**
 * A frame of a script, at 10 a second. `luma` is a grey picture, or a function that gives one;
 * `moving` are the boxes in which something changes, or null where the whole picture does; `flow`
 * says where a point of the frame before is, or nothing where it is lost.
 */
export class FakeFrame {
  constructor(script?: {
    index?: number;
    width?: number;
    height?: number;
    luma?: ArrayLike<number> | ((width: number, height: number) => ArrayLike<number>);
    seconds?: number;
    skipped?: number;
    moving?: Box[] | null;
    flow?: (x: number, y: number) => [number, number] | undefined;
  });
}

/** The contract's output. */
export interface RawOutput {
  detections?: { label: string; score: number; box: Rect; track?: number }[];
  events: { kind: string; data: string; detections: { label: string; box: Rect }[] }[];
  basis?: { source: string; modelAge: bigint };
}

/** A model of a script: named inputs to each output's shape, numbers and type, FP32 unless said. */
export type Script = (
  inputs: Record<string, unknown>,
) => Record<string, [number[], ArrayLike<number>, ('FP32' | 'I64' | 'I32' | 'U8')?]>;

/** What the host says of a model, as the contract has it. */
export interface RawModelDescription {
  picture?: { name: string; spec: TensorSpec };
  decoder?: { family: string; parameters: string };
  labels: string[];
}

/**
 * What the host says of a model: `decoder` is the table `[decoder]` of its `model.toml`, `spec` is
 * what its `input` takes, by `tensorSpec`.
 */
export function described(options?: {
  decoder?: { family: string; [key: string]: unknown };
  spec?: TensorSpec;
  labels?: string[];
  input?: string;
}): RawModelDescription;

/** Stands in for the host while `work` runs. At the end no handle may be open. */
export function withHost<T>(
  options: {
    models?: Record<string, Script>;
    descriptions?: Record<string, RawModelDescription>;
    lines?: [string, string][];
    /** The next answers to `budget.ask`; after the last one it is yes. */
    budget?: boolean[];
    /** What `budget.ask` was called with is added here. */
    wants?: number[];
  },
  work: () => T | Promise<T>,
): Promise<T>;

/** A pipeline as the host has it, called through its exports. */
export class Played {
  static init(author: Author, settings?: object): Promise<Played>;
  description: unknown;
  process(frame: FakeFrame): Promise<RawOutput>;
  query(request?: unknown): Promise<any>;
  command(request?: unknown): Promise<any>;
  snapshot(): Promise<Uint8Array>;
  restore(state: Uint8Array, version?: string): Promise<void>;
}

/** The contract's outputs of all frames of a script. */
export function play(
  author: Author,
  script: FakeFrame[],
  settings?: object,
): Promise<RawOutput[]>;
