// Text in TOML: the editor, and what is wrong with what is typed.

import { useEffect, useRef, useState } from 'preact/hooks'
import type { Editor } from '../editor'
import { unplaced } from '../format'
import { stale } from '../live'
import type { Mistake, Verdict } from '../types'
import { Empty } from './basics'
import { Mark } from './state'

export const pauseWhileTyping = 400 // milliseconds, after which it is checked

// Code loads the editor when it is first needed.
export function Code(p: { label: string; text: string; height?: string; readOnly: boolean; onChange: (t: string) => void; onReady: (e: Editor) => void }) {
  const box = useRef<HTMLDivElement>(null), latest = useRef(p)
  const [failure, setFailure] = useState<unknown>(null)
  latest.current = p
  useEffect(() => {
    let editor: Editor | undefined, gone = false
    import('../editor').then(({ edit }) => {
      if (gone) return
      editor = edit(box.current!, p.label, p.text, p.readOnly, (t) => latest.current.onChange(t))
      latest.current.onReady(editor)
    }, () => setFailure('The editor could not be loaded. Is awe4lb running?'))
    return () => {
      gone = true
      editor?.destroy()
    }
  }, [p.readOnly])
  return failure ? <Empty title={String(failure)}><pre>{p.text}</pre></Empty> : <div class="code" ref={box} style={p.height ? { height: p.height } : undefined} />
}

export function Verdicts({ of: v, checking, go }: { of: Verdict | null; checking: boolean; go: (line: number) => void }) {
  if (stale.value) return <p class="muted" role="status">Not checked: awe4lb does not answer. What you have typed stays.</p>
  if (!v) return <p class="muted" role="status">{checking ? 'Checking' : 'Not checked'}</p>
  const errors = v.errors ?? [], warnings = (v.warnings ?? []).map((w) => (typeof w === 'string' ? w : w.message))
  return (
    <div class="verdict" role="status" aria-busy={checking}>
      {v.ok ? <p class="state ok"><Mark tone="ok" />No mistakes</p> : <p class="state bad"><Mark tone="bad" />{errors.length === 1 ? '1 mistake' : `${errors.length} mistakes`}: what runs stays as it is</p>}
      {errors.length > 0 && <ul>{errors.map((m) => <MistakeRow key={m.message} of={m} go={go} />)}</ul>}
      {warnings.length > 0 && <ul class="warnings">{warnings.map((w) => <li key={w}>{w}</li>)}</ul>}
    </div>
  )
}

function MistakeRow({ of: m, go }: { of: Mistake; go: (line: number) => void }) {
  return <li>{m.line ? <button type="button" class="link" onClick={() => go(m.line!)}>line {m.line}</button> : null} {unplaced(m)}</li>
}
