export { createClient } from "graphql-sse";
