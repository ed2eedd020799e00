// Who has changed something, or tried to, the newest first.

import { useEffect, useState } from 'preact/hooks'
import { get, whyNot } from '../api'
import { moment } from '../format'
import { now, stale } from '../live'
import type { AuditEntry } from '../types'
import { Empty, Failure } from '../ui/basics'
import { Ago } from '../ui/num'
import { Mark } from '../ui/state'
import { Table, type Column } from '../ui/table'

const columns: Column<AuditEntry>[] = [
  { key: 'call', title: 'Call', cell: (e) => <><span title={`${e.method} ${e.path}`}><span class="strong">{e.method}</span> {e.path.replace(/^\/api\/v1/, '')}</span><span class="narrow"><Result of={e} /> <span class="muted">{who(e)}</span></span></> },
  { key: 'result', title: 'Result', width: '104px', from: 'middle', cell: (e) => <Result of={e} /> },
  { key: 'why', title: 'Why', width: '30%', from: 'middle', cell: (e) => <span title={e.error}>{e.error ?? ''}</span> },
  { key: 'who', title: 'By', width: '120px', from: 'middle', cell: (e) => <span title={e.who}>{who(e)}</span> },
  { key: 'from', title: 'From', width: '180px', from: 'wide', cell: (e) => e.from },
  { key: 'time', title: 'When', width: '112px', number: true, cell: (e) => <span title={moment(new Date(e.time))}><Ago at={e.time} /></span> },
]

const who = (e: AuditEntry): string => e.who.replace(/^\w+:/, '')

function Result({ of: e }: { of: AuditEntry }) {
  const tone = e.status >= 400 ? 'bad' : 'ok'
  return <span class={`state ${tone}`}><Mark tone={tone} />{tone === 'ok' ? 'done' : `refused, ${e.status}`}</span>
}

export function Audit({ q }: { q: string }) {
  const [list, setList] = useState<AuditEntry[] | null>(null), [failure, setFailure] = useState<unknown>(null)
  const why = whyNot('configure'), beat = Math.floor(now.value.getTime() / 5000)
  useEffect(() => {
    if (!why && !stale.value && !document.hidden) get<{ calls: AuditEntry[] }>('/audit').then((l) => { setList(l.calls); setFailure(null) }, setFailure)
  }, [why, beat])
  if (why) return <Empty title="The audit is for those who may change the configuration."><p>{why}</p></Empty>
  const rows = (list ?? []).filter((e) => `${e.method} ${e.path} ${e.who} ${e.from} ${e.status} ${e.error ?? ''}`.toLowerCase().includes(q.toLowerCase()))
  return (
    <>
      <Failure of={failure} />
      {list && (list.length === 0
        ? <Empty title="Nobody has changed anything since the start."><p>Calls that change something, or try to, are kept here: drains, weights, configurations, logins.</p></Empty>
        : rows.length === 0 ? <Empty title={`No call has “${q}”.`}><p><a href="#/events?tab=audit">Show all</a></p></Empty>
          : <div class={stale.value ? 'stale' : undefined}><Table label="Audit" rows={rows} columns={columns} rowKey={(e) => e.time + e.from + e.method + e.path} remote /></div>)}
    </>
  )
}
