// The React components of the documentation show a job until it has ended. node react.mjs URL TOKEN
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { build } from "esbuild";
import { Window } from "happy-dom";
import WebSocket from "ws";

const [url, token] = process.argv.slice(2);
const window = new Window();
const { document, navigator } = window;
Object.assign(globalThis, { window, document, navigator, WebSocket });
const bundled = { entryPoints: ["react-of-docs.jsx"], outfile: "react-of-docs.mjs", jsx: "automatic", format: "esm" };
await build({ ...bundled, logLevel: "error" });
const { createElement } = await import("react");
const { createRoot } = await import("react-dom/client");
const { ApolloJobs, UrqlJobs } = await import("./react-of-docs.mjs");

const post = async (query, variables) => {
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  const answer = await fetch(`${url}/graphql`, { method: "POST", headers, body: JSON.stringify({ query, variables }) });
  return (await answer.json()).data;
};
const seen = async (place, text) => {
  for (let left = 200; !place.textContent.includes(text); left--) {
    assert.ok(left > 0, `${text} in ${place.textContent}`);
    await sleep(50);
  }
};

for (const component of [UrqlJobs, ApolloJobs]) {
  const place = document.createElement("div");
  const root = createRoot(place);
  root.render(createElement(component, { url, token }));
  await seen(place, "earlier: SUCCEEDED sim");
  const input = { image: "x", name: component.name, command: ["exit 0"] };
  await post("mutation($input: JobInput!) { submitJob(input: $input) { __typename } }", { input });
  await seen(place, `${component.name}: SUCCEEDED sim`);
  root.unmount();
}
process.exit(0);
