// Frontends, pools and backends that come and go: what is typed for a new one, and the removal of what there is.

import { useState } from 'preact/hooks'
import { encode } from '../api'
import { plural } from '../format'
import { status } from '../live'
import { go } from '../router'
import { ChangeDialog } from '../ui/change'

const nameOf = (kind: 'frontend' | 'pool'): string[] => (kind === 'pool' ? status.value?.pools : status.value?.frontends)?.map((x) => x.name) ?? []

function template(kind: 'frontend' | 'pool'): string {
  if (kind === 'pool') return 'policy = "leastconn"\nbackends = [\n  { address = "127.0.0.1:9001" },\n]\nhealth = { kind = "tcp" }\n'
  return `bind = ["127.0.0.1:8090"]\nprotocol = "tcp"\npool = "${status.value?.pools[0]?.name ?? 'NAME'}"\n`
}

// NewTable makes a frontend or a pool of the table that is typed.
export function NewTable({ kind, onClose }: { kind: 'frontend' | 'pool'; onClose: () => void }) {
  const [name, setName] = useState(''), [text, setText] = useState(() => template(kind))
  const missing = !name ? 'Give it a name first.' : nameOf(kind).includes(name) ? `There is a ${kind} ${name} already.` : ''
  return (
    <ChangeDialog
      title={`New ${kind}`} act="Make it" onClose={onClose} missing={missing} onDone={() => go(kind + 's', name)}
      wish={() => ({ method: 'PUT', path: `/${kind}s/${encode(name)}`, text })}
      form={<>
        <p class="field"><label for="name">Name</label><input id="name" value={name} autoComplete="off" spellcheck={false} onInput={(e) => setName(e.currentTarget.value.trim())} /></p>
        <p class="field"><label for="table">Its table in the configuration, <code>[{kind}s.{name || 'NAME'}]</code></label>
          <textarea id="table" rows={8} value={text} spellcheck={false} onInput={(e) => setText(e.currentTarget.value)} /></p>
        {missing && name && <p class="warn-text" role="status">{missing}</p>}
        <button type="submit" hidden />
      </>}
    />
  )
}

export function RemoveTable({ kind, name, onClose }: { kind: 'frontend' | 'pool'; name: string; onClose: () => void }) {
  return (
    <ChangeDialog
      title={`Remove the ${kind} ${name}?`} act="Remove" danger onClose={onClose} onDone={() => go(kind + 's')}
      wish={() => ({ method: 'DELETE', path: `/${kind}s/${encode(name)}` })}
      note={<p>{kind === 'pool' ? 'A pool that a frontend leads to cannot be removed. ' : 'It takes no new sessions. '}Sessions that are open go on.</p>}
    />
  )
}

export function AddBackend({ pool, onClose }: { pool: string; onClose: () => void }) {
  const [address, setAddress] = useState(''), [weight, setWeight] = useState('1'), [priority, setPriority] = useState('0'), [most, setMost] = useState('0')
  const numbers: [string, string, string, (v: string) => void, string][] = [
    ['weight', 'Weight', weight, setWeight, 'share of new sessions, 0 to 1000'], ['priority', 'Priority', priority, setPriority, 'the lowest tier with a usable backend serves'],
    ['most', 'Sessions at most', most, setMost, '0: no limit'],
  ]
  const wrong = numbers.find(([, , v]) => !/^\d+$/.test(v.trim()))
  return (
    <ChangeDialog
      title={`Add a backend to ${pool}`} act="Add" onClose={onClose}
      missing={!address ? 'Give its address first.' : wrong ? `${wrong[1]}: a whole number, 0 or more.` : ''}
      wish={() => ({
        method: 'POST', path: `/pools/${encode(pool)}/backends`,
        body: { address, ...(Number(weight) !== 1 ? { weight: Number(weight) } : {}), ...(Number(priority) ? { priority: Number(priority) } : {}), ...(Number(most) ? { max_connections: Number(most) } : {}) },
      })}
      form={<>
        <p class="field"><label for="address">Address</label><input id="address" value={address} placeholder="10.0.0.7:80" autoComplete="off" spellcheck={false} onInput={(e) => setAddress(e.currentTarget.value.trim())} /></p>
        <div class="fields">
          {numbers.map(([id, title, value, set, hint]) => (
            <p key={id} class="field"><label for={id}>{title}</label><input id={id} inputMode="numeric" value={value} aria-describedby={id + '-hint'} onInput={(e) => set(e.currentTarget.value)} /><span id={id + '-hint'} class="muted">{hint}</span></p>
          ))}
        </div>
        <button type="submit" hidden />
      </>}
    />
  )
}

export function RemoveBackend({ pool, address, open, onClose }: { pool: string; address: string; open: number; onClose: () => void }) {
  return (
    <ChangeDialog
      title={`Remove ${address} from ${pool}?`} act="Remove" danger onClose={onClose}
      wish={() => ({ method: 'DELETE', path: `/pools/${encode(pool)}/backends/${encode(address)}` })}
      note={<p>{open === 0 ? 'It has no sessions now.' : `What becomes of the ${plural(open, 'session')} it has is for on_removed of the pool to say: they go on, unless it says otherwise.`}</p>}
    />
  )
}
