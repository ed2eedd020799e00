// Certificates in use, the one that expires first on top.

import { useEffect, useState } from 'preact/hooks'
import { get } from '../api'
import { date, moment, span } from '../format'
import { now, stale } from '../live'
import { href, place, setQuery } from '../router'
import type { Acme, Certificate } from '../types'
import { Empty, Failure, Heading } from '../ui/basics'
import { Filter } from '../ui/filter'
import { Ago } from '../ui/num'
import { Mark, type Tone } from '../ui/state'
import { Table, type Column } from '../ui/table'

interface List { certificates: Certificate[]; acme: Acme[] }

const columns: Column<Certificate>[] = [
  {
    key: 'names', title: 'Names', sort: (c) => c.names.join(' '),
    cell: (c) => <><span class="strong" title={c.names.join(', ')}>{c.names.join(', ') || 'no names'}</span><span class="narrow"><Expiry at={c.not_after} /></span></>,
  },
  { key: 'expires', title: 'Expires', width: '220px', from: 'middle', sort: (c) => c.not_after ?? '', cell: (c) => <Expiry at={c.not_after} /> },
  { key: 'user', title: 'Used by', width: '140px', sort: user, cell: (c) => <a href={c.frontend ? href(['frontends', c.frontend]) : href(['pools', c.pool ?? ''])}>{user(c)}</a> },
  { key: 'origin', title: 'Comes from', width: '26%', from: 'middle', sort: (c) => c.origin, cell: (c) => <span title={c.file}>{c.origin}{c.file ? `: ${c.file}` : ''}</span> },
  { key: 'key', title: 'Key', width: '130px', from: 'wide', sort: (c) => c.key ?? '', cell: (c) => c.key ?? '' },
  { key: 'staple', title: 'OCSP', width: '110px', from: 'wide', sort: (c) => c.staple.state, cell: (c) => <span title={c.staple.error}>{c.staple.state}</span> },
]

function user(c: Certificate): string {
  return c.frontend ?? c.pool ?? ''
}

// Expiry warns where the log does: 30 days before, and loudly within 7.
function Expiry({ at }: { at: string | undefined }) {
  if (!at) return <span class="muted">not there yet</span>
  const t = new Date(at), left = (t.getTime() - now.value.getTime()) / 1000, day = 86400
  const tone: Tone = left < 7 * day ? 'bad' : left < 30 * day ? 'warn' : 'ok'
  return <span class={`state ${tone}`}><Mark tone={tone} /><time dateTime={at} title={moment(t)}>{left < 0 ? `expired ${span(-left)} ago` : `in ${span(left)}, ${date(t)}`}</time></span>
}

export function Certificates() {
  const [list, setList] = useState<List | null>(null), [failure, setFailure] = useState<unknown>(null)
  const minute = Math.floor(now.value.getTime() / 60_000)
  useEffect(() => { get<List>('/certificates').then((l) => { setList(l); setFailure(null) }, setFailure) }, [minute])
  const q = place.value.query.get('q') ?? ''
  const rows = (list?.certificates ?? []).filter((c) => `${c.names.join(' ')} ${user(c)} ${c.origin} ${c.file ?? ''}`.toLowerCase().includes(q.toLowerCase()))
  return (
    <>
      <Heading title="Certificates"><Filter value={q} onInput={(v) => setQuery({ q: v })} label="Filter certificates" /></Heading>
      <Failure of={failure} />
      {list && (list.certificates.length === 0
        ? <Empty title="No certificates are in use."><p>Give a frontend a <code>[frontends.NAME.tls]</code> table to end TLS there, in <a href="#/configuration">Configuration</a>.</p></Empty>
        : rows.length === 0 ? <Empty title={`No certificate has “${q}”.`}><p><a href="#/certificates">Show all</a></p></Empty>
          : <div class={stale.value ? 'stale' : undefined}>
            <Table label="Certificates" rows={rows} columns={columns} rowKey={(c) => `${c.frontend} ${c.pool} ${c.fingerprint} ${c.names}`} sort="expires" />
            {rows.filter((c) => c.error).map((c) => <Failure key={c.names.join()} of={`${c.names.join(', ')}: ${c.error}`} />)}
          </div>)}
      {list && list.acme.length > 0 && (
        <section aria-labelledby="acme">
          <h2 id="acme">From a CA, by ACME</h2>
          <ul class="sources">
            {list.acme.map((a) => {
              const tone: Tone = a.state === 'valid' ? 'ok' : a.state === 'failing' ? 'bad' : 'off'
              return (
                <li key={a.name}>
                  <span class={`state ${tone}`}><Mark tone={tone} />{a.state}</span>
                  <span class="strong">{a.name}</span>
                  <span class="why">{a.error && <span class="bad">{a.error} </span>}{a.next_attempt && <>next attempt <Ago at={a.next_attempt} /></>}</span>
                </li>
              )
            })}
          </ul>
        </section>
      )}
    </>
  )
}
