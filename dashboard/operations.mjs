// Makes operations.js, and its types, of operations.graphql and the schema. Run `npm install` and `node operations.mjs`.
import { readFile, writeFile } from "node:fs/promises";
import { codegen } from "@graphql-codegen/core";
import * as operationsPlugin from "@graphql-codegen/typescript-operations";
import { buildSchema, parse, print, stripIgnoredCharacters, validate } from "graphql";

const [schemaFile = "../graphql_api/schema.graphql", target = "."] = process.argv.slice(2);
const schema = buildSchema(await readFile(schemaFile, "utf8"));
const document = parse(await readFile("operations.graphql", "utf8"));
const errors = validate(schema, document).filter(({ message }) => !message.startsWith("There can be only one"));
if (errors.length) throw new Error(errors.join("\n"));

const fragments = new Map(document.definitions.filter(({ kind }) => kind === "FragmentDefinition").map((entry) => [entry.name.value, entry]));

/** The fragments that a definition needs, each once. */
function needed(definition, found = new Set()) {
  for (const [, name] of print(definition).matchAll(/\.\.\.(\w+)/g)) {
    if (!fragments.has(name) || found.has(name)) continue;
    found.add(name);
    needed(fragments.get(name), found);
  }
  return found;
}

const operations = document.definitions.filter(({ kind }) => kind === "OperationDefinition");
const texts = operations.map((operation) => {
  const parts = [operation, ...[...needed(operation)].map((name) => fragments.get(name))];
  return [operation, stripIgnoredCharacters(parts.map(print).join("\n"))];
});
const note = "// Generated from operations.graphql by operations.mjs.\n";
const constants = texts.map(([{ name }, text]) => `export const ${name.value}Document = ${JSON.stringify(text)};\n`);
await writeFile(`${target}/operations.js`, note + constants.join(""));

const config = { scalars: { DateTime: "string", JSON: "any" }, useTypeImports: true, skipTypename: false, nonOptionalTypename: false };
const types = await codegen({
  filename: "operations.d.ts",
  schema: parse(await readFile(schemaFile, "utf8")),
  schemaAst: schema,
  documents: [{ location: "operations.graphql", document }],
  plugins: [{ operations: config }],
  pluginMap: { operations: operationsPlugin },
  config: {},
});
const suffixes = { query: "Query", mutation: "Mutation", subscription: "Subscription" };
const declared = operations.map(({ name: { value }, operation }) => {
  const type = `${value}${suffixes[operation]}`;
  return `export const ${value}Document: Document<${type}, ${type}Variables>;\n`;
});
const text = "/** The text of an operation, with the types of its data and its variables. */\nexport type Document<Data, Variables> = string & { types?: (variables: Variables) => Data };\n\n";
await writeFile(`${target}/operations.d.ts`, note + text + types + "\n" + declared.join(""));
