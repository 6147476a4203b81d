// Makes vendor/: one bundle for each library, with the licences of all that is in it. Run `npm install` and `node vendor.mjs`.
import { build } from "esbuild";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";

const bundles = {
  preact: `
    export { h, render, Fragment } from "preact";
    export { useState, useEffect, useRef, useMemo, useCallback, useId } from "preact/hooks";
    export { signal, computed, effect, batch } from "@preact/signals";
    export { html } from "htm/preact";`,
  "graphql-ws": `export { createClient } from "graphql-ws";`,
  "graphql-sse": `export { createClient } from "graphql-sse";`,
  uplot: `export { default } from "uplot";`,
  graphiql: `
    export { createElement } from "react";
    export { createRoot } from "react-dom/client";
    export { GraphiQL } from "graphiql";`,
};
const styles = { uplot: "uplot/dist/uPlot.min.css", graphiql: "graphiql/dist/style.css" };

const target = process.argv[2] ?? "vendor";
await rm(target, { recursive: true, force: true });
await mkdir(target, { recursive: true });
for (const [name, source] of Object.entries(bundles)) {
  const { metafile } = await build({
    stdin: { contents: source, resolveDir: "." },
    bundle: true,
    format: "esm",
    minify: true,
    target: "es2022",
    define: { "process.env.NODE_ENV": '"production"' },
    legalComments: "none",
    banner: { js: `/* The libraries in this file and their licences are in ${name}.LICENSE. */` },
    metafile: true,
    outfile: `${target}/${name}.js`,
  });
  // The names that it exports are those of its libraries, which have types.
  await writeFile(`${target}/${name}.d.ts`, `${source.trim().replaceAll(/\n +/g, "\n")}\n`);
  const packages = new Set(Object.keys(metafile.inputs).map((path) => /^.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[0]));
  packages.delete(undefined);
  const licences = await Promise.all([...packages].sort().map(licence));
  await writeFile(`${target}/${name}.LICENSE`, licences.join("\n\n"));
}
for (const [name, path] of Object.entries(styles)) {
  await writeFile(`${target}/${name}.css`, await readFile(`node_modules/${path}`));
}

/** The name, version and licence of the package in a folder. */
async function licence(folder) {
  const { name, version, license } = JSON.parse(await readFile(`${folder}/package.json`, "utf8"));
  const file = (await readdir(folder)).find((entry) => /^licen[cs]e/i.test(entry));
  const text = file ? await readFile(`${folder}/${file}`, "utf8") : "";
  return `${name} ${version} (${license})\n${text}`.trimEnd();
}
