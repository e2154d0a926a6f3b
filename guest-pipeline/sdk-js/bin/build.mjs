#!/usr/bin/env node
/** Makes the component: `ocelli-build src/app.js --output build/NAME.wasm`. */

import { existsSync } from 'node:fs';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { tuned } from './engine.mjs';

const COMPONENTIZE = '@bytecodealliance/componentize-js';
const ENGINE = 'lib/starlingmonkey_embedding.wasm';
const WORLD = 'camera-pipeline';

/** What the host does not offer: requests over HTTP, in either direction. */
const DISABLED = ['http', 'fetch-event'];

class Refusal extends Error {}

const project = createRequire(pathToFileURL(`${process.cwd()}/package.json`));

/** The folder and the module of a project's tool, in the version that this SDK is tried with. */
async function tool(name, versions) {
  const install = `npm install --save-dev ${name}@${versions[name]}`;
  let path;
  try {
    path = project.resolve(name);
  } catch (error) {
    // A package that only ES modules may import: its file is where its folder says.
    path = error.code === 'ERR_PACKAGE_PATH_NOT_EXPORTED' ? moduleFile(name) : undefined;
  }
  if (path === undefined) throw new Refusal(`${name} is not installed: ${install}`);
  const folder = path.slice(0, path.lastIndexOf(name) + name.length);
  const { version } = JSON.parse(await readFile(`${folder}/package.json`, 'utf8'));
  if (version !== versions[name]) {
    throw new Refusal(`this SDK builds with ${name} ${versions[name]}, not ${version}: ${install}`);
  }
  return [folder, await import(pathToFileURL(path))];
}

function moduleFile(name) {
  const folders = project.resolve.paths(name).map((folder) => `${folder}/${name}`);
  const folder = folders.find((one) => existsSync(`${one}/package.json`));
  return folder && `${folder}/src/componentize.js`;
}

/** One module of the pipeline, the SDK and all else that it imports; types are stripped. */
async function bundle(esbuild, entry, file) {
  try {
    await esbuild.build({
      entryPoints: [entry],
      outfile: file,
      bundle: true,
      format: 'esm',
      platform: 'neutral',
      mainFields: ['module', 'main'],
      target: 'es2022',
      conditions: ['ocelli'],
      external: ['ocelli:*', 'wasi:*'],
      logLevel: 'error',
    });
  } catch {
    throw new Refusal(`${entry} cannot be bundled; what esbuild says is above`);
  }
}

async function build() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      output: { type: 'string', default: 'build/pipeline.wasm' },
      wit: { type: 'string', default: fileURLToPath(new URL('../wit', import.meta.url)) },
    },
  });
  const [entry = existsSync('src/app.ts') ? 'src/app.ts' : 'src/app.js'] = positionals;
  if (!existsSync(entry)) throw new Refusal(`there is no ${entry}`);
  const own = JSON.parse(await readFile(new URL('../package.json', import.meta.url), 'utf8'));
  const [, esbuild] = await tool('esbuild', own.peerDependencies);
  const [folder, { componentize }] = await tool(COMPONENTIZE, own.peerDependencies);
  const engine = tuned(await readFile(`${folder}/${ENGINE}`));
  if (engine === undefined) {
    throw new Refusal(`${folder}/${ENGINE} is not that of the package: npm install --force`);
  }
  const output = resolve(values.output);
  await mkdir(dirname(output), { recursive: true });
  // The module stays beside the component: an error's stack names its lines.
  const source = `${output.replace(/\.wasm$/, '')}.js`;
  await bundle(esbuild, entry, source);

  // Made beside it first: a build that fails leaves the last component as it is.
  const [part, engineFile] = [`${output}.part`, `${output}.engine`];
  try {
    await writeFile(engineFile, engine);
    const { component } = await componentize({
      sourcePath: source,
      witPath: resolve(values.wit),
      worldName: WORLD,
      disableFeatures: DISABLED,
      engine: engineFile,
    });
    await writeFile(part, component);
    await rename(part, output);
  } finally {
    for (const file of [part, engineFile]) await rm(file, { force: true });
  }
}

try {
  await build();
} catch (error) {
  const said = error instanceof Refusal || error.code?.startsWith('ERR_PARSE_ARGS');
  console.error(`ocelli-build: ${said ? error.message : error.stack}`);
  process.exitCode = 1;
}
