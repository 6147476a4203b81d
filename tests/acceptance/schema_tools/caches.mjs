// Normalising caches on a running service: no warnings, and one object is one object. node caches.mjs URL TOKEN
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { ApolloClient, HttpLink, InMemoryCache } from "@apollo/client";
import { createClient, fetchExchange } from "@urql/core";
import { cacheExchange } from "@urql/exchange-graphcache";
import { getIntrospectionQuery, parse } from "graphql";
import { EMBEDDED, keys, possibleTypes, typePolicies } from "./caches-of-docs.mjs";

const [url, token] = process.argv.slice(2);
const endpoint = new URL("/graphql", url).href;
const headers = { Authorization: `Bearer ${token}`, Accept: "application/json" };
const warnings = [];
for (const name of ["warn", "error"]) console[name] = (...parts) => warnings.push(parts.join(" "));

const document = parse(await readFile("operations.graphql", "utf8"));
const fragments = document.definitions.filter(({ kind }) => kind === "FragmentDefinition");
const operation = (name) => {
  const wanted = document.definitions.find((entry) => entry.kind === "OperationDefinition" && entry.name.value === name);
  const spread = JSON.stringify(wanted).includes("FragmentSpread") ? fragments : [];
  return { kind: "Document", definitions: [wanted, ...spread] };
};
const post = async (query) => {
  const init = { method: "POST", headers: { ...headers, "Content-Type": "application/json" }, body: JSON.stringify({ query }) };
  return (await (await fetch(endpoint, init)).json()).data;
};
const introspection = await post(getIntrospectionQuery());
const withoutId = introspection.__schema.types
  .filter(({ kind, name, fields }) => kind === "OBJECT" && !name.startsWith("__") && !fields.some((field) => field.name === "id"))
  .map(({ name }) => name)
  .filter((name) => !["Query", "Mutation", "Subscription"].includes(name));
assert.deepEqual([...EMBEDDED].sort(), withoutId.sort(), "docs/clients/caches.mjs names each type without an id");
for (const [name, types] of Object.entries(possibleTypes)) {
  const { possibleTypes: found } = introspection.__schema.types.find((type) => type.name === name);
  assert.deepEqual(types, found.map((type) => type.name).sort(), name);
}

async function check(name, query, mutate) {
  const { hosts } = await query("Fleet", { first: 5 });
  const { id } = hosts.edges[0].node;
  const { jobs } = await query("Jobs", { first: 5 });
  assert.ok(jobs.edges.length > 0);
  await query("Statistics", {});
  await query("Job", { id: jobs.edges[0].node.id, hostId: id });
  await query("Host", { id });
  assert.equal((await mutate("Drain", { id })).drainHost.isDraining, true);
  const { host } = await query("Host", { id }, "cache");
  assert.equal(host.isDraining, true, `${name}: the mutation reached the query by its id`);
  assert.equal(host.health.status, "HEALTHY", `${name}: an embedded object keeps what other queries have read`);
  assert.equal(typeof host.health.latencyMs, "number");
}
const HOST = parse("query Host($id: ID!) { host(id: $id) { __typename id name isDraining health { __typename status } } }");
const LATENCY = parse("query Latency($id: ID!) { host(id: $id) { __typename id health { __typename latencyMs } } }");
const BOTH = parse("query Both($id: ID!) { host(id: $id) { __typename id isDraining health { __typename status latencyMs } } }");

const urql = createClient({
  url: endpoint,
  exchanges: [cacheExchange({ schema: introspection, keys }), fetchExchange],
  fetchOptions: { headers },
  preferGetMethod: false,
});
const unwrapped = ({ data, error }) => {
  if (error) throw error;
  return data;
};
await check(
  "urql",
  async (name, variables, from) => {
    if (name !== "Host") return unwrapped(await urql.query(operation(name), variables).toPromise());
    if (from === "cache") return unwrapped(await urql.query(BOTH, variables, { requestPolicy: "cache-only" }).toPromise());
    unwrapped(await urql.query(HOST, variables).toPromise());
    return unwrapped(await urql.query(LATENCY, variables).toPromise());
  },
  async (name, variables) => unwrapped(await urql.mutation(operation(name), variables).toPromise()),
);

await post(`mutation { resumeHosts(filters: {}) { changed } }`);
const apollo = new ApolloClient({ link: new HttpLink({ uri: endpoint, headers }), cache: new InMemoryCache({ typePolicies, possibleTypes }) });
await check(
  "Apollo",
  async (name, variables, from) => {
    if (name !== "Host") return (await apollo.query({ query: operation(name), variables })).data;
    if (from === "cache") return (await apollo.query({ query: BOTH, variables, fetchPolicy: "cache-only" })).data;
    await apollo.query({ query: HOST, variables });
    return (await apollo.query({ query: LATENCY, variables })).data;
  },
  async (name, variables) => (await apollo.mutate({ mutation: operation(name), variables })).data,
);
assert.deepEqual(warnings, []);
