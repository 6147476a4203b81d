// Follow routing events with graphql-ws over a WebSocket: each once, in order, whatever happens to the connection.
// node graphql-ws.mjs URL TOKEN COUNT [AFTER]
import { setTimeout as sleep } from "node:timers/promises";
import { createClient } from "graphql-ws";
import WebSocket from "ws"; // not in a browser, which has its own

const [url, token, count, after] = process.argv.slice(2);
const endpoint = new URL("/graphql", url).href;
const Authorization = `Bearer ${token}`;
const passing = ["INTERNAL", "TIMEOUT", "UNAVAILABLE"]; // codes of errors that another try may not meet
const isFinal = (error) => !passing.includes(error.extensions?.code);
const query = "subscription($after: String) { routingEvents(after: $after) { cursor kind message } }";

const client = createClient({
  url: endpoint.replace(/^http/, "ws"),
  webSocketImpl: WebSocket,
  connectionParams: { Authorization },
  retryAttempts: 0, // its own retry would send the first cursor again
});

async function newestCursor() {
  const headers = { Authorization, "Content-Type": "application/json" };
  const answer = await fetch(endpoint, { method: "POST", headers, body: '{"query": "{ eventCursor }"}' });
  const { data, errors } = await answer.json();
  if (errors) throw new Error(errors[0].message);
  return data.eventCursor;
}

async function* routingEvents(cursor) {
  const variables = { get after() { return cursor; } }; // as of when it is sent: after code 1000 it is sent again
  for (let failures = 0; ; await sleep(Math.random() * Math.min(200 * 2 ** failures++, 5_000))) {
    try {
      for await (const { data, errors } of client.iterate({ query, variables })) {
        if (errors?.some(isFinal)) throw errors;
        if (errors) break;
        [cursor, failures] = [data.routingEvents.cursor, 0];
        yield data.routingEvents;
      } // completed: the server is stopping
    } catch (error) {
      // To try again helps when the connection broke, not with GraphQL's errors or a token that was refused.
      const final = Array.isArray(error) || [4400, 4401, 4403].includes(error.code);
      if (final) throw new Error(error.reason ?? error[0].message);
    }
  }
}

let left = Number(count);
for await (const { cursor } of routingEvents(after ?? (await newestCursor()))) {
  console.log(cursor);
  if (--left <= 0) break;
}
await client.dispose(); // graphql-ws keeps the socket for a subscription that broke off
