// Holds the first load, which is index.html and all that it names, to its bound.
import { readdirSync, readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

/** Bytes of the first load, by gzip: half a second at 1.6 Mbit/s. */
const BOUND = 100 * 1024;

const dist = new URL("../dist/", import.meta.url);
const html = readFileSync(new URL("index.html", dist), "utf8");
const named = [...html.matchAll(/(?:src|href)="\.\/([^"]+)"/g)].map(match => match[1]);
const bytes = name => gzipSync(readFileSync(new URL(name, dist))).length;
const first = ["index.html", ...named].reduce((sum, name) => sum + bytes(name), 0);
const assets = readdirSync(new URL("assets/", dist)).map(name => `assets/${name}`);
const all = ["index.html", ...assets].reduce((sum, name) => sum + bytes(name), 0);
console.log(`first load: ${first} bytes (gzip) of at most ${BOUND}; all files: ${all}`);
if (first > BOUND) {
  console.error("The first load is too large: load what few pages need with import().");
  process.exit(1);
}
