// One pool or frontend, as it is written: its lines are changed, checked while they are, compared, and put back.
//
//	edit ──valid──▶ review: what will change ──▶ apply
//	  ▲              └─ refused: the text stays, and the server's words are shown
//	  │
//	somebody else has changed this table: the text stays, theirs is shown, and one is chosen

import { useEffect, useMemo, useRef, useState } from 'preact/hooks'
import { call, encode, getText, Problem, whyNot } from '../api'
import { drafts } from '../drafts'
import { ofTable } from '../format'
import { sample, stale, status, wantBackends } from '../live'
import { href } from '../router'
import { room } from '../screen'
import type { Changed, Verdict } from '../types'
import { Button, Empty, Failure, Heading } from '../ui/basics'
import { ChangeDialog } from '../ui/change'
import { Changes } from '../ui/changes'
import { Code, pauseWhileTyping, Verdicts } from '../ui/code'
import { TextDiff } from '../ui/textdiff'
import { insertionOf, lineOf, outline, usual, type Usual } from '../usual'
import type { Editor } from '../editor'

interface Stored { text: string; etag: string }

export function TableEditor({ kind, name }: { kind: 'pool' | 'frontend'; name: string }) {
  const section = `${kind}s` as const, path = `/${section}/${encode(name)}/table`, draft = path, why = whyNot('configure')
  const [stored, setStored] = useState<Stored | null>(null), [theirs, setTheirs] = useState<Stored | null>(null), [text, setText] = useState('')
  const [verdict, setVerdict] = useState<Verdict | null>(null), [checking, setChecking] = useState(false)
  const [failure, setFailure] = useState<unknown>(null), [done, setDone] = useState<Changed | null>(null), [review, setReview] = useState(false)
  const editor = useRef<Editor | null>(null), version = sample.value?.version
  useEffect(() => wantBackends([]), [])
  const take = (s: Stored, mine: string): void => {
    setStored(s)
    setTheirs(null)
    if (mine === s.text) drafts.delete(draft)
    else drafts.set(draft, { text: mine, from: s.text })
    setText(mine)
    editor.current?.set(mine)
  }
  // look reads how it stands now, and returns whether what was typed may still be put there.
  const look = async (): Promise<boolean> => {
    try {
      const now = await getText(path), s = { text: now.text.replace(/\r\n?/g, '\n'), etag: now.etag }, mine = drafts.get(draft)
      setFailure(null)
      if (mine && mine.from !== s.text && mine.text !== s.text) {
        setStored((was) => was ?? { text: mine.from, etag: '' })
        if (!stored) setText(mine.text)
        setTheirs(s)
        return false
      }
      take(s, mine?.text ?? s.text)
      return true
    } catch (e) {
      setFailure(e)
      return false
    }
  }
  useEffect(() => { if (!why && !stale.value) void look() }, [version, why, stale.value])
  useEffect(() => {
    if (stored === null || theirs !== null || why || stale.value) return
    const stop = new AbortController()
    setChecking(true)
    const timer = setTimeout(async () => {
      let v: Verdict | null = null
      try {
        const would = await call<Changed>('PUT', path + '?dry_run=true', undefined, { text, signal: stop.signal })
        v = { ok: true, warnings: ofTable(would.warnings ?? [], section, name) }
      } catch (e) {
        if (stop.signal.aborted) return
        if (e instanceof Problem && e.status !== 0) v = { ok: false, errors: e.mistakes.length ? e.mistakes : [{ message: e.message }] }
        else setFailure(e)
      }
      setChecking(false)
      if (v) setFailure(null)
      setVerdict(v)
      editor.current?.mark(v?.errors ?? [])
    }, pauseWhileTyping)
    return () => {
      stop.abort()
      clearTimeout(timer)
    }
  }, [text, stored, theirs, why, stale.value])
  const change = (t: string): void => {
    setText(t)
    setDone(null)
    if (t === stored?.text) drafts.delete(draft)
    else drafts.set(draft, { text: t, from: stored?.text ?? '' })
  }
  const heading = <Heading title={`Edit ${name}`} above={<><a href={`#/${section}`}>{kind === 'pool' ? 'Pools' : 'Frontends'}</a> / <a href={href([section, name])}>{name}</a></>} />
  if (why) return <>{heading}<Empty title={why}><p><a href={href([section, name])}>Back to {name}</a></p></Empty></>
  if (stored === null) return <>{heading}<Failure of={failure} />{!failure && <p class="muted" role="status">Asking for {name}</p>}</>
  const dirty = text !== stored.text, wrong = verdict !== null && !verdict.ok
  const lines = text.split('\n').length, often = <Often key="often" kind={kind} name={name} text={text} editor={() => editor.current} />
  return (
    <>
      {heading}
      <p class="lead muted">Its lines in the configuration, with what is noted beside them. What runs changes when you apply it.</p>
      {theirs && <Conflict kind={kind} was={stored.text} now={theirs.text} onTheirs={() => take(theirs, theirs.text)} onMine={() => take(theirs, text)} />}
      <div class="editing">
        {room.value !== 'wide' && often}
        <div key="lines">
          <Code label={`Table of ${name}, TOML`} text={text} readOnly={false} height={`clamp(200px, ${lines * 20 + 20}px, 100dvh - 320px)`} onChange={change} onReady={(e) => { editor.current = e; e.mark(verdict?.errors ?? []) }} />
          {!theirs && <Verdicts of={verdict} checking={checking} go={(line) => editor.current?.goTo(line)} />}
          <Failure of={failure} />
          {done && <div role="status"><Changes of={done} done />{done.unsaved && <p class="warn-text">It is in memory only: a reload drops it.</p>}<p><a href={href([section, name])}>Look at {name}</a></p></div>}
          <div class="buttons">
            {dirty && <Button onClick={() => { drafts.delete(draft); setText(stored.text); editor.current?.set(stored.text) }}>Undo all</Button>}
            <Button kind="main" whyNot={theirs ? 'Choose first what becomes of the other change.' : !dirty ? 'Nothing has changed.' : stale.value ? 'awe4lb does not answer.' : wrong ? 'It has mistakes.' : checking || !verdict ? 'It is being checked.' : ''}
              onClick={() => void look().then((free) => { if (free) setReview(true) })}>Review and apply</Button>
          </div>
        </div>
        {room.value === 'wide' && often}
      </div>
      {review && (
        <ChangeDialog
          title={`Change the ${kind} ${name}?`} act="Apply" since={stored.etag} wish={() => ({ method: 'PUT', path, text })}
          onLate={() => { setReview(false); void look().then((free) => setReview(free)) }}
          onDone={(c) => { setDone(c); drafts.delete(draft); setStored({ ...stored, text }); void look() }}
          onClose={() => setReview(false)}
        />
      )}
    </>
  )
}

