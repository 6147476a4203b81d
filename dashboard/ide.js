// The in-browser editor of GraphQL operations. It has the rights of the user who has signed in on the dashboard, or of a
// token in its own headers: {"Authorization": "Bearer cm_…"}.
import { createClient } from "./vendor/graphql-ws.js";
import { GraphiQL, createElement, createRoot } from "./vendor/graphiql.js";

const ROOT = document.documentElement.dataset.root;
const START = `# Ctrl-Space: what can be asked here.
# Ctrl-Enter: run it. Sign in at ${ROOT}/,
# or set a token in Headers below.

query Fleet {
  viewer { name role }
  hosts(first: 10) {
    edges { node { name executorType region health { status } capacity { runningJobs availableSlots } } }
  }
}

query Jobs {
  jobs(first: 10) {
    edges { node { id name status routingReason host { name } waitingOn { message suggestions { message } } } }
  }
}

subscription Events {
  routingEvents { cursor kind at message hostName }
}
`;

async function send(operation, headers) {
  const response = await fetch(`${ROOT}/graphql`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/json", ...headers },
    body: JSON.stringify(operation),
  });
  return response.json();
}

/** The values of a subscription, as GraphiQL reads them. */
function follow(operation, headers) {
  const client = createClient({
    url: `${location.origin.replace(/^http/, "ws")}${ROOT}/graphql`,
    connectionParams: headers,
    retryAttempts: 0,
  });
  return client.iterate(operation);
}

function isSubscription(document, name) {
  const operations = document?.definitions.filter(({ kind }) => kind === "OperationDefinition") ?? [];
  return (name ? operations.find((entry) => entry.name?.value === name) : operations[0])?.operation === "subscription";
}

function fetcher(operation, { headers, documentAST } = {}) {
  return isSubscription(documentAST, operation.operationName) ? follow(operation, headers ?? {}) : send(operation, headers);
}

// Variables may be secret, so nothing stays in the browser when the page is closed.
const kept = new Map();
const storage = {
  getItem: (key) => kept.get(key) ?? null,
  setItem: (key, value) => void kept.set(key, value),
  removeItem: (key) => void kept.delete(key),
  clear: () => kept.clear(),
  get length() {
    return kept.size;
  },
};
const editor = createElement(GraphiQL, { fetcher, storage, defaultQuery: START, shouldPersistHeaders: false });
createRoot(document.getElementById("ide")).render(editor);
