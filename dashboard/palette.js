// Ctrl-K: pages, hosts and jobs by a part of their names.
import { request } from "./api.js";
import { FindDocument } from "./operations.js";
import { go, href } from "./router.js";
import { Dialog } from "./ui.js";
import { html, signal, useEffect, useState } from "./vendor/preact.js";

export const palette = signal(false);

export function Palette({ pages }) {
  return palette.value ? html`<${Open} pages=${pages} />` : null;
}

function Open({ pages }) {
  const [text, setText] = useState("");
  const [found, setFound] = useState([]);
  const [at, setAt] = useState(0);
  useEffect(() => {
    if (!text) {
      setFound([]);
      return undefined;
    }
    const abort = new AbortController();
    const timer = setTimeout(async () => {
      const data = await request(FindDocument, { text }, { signal: abort.signal }).catch(() => null);
      if (data)
        setFound([
          ...data.hosts.edges.map(({ node }) => [node.name, "host", href(`/fleet/${encodeURIComponent(node.name)}`)]),
          ...data.jobs.edges.map(({ node }) => [node.name || node.image, `job, ${node.status.toLowerCase()}`, href(`/jobs/${node.id}`)]),
        ]);
    }, 150);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [text]);
  const wanted = text.toLowerCase();
  const entries = [...pages.filter(([, title]) => title.toLowerCase().includes(wanted)).map(([path, title, key]) => [title, `page, g ${key}`, href(path)]), ...found];
  const close = () => (palette.value = false);
  const open = (entry) => {
    close();
    if (entry) go(entry[2]);
  };
  const onKeyDown = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      setAt((before) => (before + step + entries.length) % Math.max(entries.length, 1));
    } else if (event.key === "Enter") {
      event.preventDefault();
      open(entries[Math.min(at, entries.length - 1)]);
    }
  };
  return html`<${Dialog} title="Go to" kind="palette" onClose=${close}>
    <input autofocus role="combobox" aria-expanded="true" aria-controls="palette-list" aria-label="Page, host or job" placeholder="Page, host or job"
      aria-activedescendant="palette-${Math.min(at, entries.length - 1)}" value=${text} onKeyDown=${onKeyDown} onInput=${({ target }) => {
        setText(target.value);
        setAt(0);
      }} />
    <ul role="listbox" id="palette-list" aria-label="Results">${entries.map((entry, i) => html`<li key=${entry[2]} id="palette-${i}" role="option" aria-selected=${i === Math.min(at, entries.length - 1)} onClick=${() => open(entry)}>
      <span>${entry[0]}</span><span class="soft">${entry[1]}</span></li>`)}</ul>
  </${Dialog}>`;
}
