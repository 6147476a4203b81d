// Makes vendor/: one bundle for each library, with its licence. Run `npm install` and `node vendor.mjs`.
import { build } from "esbuild";
import { cp, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";

const bundles = {
  preact: {
    packages: ["preact", "@preact/signals", "@preact/signals-core", "htm"],
    source: `
      export { h, render, Fragment } from "preact";
      export { useState, useEffect, useRef, useMemo, useCallback, useId } from "preact/hooks";
      export { signal, computed, effect, batch } from "@preact/signals";
      export { html } from "htm/preact";`,
  },
  "graphql-ws": { packages: ["graphql-ws"], source: `export { createClient } from "graphql-ws";` },
  "graphql-sse": { packages: ["graphql-sse"], source: `export { createClient } from "graphql-sse";` },
  uplot: { packages: ["uplot"], source: `export { default } from "uplot";` },
};

const target = process.argv[2] ?? "vendor";
await rm(target, { recursive: true, force: true });
await mkdir(target, { recursive: true });
for (const [name, { packages, source }] of Object.entries(bundles)) {
  const notes = await Promise.all(
    packages.map(async (entry) => {
      const { version, license } = JSON.parse(await readFile(`node_modules/${entry}/package.json`, "utf8"));
      const licence = (await readdir(`node_modules/${entry}`)).find((file) => /^licen[cs]e/i.test(file));
      await cp(`node_modules/${entry}/${licence}`, `${target}/${entry.replace(/^@/, "").replace("/", "-")}.LICENSE`);
      return `${entry} ${version} (${license})`;
    }),
  );
  await build({
    stdin: { contents: source, resolveDir: "." },
    bundle: true,
    format: "esm",
    minify: true,
    target: "es2022",
    legalComments: "none",
    banner: { js: `/* ${notes.join(", ")} */` },
    outfile: `${target}/${name}.js`,
  });
}
await writeFile(`${target}/uplot.css`, await readFile("node_modules/uplot/dist/uPlot.min.css"));
