// Who sticks to which backend: how full the pool's table of clients is, how well it serves, and forgetting them all.

import { useState } from 'preact/hooks'
import { call, encode, whyNot } from '../api'
import { plural } from '../format'
import { refreshStatus } from '../live'
import type { Persistence } from '../types'
import { Button, Facts } from '../ui/basics'
import { Confirm } from '../ui/dialog'
import { Count } from '../ui/num'

export function PersistenceOf({ pool, of: p }: { pool: string; of: Persistence }) {
  const [asking, ask] = useState(false), why = whyNot('operate')
  return (
    <section aria-labelledby="persistence">
      <div class="row">
        <h2 id="persistence">Persistence</h2>
        <Button small whyNot={why || (p.entries === 0 ? 'There is nobody to forget.' : '')} onClick={() => ask(true)}>Forget all</Button>
      </div>
      <Facts of={[
        ['Clients', <Count n={p.entries} what={`clients with a backend; there is room for ${p.max_entries}`} />],
        ['Came back', <Count n={p.hits} what="sessions that got the backend their client had" />],
        ['New', <Count n={p.misses} what="sessions whose client was not known" />],
        ['Moved', <Count n={p.moves} what="clients that got another backend, as theirs could not be used" />],
        ['Evicted', <Count n={p.evictions} what="clients forgotten to make room" />],
      ]} />
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
