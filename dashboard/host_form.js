// Creating and editing a host. Errors of the API stand at their fields.
import { mutate } from "./api.js";
import { CreateHostDocument, UpdateHostDocument } from "./operations.js";
import { Dialog, Field, contentOf } from "./ui.js";
import { html, useState } from "./vendor/preact.js";

const EXAMPLES = {
  DOCKER: { url: "unix:///var/run/docker.sock" },
  CLOUDRUN: { project: "my-project", region: "europe-west1" },
  SIMULATED: { accept: "any", run_ms: 1000 },
};

const NAMED = ["name", "region", "labels", "routingWeight", "maxConcurrentJobs", "maxMemoryMb", "maxCpuCores", "config"];

/** @param {{host?: any, onClose: () => void, onDone: (host: any) => void}} props */
export function HostForm({ host, onClose, onDone }) {
  const [type, setType] = useState(host?.executorType ?? "DOCKER");
  const [problem, setProblem] = useState(null);
  const errors = problem?.fields ?? [];
  // As it was when the form was opened, whatever happens to the host meanwhile.
  const [first] = useState(host);
  const shown = {
    name: first?.name ?? "",
    region: first?.region ?? "",
    labels: JSON.stringify(Object.fromEntries((first?.labelList ?? []).map(({ name, value }) => [name, value]))),
    routingWeight: first?.routingWeight ?? 100,
    maxConcurrentJobs: first?.capacity.maxConcurrentJobs ?? 10,
    maxMemoryMb: first?.capacity.maxMemoryMb ?? "",
    maxCpuCores: first?.capacity.maxCpuCores ?? "",
    config: JSON.stringify(first?.config ?? EXAMPLES[type], null, 2),
  };
  const submit = async (event) => {
    event.preventDefault();
    const form = contentOf(event.target);
    const number = (text) => (text === "" ? null : Number(text));
    const read = { routingWeight: number, maxConcurrentJobs: number, maxMemoryMb: number, maxCpuCores: number, labels: JSON.parse, config: JSON.parse };
    try {
      /** @type {any} */
      const input = { isActive: form.isActive === "on" };
      for (const name of NAMED) {
        // What was not changed is not sent: a limit that is shown may be the engine's own.
        if (!host || form[name] !== String(shown[name])) input[name] = parse(name, form[name], read[name] ?? String);
      }
      if (host && input.config) {
        input.config = patchOf(first.config, input.config);
      }
      onDone(host ? await mutate(UpdateHostDocument, { id: host.id, input }) : await mutate(CreateHostDocument, { input: { ...input, executorType: type } }));
    } catch (error) {
      setProblem(error);
    }
  };
  const elsewhere = problem && !errors.some(({ field }) => NAMED.some((name) => field === name || field.startsWith(`${name}.`)));
  const field = (label, name, more = {}) => html`<${Field} label=${label} name=${name} errors=${errors}>
    <input name=${name} defaultValue=${shown[name]} ...${more} /></${Field}>`;
  return html`<${Dialog} title=${host ? `Edit ${host.name}` : "Create a host"} onClose=${onClose}>
    <form onSubmit=${submit}>
      <div class="columns">
        ${field("Name", "name", { required: true, autofocus: !host })}
        ${host ? "" : html`<label class="field">Type<select onChange=${({ target }) => setType(target.value)}>
          ${Object.keys(EXAMPLES).map((name) => html`<option value=${name} selected=${name === type}>${name.toLowerCase()}</option>`)}</select></label>`}
        ${field("Region", "region")}
        ${field("Labels (JSON object)", "labels", { placeholder: '{"gpu": "yes"}' })}
        ${field("Weight (0 to 1000)", "routingWeight", { type: "number", min: 0, max: 1000, required: true })}
        ${field("Slots", "maxConcurrentJobs", { type: "number", min: 0, required: true })}
        ${field("Memory in MiB (empty: the engine's)", "maxMemoryMb", { type: "number", min: 0 })}
        ${field("Cores (empty: the engine's)", "maxCpuCores", { type: "number", min: 0, step: "any" })}
      </div>
      <${Field} label="Settings (JSON)" name="config" errors=${errors}>
        <textarea name="config" rows="6" key=${type} defaultValue=${shown.config}></textarea>
      </${Field}>
      <label class="check"><input type="checkbox" name="isActive" defaultChecked=${host?.isActive ?? true} /> Active: routing may choose it</label>
      ${elsewhere && html`<p class="problem" role="alert">${problem.message}</p>`}
      <div class="actions"><button class="primary">${host ? "Save" : "Create and check"}</button><button type="button" onClick=${onClose}>Cancel</button></div>
    </form>
  </${Dialog}>`;
}

/** The JSON merge patch (RFC 7396) that makes one object of another. */
function patchOf(before, after) {
  const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  const removed = Object.keys(before).filter((key) => !(key in after));
  return Object.fromEntries([
    ...removed.map((key) => [key, null]),
    ...Object.entries(after).map(([key, value]) => [key, isObject(value) && isObject(before[key]) ? patchOf(before[key], value) : value]),
  ]);
}

function parse(field, text, read) {
  try {
    return read(text);
  } catch {
    const reason = "Must be JSON.";
    throw Object.assign(new Error(`${field}: ${reason}`), { fields: [{ field, reason }] });
  }
}
