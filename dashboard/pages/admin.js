import { may, mutate, useQuery, viewer } from "../api.js";
import { AuditLogDocument, CreateTokenDocument, RevokeTokenDocument, TokensDocument } from "../operations.js";
import { Action, Ago, Empty, Field, Head, Loaded, Panel, State, contentOf, fullTime, words } from "../ui.js";
import { html, useState } from "../vendor/preact.js";


export function Admin() {
  if (!may("ADMIN")) return html`<${Head} title="Admin" /><${Empty}>This page needs a token with the role admin; yours is ${words(viewer.value?.role ?? "")}.</${Empty}>`;
  return html`<${Head} title="Admin" /><${Tokens} /><${Audit} />`;
}

function Tokens() {
  const result = useQuery(TokensDocument);
  const [problem, setProblem] = useState(null);
  const [made, setMade] = useState(null);
  const create = async (event) => {
    event.preventDefault();
    const form = contentOf(event.target);
    setProblem(null);
    try {
      setMade(await mutate(CreateTokenDocument, { name: form.name, role: form.role, days: form.days ? Number(form.days) : null }));
      event.target.reset();
      result.reload();
    } catch (error) {
      setProblem(error);
    }
  };
  const errors = problem?.fields ?? [];
  return html`<${Panel} title="Tokens">
    <form class="filters" onSubmit=${create}>
      <${Field} label="Name" name="name" errors=${errors}><input name="name" required /></${Field}>
      <label class="field">Role<select name="role"><option value="VIEWER">viewer</option><option value="OPERATOR">operator</option><option value="ADMIN">admin</option></select></label>
      <${Field} label="Days (empty: no end)" name="expiresInDays" errors=${errors}><input name="days" type="number" min="1" /></${Field}>
      <button class="primary">Create a token</button>
    </form>
    ${problem && errors.length === 0 && html`<p class="problem" role="alert">${problem.message}</p>`}
    ${made && html`<div class="notice warn" role="status">The secret of ${made.token.name} is shown this once: <code>${made.secret}</code> <button class="link" onClick=${() => setMade(null)}>I have kept it</button></div>`}
    <${Loaded} of=${result}>${({ tokens }) => html`<div class="scroll" tabindex="0"><table>
      <thead><tr><th>Name</th><th>Role</th><th>Created</th><th>Expires</th><th>Last used</th><th><span class="sr">More</span></th></tr></thead>
      <tbody>${tokens.map((token) => html`<tr key=${token.id}><td class="name">${token.name}</td><td>${words(token.role)}</td><td><${Ago} at=${token.createdAt} /></td>
        <td>${token.expiresAt ? fullTime(token.expiresAt) : "never"}</td><td><${Ago} at=${token.lastUsedAt} /></td>
        <td><${Action} kind="danger" confirm="Revoke ${token.name}? Everything that uses it stops at once, its sessions in browsers too." run=${async () => {
          await mutate(RevokeTokenDocument, { id: token.id });
          result.reload();
          return `Token ${token.name} is revoked.`;
        }}>Revoke</${Action}></td></tr>`)}</tbody></table></div>`}</${Loaded}>
  </${Panel}>`;
}

function Audit() {
  const [after, setAfter] = useState([]);
  const result = useQuery(AuditLogDocument, { after: after.at(-1) });
  return html`<${Panel} title="Audit log" aside=${html`<button class="link" onClick=${result.reload}>Read again</button>`}>
    <${Loaded} of=${result}>${({ auditLog }) => html`<div class="scroll" tabindex="0"><table>
      <thead><tr><th>When</th><th>Who</th><th>From</th><th>What</th><th>Target</th><th>Result</th><th>Detail</th></tr></thead>
      <tbody>${auditLog.edges.map(({ node }) => html`<tr key=${node.id}><td title=${fullTime(node.at)}><${Ago} at=${node.at} /></td><td>${node.actor}</td><td class="mono">${node.address}</td>
        <td>${node.action}</td><td class="mono">${node.target}</td><td><${State} of=${node.result} /></td><td>${node.detail}</td></tr>`)}</tbody></table></div>
      <div class="actions">${after.length > 0 && html`<button onClick=${() => setAfter(after.slice(0, -1))}>Newer</button>`}
        ${auditLog.pageInfo.hasNextPage && html`<button onClick=${() => setAfter([...after, auditLog.pageInfo.endCursor])}>Older</button>`}</div>`}</${Loaded}>
  </${Panel}>`;
}
