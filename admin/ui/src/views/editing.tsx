// One configuration: written, checked while it is, compared, applied, and taken back.
//
//	edit ──valid──▶ review: what will change ──▶ apply: stored, then run
//	                                              └─ refused: the text stays, and the server's words are shown

import { useEffect, useRef, useState } from 'preact/hooks'
import { call, encode, getText, Problem, putText, whyNot } from '../api'
import { drafts } from '../drafts'
import { refreshStatus, stale } from '../live'
import { place, setQuery } from '../router'
import type { Report, Verdict } from '../types'
import { Button, Failure, Heading } from '../ui/basics'
import { Changes } from '../ui/changes'
import { Code, pauseWhileTyping, Verdicts } from '../ui/code'
import { Dialog } from '../ui/dialog'
import { Beyond } from '../ui/role'
import { TextDiff } from '../ui/textdiff'
import { Versions } from './versions'
import type { Editor } from '../editor'

export function ConfigEditor({ name }: { name: string }) {
  const [stored, setStored] = useState<{ text: string; etag: string } | null>(null), [text, setText] = useState('')
  const [verdict, setVerdict] = useState<Verdict | null>(null), [checking, setChecking] = useState(false)
  const [failure, setFailure] = useState<unknown>(null), [report, setReport] = useState<Report | null>(null)
  const [review, setReview] = useState(false), [busy, setBusy] = useState(false)
  const editor = useRef<Editor | null>(null)
  const tab = place.value.query.get('tab') === 'history' ? 'history' : 'edit'
  const why = whyNot('configure'), path = `/configs/${encode(name)}`, draft = path
  const load = async (keepMine: boolean): Promise<void> => {
    try {
      const s = await getText(path)
      setStored(s)
      setFailure(null)
      const mine = keepMine ? drafts.get(draft)?.text ?? s.text : s.text
      if (!keepMine) drafts.delete(draft)
      setText(mine)
      editor.current?.set(mine)
    } catch (e) {
      if (e instanceof Problem && e.status === 404) {
        setStored({ text: '', etag: '' }) // a new one
        setText(drafts.get(draft)?.text ?? '')
      } else {
        setFailure(e)
      }
    }
  }
  useEffect(() => { void load(true) }, [name])
  useEffect(() => {
    if (stored === null || why || stale.value) return
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
  }, [text, stored, why, stale.value])
  const change = (t: string): void => {
    setText(t)
    setReport(null)
    if (t === stored?.text) drafts.delete(draft)
    else drafts.set(draft, { text: t, from: stored?.text ?? '' })
  }
  const save = async (run: boolean): Promise<void> => {
    setBusy(true)
    setFailure(null)
    try {
      const etag = text === stored?.text ? stored.etag : await putText(path, text, stored?.etag ?? '')
      drafts.delete(draft)
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
    <>
      <Heading title={name} above={<a href="#/configuration">Configuration</a>}>
        <span class="tabs" role="group" aria-label="Parts">
          <button type="button" aria-pressed={tab === 'edit'} onClick={() => setQuery({ tab: '' })}>{why ? 'Text' : 'Edit'}</button>
          <button type="button" aria-pressed={tab === 'history'} onClick={() => setQuery({ tab: 'history' })}>History</button>
        </span>
      </Heading>
      <Beyond configure={['changing it', 'seeing its secrets', 'going back to a version']} />
    </>
  )
  if (tab === 'history') return <>{heading}<Versions name={name} now={stored?.text ?? ''} onRolledBack={(r) => { setReport(r); void load(false) }} />{report && <Changes of={report} done />}</>
  if (stored === null) return <>{heading}<Failure of={failure} />{!failure && <p class="muted" role="status">Asking for {name}</p>}</>
  const dirty = text !== stored.text, wrong = verdict !== null && !verdict.ok
  const conflict = failure instanceof Problem && failure.status === 412
  return (
    <>
      {heading}
      <Code label="Configuration, TOML" text={text} readOnly={Boolean(why)} onChange={change} onReady={(e) => { editor.current = e; e.mark(verdict?.errors ?? []) }} />
      {!why && <Verdicts of={verdict} checking={checking} go={(line) => editor.current?.goTo(line)} />}
      {!review && <Failure of={failure} />}
      {conflict && <p><Button onClick={() => void load(false)}>Drop mine and load what is stored</Button></p>}
      {report && <Changes of={report} done />}
      {!why && <div class="buttons">
        {dirty && <Button onClick={() => { drafts.delete(draft); setText(stored.text); editor.current?.set(stored.text) }}>Undo all</Button>}
        <Button whyNot={!dirty ? 'Nothing has changed.' : ''} busy={busy} onClick={() => void save(false)}>Save without applying</Button>
        <Button kind="main" whyNot={wrong ? 'It has mistakes.' : checking ? 'It is being checked.' : ''} onClick={() => { setFailure(null); setReview(true) }}>Review and apply</Button>
      </div>}
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
