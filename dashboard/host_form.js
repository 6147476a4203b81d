// Creating and editing a host. Errors of the API stand at their fields.
import { mutate } from "./api.js";
import { Dialog, Field } from "./ui.js";
import { html, useState } from "./vendor/preact.js";

const RESULT = `__typename ... on ExecutorHost { id name health { status error } } ... on UserError { message }
  ... on ValidationFailed { fields { field message } }`;
const CREATE = `mutation CreateHost($input: HostInput!) { createHost(input: $input) { ${RESULT} } }`;
const UPDATE = `mutation UpdateHost($id: ID!, $input: HostPatch!) { updateHost(id: $id, input: $input) { ${RESULT} } }`;
const EXAMPLES = {
  DOCKER: { url: "unix:///var/run/docker.sock" },
  CLOUDRUN: { project: "my-project", region: "europe-west1" },
  SIMULATED: { accept: "any", run_ms: 1000 },
};

/** @param {{host?: any, onClose: () => void, onDone: (host: any) => void}} props */
export function HostForm({ host, onClose, onDone }) {
  const [type, setType] = useState(host?.executorType ?? "DOCKER");
  const [problem, setProblem] = useState(null);
  const errors = problem?.fields ?? [];
  const submit = async (event) => {
    event.preventDefault();
    const form = Object.fromEntries(new FormData(event.target));
    const integer = (text) => (text === "" ? null : Number(text));
    try {
      const input = {
        name: form.name,
        region: form.region,
        routingWeight: Number(form.routingWeight),
        maxConcurrentJobs: Number(form.maxConcurrentJobs),
        maxMemoryMb: integer(form.maxMemoryMb),
        maxCpuCores: integer(form.maxCpuCores),
        isActive: form.isActive === "on",
        labels: parse("labels", form.labels, (text) => Object.fromEntries(text.split(/[\s,]+/).filter(Boolean).map((pair) => pair.split(/=(.*)/s, 2)))),
      };
      const config = parse("config", form.config, JSON.parse);
      if (!host || JSON.stringify(config) !== JSON.stringify(host.config)) input.config = config;
      onDone(host ? await mutate(UPDATE, { id: host.id, input }) : await mutate(CREATE, { input: { ...input, executorType: type } }));
    } catch (error) {
      setProblem(error);
    }
  };
  const named = ["name", "region", "labels", "routingWeight", "maxConcurrentJobs", "maxMemoryMb", "maxCpuCores", "config"];
  const elsewhere = problem && !errors.some(({ field }) => named.some((name) => field === name || field.startsWith(`${name}.`)));
  const field = (label, name, value, more = {}) => html`<${Field} label=${label} name=${name} errors=${errors}>
    <input name=${name} defaultValue=${value} value=${undefined} ...${more} /></${Field}>`;
  const labels = (host?.labelList ?? []).map(({ name, value }) => `${name}=${value}`).join(", ");
  return html`<${Dialog} title=${host ? `Edit ${host.name}` : "Create a host"} onClose=${onClose}>
    <form onSubmit=${submit}>
      <div class="columns">
        ${field("Name", "name", host?.name ?? "", { required: true, autofocus: !host })}
        ${host ? "" : html`<label class="field">Type<select onChange=${({ target }) => setType(target.value)}>
          ${Object.keys(EXAMPLES).map((name) => html`<option value=${name} selected=${name === type}>${name.toLowerCase()}</option>`)}</select></label>`}
        ${field("Region", "region", host?.region ?? "")}
        ${field("Labels (name=value, …)", "labels", labels)}
        ${field("Weight (0 to 1000)", "routingWeight", host?.routingWeight ?? 100, { type: "number", min: 0, max: 1000, required: true })}
        ${field("Slots", "maxConcurrentJobs", host?.capacity.maxConcurrentJobs ?? 10, { type: "number", min: 0, required: true })}
        ${field("Memory in MiB (empty: the engine's)", "maxMemoryMb", host?.capacity.maxMemoryMb ?? "", { type: "number", min: 0 })}
        ${field("Cores (empty: the engine's)", "maxCpuCores", host?.capacity.maxCpuCores ?? "", { type: "number", min: 0, step: "any" })}
      </div>
      <${Field} label="Settings (JSON)" name="config" errors=${errors}>
        <textarea name="config" rows="6" key=${type} defaultValue=${JSON.stringify(host?.config ?? EXAMPLES[type], null, 2)}></textarea>
      </${Field}>
      <label class="check"><input type="checkbox" name="isActive" defaultChecked=${host?.isActive ?? true} /> Active: routing may choose it</label>
      ${elsewhere && html`<p class="problem" role="alert">${problem.message}</p>`}
      <div class="actions"><button class="primary">${host ? "Save" : "Create and check"}</button><button type="button" onClick=${onClose}>Cancel</button></div>
    </form>
  </${Dialog}>`;
}

function parse(field, text, read) {
  try {
    return read(text);
  } catch {
    const message = "cannot be read";
    throw Object.assign(new Error(`${field}: ${message}`), { fields: [{ field, message }] });
  }
}
