// The process as a whole: what runs, how loud its log is, its shards, and its end.

import { useEffect, useState } from 'preact/hooks'
import { call, get, may, whyNot } from '../api'
import { plural } from '../format'
import { now, sample, stale, status, wantBackends } from '../live'
import type { Shard } from '../types'
import { Button, Facts, Failure, Heading } from '../ui/basics'
import { Confirm } from '../ui/dialog'
import { Ago, Count, Lasting, Size } from '../ui/num'
import { Beyond } from '../ui/role'
import { Table, type Column } from '../ui/table'

type Numbered = Shard & { number: number }

const columns: Column<Numbered>[] = [
  { key: 'number', title: 'Shard', sort: (s) => s.number, cell: (s) => <span class="strong">shard {s.number}</span> },
  { key: 'sessions', title: 'Sessions', width: '84px', number: true, sort: (s) => s.sessions, cell: (s) => <Count n={s.sessions} /> },
  { key: 'flows', title: 'Flows', width: '84px', number: true, sort: (s) => s.flows, cell: (s) => <Count n={s.flows} /> },
  { key: 'pauses', title: 'Pauses', hint: 'times it stopped accepting, for a limit or for want of descriptors', width: '96px', number: true, from: 'middle', sort: (s) => s.accept_pauses, cell: (s) => <Count n={s.accept_pauses} what="times it stopped accepting" /> },
  { key: 'errors', title: 'Accept errors', width: '124px', number: true, from: 'middle', sort: (s) => s.accept_errors, cell: (s) => <Count n={s.accept_errors} /> },
  { key: 'spliced', title: 'Spliced', hint: 'bytes that the kernel carried across', width: '112px', number: true, from: 'wide', sort: (s) => s.spliced_bytes, cell: (s) => <Size n={s.spliced_bytes} /> },
  { key: 'log', title: 'Log lines lost', width: '124px', number: true, from: 'wide', sort: (s) => s.access_log_dropped, cell: (s) => <Count n={s.access_log_dropped} what="lines of the access log for which there was no room" /> },
]

export function Process() {
  useEffect(() => wantBackends([]), [])
  const st = status.value, totals = sample.value?.totals
  const [shards, setShards] = useState<Numbered[] | null>(null), [failure, setFailure] = useState<unknown>(null)
  const [asking, ask] = useState<'shutdown' | 'upgrade' | null>(null), [said, say] = useState('')
  const beat = Math.floor(now.value.getTime() / 2000)
  useEffect(() => {
    if (stale.value || document.hidden) return
    get<{ shards: Shard[] }>('/shards').then((l) => { setShards(l.shards.map((s, number) => ({ ...s, number }))); setFailure(null) }, setFailure)
  }, [beat])
  const sessions = totals?.sessions ?? st?.sessions.open ?? 0, flows = totals?.flows ?? st?.flows.open ?? 0
  return (
    <>
      <Heading title="Process">
        <span class="row">
          {may('configure') && <Button onClick={() => ask('upgrade')}>Upgrade</Button>}
          {may('operate') && <Button kind="danger" onClick={() => ask('shutdown')}>Shut down</Button>}
        </span>
      </Heading>
      <Beyond operate={['changing the level of the log', 'shutting down']} configure={['upgrading']} />
      <Failure of={failure} />
      {said && <p role="status">{said}</p>}
      {st && (
        <div class={stale.value ? 'stale' : undefined}>
          <Facts of={[
            ['Version', <span title={st.revision}>{st.version}</span>],
            ['State', st.state],
            ['Up', <Lasting at={st.started} />],
            ['Sessions', <><Count n={sessions} /><span class="muted"> of <Count n={st.sessions.limit} /></span></>],
            ['Flows', <><Count n={flows} /><span class="muted"> of <Count n={st.flows.limit} /></span></>],
            ['Configuration', <>version {st.config.version}</>],
            ['Last tried', <Ago at={st.config.last_tried} />],
          ]} />
        </div>
      )}
      <LogLevel />
      {shards && (
        <section aria-labelledby="shards">
          <h2 id="shards">Shards</h2>
          <div class={stale.value ? 'stale' : undefined}><Table label="Shards" rows={shards} columns={columns} rowKey={(s) => String(s.number)} /></div>
        </section>
      )}
      {asking === 'shutdown' && (
        <Confirm
          title="Shut down this process?" act="Shut down" danger typed="shut down" whyNot={whyNot('operate')} onClose={() => ask(null)}
          onAct={() => call<{ sessions: number; flows: number; timeout_seconds: number }>('POST', '/drain').then((d) => say(`It drains: ${plural(d.sessions, 'session')} and ${plural(d.flows, 'flow')} have ${d.timeout_seconds} seconds to finish. Then it ends, and this page is stale.`))}
        >
          <p>It listens no more. {plural(sessions, 'session')} and {plural(flows, 'flow')} have <code>engine.drain_timeout</code> to finish; then those that are left are cut and the process ends. A service manager may start it anew; this page cannot.</p>
        </Confirm>
      )}
      {asking === 'upgrade' && (
        <Confirm
          title="Start the upgrade?" act="Start it" whyNot={whyNot('configure')} onClose={() => ask(null)}
          onAct={() => call<{ program: string; pid: number }>('POST', '/upgrade').then((u) => say(`${u.program} runs, as process ${u.pid}. The log says what it says.`))}
        >
          <p>The program that <code>admin.upgrade</code> names is started. It is to bring a new version and start it: most often this process ends by it.</p>
        </Confirm>
      )}
    </>
  )
}

const levels = ['debug', 'info', 'warn', 'error'] as const

// LogLevel shows how loud the log is, and changes it at a press.
function LogLevel() {
  const [level, setLevel] = useState(''), [failure, setFailure] = useState<unknown>(null)
  const version = status.value?.config.version
  useEffect(() => { get<{ level: string }>('/log').then((l) => setLevel(l.level), setFailure) }, [version]) // a reload sets it too
  const set = (next: string): void => {
    setFailure(null)
    call<{ level: string }>('PUT', '/log', { level: next }).then((l) => setLevel(l.level), setFailure)
  }
  return (
    <section aria-labelledby="log">
      <h2 id="log">Log</h2>
      {may('operate') ? (
        <p class="row">
          <span class="tabs" role="group" aria-label="Level of the log">
            {levels.map((l) => (
              <button key={l} type="button" aria-pressed={l === level} onClick={() => { if (l !== level) set(l) }}>{l}</button>
            ))}
          </span>
          <span class="muted">Until the next reload. debug says the most.</span>
        </p>
      ) : level && <p>Its level is <span class="strong">{level}</span>.</p>}
      <Failure of={failure} />
    </section>
  )
}
