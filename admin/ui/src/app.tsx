// The frame: where one can go, who one is, whether the numbers are fresh.

import type { ComponentChildren } from 'preact'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'
import { logOut, me, whyNot } from './api'
import { span, time } from './format'
import { helpOpen } from './keys'
import { link, now, stale, status, tryNow } from './live'
import { place } from './router'
import { nextTheme, theme } from './theme'
import { Certificates } from './views/certificates'
import { Configuration } from './views/configuration'
import { Events } from './views/events'
import { FrontendView } from './views/frontend'
import { Frontends } from './views/frontends'
import { Help } from './views/help'
import { Limits } from './views/limits'
import { Login } from './views/login'
import { Nowhere } from './views/nowhere'
import { Overview } from './views/overview'
import { PoolView } from './views/pool'
import { Pools } from './views/pools'
import { Process } from './views/process'
import { Sessions } from './views/sessions'
import { TableEditor } from './views/editingtable'
import { views } from './views'

function view(): ComponentChildren {
  const [first = '', name, part] = place.value.path
  switch (first) {
    case '': return <Overview />
    case 'frontends': return name === undefined ? <Frontends /> : part === 'edit' ? <TableEditor key={place.value.path.join('/')} kind="frontend" name={name} /> : <FrontendView key={name} name={name} />
    case 'pools': return name === undefined ? <Pools /> : part === 'edit' ? <TableEditor key={place.value.path.join('/')} kind="pool" name={name} /> : <PoolView key={name} name={name} />
    case 'sessions': return <Sessions />
    case 'limits': return <Limits />
    case 'process': return <Process />
    case 'events': return <Events />
    case 'certificates': return <Certificates />
    case 'configuration': return <Configuration key={name} name={name} />
  }
  return <Nowhere />
}

export function App() {
  const path = place.value.path.join('/'), main = useRef<HTMLElement>(null), first = useRef(true)
  // Whoever goes to another view begins at its heading, also by ear; at once, so that nobody's next key is for another place.
  useLayoutEffect(() => {
    if (first.current) {
      first.current = false
      return
    }
    scrollTo(0, 0)
    main.current?.querySelector<HTMLElement>('h1')?.focus({ preventScroll: true })
  }, [path])
  const here = views.find((v) => v.path === (place.value.path[0] ?? ''))
  useEffect(() => { document.title = `${place.value.path[1] ? place.value.path[1] + ' – ' : ''}${here?.title ?? 'Not found'} – awe4lb` }, [path])
  if (me.value === null) return <Unreached />
  if (whyNot('read') || (path === 'login' && me.value.how !== 'cookie')) return <Login />
  return (
    <>
      <a class="skip" href="#main" onClick={(e) => { e.preventDefault(); main.current?.querySelector<HTMLElement>('h1')?.focus() }}>To the content</a>
      <Rail />
      <div class="page">
        <Stale />
        <main id="main" ref={main}>{view()}</main>
      </div>
      {helpOpen.value && <Help onClose={() => { helpOpen.value = false }} />}
    </>
  )
}

function Rail() {
  const at = place.value.path[0] ?? ''
  const [more, showMore] = useState(false)
  useEffect(() => showMore(false), [place.value])
  return (
    <nav class={more ? 'rail more' : 'rail'} aria-label="Views">
      <a class="brand" href="#/" aria-label="awe4lb, overview">
        <svg viewBox="0 0 24 24" width="22" height="22" fill="none" stroke="currentColor" stroke-width="2.4" stroke-linecap="round" aria-hidden="true">
          <path d="M4 12h4c5 0 4-7 10-7M8 12h10M8 12c5 0 4 7 10 7" />
        </svg>
        awe4lb
      </a>
      <ul>
        {views.map((v) => (
          <li key={v.path} class={v.seldom ? 'seldom' : undefined}>
            <a href={`#/${v.path}`} aria-current={at === v.path ? 'page' : undefined}>
              <svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round"><path d={v.icon} /></svg>
              <span>{v.title}</span>
            </a>
          </li>
        ))}
        <li class="others"><button type="button" aria-expanded={more} onClick={() => showMore(!more)}>
          <svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" fill="currentColor"><circle cx="3" cy="8" r="1.5" /><circle cx="8" cy="8" r="1.5" /><circle cx="13" cy="8" r="1.5" /></svg>
          <span>More</span>
        </button></li>
      </ul>
      <Foot />
    </nav>
  )
}

function Foot() {
  const who = me.value, st = status.value
  return (
    <div class="foot">
      <p class="link-state"><span class={stale.value ? 'dot bad' : 'dot ok'} aria-hidden="true" />{link.value.state === 'live' ? 'Live' : link.value.state === 'cut' ? 'Stale' : 'Connecting'}</p>
      {st && <p class="muted" title={`awe4lb ${st.version}${st.revision ? ' ' + st.revision : ''}`}>{st.version}, up {span((now.value.getTime() - Date.parse(st.started)) / 1000)}</p>}
      <p>
        <button type="button" class="link" onClick={nextTheme} title="Change colours">{theme.value === 'system' ? 'System colours' : theme.value === 'dark' ? 'Dark' : 'Light'}</button>
      </p>
      <p><button type="button" class="link" onClick={() => { helpOpen.value = true }} aria-keyshortcuts="?">Keys <kbd>?</kbd></button></p>
      {who && <p class="muted who">{who.name || who.how}, {who.role}</p>}
      {who?.how === 'cookie' ? <p><button type="button" class="link" onClick={() => void logOut()}>Log out</button></p>
        : who?.login ? <p><a href="#/login">Log in</a></p> : null}
    </div>
  )
}

// Stale says that what is on the screen is old. It stays until that is no longer so.
function Stale() {
  if (!stale.value) return null
  const { since, retry } = link.value, wait = Math.max(0, Math.ceil((retry.getTime() - now.value.getTime()) / 1000))
  return (
    <div class="banner" role="alert">
      <p><strong>Stale since {time(since)}</strong><span aria-hidden="true"> ({span((now.value.getTime() - since.getTime()) / 1000)})</span>: the connection to awe4lb is cut. Numbers are those of then.</p>
      <p><span class="muted" aria-hidden="true">{wait > 0 ? `Trying again in ${wait} s` : 'Trying again'}</span> <button type="button" class="link" onClick={tryNow}>Try now</button></p>
    </div>
  )
}

function Unreached() {
  return <main class="alone"><h1>awe4lb</h1><p role="status">Asking who you are. If this stays, awe4lb does not answer: is it running?</p></main>
}
