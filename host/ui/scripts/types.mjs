// Writes src/api/generated/: types of the API's schemas, from the documents that the host serves.
// schema/ holds these documents; a test of the host (api::documents) compares them.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import openapiTS, { astToString } from "openapi-typescript";

const root = new URL("..", import.meta.url);
const read = async name => JSON.parse(await readFile(new URL(`schema/${name}`, root), "utf8"));
const http = await read("openapi.json");
const socket = await read("asyncapi.json");

// The payloads of AsyncAPI are JSON schemas, as those of OpenAPI 3.1: a document without paths
// holds them.
const payloads = Object.entries(socket.components.messages).map(([name, message]) => [
  `message.${name}`,
  message.payload,
]);
const messages = {
  openapi: "3.1.0",
  info: socket.info,
  paths: {},
  components: { schemas: { ...socket.components.schemas, ...Object.fromEntries(payloads) } },
};

await mkdir(new URL("src/api/generated/", root), { recursive: true });
for (const [name, document] of Object.entries({ http, messages })) {
  const text = astToString(await openapiTS(document, { alphabetize: true }));
  await writeFile(new URL(`src/api/generated/${name}.d.ts`, root), text);
}
