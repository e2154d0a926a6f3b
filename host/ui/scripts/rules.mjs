// Rules of the page's source that the compiler does not check.
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const COLUMNS = 100;
const LINES = 700;

/** What a line must not have, and why. */
const BANNED = [
  [/^(?!\s*(\/\/|\/?\*)).*[:<|]\s*any\b|\bas any\b/, "`any` switches the types off"],
  [/@ts-(ignore|nocheck|expect-error)/, "switches the types off"],
  [/dangerouslySetInnerHTML|\.innerHTML\b|\.outerHTML\b|insertAdjacentHTML/, "HTML from strings"],
  [/\beval\(|new Function\(/, "the content security policy refuses it"],
  [/https?:\/\/(?!www\.w3\.org\/)(?!127\.0\.0\.1)[a-z0-9]/i, "no other host"],
];

const root = fileURLToPath(new URL("..", import.meta.url));
const files = (await readdir(join(root, "src"), { recursive: true, withFileTypes: true }))
  .filter(entry => entry.isFile() && /\.(tsx?|css)$/.test(entry.name))
  .map(entry => join(entry.parentPath ?? entry.path, entry.name))
  .filter(path => !path.includes("/generated/"));
const faults = [];
for (const path of files) {
  const lines = (await readFile(path, "utf8")).split("\n");
  const name = path.slice(root.length);
  if (lines.length > LINES) faults.push(`${name}: over ${LINES} lines`);
  lines.forEach((line, index) => {
    const place = `${name}:${index + 1}`;
    if ([...line].length > COLUMNS) faults.push(`${place}: over ${COLUMNS} columns`);
    if (path.includes(".test.")) return;
    for (const [pattern, why] of BANNED) {
      if (pattern.test(line)) faults.push(`${place}: ${why}: ${line.trim()}`);
    }
  });
}
const html = await readFile(join(root, "index.html"), "utf8");
if (/\sstyle=|<style|\son[a-z]+=|<script(?![^>]*\ssrc=)/.test(html)) {
  faults.push("index.html: the content security policy refuses inline styles and scripts");
}
if (faults.length > 0) {
  console.error(faults.join("\n"));
  process.exit(1);
}
