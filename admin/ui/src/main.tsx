import { render } from 'preact'
import './tokens.css'
import './style.css'
import { whoAmI } from './api'
import { App } from './app'
import { listen } from './keys'
import { start } from './live'

start()
listen()
render(<App />, document.getElementById('app')!)

// Who are we? Without an answer nothing can be shown, so ask until there is one.
async function ask(): Promise<void> {
  try {
    await whoAmI()
  } catch {
    setTimeout(() => void ask(), 2000)
  }
}
void ask()
