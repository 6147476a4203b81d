// Follow routing events with Apollo Client over a WebSocket: each once, in order, whatever happens to the connection.
// node apollo.mjs URL TOKEN COUNT [AFTER]
import { ApolloClient, ApolloLink, CombinedGraphQLErrors, HttpLink, InMemoryCache, gql } from "@apollo/client";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions";
import { createClient } from "graphql-ws";
import { Subject, defer, filter, map, repeat, take, takeUntil, tap, timer } from "rxjs";
import WebSocket from "ws"; // not in a browser, which has its own

const [url, token, count, after] = process.argv.slice(2);
const endpoint = new URL("/graphql", url).href;
const Authorization = `Bearer ${token}`;
const passing = ["INTERNAL", "TIMEOUT", "UNAVAILABLE"]; // codes of errors that another try may not meet
const isFinal = (error) => !passing.includes(error.extensions?.code);
const EVENTS = gql`subscription($after: String) { routingEvents(after: $after) { cursor kind message } }`;

globalThis.WebSocket ??= WebSocket; // Node before 22 has none, and GraphQLWsLink looks there too
const closed = new Subject();
const socket = createClient({
  url: endpoint.replace(/^http/, "ws"),
  connectionParams: { Authorization },
  retryAttempts: 0, // its own retry would send the first cursor again
  on: { closed: (event) => closed.next(event) },
});
const http = new HttpLink({ uri: endpoint, headers: { Authorization } });
const link = ApolloLink.split(({ operationType }) => operationType === "subscription", new GraphQLWsLink(socket), http);
const client = new ApolloClient({ link, cache: new InMemoryCache() });

const newest = () => client.query({ query: gql`{ eventCursor }`, fetchPolicy: "network-only" });
let cursor = after ?? (await newest()).data.eventCursor;
let failures = 0;

const subscribe = () => client.subscribe({ query: EVENTS, variables: { after: cursor }, fetchPolicy: "no-cache" });
const delay = () => timer(Math.random() * Math.min(200 * 2 ** failures++, 5_000));
const refused = ({ code, reason }) => { if ([4400, 4401, 4403].includes(code)) throw new Error(reason); };
const routingEvents = defer(subscribe).pipe(
  takeUntil(closed.pipe(tap(refused))), // after code 1000 graphql-ws would subscribe again all the same
  tap(({ data, error }) => {
    // To try again helps when the connection broke, not with GraphQL's errors or a token that was refused.
    if (CombinedGraphQLErrors.is(error) && error.errors.some(isFinal)) throw error;
    if (data) [cursor, failures] = [data.routingEvents.cursor, 0];
  }),
  repeat({ delay }), // not retry: Apollo gives an error as a value and completes, and so does a server that is stopping
  filter(({ data }) => data),
  map(({ data }) => data.routingEvents),
);

await routingEvents.pipe(take(Number(count))).forEach((event) => console.log(event.cursor));
