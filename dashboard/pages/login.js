import { ROOT, signIn } from "../api.js";
import { contentOf } from "../ui.js";
import { html, useEffect, useState } from "../vendor/preact.js";

export function Login() {
  const [problem, setProblem] = useState("");
  const [busy, setBusy] = useState(false);
  useEffect(() => void (document.title = "Sign in · container-manager"), []);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setProblem("");
    try {
      await signIn(contentOf(event.target).token.trim().replace(/^Bearer\s+/i, ""));
    } catch (error) {
      setProblem(error.message);
      setBusy(false);
    }
  };
  return html`<main class="panel login">
    <div class="brand"><img src="${ROOT}/assets/icon.svg" alt="" />container-manager</div>
    <h1>Sign in</h1>
    <form onSubmit=${submit}>
      <label class="field">API token
        <input name="token" type="password" autocomplete="current-password" required autofocus aria-describedby="token-help" />
      </label>
      <p id="token-help" class="soft">The first start of the service printed one. <code>container-manager token create --name you --role admin</code> makes another.</p>
      ${problem && html`<p class="problem" role="alert">${problem}</p>`}
      <button class="primary" disabled=${busy}>Sign in</button>
    </form>
  </main>`;
}
