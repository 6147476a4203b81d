// What pages are made of.
import { connection } from "./api.js";
import { href } from "./router.js";
import { html, signal, useEffect, useRef, useState } from "./vendor/preact.js";

// ---------------------------------------------------------------- words and numbers

export const words = (code) => code.toLowerCase().replaceAll("_", " ");
export const number = (value) => (value ?? 0).toLocaleString("en");
export const count = (value, one, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.0995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 9.95 ? 1 : 0)} s`;
  const whole = Math.round(seconds);
  /** @type {[number, string][]} */
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([size]) => whole >= size);
  const [size, unit] = parts[first];
  const [next, nextUnit] = parts[first + 1] ?? [1, ""];
  const rest = Math.floor((whole % size) / next);
  return `${Math.floor(whole / size)} ${unit}${rest && nextUnit ? ` ${rest} ${nextUnit}` : ""}`;
}

export const memory = (mb) => (mb >= 10240 ? `${(mb / 1024).toFixed(0)} GiB` : mb >= 1024 ? `${+(mb / 1024).toFixed(1)} GiB` : `${mb} MiB`);
export const millis = (at) => new Date(at).getTime();
export const clockTime = (at) => new Date(at).toLocaleTimeString("en-GB");
export const fullTime = (at) => `${new Date(at).toLocaleDateString("en-CA")} ${clockTime(at)}`;

/** The present time, once a second; it stands still while the connection is lost, because nothing else moves then. */
export const now = signal(Date.now());
setInterval(() => {
  if (connection.value.state !== "offline" && !document.hidden) now.value = Date.now();
}, 1000);

export const Ago = ({ at }) =>
  at ? html`<time datetime=${at} title=${fullTime(at)}>${since(millis(at))}</time>` : "–";
const since = (at) => (now.value - at < 1000 ? "now" : `${duration((now.value - at) / 1000)} ago`);

/** A duration that grows until its end is known. */
export const Lasting = ({ since: begin, until, done }) => {
  if (!begin) return "–";
  const end = until ? millis(until) : done ? millis(begin) : now.value;
  return html`<span class="lasting">${duration(Math.max((end - millis(begin)) / 1000, 0))}</span>`;
};

// ---------------------------------------------------------------- states: by icon and text, never by colour alone

export const TYPES = ["DOCKER", "CLOUDRUN", "SIMULATED"];

const STATES = {
  PENDING: ["◔", "warn"], ROUTED: ["→", "busy"], LAUNCHING: ["⇡", "busy"], RUNNING: ["▶", "busy"],
  SUCCEEDED: ["✓", "good"], FAILED: ["✕", "bad"], TIMED_OUT: ["⧗", "bad"], CANCELLED: ["⊘", ""],
  HEALTHY: ["✓", "good"], UNHEALTHY: ["✕", "bad"], UNKNOWN: ["?", "warn"],
  DRAINING: ["⤓", "warn"], INACTIVE: ["⊘", ""], EJECTED: ["⏏", "bad"], COOLDOWN: ["❄", "warn"],
  FEASIBLE: ["✓", "good"], NOT_NOW: ["◔", "warn"], NEVER: ["✕", "bad"],
  SAME: ["✓", "good"], DIFFERENT: ["≠", "bad"], OTHER_VERSION: ["?", "warn"], EXPIRED: ["⌛", ""],
  DONE: ["✓", "good"],
};
export const State = ({ of }) => {
  const [icon, tone] = STATES[of] ?? ["•", ""];
  return html`<span class="badge ${tone}"><i aria-hidden="true">${icon}</i>${words(of)}</span>`;
};

/**
 * @param {{ health: { status: string }, isActive: boolean, isDraining: boolean, ejectedUntil: string | null,
 *   cooldownUntil: string | null }} host
 */
export const hostStates = (host) => [
  host.health.status,
  ...(host.isActive ? [] : ["INACTIVE"]),
  ...(host.isDraining ? ["DRAINING"] : []),
  ...(host.ejectedUntil && millis(host.ejectedUntil) > now.value ? ["EJECTED"] : []),
  ...(host.cooldownUntil && millis(host.cooldownUntil) > now.value ? ["COOLDOWN"] : []),
];

export const Bar = ({ used, most, show = String }) =>
  most === null
    ? html`<div class="bar"><small>${show(used)}, no limit</small></div>`
    : html`<div class="bar ${used >= most ? "full" : ""}">
        <progress max=${most || 1} value=${Math.min(used, most || 1)} aria-label="${show(used)} of ${show(most)}"></progress>
        <small>${show(used)} / ${show(most)}</small>
      </div>`;

export const Labels = ({ of }) =>
  of.length ? html`<span class="chips">${of.map(({ name, value }) => html`<span class="chip">${name}=${value}</span>`)}</span>` : html`<span class="soft">–</span>`;

// ---------------------------------------------------------------- panels

export const Panel = ({ title, aside, children }) => html`
  <section class="panel" aria-label=${title}>
    <header><h2>${title}</h2>${aside}</header>
    ${children}
  </section>`;

export const Head = ({ title, badge, children }) => {
  useEffect(() => void (document.title = `${title} · container-manager`), [title]);
  return html`<header class="head"><div class="title"><h1>${title}</h1>${badge}</div><div class="actions">${children}</div></header>`;
};

/** Shows `children` of the data, or why there is none. What was loaded before stays while it is loaded again. */
export function Loaded({ of: { data, error, loading, reload }, children }) {
  return html`
    ${error && html`<div class="notice bad" role="alert">${error.message} <button class="link" onClick=${reload}>Try again</button></div>`}
    ${data ? children(data) : loading && html`<p class="empty">Loading…</p>`}`;
}

export const Empty = ({ children }) => html`<p class="empty">${children}</p>`;

// ---------------------------------------------------------------- links

export const JobLink = ({ job }) => html`<a class="name" href=${href(`/jobs/${job.id}`)}>${job.name || job.image}</a>`;
export const HostLink = ({ name }) => (name ? html`<a href=${href(`/fleet/${encodeURIComponent(name)}`)}>${name}</a>` : html`<span class="soft">–</span>`);

// ---------------------------------------------------------------- actions

/** A button that runs something and says what became of it. With `confirm` it asks first. */
export function Action({ run, children, confirm, kind = "", disabled }) {
  const [busy, setBusy] = useState(false);
  const start = async () => {
    if (confirm && !(await ask(confirm))) return;
    setBusy(true);
    try {
      const message = await run();
      if (message) say(message);
    } catch (error) {
      say(error.message, "bad");
    }
    setBusy(false);
  };
  return html`<button class=${kind} disabled=${busy || disabled} onClick=${start}>${children}</button>`;
}

const message = signal(null);
let hiding;
/** Shows a message for a while; screen readers read it out. */
export function say(text, tone = "") {
  message.value = { text, tone };
  clearTimeout(hiding);
  hiding = setTimeout(() => (message.value = null), 8000);
}
export const Messages = () => html`
  <div role="status" aria-live="polite" class="messages">
    ${message.value && html`<div class="notice ${message.value.tone}">${message.value.text} <button class="link" onClick=${() => (message.value = null)}>Close</button></div>`}
  </div>`;

const question = signal(null);
/** Asks whether to go on; resolves to the answer. */
export const ask = (text) => new Promise((resolve) => (question.value = { text, resolve }));
export const Question = () => {
  if (!question.value) return null;
  const { text, resolve } = question.value;
  const answer = (value) => {
    question.value = null;
    resolve(value);
  };
  return html`<${Dialog} title="Are you sure?" onClose=${() => answer(false)}>
    <p>${text}</p>
    <div class="actions"><button class="primary" onClick=${() => answer(true)}>Yes</button><button onClick=${() => answer(false)}>No</button></div>
  </${Dialog}>`;
};

export function Dialog({ title, onClose, children, kind = "" }) {
  const element = useRef(null);
  useEffect(() => {
    element.current.showModal();
  }, []);
  return html`<dialog ref=${element} class=${kind} aria-label=${title} onClose=${onClose} onCancel=${onClose}>
    ${kind !== "palette" && html`<header class="head"><h2>${title}</h2><button onClick=${onClose} aria-label="Close">✕</button></header>`}
    ${children}
  </dialog>`;
}

/** A form field; `errors` are the FieldErrors of the API, shown at the field that they name. */
export function Field({ label, name, errors = [], children }) {
  const found = errors.filter(({ field }) => field === name || field.startsWith(`${name}.`));
  return html`<div class="field"><label class="field">${label}${children}</label>${found.map(({ reason }) => html`<span class="problem" role="alert">${reason}</span>`)}</div>`;
}

/**
 * What a form contains, by the names of its fields.
 * @returns {Record<string, any>}
 */
export const contentOf = (form) => Object.fromEntries(new FormData(form));

/** An input that reports its value when the user has stopped typing. */
export function Search({ value, onValue, label }) {
  const timer = useRef(null);
  // What is being typed stays, whatever is drawn again meanwhile.
  const [text, setText] = useState(value ?? "");
  useEffect(() => setText(value ?? ""), [value]);
  return html`<input type="search" aria-label=${label} placeholder=${label} value=${text}
    onInput=${({ target }) => {
      setText(target.value);
      clearTimeout(timer.current);
      timer.current = setTimeout(() => onValue(target.value), 250);
    }} />`;
}

export const Select = ({ value, options, onValue, label }) => html`
  <select aria-label=${label} value=${value ?? ""} onChange=${({ target }) => onValue(target.value)}>
    ${options.map(([code, text]) => html`<option value=${code} selected=${code === (value ?? "")}>${text}</option>`)}
  </select>`;

export const Events = ({ list, empty = "Nothing has happened yet." }) =>
  list.length === 0
    ? html`<${Empty}>${empty}</${Empty}>`
    : html`<ul class="events">
        ${list.map(
          (event) => html`<li key=${event.cursor}>
            <time datetime=${event.at} title=${fullTime(event.at)}>${clockTime(event.at)}</time>
            <strong>${words(event.kind)}</strong>
            <span>
              ${event.job && html`<${JobLink} job=${event.job} /> `}${event.message}${event.host && html` <span class="soft">on</span> <${HostLink} name=${event.host.name} />`}
              ${event.actor && html` <span class="soft">by ${event.actor}</span>`}
            </span>
          </li>`,
        )}
      </ul>`;

export function download(name, text, type = "text/plain") {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
