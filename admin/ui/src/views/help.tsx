import { views } from '.'
import { Button } from '../ui/basics'
import { Dialog } from '../ui/dialog'

export function Help({ onClose }: { onClose: () => void }) {
  const keys: [string, string][] = [
    ['/', 'go to the filter of this view'],
    ...views.map((v): [string, string] => [`g ${v.key}`, `go to ${v.title}`]),
    ['t', 'colours: system, light, dark'],
    ['?', 'this list'],
    ['Esc', 'close what is open'],
  ]
  return (
    <Dialog title="Keys" onClose={onClose}>
      <dl class="keys">{keys.map(([key, does]) => <div key={key}><dt>{key.split(' ').map((k) => <kbd key={k}>{k}</kbd>)}</dt><dd>{does}</dd></div>)}</dl>
      <div class="buttons"><Button kind="main" onClick={onClose}>Close</Button></div>
    </Dialog>
  )
}
