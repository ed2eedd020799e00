// Who has no role yet.

import { useState } from 'preact/hooks'
import { logIn, me } from '../api'
import { go, place } from '../router'
import { Failure } from '../ui/basics'

export function Login() {
  const [name, setName] = useState(''), [password, setPassword] = useState(''), [busy, setBusy] = useState(false), [failure, setFailure] = useState<unknown>(null)
  if (!me.value?.login) {
    return (
      <main class="alone">
        <h1>awe4lb</h1>
        <p>This admin shows nothing without credentials, and it has no users who could log in here.</p>
        <p>Make a password with <code>awe4lb password</code>, put its hash into <code>[admin.users.NAME]</code> of the configuration, and reload. Programs come with a token from <code>[admin.tokens.NAME]</code>.</p>
      </main>
    )
  }
  const send = async (): Promise<void> => {
    if (busy) return
    setBusy(true)
    setFailure(null)
    try {
      await logIn(name, password)
      if (place.value.path[0] === 'login') go()
    } catch (e) {
      setFailure(e)
    } finally {
      setBusy(false)
    }
  }
  return (
    <main class="alone">
      <h1>awe4lb</h1>
      <form class="login" onSubmit={(e) => { e.preventDefault(); void send() }}>
        <p class="field"><label for="name">Name</label><input id="name" autoComplete="username" required autofocus value={name} onInput={(e) => setName(e.currentTarget.value)} /></p>
        <p class="field"><label for="password">Password</label><input id="password" type="password" autoComplete="current-password" required value={password} onInput={(e) => setPassword(e.currentTarget.value)} /></p>
        <Failure of={failure} />
        <button type="submit" class="button main" aria-busy={busy}>Log in</button>
      </form>
    </main>
  )
}
