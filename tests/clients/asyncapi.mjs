// Holds an AsyncAPI document, by its address, to the standard: its structure, its references, each
// schema, and each example by its schema. Prints what is wrong with it; exit status 1 if anything is.
import { Parser } from "@asyncapi/parser";

/** What is left so: more programs read version 3.0, and nothing here needs 3.1. */
const LEFT = new Set(["asyncapi-latest-version"]);

const text = await (await fetch(process.argv[2])).text();
const { document, diagnostics } = await new Parser().parse(text);
const faults = diagnostics.filter(({ code }) => !LEFT.has(code));
for (const { severity, code, path, message } of faults) {
  console.log(`${["error", "warning", "info", "hint"][severity]} ${code} ${path.join(".")}: ${message}`);
}
const channels = document?.channels().all().length ?? 0;
const messages = document?.allMessages().all().length ?? 0;
console.log(`${channels} channels, ${messages} messages`);
process.exit(faults.length > 0 || messages === 0 ? 1 : 0);
