// Follow routing events with graphql-sse over Server-Sent Events: each once, in order, whatever happens on the way.
// node graphql-sse.mjs URL TOKEN COUNT [AFTER]
import { setTimeout as sleep } from "node:timers/promises";
import { createClient } from "graphql-sse";

const [url, token, count, after] = process.argv.slice(2);
const endpoint = new URL("/graphql", url).href;
const headers = { Authorization: `Bearer ${token}` };
const passing = ["INTERNAL", "TIMEOUT", "UNAVAILABLE"]; // codes of errors that another try may not meet
const isFinal = (error) => !passing.includes(error.extensions?.code);
const query = "subscription($after: String) { routingEvents(after: $after) { cursor kind message } }";

const client = createClient({ url: endpoint, headers, retryAttempts: 0 }); // its own retry sends the first cursor

async function newestCursor() {
  const post = { method: "POST", headers: { ...headers, "Content-Type": "application/json" } };
  const answer = await fetch(endpoint, { ...post, body: '{"query": "{ eventCursor }"}' });
  const { data, errors } = await answer.json();
  if (errors) throw new Error(errors[0].message);
  return data.eventCursor;
}

async function* routingEvents(cursor) {
  for (let failures = 0; ; await sleep(Math.random() * Math.min(200 * 2 ** failures++, 5_000))) {
    try {
      for await (const { data, errors } of client.iterate({ query, variables: { after: cursor } })) {
        if (errors?.some(isFinal)) throw errors;
        if (errors) break;
        [cursor, failures] = [data.routingEvents.cursor, 0];
        yield data.routingEvents;
      } // completed: the server is stopping
    } catch (error) {
      // To try again helps when the connection broke, not with GraphQL's errors or a request that was refused.
      if (Array.isArray(error)) throw new Error(error[0].message);
      if (error.response?.status < 500) throw new Error(await error.response.text());
    }
  }
}

let left = Number(count);
for await (const { cursor } of routingEvents(after ?? (await newestCursor()))) {
  console.log(cursor);
  if (--left <= 0) break;
}
