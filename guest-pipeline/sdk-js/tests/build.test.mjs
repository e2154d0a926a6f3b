/** A build that cannot be is refused in one line, and leaves what is there. */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const BUILD = fileURLToPath(new URL('../bin/build.mjs', import.meta.url));

/** Runs the build in a folder of its own; what it says. */
function refused(files, ...words) {
  const folder = mkdtempSync(join(tmpdir(), 'ocelli-build-'));
  try {
    mkdirSync(join(folder, 'src'));
    for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
    const options = { cwd: folder, encoding: 'utf8' };
    const ended = spawnSync(process.execPath, [BUILD, ...words], options);
    assert.equal(ended.status, 1, ended.stderr);
    assert.equal(ended.stderr.split('\n').length, 2, ended.stderr);
    for (const [name, text] of Object.entries(files)) {
      assert.equal(readFileSync(join(folder, name), 'utf8'), text);
    }
    assert.deepEqual(readdirSync(join(folder, 'src')).length, Object.keys(files).length);
    return ended.stderr;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test('a module that is not there', () => {
  assert.match(refused({}), /^ocelli-build: there is no src\/app\.js\n$/);
  assert.match(refused({}, 'src/eye.ts'), /there is no src\/eye\.ts/);
});

test('a compiler that is not there', () => {
  const said = refused({ 'src/app.js': 'export const pipeline = {};' });
  assert.match(said, /esbuild is not installed: npm install --save-dev esbuild@\d/);
});

test('an option that there is not', () => {
  assert.match(refused({}, '--outpt', 'a.wasm'), /'--outpt'/);
});
