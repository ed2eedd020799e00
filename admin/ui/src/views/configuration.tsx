// The configurations there are; one of them with name.

import { useEffect, useState } from 'preact/hooks'
import { call, encode, get, may, Problem, whyNot } from '../api'
import { refreshStatus, status, wantBackends } from '../live'
import { go, href } from '../router'
import type { ConfigList, NamedConfig, Report } from '../types'
import { Button, Empty, Failure, Heading } from '../ui/basics'
import { Changes } from '../ui/changes'
import { Confirm } from '../ui/dialog'
import { Ago, Size } from '../ui/num'
import { Beyond } from '../ui/role'
import { Mark } from '../ui/state'
import { Table, type Column } from '../ui/table'
import { ConfigEditor } from './editing'

export function Configuration({ name }: { name: string | undefined }) {
  useEffect(() => wantBackends([]), [])
  return name === undefined ? <List /> : <ConfigEditor name={name} />
}

type Doing = { what: 'select' | 'delete'; config: NamedConfig } | { what: 'reload' | 'new' | 'stop' }

function List() {
  const [list, setList] = useState<ConfigList | null>(null), [failure, setFailure] = useState<unknown>(null)
  const [doing, setDoing] = useState<Doing | null>(null), [report, setReport] = useState<Report | null>(null), [fresh, setFresh] = useState('')
  const look = (): Promise<void> => get<ConfigList>('/configs').then((l) => { setList(l); setFailure(null) }, setFailure)
  useEffect(() => { void look() }, [])
  const close = (): void => setDoing(null), why = whyNot('configure'), st = status.value
  const absent = failure instanceof Problem && failure.status === 404
  return (
    <>
      <Heading title="Configuration">
        <span class="row">
          {may('operate') && <Button onClick={() => setDoing({ what: 'reload' })}>Reload</Button>}
          {!absent && !why && <Button whyNot={list?.stopped ? 'Nothing runs.' : ''} onClick={() => setDoing({ what: 'stop' })}>Stop</Button>}
          {!absent && !why && <Button onClick={() => setDoing({ what: 'new' })}>New configuration</Button>}
        </span>
      </Heading>
      <Beyond operate={['reloading']} configure={[!absent && 'making, running, stopping and deleting configurations']} />
      {st && (
        <p class="muted">
          Version {st.config.version} of {st.config.file} runs; last tried <Ago at={st.config.last_tried} />{st.config.last_ok ? '' : ' and refused'}.
        </p>
      )}
      {st && !st.config.last_ok && <Failure of={st.config.error ?? 'The last reload was refused.'} />}
      {list?.stopped && <Failure of="Stopped: no frontend runs. Run one of these, or reload." />}
      {list?.unsaved && <p class="warn-text">What runs was changed in memory only. A reload, or running another one, drops that.</p>}
      {report && <section aria-label="What changed"><Changes of={report} done /></section>}
      {absent ? <Empty title="This awe4lb has no configurations to edit."><p>Change {st?.config.file ?? 'the file'} and reload.</p></Empty>
        : <>
          <Failure of={failure} />
          {list && <Table label="Configurations" rows={list.configs} columns={columns(setDoing, !why, list.stopped === true)} rowKey={(c) => c.name} />}
        </>}
      {doing?.what === 'reload' && (
        <Confirm title="Reload the configuration?" act="Reload" whyNot={whyNot('operate')} onClose={close} onAct={() => call<Report>('POST', '/reload').then(setReport)}>
          <p>{st?.config.file} is read again. A mistake in it changes nothing; sessions that are open go on.</p>
        </Confirm>
      )}
      {doing?.what === 'stop' && (
        <Confirm title="Stop all frontends?" act="Stop" danger typed="stop" whyNot={why} onClose={close} onAct={() => call<Report>('POST', '/configs/stop').then((r) => { setReport(r); void look(); void refreshStatus() })}>
          <p>No frontend takes sessions any more, until one of these configurations is run, or the process reloads or starts again. Sessions that are open go on.</p>
        </Confirm>
      )}
      {doing?.what === 'new' && (
        <Confirm title="New configuration" act="Write it" whyNot={fresh ? why : 'Give it a name first.'} onClose={close} onAct={async () => go('configuration', fresh)}>
          <p class="field"><label for="new">Name</label><input id="new" value={fresh} autoComplete="off" spellcheck={false} onInput={(e) => setFresh(e.currentTarget.value.trim())} /></p>
          <p class="muted">It is kept when you save it, and runs when you apply it.</p>
        </Confirm>
      )}
      {doing?.what === 'select' && (
        <Confirm title={`Run ${doing.config.name}?`} act="Run it" whyNot={why} onClose={close} onAct={() => call<Report>('POST', `/configs/${encode(doing.config.name)}/select`, undefined, { headers: { 'If-Match': quoted(doing.config.etag) } }).then((r) => { setReport(r); void look(); void refreshStatus() })}>
          <p>{list?.stopped ? 'Nothing runs now.' : `It takes the place of ${list?.active || 'what runs now'}. Frontends and backends that it does not have drain; sessions that are open go on.`} Open it to see what would change.</p>
        </Confirm>
      )}
      {doing?.what === 'delete' && (
        <Confirm title={`Delete ${doing.config.name}?`} act="Delete" danger whyNot={why} typed={doing.config.name} onClose={close}
          onAct={() => call('DELETE', `/configs/${encode(doing.config.name)}`, undefined, { headers: { 'If-Match': quoted(doing.config.etag) } }).then(look)}>
          <p>The file goes, with its history.</p>
        </Confirm>
      )}
    </>
  )
}

