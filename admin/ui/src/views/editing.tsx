// One configuration: written, checked while it is, compared, applied, and taken back.
//
//	edit ──valid──▶ review: what will change ──▶ apply: stored, then run
//	                                              └─ refused: the text stays, and the server's words are shown

import { useEffect, useRef, useState } from 'preact/hooks'
import { call, encode, getText, Problem, putText, whyNot } from '../api'
import { unplaced } from '../format'
import { refreshStatus } from '../live'
import { place, setQuery } from '../router'
import type { Mistake, Report, Verdict } from '../types'
import { Button, Empty, Failure, Heading } from '../ui/basics'
import { Changes } from '../ui/changes'
import { Dialog } from '../ui/dialog'
import { TextDiff } from '../ui/textdiff'
import { Mark } from '../ui/state'
import { Versions } from './versions'
import type { Editor } from '../editor'

const pauseWhileTyping = 400

// edited holds what is not stored yet by the name of its configuration, for whoever looks at another view meanwhile.
const edited = new Map<string, string>()

addEventListener('beforeunload', (e) => { if (edited.size > 0) e.preventDefault() })

export function ConfigEditor({ name }: { name: string }) {
  const [stored, setStored] = useState<{ text: string; etag: string } | null>(null), [text, setText] = useState('')
  const [verdict, setVerdict] = useState<Verdict | null>(null), [checking, setChecking] = useState(false)
  const [failure, setFailure] = useState<unknown>(null), [report, setReport] = useState<Report | null>(null)
  const [review, setReview] = useState(false), [busy, setBusy] = useState(false)
  const editor = useRef<Editor | null>(null)
  const tab = place.value.query.get('tab') === 'history' ? 'history' : 'edit'
  const why = whyNot('configure'), path = `/configs/${encode(name)}`
  const load = async (keepMine: boolean): Promise<void> => {
    try {
      const s = await getText(path)
      setStored(s)
      setFailure(null)
      const mine = keepMine ? edited.get(name) ?? s.text : s.text
      if (!keepMine) edited.delete(name)
      setText(mine)
      editor.current?.set(mine)
    } catch (e) {
      if (e instanceof Problem && e.status === 404) {
        setStored({ text: '', etag: '' }) // a new one
        setText(edited.get(name) ?? '')
      } else {
        setFailure(e)
      }
    }
  }
  useEffect(() => { void load(true) }, [name])
  useEffect(() => {
    if (stored === null || why) return
    const stop = new AbortController()
    setChecking(true)
    const timer = setTimeout(async () => {
      try {
        const v = await call<Verdict>('POST', `${path}/validate`, undefined, { text, signal: stop.signal })
        setVerdict(v)
        editor.current?.mark(v.errors ?? [])
        setChecking(false)
      } catch (e) {
        if (stop.signal.aborted) return
        setChecking(false)
        if (e instanceof Problem && e.mistakes.length) {
          setVerdict({ ok: false, errors: e.mistakes })
          editor.current?.mark(e.mistakes)
        } else {
          setFailure(e)
        }
      }
    }, pauseWhileTyping)
    return () => {
      stop.abort()
      clearTimeout(timer)
    }
  }, [text, stored, why])
  const change = (t: string): void => {
    setText(t)
    setReport(null)
    if (t === stored?.text) edited.delete(name)
    else edited.set(name, t)
  }
  const save = async (run: boolean): Promise<void> => {
    setBusy(true)
    setFailure(null)
    try {
      const etag = text === stored?.text ? stored.etag : await putText(path, text, stored?.etag ?? '')
      edited.delete(name)
      setStored({ text, etag })
      if (run) setReport(await call<Report>('POST', `${path}/select`, undefined, { headers: { 'If-Match': etag } }))
      setReview(false)
      await refreshStatus()
    } catch (e) {
      setFailure(e)
    } finally {
      setBusy(false)
    }
  }
  const heading = (
    <Heading title={name} above={<a href="#/configuration">Configuration</a>}>
      <span class="tabs" role="group" aria-label="Parts">
        <button type="button" aria-pressed={tab === 'edit'} onClick={() => setQuery({ tab: '' })}>Edit</button>
        <button type="button" aria-pressed={tab === 'history'} onClick={() => setQuery({ tab: 'history' })}>History</button>
      </span>
    </Heading>
  )
  if (tab === 'history') return <>{heading}<Versions name={name} now={stored?.text ?? ''} onRolledBack={(r) => { setReport(r); void load(false) }} />{report && <Changes of={report} done />}</>
  if (stored === null) return <>{heading}<Failure of={failure} />{!failure && <p class="muted" role="status">Asking for {name}</p>}</>
  const dirty = text !== stored.text, wrong = verdict !== null && !verdict.ok
  const conflict = failure instanceof Problem && failure.status === 412
  return (
    <>
      {heading}
      <Code text={text} readOnly={Boolean(why)} onChange={change} onReady={(e) => { editor.current = e; e.mark(verdict?.errors ?? []) }} />
      <Verdicts of={verdict} checking={checking} why={why} go={(line) => editor.current?.goTo(line)} />
      {!review && <Failure of={failure} />}
      {conflict && <p><Button onClick={() => void load(false)}>Drop mine and load what is stored</Button></p>}
      {report && <Changes of={report} done />}
      <div class="buttons">
        {dirty && <Button onClick={() => { edited.delete(name); setText(stored.text); editor.current?.set(stored.text) }}>Undo all</Button>}
        <Button whyNot={why || (!dirty ? 'Nothing has changed.' : '')} busy={busy} onClick={() => void save(false)}>Save without applying</Button>
        <Button kind="main" whyNot={why || (wrong ? 'It has mistakes.' : checking ? 'It is being checked.' : '')} onClick={() => { setFailure(null); setReview(true) }}>Review and apply</Button>
      </div>
      {review && (
        <Dialog title={`Apply ${name}?`} wide onClose={() => setReview(false)}>
          {verdict && <Changes of={{ changes: verdict.changes ?? [], need_restart: verdict.need_restart ?? [] }} />}
          <TextDiff from={stored.text} to={text} />
          <Failure of={failure} />
          <div class="buttons">
            <Button onClick={() => setReview(false)}>Cancel</Button>
            <Button kind="main" busy={busy} whyNot={why} onClick={() => void save(true)}>Apply</Button>
          </div>
        </Dialog>
      )}
    </>
  )
}

// Code loads the editor when it is first needed.
function Code(p: { text: string; readOnly: boolean; onChange: (t: string) => void; onReady: (e: Editor) => void }) {
  const box = useRef<HTMLDivElement>(null), latest = useRef(p)
  const [failure, setFailure] = useState<unknown>(null)
  latest.current = p
  useEffect(() => {
    let editor: Editor | undefined, gone = false
    import('../editor').then(({ edit }) => {
      if (gone) return
      editor = edit(box.current!, p.text, p.readOnly, (t) => latest.current.onChange(t))
      latest.current.onReady(editor)
    }, () => setFailure('The editor could not be loaded. Is awe4lb running?'))
    return () => {
      gone = true
      editor?.destroy()
    }
  }, [p.readOnly])
  return failure ? <Empty title={String(failure)}><pre>{p.text}</pre></Empty> : <div class="code" ref={box} />
}

function Verdicts({ of: v, checking, why, go }: { of: Verdict | null; checking: boolean; why: string; go: (line: number) => void }) {
  if (why) return <p class="muted">You can read this. {why}</p>
  if (!v) return <p class="muted" role="status">Checking</p>
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
