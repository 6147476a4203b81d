// The audits of GraphQL over HTTP by the package graphql-http: audit.mjs URL TOKEN
import { serverAudits } from "graphql-http";

const [url, token] = process.argv.slice(2);
const fetchFn = (address, options = {}) =>
  fetch(address, { ...options, headers: { ...options.headers, Authorization: `Bearer ${token}` } });
const results = [];
for (const audit of serverAudits({ url: `${url}/graphql`, fetchFn })) {
  const { id, name, status, reason } = await audit.fn();
  results.push({ id, name, status, reason });
}
console.log(JSON.stringify(results));
