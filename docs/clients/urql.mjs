// Follow routing events with urql over a WebSocket: each once, in order, whatever happens to the connection.
// node urql.mjs URL TOKEN COUNT [AFTER]
import { setTimeout as sleep } from "node:timers/promises";
import { cacheExchange, createClient, fetchExchange, subscriptionExchange } from "@urql/core";
import { createClient as createSocket } from "graphql-ws";
import { toAsyncIterable } from "wonka";
import WebSocket from "ws"; // not in a browser, which has its own

const [url, token, count, after] = process.argv.slice(2);
const endpoint = new URL("/graphql", url).href;
const Authorization = `Bearer ${token}`;
const passing = ["INTERNAL", "TIMEOUT", "UNAVAILABLE"]; // codes of errors that another try may not meet
const isFinal = (error) => !passing.includes(error.extensions?.code);
const EVENTS = "subscription($after: String) { routingEvents(after: $after) { cursor kind message } }";

const socket = createSocket({
  url: endpoint.replace(/^http/, "ws"),
  webSocketImpl: WebSocket,
  connectionParams: { Authorization },
  retryAttempts: 0, // its own retry would send the first cursor again
});
const forwardSubscription = (request) => ({ subscribe: (sink) => ({ unsubscribe: socket.subscribe(request, sink) }) });
const exchanges = [cacheExchange, fetchExchange, subscriptionExchange({ forwardSubscription })];
const fetchOptions = { headers: { Authorization, Accept: "application/json" } }; // by itself urql asks for streams too
const client = createClient({ url: endpoint, exchanges, fetchOptions });

async function newestCursor() {
  const { data, error } = await client.query("{ eventCursor }", {}, { requestPolicy: "network-only" });
  if (error) throw error;
  return data.eventCursor;
}

async function* routingEvents(cursor) {
  const variables = { get after() { return cursor; } }; // as of when it is sent: after code 1000 it is sent again
  for (let failures = 0; ; await sleep(Math.random() * Math.min(200 * 2 ** failures++, 5_000))) {
    for await (const { data, error, hasNext } of toAsyncIterable(client.subscription(EVENTS, variables))) {
      // To try again helps when the connection broke, not with GraphQL's errors or a token that was refused.
      if (error?.graphQLErrors.some(isFinal)) throw error;
      if ([4400, 4401, 4403].includes(error?.networkError?.code)) throw new Error(error.networkError.reason);
      if (error || !hasNext) break; // the connection broke, or the server is stopping: then this is the last event once more
      [cursor, failures] = [data.routingEvents.cursor, 0];
      yield data.routingEvents;
    }
  }
}

let left = Number(count);
for await (const { cursor } of routingEvents(after ?? (await newestCursor()))) {
  console.log(cursor);
  if (--left <= 0) break;
}
