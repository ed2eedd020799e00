// Who sticks to which backend: how full the pool's table of clients is, how well it serves, and forgetting them all.

import { useState } from 'preact/hooks'
import { call, encode, get, may, whyNot } from '../api'
import { plural, span } from '../format'
import { refreshStatus } from '../live'
import type { Persistence, Stick } from '../types'
import { Button, Facts, Failure } from '../ui/basics'
import { Confirm } from '../ui/dialog'
import { Count } from '../ui/num'

export function PersistenceOf({ pool, of: p }: { pool: string; of: Persistence }) {
  const [asking, ask] = useState(false), why = whyNot('operate')
  return (
    <section aria-labelledby="persistence">
      <div class="row">
        <h2 id="persistence">Persistence</h2>
        {!why && <Button small whyNot={p.entries === 0 ? 'There is nobody to forget.' : ''} onClick={() => ask(true)}>Forget all</Button>}
      </div>
      <Facts of={[
        ['Clients', <Count n={p.entries} what={`clients with a backend; there is room for ${p.max_entries}`} />],
        ['Came back', <Count n={p.hits} what="sessions that got the backend their client had" />],
        ['New', <Count n={p.misses} what="sessions whose client was not known" />],
        ['Moved', <Count n={p.moves} what="clients that got another backend, as theirs could not be used" />],
        ['Evicted', <Count n={p.evictions} what="clients forgotten to make room" />],
      ]} />
      <LookUp pool={pool} />
      {asking && (
        <Confirm
          title={`Forget the clients of ${pool}?`} act="Forget all" danger onClose={() => ask(false)} whyNot={why}
          onAct={() => call('DELETE', `/persistence/${encode(pool)}`).then(refreshStatus)}
        >
          <p>{plural(p.entries, 'client')} will get the backend that the policy picks when they come again. Sessions that are open go on.</p>
        </Confirm>
      )}
    </section>
  )
}

// LookUp says which backend the client of an address has, and forgets it.
function LookUp({ pool }: { pool: string }) {
  const [address, setAddress] = useState(''), [found, setFound] = useState<Stick | null>(null), [failure, setFailure] = useState<unknown>(null)
  const path = `/persistence/${encode(pool)}/${encode(address)}`
  const attempt = async (what: () => Promise<Stick | null>): Promise<void> => {
    setFailure(null)
    setFound(null)
    try {
      setFound(await what())
    } catch (e) {
      setFailure(e)
    }
  }
  return (
    <form class="row" onSubmit={(e) => { e.preventDefault(); if (address) void attempt(() => get<Stick>(path)) }}>
      <label class="row">Client <input class="client" value={address} placeholder="address" autoComplete="off" spellcheck={false} onInput={(e) => { setAddress(e.currentTarget.value.trim()); setFound(null); setFailure(null) }} /></label>
      <Button whyNot={address ? '' : 'Give an address first.'} onClick={() => void attempt(() => get<Stick>(path))}>Look up</Button>
      {found && <span role="status">{found.client} has <span class="strong">{found.backend || 'a backend that is no longer there'}</span>; it came {span(found.idle_seconds)} ago and is forgotten in {span(found.left_seconds)}.</span>}
      {found && may('operate') && <Button small onClick={() => void attempt(async () => { await call('DELETE', path); await refreshStatus(); return null })}>Forget it</Button>}
      <Failure of={failure} />
    </form>
  )
}
