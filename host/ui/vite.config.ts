import { defineConfig } from "vite";

/** A host for `npm run dev`, which passes the API's paths on to it. */
const host = process.env["OCELLI_URL"] ?? "http://127.0.0.1:8001";

export default defineConfig({
  // The host writes its own path in front of the page's addresses; a script's are relative to it.
  base: "./",
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: {
    // Browsers that have WebCodecs, and the two years before.
    target: ["chrome108", "firefox115", "safari16"],
    // The content security policy admits files of the host alone: nothing becomes a data URL.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: {
    // The host refuses other pages' requests by their Origin; for it, the page is its own.
    proxy: {
      "/v1": { target: host, changeOrigin: true, ws: true, headers: { origin: host } },
      "/readyz": { target: host, changeOrigin: true },
    },
  },
  test: { include: ["src/**/*.test.ts"], environment: "node" },
} as Parameters<typeof defineConfig>[0] & { test: object });
