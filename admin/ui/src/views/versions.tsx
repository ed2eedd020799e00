// The versions of a configuration that were kept, and going back to one.

import { useEffect, useState } from 'preact/hooks'
import { call, encode, get, getText, whyNot } from '../api'
import { plural } from '../format'
import type { Report, Revision } from '../types'
import { Button, Empty, Failure } from '../ui/basics'
import { Confirm, Dialog } from '../ui/dialog'
import { Ago, Size } from '../ui/num'
import { Table, type Column } from '../ui/table'
import { TextDiff } from '../ui/textdiff'

export function Versions(p: { name: string; now: string; onRolledBack: (r: Report) => void }) {
  const [list, setList] = useState<Revision[] | null>(null), [failure, setFailure] = useState<unknown>(null)
  const [chosen, choose] = useState<{ revision: Revision; text: string } | null>(null)
  const path = `/configs/${encode(p.name)}`
  useEffect(() => { get<Revision[]>(`${path}/history`).then(setList, setFailure) }, [p.name, p.now])
  const look = (revision: Revision): void => { getText(`${path}/history/${revision.version}`).then(({ text }) => choose({ revision, text }), setFailure) }
  const why = whyNot('configure')
  const columns: Column<Revision>[] = [
    { key: 'version', title: 'Version', width: '90px', number: true, sort: (r) => r.version, cell: (r) => r.version },
    { key: 'time', title: 'Stored', sort: (r) => r.time, cell: (r) => <Ago at={r.time} /> },
    { key: 'who', title: 'By', width: '30%', from: 'middle', sort: (r) => r.who ?? '', cell: (r) => (r.who ?? '').replace(/^\w+:/, '') },
    { key: 'size', title: 'Size', width: '96px', number: true, from: 'middle', sort: (r) => r.size, cell: (r) => <Size n={r.size} /> },
    { key: 'act', title: '', width: '128px', cell: (r) => <Button small label={`Compare version ${r.version}`} onClick={() => look(r)}>Compare</Button> },
  ]
  return (
    <>
      <Failure of={failure} />
      {list && (list.length === 0
        ? <Empty title="There is one version only."><p>Each time this configuration is changed here, what it was before is kept.</p></Empty>
        : <><p class="muted">{plural(list.length, 'version')} kept</p><Table label={`Versions of ${p.name}`} rows={list} columns={columns} rowKey={(r) => String(r.version)} sort="-version" /></>)}
      {chosen && why && (
        <Dialog title={`Version ${chosen.revision.version} of ${p.name}`} wide onClose={() => choose(null)}>
          <p>To go back to it would change this:</p>
          <TextDiff from={p.now} to={chosen.text} />
          <div class="buttons"><Button onClick={() => choose(null)}>Close</Button></div>
        </Dialog>
      )}
      {chosen && !why && (
        <Confirm
          title={`Roll ${p.name} back to version ${chosen.revision.version}?`} act="Roll back" whyNot={chosen.text === p.now ? 'It is what is stored now.' : ''} onClose={() => choose(null)}
          onAct={() => call<Report>('POST', `${path}/rollback`, { version: chosen.revision.version }).then(p.onRolledBack)}
        >
          <p>It becomes the newest version; what is stored now is kept before it.</p>
          <TextDiff from={p.now} to={chosen.text} />
        </Confirm>
      )}
    </>
  )
}
