// What the page is tested against: a real awe4lb, backends that answer, and clients that come and go. All of it lives on
// addresses of 127.77.0.0/16, so that it meets nobody else's ports.

import { spawn } from 'node:child_process'
import dgram from 'node:dgram'
import { once } from 'node:events'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'

export const admin = 'http://127.77.0.1:7070'
export const web = { host: '127.77.0.1', port: 8080 }
export const dns = { host: '127.77.0.1', port: 5353 }
export const backends = ['127.77.0.11:8080', '127.77.0.12:8080', '127.77.0.13:8080']
export const dead = '127.77.0.14:8080' // nobody listens there
export const password = 'correct horse battery'
export const many = 1000 // backends of pool many

// config is the file of the process. Comments are what somebody would write.
function config(hash, dir) {
  const list = Array.from({ length: many }, (_, i) => `  { address = "127.77.${16 + (i >> 8)}.${i & 255}:9000" },`).join('\n')
  return `# The shop, and the names it asks for.

[log]
level = "warn"
[log.access]
output = ""

[admin]
bind = "127.77.0.1:7070"
anonymous = "none"
[admin.users.ada]
password_hash = "${hash}"
role = "configure"
[admin.users.olga]
password_hash = "${hash}"
role = "operate"
[admin.users.rob]
password_hash = "${hash}"
role = "read"

[engine]
shards = 2
drain_timeout = "1s"

[frontends.web]
bind = ["127.77.0.1:8080"]
pool = "web"
max_connections_per_source = 8
max_connections = 500
[[frontends.web.routes]]
match = { source = ["127.77.2.0/24"] }   # the partners' network
pool = "partners"

[frontends.secure]
bind = ["127.77.0.1:8443"]
pool = "web"
[frontends.secure.tls]
certificates = [{ cert = "shop.pem", self_signed = ["shop.example", "www.shop.example"] }]

[frontends.dns]
bind = ["127.77.0.1:5353"]
protocol = "udp"
pool = "dns"

[frontends.bulk]
bind = ["127.77.0.1:9000"]
pool = "many"

[pools.web]
policy = "roundrobin"
backends = [
  { address = "${backends[0]}", weight = 2 },
  { address = "${backends[1]}" },
  { address = "${backends[2]}" },
  { address = "${dead}" },
]
[pools.web.health]
kind = "tcp"
interval = "500ms"
timeout = "400ms"

[pools.partners]
policy = "leastconn"
backends = [{ address = "${backends[0]}" }, { address = "${backends[1]}" }]
[pools.partners.persistence]
key = "source"

[pools.dns]
[pools.dns.discovery]
kind = "file"
path = "${path.join(dir, 'dns.txt')}"
interval = "500ms"

[pools.many]
backends = [
${list}
]
`
}

// start brings everything up, and returns what ends it. binary is an awe4lb.
export async function start(binary) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'awe4lb-ui-'))
  const ends = [() => fs.rmSync(dir, { recursive: true, force: true })]
  const file = path.join(dir, 'awe4lb.toml')
  fs.writeFileSync(file, config(await hashOf(binary, password), dir))
  find(dir, ['127.77.0.21:53', '127.77.0.22:53'])
  for (const address of backends) ends.push(await serve(address))
  for (const host of ['127.77.0.21', '127.77.0.22']) ends.push(await answer(host))
  const lb = spawn(binary, ['run', '--config', file], { cwd: dir, stdio: ['ignore', 'pipe', 'pipe'] })
  let log = ''
  lb.stdout.on('data', (d) => { log += d })
  lb.stderr.on('data', (d) => { log += d })
  ends.push(async () => {
    lb.kill('SIGCONT')
    lb.kill('SIGTERM')
    if (lb.exitCode === null) await once(lb, 'exit')
  })
  await until('awe4lb answers', async () => {
    if (lb.exitCode !== null) throw new Error(`awe4lb ended:\n${log}`)
    return (await fetch(admin + '/healthz')).ok
  })
  ends.push(traffic())
  return {
    lb, dir,
    log: () => log,
    end: async () => { for (const end of ends.reverse()) await end() },
  }
}

// find has the pool dns find these backends.
export function find(dir, addresses) {
  const next = path.join(dir, 'dns.next')
  fs.writeFileSync(next, addresses.join('\n') + '\n')
  fs.renameSync(next, path.join(dir, 'dns.txt'))
}

async function hashOf(binary, text) {
  const p = spawn(binary, ['password', '--cost', '4'], { stdio: ['pipe', 'pipe', 'inherit'] })
  p.stdin.end(text + '\n')
  let out = ''
  for await (const d of p.stdout) out += d
  return out.trim()
}

// serve answers each request with some kilobytes; more from a backend with a higher address.
async function serve(address) {
  const [host, port] = address.split(':'), body = 'x'.repeat(3000 * (Number(host.split('.')[3]) - 9))
  const sockets = new Set()
  const s = net.createServer((c) => {
    sockets.add(c)
    c.on('close', () => sockets.delete(c))
    c.on('error', () => {})
    c.on('data', () => c.write(body))
  })
  s.listen(Number(port), host)
  await once(s, 'listening')
  return () => {
    for (const c of sockets) c.destroy()
    s.close()
  }
}

async function answer(host) {
  const s = dgram.createSocket('udp4')
  s.on('message', (m, from) => s.send(m, from.port, from.address))
  s.bind(53, host)
  await once(s, 'listening')
  return () => s.close()
}

// traffic has clients come and go as on a quiet afternoon.
function traffic() {
  let over = false
  const open = new Set(), timers = []
  const visit = (from) => {
    const c = net.connect({ ...web, localAddress: from })
    open.add(c)
    c.on('error', () => {})
    c.on('close', () => open.delete(c))
    c.on('data', () => {})
    c.write('hello')
    setTimeout(() => c.end(), 200 + Math.random() * 2500)
  }
  const next = (client) => {
    if (over) return
    visit(Math.random() < 0.3 ? `127.77.2.${client}` : `127.77.1.${client}`)
    setTimeout(next, 200 + Math.random() * 900 * (1.3 + Math.sin(Date.now() / 11_000)), client)
  }
  for (let client = 1; client <= 14; client++) next(client)
  const asking = Array.from({ length: 5 }, (_, i) => {
    const s = dgram.createSocket('udp4')
    s.on('error', () => {})
    timers.push(setInterval(() => s.send('who is shop.example?', dns.port, dns.host), 150 + 70 * i))
    return s
  })
  return () => {
    over = true
    timers.forEach(clearInterval)
    asking.forEach((s) => s.close())
    open.forEach((c) => c.destroy())
  }
}

// hold opens a session that stays, and answers when it has been established with a backend.
export async function hold(from) {
  const c = net.connect({ ...web, localAddress: from })
  c.on('error', () => {})
  const closed = new Promise((done) => c.on('close', done))
  c.write('hello')
  await Promise.race([once(c, 'data'), closed.then(() => { throw new Error('the session ended at once') })])
  c.resume()
  return { port: c.localPort, closed, destroy: () => c.destroy() }
}

export async function until(what, isSo, seconds = 15) {
  const end = Date.now() + seconds * 1000
  for (let last; ; await new Promise((r) => setTimeout(r, 50))) {
    try {
      if (await isSo()) return
    } catch (e) {
      if (/^awe4lb ended/.test(e.message)) throw e
      last = e
    }
    if (Date.now() > end) throw new Error(`not within ${seconds} s: ${what}${last ? ` (${last.message})` : ''}`)
  }
}
