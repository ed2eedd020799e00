// A busy day in front of a quiet process: a proxy to the admin that gives everybody the process's own answers, but samples in which
// every number of every pool and backend is another one each second. No machine for tests makes such traffic, and a page must bear it.

import http from 'node:http'
import { once } from 'node:events'
import { admin } from './rig.mjs'

export const busy = 'http://127.77.0.2:7070'

// proxy answers at busy; samples() is how many it has sent. After quiet() they are as they come.
export async function proxy() {
  const to = new URL(admin)
  let samples = 0, loud = true
  const s = http.createServer((req, res) => {
    const headers = { ...req.headers, host: to.host }
    if (headers.origin) headers.origin = admin
    delete headers['accept-encoding']
    const ask = http.request({ host: to.hostname, port: to.port, method: req.method, path: req.url, headers }, (answer) => {
      res.writeHead(answer.statusCode, answer.headers)
      if (!req.url.startsWith('/api/v1/stream')) {
        answer.pipe(res)
        return
      }
      let rest = ''
      answer.setEncoding('utf8')
      answer.on('data', (text) => {
        const events = (rest + text).split('\n\n')
        rest = events.pop()
        for (const e of events) {
          const [name, data] = e.split('\n')
          if (name !== 'event: sample') {
            res.write(e + '\n\n')
            continue
          }
          samples++
          res.write(loud ? `${name}\ndata: ${JSON.stringify(moved(JSON.parse(data.slice(6)), samples))}\n\n` : e + '\n\n')
        }
      })
      answer.on('end', () => res.end())
      answer.on('error', () => res.destroy())
    })
    ask.on('error', () => res.destroy())
    res.on('close', () => ask.destroy())
    req.pipe(ask)
  })
  s.listen(7070, '127.77.0.2')
  await once(s, 'listening')
  return {
    samples: () => samples,
    quiet: () => { loud = false },
    end: () => {
      s.close()
      s.closeAllConnections()
    },
  }
}

// moved returns sample n: for the same n and place always the same numbers, all others than those of n-1.
function moved(s, n) {
  const value = (i, most) => ((i * 7919 + n * 104729) % most) + n % 7
  const move = (x, i) => {
    x.open = value(i, 400)
    x.new_per_second = value(i + 1, 2000) / 10
    x.c2b = value(i + 2, 5_000_000)
    x.b2c = value(i + 3, 50_000_000)
  }
  s.frontends.forEach(move)
  s.pools.forEach((p, i) => {
    move(p, i)
    p.backends?.forEach((b, j) => {
      move(b, i + j)
      b.errors_per_second = value(j, 30) / 10
      b.connect_p99 = (value(j, 900) + 100) / 1e6
    })
  })
  Object.assign(s.totals, { sessions: value(1, 90_000), flows: value(2, 9000), new_per_second: value(3, 9000), c2b: value(4, 5e8), b2c: value(5, 5e8), errors_per_second: value(6, 90), connect_p50: 0.0003, connect_p99: value(7, 900) / 1e5 })
  return s
}
