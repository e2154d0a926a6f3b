/** `node --import @ocelli/sdk/ts --test`: Node.js runs TypeScript, by esbuild. */

import { readFile } from 'node:fs/promises';
import { createRequire, register } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { isMainThread } from 'node:worker_threads';

if (isMainThread) register(import.meta.url);

let transform;

/** Strips the types of a TypeScript module. */
export async function load(url, context, next) {
  if (!/\.m?ts$/.test(url)) return next(url, context);
  // The project's own esbuild, which it builds with.
  const project = createRequire(pathToFileURL(`${process.cwd()}/package.json`));
  transform ??= (await import(pathToFileURL(project.resolve('esbuild')))).transform;
  const file = fileURLToPath(url);
  const { code } = await transform(await readFile(file, 'utf8'), {
    loader: 'ts',
    format: 'esm',
    sourcefile: file,
    sourcemap: 'inline',
  });
  return { format: 'module', source: code, shortCircuit: true };
}
