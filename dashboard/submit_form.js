// Submitting a job, new or like another one.
import { mutate } from "./api.js";
import { SubmitDocument } from "./operations.js";
import { go, href } from "./router.js";
import { Dialog, Field, TYPES, contentOf, say } from "./ui.js";
import { html, useState } from "./vendor/preact.js";


const KEPT = ["entryPoint", "workingDir", "user", "network", "readOnlyRoot", "executorRequired", "regionRequired", "strategy"];

/** @param {{like?: any, onClose: () => void}} props */
export function SubmitForm({ like, onClose }) {
  const [problem, setProblem] = useState(null);
  const errors = problem?.fields ?? [];
  // What the form does not show stays as it was.
  const kept = Object.fromEntries(KEPT.filter((name) => like?.[name]).map((name) => [name, like[name]]));
  const submit = async (event) => {
    event.preventDefault();
    const form = contentOf(event.target);
    const json = (name, usual) => {
      try {
        return form[name] ? JSON.parse(form[name]) : usual;
      } catch {
        const reason = "Must be JSON.";
        throw Object.assign(new Error(`${name}: ${reason}`), { fields: [{ field: name, reason }] });
      }
    };
    const given = (value) => (value === "" ? undefined : Number(value));
    try {
      const job = await mutate(SubmitDocument, {
        input: {
          ...kept,
          image: form.image,
          name: form.name,
          command: json("command", []),
          environment: Object.entries(json("environment", {})).map(([name, value]) => ({ name, value })),
          memoryLimitMb: given(form.memoryLimitMb),
          cpuLimit: given(form.cpuLimit),
          timeoutSeconds: given(form.timeoutSeconds),
          priority: given(form.priority),
          maxAttempts: given(form.maxAttempts),
          preferredExecutor: form.preferredExecutor || undefined,
          regionPreference: form.regionPreference,
          labels: json("labels", {}),
          hostSelector: json("hostSelector", {}),
        },
      });
      say(`Job ${job.name || ""} was submitted.`);
      onClose();
      go(href(`/jobs/${job.id}`));
    } catch (error) {
      setProblem(error);
    }
  };
  const field = (label, name, value, more = {}) => html`<${Field} label=${label} name=${name} errors=${errors}>
    <input name=${name} defaultValue=${value ?? ""} ...${more} /></${Field}>`;
  const text = (values) => (Object.keys(values ?? {}).length ? JSON.stringify(values) : "");
  const named = ["image", "name", "command", "environment", "memoryLimitMb", "cpuLimit", "timeoutSeconds", "priority", "maxAttempts", "regionPreference", "labels", "hostSelector"];
  return html`<${Dialog} title=${like ? "Submit again, with changes" : "Submit a job"} onClose=${onClose}>
    <form onSubmit=${submit}>
      ${field("Image", "image", like?.image, { required: true, autofocus: true })}
      <div class="columns">
        ${field("Name", "name", like?.name)}
        ${field("Command (JSON list)", "command", like?.command.length ? JSON.stringify(like.command) : "", { placeholder: '["echo", "hello"]' })}
        ${field("Memory in MiB", "memoryLimitMb", like?.memoryLimitMb, { type: "number", min: 1 })}
        ${field("Cores", "cpuLimit", like?.cpuLimit, { type: "number", min: 0, step: "any" })}
        ${field("Timeout in seconds", "timeoutSeconds", like?.timeoutSeconds, { type: "number", min: 1 })}
        ${field("Priority", "priority", like?.priority ?? 0, { type: "number" })}
        ${field("Attempts", "maxAttempts", like?.maxAttempts ?? 1, { type: "number", min: 1 })}
        <label class="field">Preferred type<select name="preferredExecutor">${["", ...TYPES].map((type) =>
          html`<option value=${type} selected=${type === (like?.preferredExecutor ?? "")}>${type ? type.toLowerCase() : "any"}</option>`)}</select></label>
        ${field("Preferred region", "regionPreference", like?.regionPreference)}
        ${field("Labels (JSON object)", "labels", text(like?.labels))}
        ${field("Host must have (JSON object)", "hostSelector", text(like?.hostSelector))}
        ${field("Environment (JSON object)", "environment", "", { placeholder: '{"MODE": "fast"}' })}
      </div>
      ${like?.environmentNames.length > 0 && html`<p class="soft">The values of its environment are secret and must be given again: ${like.environmentNames.join(", ")}.</p>`}
      ${problem && !errors.some(({ field: name }) => named.includes(name.split(".")[0])) && html`<p class="problem" role="alert">${problem.message}</p>`}
      <div class="actions"><button class="primary">Submit</button><button type="button" onClick=${onClose}>Cancel</button></div>
    </form>
  </${Dialog}>`;
}
