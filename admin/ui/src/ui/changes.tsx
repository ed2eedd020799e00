// What a configuration would change, or has changed.

import type { Change, Report } from '../types'

const signs: Record<string, string> = { added: '+', removed: '−', changed: '~' }

export function Changes({ of: r, done }: { of: Report; done?: boolean }) {
  const changes = r.changes ?? [], restart = r.need_restart ?? []
  return (
    <div class="changes">
      <p class="strong">{done ? (changes.length ? 'Applied:' : 'Applied. It means the same as before.') : changes.length ? 'What will change:' : 'It means the same as what runs: nothing will change.'}</p>
      {changes.length > 0 && <ul>{changes.map((c) => <ChangeRow key={c.kind + c.name + c.action} of={c} />)}</ul>}
      {restart.length > 0 && <p class="warn-text">Only at the next start: {restart.join(', ')}.</p>}
    </div>
  )
}

function ChangeRow({ of: c }: { of: Change }) {
  return <li class={c.action}><span class="sign" aria-hidden="true">{signs[c.action] ?? '·'}</span><span>{c.kind} <span class="strong">{c.name}</span> {c.action}{c.detail ? `: ${c.detail}` : ''}</span></li>
}
