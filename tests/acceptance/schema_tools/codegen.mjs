// Writes types.ts: typed documents of operations.graphql. node codegen.mjs SCHEMA
import { readFile, writeFile } from "node:fs/promises";
import { codegen } from "@graphql-codegen/core";
import * as documentPlugin from "@graphql-codegen/typed-document-node";
import * as operationsPlugin from "@graphql-codegen/typescript-operations";
import { buildSchema, parse, printSchema } from "graphql";

const schema = buildSchema(await readFile(process.argv[2], "utf8"));
const document = parse(await readFile("operations.graphql", "utf8"));
const config = { scalars: { DateTime: "string", JSON: "unknown" }, strictScalars: true, useTypeImports: true };
const output = await codegen({
  filename: "types.ts",
  schema: parse(printSchema(schema)),
  schemaAst: schema,
  documents: [{ location: "operations.graphql", document }],
  plugins: [{ operations: config }, { documents: config }],
  pluginMap: { operations: operationsPlugin, documents: documentPlugin },
  config: {},
});
await writeFile("types.ts", output);