function Conflict(p: { kind: string; was: string; now: string; onTheirs: () => void; onMine: () => void }) {
  return (
    <section class="conflict" aria-label="Somebody else’s change">
      <p role="alert" class="strong">Somebody has changed this {p.kind} since you began. What you typed is still there.</p>
      <p class="muted">This is what they changed:</p>
      <TextDiff from={p.was} to={p.now} />
      <div class="buttons">
        <Button onClick={p.onTheirs}>Take theirs, drop mine</Button>
        <Button onClick={p.onMine}>Keep mine, and undo theirs</Button>
      </div>
    </section>
  )
}

// Often leads to the line of what is often changed, or writes one.
function Often({ kind, name, text, editor }: { kind: 'pool' | 'frontend'; name: string; text: string; editor: () => Editor | null }) {
  const [open, setOpen] = useState(room.value === 'wide'), [said, say] = useState('')
  const path: [string, string] = [`${kind}s`, name], o = useMemo(() => outline(text, path), [text])
  const protocol = status.value?.frontends.find((f) => f.name === name)?.protocol
  const all = usual[kind === 'pool' ? 'pool' : protocol === 'udp' ? 'udp' : 'frontend']
  const go = (u: Usual): void => {
    const line = lineOf(o, u)
    if (line) {
      editor()?.goTo(line)
      say(`${u.key} stands on line ${line}.`)
      return
    }
    const i = insertionOf(o, u, path)
    editor()?.put(i.at, i.text, i.selected)
    say(`${u.key} is written on line ${i.line}.`)
  }
  return (
    <details class="often" open={open} onToggle={(e) => setOpen(e.currentTarget.open)}>
      <summary>Often changed</summary>
      <ul>
        {all.map((u) => {
          const line = lineOf(o, u), full = (u.table ? u.table + '.' : '') + u.key
          return (
            <li key={full}>
              <button type="button" class="link" onClick={() => go(u)}><code>{full}</code></button>
              <span class="muted number">{line ? `line ${line}` : 'add'}</span>
              <span class="muted means">{u.means}</span>
            </li>
          )
        })}
      </ul>
      <p class="sr" role="status">{said}</p>
    </details>
  )
}
