// A change of one frontend, pool or backend: tried first, shown in words and as lines, and made only as it was shown.
//
//	form ──try──▶ shown: what will change ──make, If-Match──▶ made
//	  ▲             └─ somebody was faster: shown anew
//	  └─ refused: what was typed stays, and the server's words are shown
//
// Who has made the wish of a text they read before gives its ETag as since, and is told by onLate when it is another one by now.

import type { ComponentChildren } from 'preact'
import { useEffect, useRef, useState } from 'preact/hooks'
import { call, getText, Problem, whyNot } from '../api'
import { refreshStatus, status } from '../live'
import type { Changed } from '../types'
import { Button, Failure } from './basics'
import { Changes } from './changes'
import { Dialog } from './dialog'
import { TextDiff } from './textdiff'

// Wish is a call that changes something, as a script would make it. Its body is JSON, or text, a table in TOML.
export interface Wish { method: 'PUT' | 'POST' | 'DELETE'; path: string; body?: unknown; text?: string }

interface Tried { wish: Wish; from: string; etag: string; would: Changed }

const send = (w: Wish, query: string, etag: string): Promise<Changed> =>
  call<Changed>(w.method, w.path + query, w.body, { headers: { 'If-Match': etag }, ...(w.text === undefined ? {} : { text: w.text }) })

// ChangeDialog has a form for what is to be typed, or tries at once where there is nothing to type.
export function ChangeDialog(p: {
  title: string
  act: string // the word on the button that does it
  danger?: boolean
  note?: ComponentChildren
  form?: ComponentChildren
  missing?: string // what is still to be typed
  wish: () => Wish
  since?: string
  onLate?: () => void
  onDone?: (c: Changed) => void
  onClose: () => void
}) {
  const [tried, setTried] = useState<Tried | null>(null), [failure, setFailure] = useState<unknown>(null), [busy, setBusy] = useState(false)
  const [persist, setPersist] = useState(false), box = useRef<HTMLDivElement>(null)
  const why = whyNot('configure'), file = status.value?.config.file ?? 'its file'
  const attempt = async (what: () => Promise<void>): Promise<void> => {
    setBusy(true)
    setFailure(null)
    try {
      await what()
    } catch (e) {
      setFailure(e)
    } finally {
      setBusy(false)
    }
  }
  const look = (): Promise<void> => attempt(async () => {
    const wish = p.wish(), { text: from, etag } = await getText('/config')
    if (p.since && etag !== p.since) return p.onLate?.()
    setTried({ wish, from, etag, would: await send(wish, '?dry_run=true', etag) })
  })
  const make = (t: Tried): Promise<void> => attempt(async () => {
    const done = await send(t.wish, persist ? '?persist=true' : '', t.etag)
    await refreshStatus()
    p.onDone?.(done)
    p.onClose()
  })
  useEffect(() => { if (!p.form && !why) void look() }, [])
  useEffect(() => { if (tried) box.current?.focus() }, [tried])
  const late = failure instanceof Problem && failure.status === 412
  return (
    <Dialog title={p.title} wide onClose={p.onClose}>
      {p.note}
      {!tried && p.form && <form onSubmit={(e) => { e.preventDefault(); if (!busy && !why && !p.missing) void look() }}>{p.form}</form>}
      {!tried && !p.form && !failure && <p class="muted" role="status">{why || 'Asking what would change'}</p>}
      {tried && (
        <div ref={box} tabIndex={-1} class="shown">
          <Changes of={tried.would} />
          {(tried.would.warnings ?? []).map((w) => <p key={w} class="warn-text">{w}</p>)}
          {tried.from === tried.would.text && p.since ? <p>Lines differ that are not shown here: those with a secret in them.</p> : <TextDiff from={tried.from} to={tried.would.text ?? ''} />}
          <label class="check"><input type="checkbox" checked={persist} onChange={(e) => setPersist(e.currentTarget.checked)} /><span>Write it to <code title={file}>{file.split('/').pop()}</code> too. Else it is in memory, and a reload drops it.</span></label>
        </div>
      )}
      <Failure of={failure} />
      <div class="buttons">
        {tried && p.form ? <Button onClick={() => { setTried(null); setFailure(null) }}>Back</Button> : null}
        <Button onClick={p.onClose}>Cancel</Button>
        {late ? <Button kind="main" busy={busy} onClick={() => (p.onLate ? p.onLate() : void look())}>Show it anew</Button>
          : tried ? <Button kind={p.danger ? 'danger' : 'main'} busy={busy} whyNot={why} onClick={() => void make(tried)}>{p.act}</Button>
            : p.form ? <Button kind="main" busy={busy} whyNot={why || p.missing} onClick={() => void look()}>Show what will change</Button> : null}
      </div>
    </Dialog>
  )
}
