// What the generated types promise to a frontend; checked by tsc.
import type { TypedDocumentNode } from "@graphql-typed-document-node/core";
import { FleetDocument, JobsDocument, SubmitDocument } from "./types.js";

declare function run<D, V>(document: TypedDocumentNode<D, V>, variables: V): Promise<D>;

export async function freeSlots(): Promise<number> {
  const { hosts } = await run(FleetDocument, { first: 50, filters: { minFreeSlots: 1 } });
  return hosts.edges.reduce((sum, { node }) => sum + node.capacity.availableSlots, 0);
}

export async function engines(): Promise<string[]> {
  const { hosts } = await run(FleetDocument, { first: 50 });
  return hosts.edges.flatMap(({ node: { settings } }) => (settings?.__typename === "DockerSettings" ? [settings.url] : []));
}

export async function failures(): Promise<string[]> {
  const { jobs } = await run(JobsDocument, { first: 50, filters: { failure: ["OUT_OF_MEMORY"] } });
  return jobs.edges.map(({ node }) => `${node.name}: ${node.failure ?? "none"} on ${node.host?.name ?? "no host"}`);
}

export async function submit(image: string): Promise<string> {
  const { submitJob } = await run(SubmitDocument, { input: { image } });
  if (submitJob.__typename === "ContainerJob") return submitJob.id;
  if (submitJob.__typename === "ValidationFailed") throw new Error(submitJob.fields.map(({ reason }) => reason).join());
  throw new Error(submitJob.message);
}