const quoted = (etag: string): string => (etag.startsWith('"') ? etag : `"${etag}"`)

const columns = (act: (d: Doing) => void, configure: boolean, stopped: boolean): Column<NamedConfig>[] => [
  { key: 'name', title: 'Name', sort: (c) => c.name, cell: (c) => <><a class="strong" href={href(['configuration', c.name])}>{c.name}</a><span class="narrow"><Standing of={c} stopped={stopped} /> <span class="muted"><Ago at={c.changed} /></span></span></> },
  { key: 'standing', title: 'State', width: '180px', from: 'middle', sort: (c) => Number(!c.active), cell: (c) => <Standing of={c} stopped={stopped} /> },
  { key: 'changed', title: 'Changed', width: '128px', from: 'middle', sort: (c) => c.changed, cell: (c) => <Ago at={c.changed} /> },
  { key: 'size', title: 'Size', width: '96px', number: true, from: 'middle', sort: (c) => c.size, cell: (c) => <Size n={c.size} /> },
  ...(configure ? [{
    key: 'act', title: '', width: '150px',
    cell: (c: NamedConfig) => (
      <span class="actions"><span>
        <Button small label={`Run ${c.name}`} whyNot={c.active && !stopped ? 'It runs already.' : c.mistakes ? 'It has mistakes.' : ''} onClick={() => act({ what: 'select', config: c })}>Run</Button>
        <Button small label={`Delete ${c.name}`} whyNot={c.active ? (stopped ? 'It is the one that was stopped: run another one first.' : 'It runs: run another one first.') : ''} onClick={() => act({ what: 'delete', config: c })}>Delete</Button>
      </span></span>
    ),
  }] : []),
]

function Standing({ of: c, stopped }: { of: NamedConfig; stopped: boolean }) {
  const runs = stopped ? 'stopped' : 'runs'
  if (c.mistakes) return <span class="state bad"><Mark tone="bad" />{c.mistakes === 1 ? '1 mistake' : `${c.mistakes} mistakes`}{c.active ? `, ${runs}` : ''}</span>
  if (c.active && stopped) return <span class="state bad"><Mark tone="bad" />{runs}</span>
  return c.active ? <span class="state ok"><Mark tone="ok" />{runs}</span> : <span class="state off"><Mark tone="off" />kept</span>
}
