// The one way to the server. Everything that fails does so with a Problem, in the server's own words.

import type { Me, Mistake, Role } from './types'
import { signal } from '@preact/signals'

export class Problem extends Error {
  constructor(
    readonly status: number, // of HTTP; 0: there was no answer
    detail: string,
    readonly mistakes: Mistake[] = [],
  ) {
    super(detail)
  }
}

interface Options {
  text?: string // a body that is TOML; others are JSON
  headers?: Record<string, string>
  signal?: AbortSignal
}

async function request(method: string, path: string, body: unknown, o: Options): Promise<Response> {
  const headers: Record<string, string> = { Accept: 'application/json', ...o.headers }
  const init: RequestInit = { method, headers, credentials: 'same-origin', cache: 'no-store', redirect: 'error' }
  if (o.signal) init.signal = o.signal
  if (o.text !== undefined) {
    headers['Content-Type'] = 'application/toml'
    init.body = o.text
  } else if (body !== undefined) {
    headers['Content-Type'] = 'application/json'
    init.body = JSON.stringify(body)
  }
  let answer: Response
  try {
    answer = await fetch('/api/v1' + path, init)
  } catch (e) {
    if (o.signal?.aborted) throw e
    throw new Problem(0, 'awe4lb does not answer. Is it running, and is the way to it open?')
  }
  if (!answer.ok) {
    const text = await answer.text()
    if (answer.status === 401 && path !== '/login') void whoAmI()
    throw problemOf(answer.status, text)
  }
  return answer
}

function problemOf(status: number, text: string): Problem {
  try {
    const p = JSON.parse(text) as { detail?: string; title?: string; errors?: Mistake[] }
    return new Problem(status, p.detail || p.title || `The server said ${status}.`, p.errors)
  } catch {
    return new Problem(status, text.trim() || `The server said ${status}.`)
  }
}

// call returns what the server says; undefined where it says nothing.
export async function call<T>(method: string, path: string, body?: unknown, o: Options = {}): Promise<T> {
  const answer = await request(method, path, body, o)
  return (answer.status === 204 ? undefined : await answer.json()) as T
}

export const get = <T>(path: string, signal?: AbortSignal): Promise<T> => call<T>('GET', path, undefined, signal ? { signal } : {})

// getText returns a configuration and its version, for If-Match.
export async function getText(path: string): Promise<{ text: string; etag: string }> {
  const answer = await request('GET', path, undefined, { headers: { Accept: 'application/toml' } })
  return { text: await answer.text(), etag: answer.headers.get('ETag') ?? '' }
}

// putText stores a configuration unless somebody has changed it since etag, and returns its new version.
export async function putText(path: string, text: string, etag: string): Promise<string> {
  const answer = await request('PUT', path, undefined, { text, headers: etag ? { 'If-Match': etag } : { 'If-None-Match': '*' } })
  return answer.headers.get('ETag') ?? ''
}

// encode makes one part of a path. Addresses have colons and, if of unix sockets, slashes: the server takes those as they are.
export const encode = (part: string): string => encodeURIComponent(part).replace(/%3A/g, ':').replace(/%2F/g, '/')

// Who we are, null until that is known.
export const me = signal<Me | null>(null)

export async function whoAmI(): Promise<void> {
  const now = await get<Me>('/me')
  const was = me.peek()
  if (JSON.stringify(now) !== JSON.stringify(was)) me.value = now
}

export async function logIn(name: string, password: string): Promise<void> {
  me.value = await call<Me>('POST', '/login', { name, password })
}

export async function logOut(): Promise<void> {
  await call('POST', '/logout')
  me.value = null // nobody asks for anything meanwhile
  await whoAmI()
}

const ranks: Role[] = ['none', 'read', 'operate', 'configure']

// whyNot returns why we may not do what needs a role; '' when we may.
export function whyNot(role: Role): string {
  const mine = me.value?.role ?? 'none'
  return ranks.indexOf(mine) >= ranks.indexOf(role) ? '' : `This needs the role ${role}; you have ${mine}.`
}

export const may = (role: Role): boolean => whyNot(role) === ''
